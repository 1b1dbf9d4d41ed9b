//! From pictures to maps: what several models have in common.

use crate::compute::Map;
use crate::picture::{Filter, Picture, crop, resize_antialiased};

/// A picture that is longer than this many times its width is cut to its middle first: one of 1 x
/// 30,000 pixels would otherwise become one of millions.
const PROPORTION_MAX: usize = 16;

/// Resizes so that the shorter side has `resized` pixels and cuts a square of `side` out of the
/// middle, as torchvision's `Resize` and `CenterCrop` do.
pub(super) fn resize_and_crop(
    picture: &Picture,
    resized: usize,
    side: usize,
    filter: Filter,
) -> Picture {
    let middle = middle(picture);
    let picture = middle.as_ref().unwrap_or(picture);
    let (width, height) = (picture.width, picture.height);
    let (width, height) = if width <= height {
        (resized, resized * height / width)
    } else {
        (resized * width / height, resized)
    };
    let all = resize_antialiased(picture, width, height, filter);
    // Python's `round`: to the even one of two that are as near.
    let half = |left: usize| if left % 4 == 3 { left / 2 + 1 } else { left / 2 };
    let at = |size: usize| half(size.saturating_sub(side)) as isize;
    crop(&all, (at(width), at(height)), (side, side), [0; 3])
}

/// The middle of a picture that is longer than 16 times its width, cut to that.
pub(crate) fn middle(picture: &Picture) -> Option<Picture> {
    let (width, height) = (picture.width, picture.height);
    let keep = width.min(height) * PROPORTION_MAX;
    if width.max(height) <= keep {
        return None;
    }
    let cut = |size: usize| size.min(keep);
    let at = |size: usize| ((size - cut(size)) / 2) as isize;
    Some(crop(picture, (at(width), at(height)), (cut(width), cut(height)), [0; 3]))
}

/// `(x - mean) / deviation` of each channel, values 0 to 255.
pub(super) fn normalize(picture: &Picture, mean: [f32; 3], deviation: [f32; 3]) -> Map {
    let mut data = Vec::with_capacity(picture.rgb.len());
    for pixel in picture.rgb.chunks_exact(3) {
        for ((value, mean), deviation) in pixel.iter().zip(mean).zip(deviation) {
            data.push((f32::from(*value) - mean) / deviation);
        }
    }
    Map::new((1, picture.height, picture.width, 3), data)
}

/// Sizes within `side_max` on the longer side with the picture's proportions, and the factor.
pub(super) fn fit_within(picture: &Picture, side_max: usize) -> (usize, usize, f64) {
    let longer = picture.width.max(picture.height);
    let factor = if longer > side_max { side_max as f64 / longer as f64 } else { 1.0 };
    let scaled = |size: usize| ((size as f64 * factor) as usize).max(1);
    (scaled(picture.width), scaled(picture.height), factor)
}
