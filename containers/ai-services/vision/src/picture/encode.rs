//! Encoding a picture for an answer.

use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageError};

use super::Picture;

/// JPEG quality of pictures in answers: lines and letters stay clean.
const QUALITY: u8 = 90;

/// A picture could not be encoded.
#[derive(Debug, thiserror::Error)]
#[error("the picture could not be encoded")]
pub struct EncodeError {
    /// What the encoder said.
    #[source]
    source: ImageError,
}

/// The picture as a JPEG file.
///
/// # Errors
/// [`EncodeError`]: a side is over 65,535 pixels.
pub fn jpeg(picture: &Picture) -> Result<Vec<u8>, EncodeError> {
    let mut bytes = Vec::new();
    let (width, height) = (picture.width as u32, picture.height as u32);
    JpegEncoder::new_with_quality(&mut bytes, QUALITY)
        .encode(&picture.rgb, width, height, ExtendedColorType::Rgb8)
        .map_err(|source| EncodeError { source })?;
    Ok(bytes)
}
