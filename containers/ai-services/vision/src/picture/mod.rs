//! Pictures: from the bytes of a file to upright RGB, within limits that are checked before
//! anything is decoded; resizing as the models were trained with; encoding for an answer.
//!
//! It must not know models, requests or gRPC.

mod decode;
mod encode;
mod frames;
mod resize;

pub use decode::{Header, ImageLimits, PictureError, decode, inspect};
pub use encode::{EncodeError, jpeg};
pub use frames::frames;
pub(crate) use resize::linear;
pub use resize::{Filter, crop, resize_antialiased, resize_linear};

/// A picture as it is meant to be looked at, 8 bits a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `width * height` times red, green, blue.
    pub rgb: Vec<u8>,
}

impl Picture {
    /// A picture of the bytes given.
    ///
    /// # Panics
    /// When there are not three for each pixel.
    #[must_use]
    pub fn new(width: usize, height: usize, rgb: Vec<u8>) -> Self {
        assert_eq!(rgb.len(), width * height * 3, "three bytes for each pixel");
        Self { width, height, rgb }
    }

    /// Grey values as OpenCV and Pillow compute them from RGB (ITU-R BT.601), rounded.
    #[must_use]
    pub fn grey(&self) -> Vec<u8> {
        let grey = |rgb: &[u8]| {
            let [r, g, b] = [rgb[0], rgb[1], rgb[2]].map(u32::from);
            // 0.299, 0.587 and 0.114 in 1/16384.
            ((r * 4899 + g * 9617 + b * 1868 + 8192) >> 14) as u8
        };
        self.rgb.chunks_exact(3).map(grey).collect()
    }
}

#[cfg(test)]
mod tests;
