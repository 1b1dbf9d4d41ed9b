//! Resizing, to the bit as the libraries do it that the models were trained with: Pillow's
//! filters, which look at all pixels under the new one (Resample.c), and OpenCV's INTER_LINEAR,
//! which looks at four.

use super::Picture;

/// Bits behind the point of Pillow's coefficients.
const PILLOW_BITS: u32 = 32 - 8 - 2;
/// Bits behind the point of OpenCV's coefficients.
const OPENCV_BITS: u32 = 11;

/// A filter of Pillow's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// A triangle, one pixel on each side.
    Bilinear,
    /// Cubic with a = -0.5, two pixels on each side.
    Bicubic,
}

impl Filter {
    fn support(self) -> f64 {
        match self {
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
        }
    }

    fn at(self, x: f64) -> f64 {
        const A: f64 = -0.5;
        let x = x.abs();
        match self {
            Self::Bilinear => (1.0 - x).max(0.0),
            Self::Bicubic if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
            Self::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
            Self::Bicubic => 0.0,
        }
    }
}

/// The inputs of one output pixel along one axis.
struct Taps {
    first: usize,
    weights: Vec<i32>,
}

/// The picture at another size, as `PIL.Image.resize(size, filter)` gives it.
///
/// # Panics
/// When a size is 0.
#[must_use]
pub fn resize_antialiased(
    picture: &Picture,
    width: usize,
    height: usize,
    filter: Filter,
) -> Picture {
    assert!(width > 0 && height > 0, "a picture has pixels");
    let wide = if width == picture.width {
        picture.rgb.clone()
    } else {
        let taps = pillow_taps(picture.width, width, filter);
        let mut wide = Vec::with_capacity(width * picture.height * 3);
        for row in picture.rgb.chunks_exact(picture.width * 3) {
            for taps in &taps {
                let pixels = row[taps.first * 3..].chunks_exact(3);
                wide.extend(weigh(pixels, &taps.weights));
            }
        }
        wide
    };
    if height == picture.height {
        return Picture::new(width, height, wide);
    }
    let mut rgb = Vec::with_capacity(width * height * 3);
    for taps in pillow_taps(picture.height, height, filter) {
        for column in 0..width {
            let pixels = wide[(taps.first * width + column) * 3..].chunks(width * 3);
            rgb.extend(weigh(pixels, &taps.weights));
        }
    }
    Picture::new(width, height, rgb)
}

/// The weighted sum of pixels, each the first three bytes of a chunk, rounded to bytes.
fn weigh<'a>(pixels: impl Iterator<Item = &'a [u8]>, weights: &[i32]) -> [u8; 3] {
    let mut sums = [1_i32 << (PILLOW_BITS - 1); 3];
    for (pixel, weight) in pixels.zip(weights) {
        for (sum, value) in sums.iter_mut().zip(pixel) {
            *sum += i32::from(*value) * weight;
        }
    }
    sums.map(|sum| (sum >> PILLOW_BITS).clamp(0, 255) as u8)
}

fn pillow_taps(input: usize, output: usize, filter: Filter) -> Vec<Taps> {
    let scale = input as f64 / output as f64;
    let stretch = scale.max(1.0);
    let support = filter.support() * stretch;
    (0..output)
        .map(|at| {
            let center = (at as f64 + 0.5) * scale;
            let first = (center - support + 0.5).max(0.0) as usize;
            let last = ((center + support + 0.5) as usize).min(input);
            let weight = |i: usize| filter.at((i as f64 - center + 0.5) / stretch);
            let all: Vec<f64> = (first..last).map(weight).collect();
            let sum: f64 = all.iter().sum();
            let one = f64::from(1 << PILLOW_BITS);
            let fixed =
                |weight: &f64| (weight / sum * one + 0.5_f64.copysign(*weight / sum)) as i32;
            Taps { first, weights: all.iter().map(fixed).collect() }
        })
        .collect()
}

