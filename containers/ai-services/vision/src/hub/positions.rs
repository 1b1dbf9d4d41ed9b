//! Position embeddings for another number of patches than the model was trained with: the grid is
//! resized with the cubic filter that `torch.nn.functional.interpolate(mode="bicubic",
//! align_corners=False)` has (Keys, a = -0.75, edges repeated), as transformers does for DINOv2.

use aisemble_weights::candle::{Device, Result, Tensor};

/// The filter's parameter.
const A: f64 = -0.75;

/// `1 x (1 + n * n) x d` (the first is the class token's) to `1 x (1 + side * side) x d`.
pub(super) fn resized(positions: &Tensor, side: usize) -> Result<Tensor> {
    let (_, count, width) = positions.dims3()?;
    let from = count.saturating_sub(1).isqrt();
    if from == side || from == 0 {
        return Ok(positions.clone());
    }
    let values: Vec<f32> = positions.flatten_all()?.to_vec1()?;
    let (class, grid) = values.split_at(width);
    let taps = taps(from, side);
    let mut out = class.to_vec();
    for (top, down) in &taps {
        for (left, across) in &taps {
            for channel in 0..width {
                let mut sum = 0.0;
                for (y, weight_y) in down.iter().enumerate() {
                    for (x, weight_x) in across.iter().enumerate() {
                        let (y, x) = (edge(top + y as isize, from), edge(left + x as isize, from));
                        let value = grid[(y * from + x) * width + channel];
                        sum += f64::from(value) * weight_y * weight_x;
                    }
                }
                out.push(sum as f32);
            }
        }
    }
    Tensor::from_vec(out, (1, 1 + side * side, width), &Device::Cpu)
}

/// The pixel there, or the nearest one.
fn edge(at: isize, size: usize) -> usize {
    usize::try_from(at).unwrap_or(0).min(size - 1)
}

/// For each output along one axis: the first of four inputs, and their weights.
fn taps(from: usize, to: usize) -> Vec<(isize, [f64; 4])> {
    let scale = from as f64 / to as f64;
    let near = |x: f64| ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    let far = |x: f64| ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
    (0..to)
        .map(|at| {
            let center = (at as f64 + 0.5) * scale - 0.5;
            let (floor, share) = (center.floor(), center - center.floor());
            let weights = [far(share + 1.0), near(share), near(1.0 - share), far(2.0 - share)];
            (floor as isize - 1, weights)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_of_one_value_stays_so_and_a_slope_stays_a_slope() {
        let flat = Tensor::ones((1, 17, 3), aisemble_weights::candle::DType::F32, &Device::Cpu);
        let found = resized(&flat.unwrap(), 7).unwrap();
        assert_eq!(found.dims(), [1, 50, 3]);
        let found: Vec<f32> = found.flatten_all().unwrap().to_vec1().unwrap();
        assert!(found.iter().all(|value| (value - 1.0).abs() < 1e-6));
        // Values grow to the right; the middle of each row is the middle value.
        let grid = [9.0_f32].into_iter().chain((0..25).map(|at| (at % 5) as f32));
        let slope = Tensor::from_vec(grid.collect::<Vec<_>>(), (1, 26, 1), &Device::Cpu).unwrap();
        let found = resized(&slope, 3).unwrap();
        let found: Vec<f32> = found.flatten_all().unwrap().to_vec1().unwrap();
        assert_eq!((found[0], found.len()), (9.0, 10));
        for row in found[1..].chunks(3) {
            assert!((row[1] - 2.0).abs() < 1e-6 && row[0] < row[1] && row[1] < row[2], "{row:?}");
        }
    }
}
