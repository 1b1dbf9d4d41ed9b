//! Pictures of every kind and the ones that are refused; resizing against Pillow and OpenCV.

use std::io::Cursor;

use image::codecs::gif::GifEncoder;
use image::{DynamicImage, Frame, ImageFormat, Luma, LumaA, Rgb, RgbImage, Rgba, RgbaImage};
use proptest::prelude::*;

use super::*;

const LIMITS: ImageLimits = ImageLimits {
    side_max: 16_384,
    pixels_max: 50_000_000,
    decoded_bytes_max: 256 * 1024 * 1024,
    ratio_max: 500,
};

const FORMATS: [(ImageFormat, &str); 6] = [
    (ImageFormat::Jpeg, "jpeg"),
    (ImageFormat::Png, "png"),
    (ImageFormat::WebP, "webp"),
    (ImageFormat::Gif, "gif"),
    (ImageFormat::Bmp, "bmp"),
    (ImageFormat::Tiff, "tiff"),
];

fn encoded(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// Left half red, right half blue.
fn red_and_blue(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, _| {
        if x < width / 2 { Rgb([200, 10, 10]) } else { Rgb([10, 10, 200]) }
    })
}

fn is_near(picture: &Picture, x: usize, y: usize, color: [u8; 3]) -> bool {
    let at = (y * picture.width + x) * 3;
    picture.rgb[at..at + 3].iter().zip(color).all(|(a, b)| a.abs_diff(b) <= 12)
}

#[test]
fn every_format_is_read() {
    for (format, name) in FORMATS {
        let bytes = encoded(red_and_blue(32, 16), format);
        let (header, picture, notes) = decode(&bytes, &LIMITS).unwrap();
        assert_eq!(header, inspect(&bytes, &LIMITS).unwrap());
        assert_eq!((header.format, header.width, header.height), (name, 32, 16));
        assert_eq!((picture.width, picture.height), (32, 16), "{name}");
        assert!(is_near(&picture, 2, 8, [200, 10, 10]), "{name}");
        assert!(is_near(&picture, 29, 8, [10, 10, 200]), "{name}");
        assert!(notes.is_empty(), "{name}: {notes:?}");
    }
}

#[test]
fn other_colours_become_rgb_and_transparency_white() {
    let check = |image: DynamicImage, expected: [u8; 3], expected_notes: &[&str]| {
        let (_, picture, notes) = decode(&encoded(image, ImageFormat::Png), &LIMITS).unwrap();
        assert!(is_near(&picture, 1, 1, expected), "{:?}", &picture.rgb[..3]);
        assert_eq!(notes, expected_notes);
    };
    let rgba = |alpha| RgbaImage::from_pixel(3, 3, Rgba([0, 100, 0, alpha])).into();
    check(rgba(255), [0, 100, 0], &[]);
    check(rgba(0), [255; 3], &["transparency laid on white"]);
    check(rgba(128), [127, 177, 127], &["transparency laid on white"]);
    check(image::GrayImage::from_pixel(3, 3, Luma([90])).into(), [90; 3], &[]);
    let grey = image::GrayAlphaImage::from_pixel(3, 3, LumaA([0, 0]));
    check(grey.into(), [255; 3], &["transparency laid on white"]);
    let deep = image::ImageBuffer::from_pixel(3, 3, Luma([0x8000_u16]));
    check(DynamicImage::ImageLuma16(deep), [128; 3], &["reduced to 8 bits a channel"]);
}

/// A JPEG file with an EXIF block that says `orientation`.
fn oriented(orientation: u8) -> Vec<u8> {
    let jpeg = encoded(red_and_blue(32, 16), ImageFormat::Jpeg);
    let mut exif = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
    exif.extend([orientation, 0, 0, 0, 0, 0, 0]);
    let length = u16::try_from(exif.len() + 2).unwrap().to_be_bytes();
    [&jpeg[..2], &[0xff, 0xe1], &length, &exif, &jpeg[2..]].concat()
}

