//! The small operations between convolutions. Each says what it computes; none is worth threads.

use super::map::Map;

/// `x += y`.
///
/// # Panics
/// When the shapes differ.
pub fn add_assign(x: &mut Map, y: &Map) {
    assert_eq!(x.shape(), y.shape(), "maps of one shape are added");
    for (x, y) in x.data.iter_mut().zip(&y.data) {
        *x += y;
    }
}

/// `max(x, 0)`.
pub fn relu(x: &mut Map) {
    for x in &mut x.data {
        *x = x.max(0.0);
    }
}

/// `1 / (1 + exp(-x))`.
#[must_use]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// Exponentials that sum up to 1.
pub fn softmax(x: &mut [f32]) {
    let top = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for x in x.iter_mut() {
        *x = (*x - top).exp();
        sum += *x;
    }
    for x in x {
        *x /= sum;
    }
}

/// The mean over all pixels of each picture: `n` x 1 x 1 x `c`.
#[must_use]
pub fn mean_pixels(x: &Map) -> Map {
    let mut mean = Map::zeros(x.n, 1, 1, x.c);
    for (index, mean) in mean.data.chunks_exact_mut(x.c).enumerate() {
        for pixel in x.picture(index).chunks_exact(x.c) {
            for (mean, value) in mean.iter_mut().zip(pixel) {
                *mean += value;
            }
        }
        for mean in mean {
            *mean /= (x.h * x.w) as f32;
        }
    }
    mean
}

/// The largest value under a window of `kernel` rows and columns, every `stride` of them, with
/// `pad` rows and columns of nothing around the input.
#[must_use]
pub fn max_pool(
    x: &Map,
    kernel: (usize, usize),
    stride: (usize, usize),
    pad: (usize, usize),
) -> Map {
    let along = |size: usize, kernel: usize, stride: usize, pad: usize| {
        (size + 2 * pad).checked_sub(kernel).map_or(0, |room| room / stride + 1)
    };
    let h = along(x.h, kernel.0, stride.0, pad.0);
    let w = along(x.w, kernel.1, stride.1, pad.1);
    let mut out = Map::zeros(x.n, h, w, x.c);
    out.data.fill(f32::NEG_INFINITY);
    for (at, out) in out.data.chunks_exact_mut(x.c).enumerate() {
        let (n, oy, ox) = (at / (h * w), at / w % h, at % w);
        let rows = window(oy * stride.0, kernel.0, pad.0, x.h);
        for y in rows {
            for column in window(ox * stride.1, kernel.1, pad.1, x.w) {
                let from = ((n * x.h + y) * x.w + column) * x.c;
                for (out, value) in out.iter_mut().zip(&x.data[from..from + x.c]) {
                    *out = out.max(*value);
                }
            }
        }
    }
    out
}

/// The rows that a window sees which begins at `first`, counted from the padding.
fn window(first: usize, kernel: usize, pad: usize, size: usize) -> std::ops::Range<usize> {
    first.saturating_sub(pad)..(first + kernel).saturating_sub(pad).min(size)
}

/// The channels of both maps behind each other.
///
/// # Panics
/// When the maps have other sizes.
#[must_use]
pub fn concat_channels(x: &Map, y: &Map) -> Map {
    assert_eq!((x.n, x.h, x.w), (y.n, y.h, y.w), "maps of one size are joined");
    let mut data = Vec::with_capacity(x.data.len() + y.data.len());
    for (x, y) in x.data.chunks_exact(x.c).zip(y.data.chunks_exact(y.c)) {
        data.extend_from_slice(x);
        data.extend_from_slice(y);
    }
    Map::new((x.n, x.h, x.w, x.c + y.c), data)
}

/// Bilinear interpolation to `h` x `w`, pixel centres at halves (PyTorch: `align_corners=False`).
#[must_use]
pub fn resize_bilinear(x: &Map, h: usize, w: usize) -> Map {
    if (x.h, x.w) == (h, w) {
        return x.clone();
    }
    let (rows, columns) = (taps(x.h, h), taps(x.w, w));
    let mut out = Map::zeros(x.n, h, w, x.c);
    for (at, out) in out.data.chunks_exact_mut(x.c).enumerate() {
        let (n, (y0, y1, fy), (x0, x1, fx)) = (at / (h * w), rows[at / w % h], columns[at % w]);
        let pixel = |y: usize, column: usize| {
            let from = ((n * x.h + y) * x.w + column) * x.c;
            &x.data[from..from + x.c]
        };
        let corners = pixel(y0, x0).iter().zip(pixel(y0, x1)).zip(pixel(y1, x0)).zip(pixel(y1, x1));
        for (out, (((a, b), c), d)) in out.iter_mut().zip(corners) {
            let (upper, lower) = (a + (b - a) * fx, c + (d - c) * fx);
            *out = upper + (lower - upper) * fy;
        }
    }
    out
}

/// For each output pixel along one axis: its two neighbours and how far it is from the first.
fn taps(input: usize, output: usize) -> Vec<(usize, usize, f32)> {
    let scale = input as f32 / output as f32;
    (0..output)
        .map(|at| {
            let from = ((at as f32 + 0.5) * scale - 0.5).max(0.0);
            let first = (from as usize).min(input - 1);
            (first, (first + 1).min(input - 1), from - first as f32)
        })
        .collect()
}
