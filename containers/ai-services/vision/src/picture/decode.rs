//! Decoding, and the limits before it: what the header promises is compared with what is allowed,
//! and only then are pixels made.

use std::io::Cursor;

use image::metadata::Orientation;
use image::{
    DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, Rgb, RgbImage,
};

use super::{Picture, frames};

/// Under so many decoded bytes no ratio is looked at: a small picture of one colour is no bomb.
const RATIO_BYTES_MIN: u64 = 16 * 1024 * 1024;
/// Working memory of a decoder besides the picture itself, as a share of it.
const DECODER_MEMORY_FACTOR: u64 = 2;
/// And at least this much, bytes.
const DECODER_MEMORY_MIN: u64 = 16 * 1024 * 1024;

/// What a picture may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageLimits {
    /// Width and height, pixels.
    pub side_max: u32,
    /// Width times height.
    pub pixels_max: u64,
    /// Bytes of all pixels as the file's format decodes to, before they become 8-bit RGB.
    pub decoded_bytes_max: u64,
    /// Decoded bytes for each byte of the file; looked at above 16 MiB of them.
    pub ratio_max: u64,
}

/// What the beginning of a file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// `jpeg`, `png`, `webp`, `gif`, `bmp` or `tiff`.
    pub format: &'static str,
    /// Pixels, as stored.
    pub width: u32,
    /// Pixels, as stored.
    pub height: u32,
    /// Bytes of all pixels when decoded.
    pub decoded_bytes: u64,
}

/// Why a picture is not taken.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    /// The first bytes are those of no format that is read here.
    #[error("the image is none of JPEG, PNG, WebP, GIF, BMP, TIFF")]
    UnknownFormat,
    /// It is one of them, but damaged or of a kind that is not read.
    #[error("the image is not a readable {format} file: it is damaged, cut off, or of a rare kind")]
    Unreadable {
        /// Which format it claims to be.
        format: &'static str,
        /// What the decoder said.
        #[source]
        source: ImageError,
    },
    /// It has a beginning and no end: the decoder would fill the rest with grey.
    #[error("the image is not a readable {format} file: it is cut off")]
    CutOff {
        /// Which format it is.
        format: &'static str,
    },
    /// It has no pixels.
    #[error("the image is {width} x {height} pixels")]
    Empty {
        /// Its width.
        width: u32,
        /// Its height.
        height: u32,
    },
    /// It is over a limit.
    #[error("the image is {width} x {height} pixels ({what} {found}); the limit is {limit}")]
    TooLarge {
        /// Its width.
        width: u32,
        /// Its height.
        height: u32,
        /// What is over its limit.
        what: &'static str,
        /// How much of it.
        found: u64,
        /// How much is allowed.
        limit: u64,
    },
}

/// Reads the header and compares it with the limits. Cheap: no pixel is decoded.
///
/// # Errors
/// [`PictureError`].
pub fn inspect(bytes: &[u8], limits: &ImageLimits) -> Result<Header, PictureError> {
    let (format, name) = format_of(bytes)?;
    let decoder = open(bytes, format, name, limits)?;
    check(decoder.as_ref(), name, bytes.len() as u64, limits)
}

/// Decodes a picture (the first frame of an animation, the first page of a TIFF), turns it as its
/// EXIF orientation says, lays transparency on white, and makes it 8-bit RGB. The notes say what of
/// this was done.
///
/// # Errors
/// [`PictureError`].
pub fn decode(
    bytes: &[u8],
    limits: &ImageLimits,
) -> Result<(Header, Picture, Vec<String>), PictureError> {
    let (format, name) = format_of(bytes)?;
    let mut decoder = open(bytes, format, name, limits)?;
    let header = check(decoder.as_ref(), name, bytes.len() as u64, limits)?;
    if format == ImageFormat::Jpeg && !jpeg_has_end(bytes) {
        return Err(PictureError::CutOff { format: name });
    }
    let unreadable = |source| PictureError::Unreadable { format: name, source };
    let mut notes = Vec::new();
    match frames(name, bytes) {
        0 | 1 => {}
        pages if name == "tiff" => notes.push(format!("first of {pages} pages")),
        frames => notes.push(format!("first of {frames} frames")),
    }
    // A broken EXIF block is no reason to refuse a picture that can be looked at.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut image = DynamicImage::from_decoder(decoder).map_err(unreadable)?;
    if orientation != Orientation::NoTransforms {
        image.apply_orientation(orientation);
        notes.push(format!("turned as its EXIF orientation {} says", orientation.to_exif()));
    }
    if bits_per_channel(&image) > 8 {
        notes.push("reduced to 8 bits a channel".to_owned());
    }
    let rgb = flatten(image, &mut notes);
    let (width, height) = (rgb.width() as usize, rgb.height() as usize);
    Ok((header, Picture::new(width, height, rgb.into_raw()), notes))
}

