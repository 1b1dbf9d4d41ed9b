//! The picture with what was found drawn into it: boxes with a word and a score, points, the
//! outlines of text, and the best classes in a corner.
//!
//! It knows findings and pixels, not models.

mod canvas;
mod font;

use aisemble_protocol::v1;

use crate::picture::{EncodeError, Picture, jpeg, resize_linear};
use canvas::{Canvas, Color};

/// The longer side of an annotated picture, pixels: answers stay small.
const SIDE_MAX: usize = 2048;
/// Classes that are written.
const CLASSES_MAX: usize = 3;

const FACE: Color = [255, 190, 0];
const THING: Color = [0, 200, 80];
const TEXT: Color = [40, 120, 255];
const CLASS: Color = [150, 60, 200];

/// Draws what was found into a copy of the picture. Gives a JPEG file, and a note when it is
/// smaller than the picture.
///
/// # Errors
/// [`EncodeError`].
pub fn annotate(
    picture: &Picture,
    found: &v1::ImageResult,
) -> Result<(Vec<u8>, Option<String>), EncodeError> {
    let longer = picture.width.max(picture.height);
    let factor = (SIDE_MAX as f64 / longer as f64).min(1.0);
    let scaled = |size: usize| ((size as f64 * factor) as usize).max(1);
    let (width, height) = (scaled(picture.width), scaled(picture.height));
    let mut canvas = Canvas::new(resize_linear(picture, width, height), factor as f32);
    if let Some(text) = &found.ocr {
        for line in &text.lines {
            canvas.outline(&line.outline, TEXT);
        }
    }
    for thing in found.detect.iter().flat_map(|found| &found.detections) {
        if let Some(bounds) = &thing.r#box {
            canvas.labelled(bounds, &labelled(&thing.label, thing.score), THING);
        }
    }
    for face in found.faces.iter().flat_map(|found| &found.faces) {
        if let Some(bounds) = &face.r#box {
            canvas.labelled(bounds, &labelled("face", face.score), FACE);
        }
        for point in &face.landmarks {
            canvas.dot(point, FACE);
        }
    }
    let classes = found.classify.iter().chain(&found.zero_shot).flat_map(|found| &found.labels);
    for (row, class) in classes.take(CLASSES_MAX).enumerate() {
        // The first name of several.
        let name = class.label.split(',').next().unwrap_or_default();
        canvas.corner(row, &labelled(name, class.score), CLASS);
    }
    let note = (factor < 1.0).then(|| format!("the annotated picture is {width} x {height}"));
    Ok((jpeg(&canvas.into_picture())?, note))
}

fn labelled(label: &str, score: f32) -> String {
    format!("{label} {score:.2}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found() -> v1::ImageResult {
        let bounds = v1::Box { left: 20.0, top: 30.0, right: 80.0, bottom: 70.0 };
        let outside = v1::Box { left: -50.0, top: f32::NAN, right: 1e9, bottom: f32::INFINITY };
        let detection = |label: &str, bounds| v1::Detection {
            label: label.to_owned(),
            score: 0.9,
            r#box: Some(bounds),
        };
        let detections = vec![detection("person", bounds), detection("näch ☃", outside)];
        let point = |x, y| v1::Point { x, y };
        let face = v1::Face {
            score: 0.8,
            r#box: Some(bounds),
            landmarks: vec![point(-5.0, 1e9), point(50.0, 50.0)],
        };
        let class = v1::ImageLabel { label: "cat, feline".to_owned(), score: 0.5, class: Some(1) };
        v1::ImageResult {
            detect: Some(v1::Detections { detections }),
            faces: Some(v1::Faces { faces: vec![face] }),
            classify: Some(v1::ImageLabels { labels: vec![class] }),
            ..v1::ImageResult::default()
        }
    }

    #[test]
    fn boxes_are_where_the_findings_are_and_nothing_outside_is_touched() {
        let white = Picture::new(100, 100, vec![255; 100 * 100 * 3]);
        let bounds = v1::Box { left: 20.0, top: 30.0, right: 80.0, bottom: 70.0 };
        let mut canvas = Canvas::new(white, 1.0);
        canvas.labelled(&bounds, "person 0.90", THING);
        let drawn = canvas.into_picture();
        let pixel = |x: usize, y: usize| &drawn.rgb[(y * 100 + x) * 3..(y * 100 + x) * 3 + 3];
        for at in [(20, 50), (80, 50), (50, 30), (50, 70)] {
            assert_eq!(pixel(at.0, at.1), THING, "{at:?}");
        }
        for at in [(50, 50), (10, 90), (95, 50)] {
            assert_eq!(pixel(at.0, at.1), [255; 3], "{at:?}");
        }
        assert!((21..60).any(|x| pixel(x, 25) == THING), "the label's ground is above the box");
    }

    #[test]
    fn wild_findings_on_small_pictures_are_survived() {
        for (width, height) in [(1, 1), (3, 200), (100, 100)] {
            let picture = Picture::new(width, height, vec![7; width * height * 3]);
            let (bytes, note) = annotate(&picture, &found()).unwrap();
            assert!(bytes.starts_with(&[0xff, 0xd8]) && note.is_none());
        }
        let wide = Picture::new(4096, 4, vec![7; 4096 * 4 * 3]);
        let (_, note) = annotate(&wide, &found()).unwrap();
        assert_eq!(note.as_deref(), Some("the annotated picture is 2048 x 2"));
    }
}