#[test]
fn pictures_are_turned_as_their_exif_block_says() {
    let (red, blue) = ([200, 10, 10], [10, 10, 200]);
    // Orientation, size, and where red is.
    let cases = [
        (1, (32, 16), (2, 8)),
        (2, (32, 16), (29, 8)),
        (3, (32, 16), (29, 8)),
        (6, (16, 32), (8, 2)),
        (8, (16, 32), (8, 29)),
    ];
    for (orientation, size, (x, y)) in cases {
        let (header, picture, notes) = decode(&oriented(orientation), &LIMITS).unwrap();
        assert_eq!((header.width, header.height), (32, 16), "the header is the stored one");
        assert_eq!((picture.width, picture.height), size, "{orientation}");
        assert!(is_near(&picture, x, y, red), "{orientation}");
        assert!(is_near(&picture, size.0 - 1 - x, size.1 - 1 - y, blue), "{orientation}");
        let note = format!("turned as its EXIF orientation {orientation} says");
        assert_eq!(notes.contains(&note), orientation != 1);
    }
    // Nonsense in the block changes nothing.
    assert_eq!(decode(&oriented(77), &LIMITS).unwrap().1.width, 32);
}

#[test]
fn the_first_frame_of_an_animation_is_taken_and_said_so() {
    let mut bytes = Vec::new();
    let mut encoder = GifEncoder::new(&mut bytes);
    for red in [250, 10, 10] {
        let frame = RgbaImage::from_pixel(8, 8, Rgba([red, 0, 0, 255]));
        encoder.encode_frame(Frame::new(frame)).unwrap();
    }
    drop(encoder);
    let (_, picture, notes) = decode(&bytes, &LIMITS).unwrap();
    assert!(is_near(&picture, 4, 4, [250, 0, 0]));
    assert_eq!(notes, ["first of 3 frames"]);
}

fn refused(bytes: &[u8], limits: &ImageLimits, sentence: &str) {
    for error in [inspect(bytes, limits).map(drop), decode(bytes, limits).map(drop)] {
        let error = error.unwrap_err().to_string();
        assert!(error.contains(sentence), "{error}");
    }
}

/// A PNG file of one grey value whose header says `width` x `height`.
fn promised(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = encoded(image::GrayImage::new(1, 1), ImageFormat::Png);
    bytes[16..20].copy_from_slice(&width.to_be_bytes());
    bytes[20..24].copy_from_slice(&height.to_be_bytes());
    let crc = crc32(&bytes[12..29]);
    bytes[29..33].copy_from_slice(&crc.to_be_bytes());
    bytes
}

/// The checksum of PNG chunks (ISO 3309).
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 }
        })
    };
    !bytes.iter().fold(u32::MAX, step)
}

#[test]
fn what_is_over_a_limit_is_refused_by_its_header() {
    refused(
        &promised(30_000, 30_000),
        &LIMITS,
        "30000 x 30000 pixels (side 30000); the limit is 16384",
    );
    refused(&promised(16_000, 16_000), &LIMITS, "(pixels 256000000); the limit is 50000000");
    let small = ImageLimits { decoded_bytes_max: 1000, ..LIMITS };
    refused(&promised(40, 40), &small, "(bytes when decoded 1600); the limit is 1000");
    refused(&promised(7000, 7000), &LIMITS, "times its file's size");
    // A small picture of one colour is none, however well it is packed.
    inspect(&promised(2000, 2000), &LIMITS).unwrap();
}

#[test]
fn what_is_no_picture_is_refused() {
    refused(b"", &LIMITS, "none of JPEG");
    refused(b"a text, not a picture", &LIMITS, "none of JPEG");
    refused(&[0; 4096], &LIMITS, "none of JPEG");
    for (format, name) in FORMATS {
        let bytes = encoded(red_and_blue(64, 64), format);
        let cut = decode(&bytes[..12], &LIMITS).map(drop).unwrap_err().to_string();
        assert!(cut.contains(name) || cut.contains("none of"), "{cut}");
    }
    // Cut off in the middle of its pixels.
    let jpeg = encoded(red_and_blue(400, 400), ImageFormat::Jpeg);
    let error = decode(&jpeg[..jpeg.len() / 4], &LIMITS).map(drop).unwrap_err();
    assert!(error.to_string().contains("jpeg file: it is cut off"), "{error}");
}