fn format_of(bytes: &[u8]) -> Result<(ImageFormat, &'static str), PictureError> {
    let format = image::guess_format(bytes).map_err(|_| PictureError::UnknownFormat)?;
    let names = [
        (ImageFormat::Jpeg, "jpeg"),
        (ImageFormat::Png, "png"),
        (ImageFormat::WebP, "webp"),
        (ImageFormat::Gif, "gif"),
        (ImageFormat::Bmp, "bmp"),
        (ImageFormat::Tiff, "tiff"),
    ];
    names.into_iter().find(|(known, _)| *known == format).ok_or(PictureError::UnknownFormat)
}

fn open<'a>(
    bytes: &'a [u8],
    format: ImageFormat,
    name: &'static str,
    limits: &ImageLimits,
) -> Result<Box<dyn ImageDecoder + 'a>, PictureError> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    // Dimensions are compared in `check`, with a better sentence; this keeps what a decoder
    // allocates for itself in bounds.
    let memory = limits.decoded_bytes_max.saturating_mul(DECODER_MEMORY_FACTOR);
    let mut memory_limits = Limits::no_limits();
    memory_limits.max_alloc = Some(memory.saturating_add(DECODER_MEMORY_MIN));
    reader.limits(memory_limits);
    let decoder = reader
        .into_decoder()
        .map_err(|source| PictureError::Unreadable { format: name, source })?;
    Ok(Box::new(decoder))
}

/// Whether an end of image follows the first scan of a JPEG file. Inside a scan 0xFF is always
/// followed by something else, so the marker is one wherever it is.
fn jpeg_has_end(bytes: &[u8]) -> bool {
    let marker = |second: u8| move |two: &[u8]| two == [0xff, second];
    let scan = bytes.windows(2).position(marker(0xda));
    scan.is_some_and(|scan| bytes[scan..].windows(2).rev().any(marker(0xd9)))
}

fn check(
    decoder: &dyn ImageDecoder,
    format: &'static str,
    file_bytes: u64,
    limits: &ImageLimits,
) -> Result<Header, PictureError> {
    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 {
        return Err(PictureError::Empty { width, height });
    }
    let decoded_bytes = decoder.total_bytes();
    let ratio = if decoded_bytes > RATIO_BYTES_MIN { decoded_bytes / file_bytes.max(1) } else { 0 };
    let rules = [
        ("side", u64::from(width.max(height)), u64::from(limits.side_max)),
        ("pixels", u64::from(width) * u64::from(height), limits.pixels_max),
        ("bytes when decoded", decoded_bytes, limits.decoded_bytes_max),
        ("times its file's size", ratio, limits.ratio_max),
    ];
    for (what, found, limit) in rules {
        if found > limit {
            return Err(PictureError::TooLarge { width, height, what, found, limit });
        }
    }
    Ok(Header { format, width, height, decoded_bytes })
}

fn bits_per_channel(image: &DynamicImage) -> u16 {
    let color = image.color();
    color.bits_per_pixel() / u16::from(color.channel_count())
}

/// To RGB; what is transparent shows white.
fn flatten(image: DynamicImage, notes: &mut Vec<String>) -> RgbImage {
    if !image.color().has_alpha() {
        return image.into_rgb8();
    }
    let rgba = image.into_rgba8();
    let mut any = false;
    let mut rgb = RgbImage::new(rgba.width(), rgba.height());
    for (to, from) in rgb.pixels_mut().zip(rgba.pixels()) {
        let [r, g, b, alpha] = from.0.map(u32::from);
        any |= alpha < 255;
        let over_white = |value: u32| ((value * alpha + 255 * (255 - alpha) + 127) / 255) as u8;
        *to = Rgb([over_white(r), over_white(g), over_white(b)]);
    }
    if any {
        notes.push("transparency laid on white".to_owned());
    }
    rgb
}
