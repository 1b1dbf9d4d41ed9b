//! What the service says of fifteen real pictures, against what ONNX Runtime, OpenCV and Pillow
//! say of them (`tests/reference/reference.py`).
//!
//! Tolerances: PNG pictures are the same bytes on both sides, so only the order of summation
//! differs. JPEG pictures are decoded by another library, whose values differ by one or two of 255.

use aisemble_protocol::v1;
use aisemble_protocol::vision::Task;
use serde_json::Value;

use crate::data::picture;
use crate::instance::{Instance, request};

/// Probabilities: PNG, JPEG.
const SCORE: [f32; 2] = [2e-3, 2e-2];
/// Corners and points, pixels.
const PLACE: [f32; 2] = [0.5, 2.0];
/// Cosine of the first 32 values of both embeddings.
const COSINE: [f32; 2] = [0.9999, 0.995];

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|value| value.as_f64().unwrap() as f32).collect()
}

fn edges(found: &Option<v1::Box>) -> [f32; 4] {
    let found = found.as_ref().unwrap();
    [found.left, found.top, found.right, found.bottom]
}

fn near(found: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (a, b) in found.iter().zip(expected) {
        assert!((a - b).abs() <= tolerance, "{what}: {found:?} instead of {expected:?}");
    }
}

fn check_classes(name: &str, result: &v1::ImageResult, expected: &Value, lossy: usize) {
    let found = &result.classify.as_ref().unwrap().labels;
    let expected: Vec<Vec<f32>> = expected["top"].as_array().unwrap().iter().map(floats).collect();
    assert_eq!(found.len(), 5);
    for (found, expected) in found.iter().zip(&expected) {
        let what = format!("{name}: {} instead of class {}", found.label, expected[0]);
        near(&[found.score], &expected[1..], SCORE[lossy], &what);
    }
    // The same classes; two whose scores are nearer than the tolerance may have changed places.
    let last = expected[4][1];
    for class in expected.iter().filter(|class| class[1] > last + SCORE[lossy]) {
        let is_there = found.iter().any(|found| found.class == Some(class[0] as u32));
        assert!(is_there, "{name}: class {} is missing in {found:?}", class[0]);
    }
}

fn check_embedding(name: &str, result: &v1::ImageResult, expected: &Value, lossy: usize) {
    let found = &result.embed.as_ref().unwrap().values;
    let length = found.iter().map(|value| value * value).sum::<f32>();
    assert_eq!(found.len(), 1280);
    assert!((length - 1.0).abs() < 1e-4, "{name}: {length}");
    let expected = floats(&expected["embedding"]);
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let found = &found[..expected.len()];
    let lengths = dot(found, found).sqrt() * dot(&expected, &expected).sqrt();
    let cosine = dot(found, &expected) / lengths;
    assert!(cosine > COSINE[lossy], "{name}: {cosine}");
}

fn check_boxes(name: &str, result: &v1::ImageResult, expected: &Value, lossy: usize) {
    let faces = &result.faces.as_ref().unwrap().faces;
    let expected_faces = expected["faces"].as_array().unwrap();
    assert_eq!(faces.len(), expected_faces.len(), "{name}: {faces:?}");
    for (found, expected) in faces.iter().zip(expected_faces) {
        near(&[found.score], &[expected["score"].as_f64().unwrap() as f32], SCORE[lossy], name);
        near(&edges(&found.r#box), &floats(&expected["box"]), PLACE[lossy], name);
        let points: Vec<f32> =
            found.landmarks.iter().flat_map(|point| [point.x, point.y]).collect();
        let expected: Vec<f32> =
            expected["landmarks"].as_array().unwrap().iter().flat_map(floats).collect();
        near(&points, &expected, PLACE[lossy], name);
    }
    let found = &result.detect.as_ref().unwrap().detections;
    let expected = expected["detect"].as_array().unwrap();
    assert_eq!(found.len(), expected.len(), "{name}: {found:?}");
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found.label, "person");
        near(&[found.score], &[expected["score"].as_f64().unwrap() as f32], SCORE[lossy], name);
        near(&edges(&found.r#box), &floats(&expected["box"]), PLACE[lossy], name);
    }
}

fn check_text(name: &str, result: &v1::ImageResult, expected: &Value) {
    let text = result.ocr.as_ref().unwrap();
    let level: Vec<_> = text.lines.iter().filter(|line| is_level(line)).collect();
    let expected: Vec<_> = expected["lines"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|line| line["score"].as_f64().unwrap() >= 0.1)
        .collect();
    let texts: Vec<&str> = level.iter().map(|line| line.text.as_str()).collect();
    let expected_texts: Vec<&str> =
        expected.iter().map(|line| line["text"].as_str().unwrap()).collect();
    assert_eq!(texts, expected_texts, "{name}");
    for (found, expected) in level.iter().zip(expected) {
        near(&[found.score], &[expected["score"].as_f64().unwrap() as f32], 0.02, &found.text);
        near(&edges(&found.r#box), &floats(&expected["box"]), 1.0, &found.text);
    }
    let all: Vec<&str> = text.lines.iter().map(|line| line.text.as_str()).collect();
    assert_eq!(text.text, all.join("\n"));
}

/// The reference leaves slanting lines out.
fn is_level(line: &v1::TextLine) -> bool {
    line.outline[0].y == line.outline[1].y && line.outline[2].y == line.outline[3].y
}

#[tokio::test]
async fn fifteen_pictures_as_other_programs_see_them() {
    let expected: serde_json::Map<String, Value> =
        serde_json::from_str(include_str!("../data/reference.json")).unwrap();
    assert_eq!(expected.len(), 15);
    let instance = Instance::of_all(&[]);
    for (name, expected) in &expected {
        let has_text = expected.get("lines").is_some();
        let mut tasks = vec![Task::Classify, Task::Embed, Task::Faces, Task::Detect];
        tasks.extend(has_text.then_some(Task::Ocr));
        let (results, _) = instance.analyze(request(vec![picture(name)], &tasks)).await.unwrap();
        let result = &results[0];
        assert_eq!(floats(&expected["size"]), [result.width as f32, result.height as f32]);
        let lossy = usize::from(result.format == "jpeg");
        check_classes(name, result, &expected["classify"], lossy);
        check_embedding(name, result, &expected["classify"], lossy);
        check_boxes(name, result, expected, lossy);
        if has_text {
            check_text(name, result, expected);
        }
    }
}