/// The picture that tests/reference/resize.py makes.
fn pattern(width: usize, height: usize) -> Picture {
    let mut state = 0x9e37_79b9_u32;
    let mut rgb = Vec::new();
    for y in 0..height {
        for x in 0..width {
            for c in 0..3 {
                state ^= state << 13;
                state ^= state >> 17;
                state ^= state << 5;
                let slope = (x * 7 + y * 5 + c * 40) % 256;
                rgb.push(((slope + (state >> 24) as usize / 4) % 256) as u8);
            }
        }
    }
    Picture::new(width, height, rgb)
}

#[test]
fn resizing_gives_the_bytes_that_pillow_and_opencv_give() {
    type Case = (String, usize, usize, usize, usize, Vec<u8>);
    let cases: Vec<Case> =
        serde_json::from_str(include_str!("../../tests/data/resize.json")).unwrap();
    assert_eq!(cases.len(), 18);
    for (name, width, height, to_width, to_height, expected) in cases {
        let picture = pattern(width, height);
        let (found, tolerance) = match name.as_str() {
            "pillow-bicubic" => {
                (resize_antialiased(&picture, to_width, to_height, Filter::Bicubic), 0)
            }
            "pillow-bilinear" => {
                (resize_antialiased(&picture, to_width, to_height, Filter::Bilinear), 0)
            }
            // OpenCV's vector code rounds once more than its plain code.
            "opencv-linear" => (resize_linear(&picture, to_width, to_height), 1),
            name => panic!("{name}"),
        };
        assert_eq!((found.width, found.height), (to_width, to_height));
        for (at, (found, expected)) in found.rgb.iter().zip(&expected).enumerate() {
            let off = found.abs_diff(*expected);
            assert!(off <= tolerance, "{name} {width}x{height} at {at}: {found}, not {expected}");
        }
    }
}

#[test]
fn grey_is_what_opencv_makes_of_it() {
    assert_eq!(pattern(23, 17).grey()[..10], [75, 80, 102, 78, 79, 77, 115, 111, 115, 145]);
}

proptest! {
    /// Real files with bytes changed, cut or put in: an answer or an error, and never a panic.
    #[test]
    fn damaged_files_are_answered(
        format in 0_usize..6,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        keep in any::<prop::sample::Index>(),
    ) {
        let limits = ImageLimits {
            side_max: 4096,
            pixels_max: 1 << 20,
            decoded_bytes_max: 1 << 22,
            ..LIMITS
        };
        let mut bytes = encoded(red_and_blue(24, 10), FORMATS[format].0);
        for (at, byte) in changes {
            // The beginning, where the header is, as often as the rest.
            let range = if byte % 2 == 0 { bytes.len().min(64) } else { bytes.len() };
            let at = at.index(range);
            bytes[at] = byte;
        }
        let inspected = inspect(&bytes, &limits);
        if let Ok((header, picture, _)) = decode(&bytes, &limits) {
            prop_assert_eq!(inspected.unwrap(), header);
            prop_assert_eq!(picture.rgb.len(), picture.width * picture.height * 3);
        }
        bytes.truncate(keep.index(bytes.len()) + 1);
        let _cut = decode(&bytes, &limits);
    }

    #[test]
    fn frames_of_anything_are_counted(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let starts: [(&str, &[u8]); 5] = [
            ("gif", b"GIF89a"),
            ("webp", b"RIFF\0\0\0\0WEBP"),
            ("png", b"\x89PNG\r\n\x1a\n"),
            ("tiff", b"II*\0"),
            ("tiff", b"MM\0*"),
        ];
        for (format, start) in starts {
            prop_assert!(frames(format, &[start, &bytes].concat()) <= 10_000);
        }
    }
}