/// The picture at another size, as `cv2.resize(picture, size)` gives it.
///
/// # Panics
/// When a size is 0.
#[must_use]
pub fn resize_linear(picture: &Picture, width: usize, height: usize) -> Picture {
    let (from, size) = ((picture.width, picture.height), (width, height));
    Picture::new(width, height, linear(&picture.rgb, from, size, 3))
}

/// The same of `channels` values a pixel.
pub(crate) fn linear(
    from: &[u8],
    (width, height): (usize, usize),
    (to_width, to_height): (usize, usize),
    channels: usize,
) -> Vec<u8> {
    assert!(to_width > 0 && to_height > 0, "a picture has pixels");
    if (width, height) == (to_width, to_height) {
        return from.to_vec();
    }
    let columns = opencv_taps(width, to_width);
    let row_of = |y: usize| -> Vec<i32> {
        let row = &from[y * width * channels..(y + 1) * width * channels];
        let mut wide = Vec::with_capacity(to_width * channels);
        for &(x0, x1, [w0, w1]) in &columns {
            for channel in 0..channels {
                let value = |x: usize| i32::from(row[x * channels + channel]);
                wide.push(value(x0) * w0 + value(x1) * w1);
            }
        }
        wide
    };
    let mut out = Vec::with_capacity(to_width * to_height * channels);
    // Neighbouring output rows share input rows: the last two are kept.
    let mut kept: [(usize, Vec<i32>); 2] = [(usize::MAX, Vec::new()), (usize::MAX, Vec::new())];
    for (y0, y1, [w0, w1]) in opencv_taps(height, to_height) {
        if kept[1].0 == y0 {
            kept.swap(0, 1);
        }
        for (slot, y) in [(0, y0), (1, y1)] {
            if kept[slot].0 != y {
                kept[slot] = (y, row_of(y));
            }
        }
        let mix = |(a, b): (&i32, &i32)| {
            let (a, b) = ((w0 * (a >> 4)) >> 16, (w1 * (b >> 4)) >> 16);
            ((a + b + 2) >> 2).clamp(0, 255) as u8
        };
        out.extend(kept[0].1.iter().zip(&kept[1].1).map(mix));
    }
    out
}

/// For each output pixel along one axis: two neighbours and their weights.
fn opencv_taps(input: usize, output: usize) -> Vec<(usize, usize, [i32; 2])> {
    let scale = input as f64 / output as f64;
    let one = f64::from(1 << OPENCV_BITS);
    (0..output)
        .map(|at| {
            let from = ((at as f64 + 0.5) * scale - 0.5) as f32;
            let floor = from.floor();
            let (first, share) = if floor < 0.0 {
                (0, 0.0)
            } else if floor as usize >= input - 1 {
                (input - 1, 0.0)
            } else {
                (floor as usize, from - floor)
            };
            let fixed = |share: f32| (f64::from(share) * one).round_ties_even() as i32;
            (first, (first + 1).min(input - 1), [fixed(1.0 - share), fixed(share)])
        })
        .collect()
}

/// The part of the picture from `left`, `top` on; what lies outside is filled with `fill`.
#[must_use]
pub fn crop(
    picture: &Picture,
    (left, top): (isize, isize),
    (width, height): (usize, usize),
    fill: [u8; 3],
) -> Picture {
    let mut rgb = Vec::with_capacity(width * height * 3);
    for y in 0..height as isize {
        for x in 0..width as isize {
            let inside = |at: isize, size: usize| usize::try_from(at).ok().filter(|at| *at < size);
            match (inside(left + x, picture.width), inside(top + y, picture.height)) {
                (Some(x), Some(y)) => {
                    let from = (y * picture.width + x) * 3;
                    rgb.extend_from_slice(&picture.rgb[from..from + 3]);
                }
                _ => rgb.extend(fill),
            }
        }
    }
    Picture::new(width, height, rgb)
}
