//! Requests as callers write them, the good and the bad ones.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const DOT: &str = "iVBORw0KGgo=";

fn request(json: Value) -> AnalyzeRequest {
    serde_json::from_value(json).unwrap()
}

fn check(json: Value, param: &str, sentence: &str) {
    let request = request(json);
    let error = request.validate().and_then(|()| request.sources().map(drop)).unwrap_err();
    assert_eq!(error.param.as_deref(), Some(param), "{error:?}");
    assert!(error.message.contains(sentence), "{}", error.message);
}

fn tasks(tasks: Value) -> Value {
    json!({"images": [{"data": DOT}], "tasks": tasks})
}

#[test]
fn a_task_is_a_name_or_an_object_and_takes_the_request_s_options() {
    let request = request(json!({
        "images": [{"data": format!("data:image/png;base64,{DOT}")}, {"file": "file-1"}],
        "tasks": ["classify", {"task": "faces", "score_min": 0.6}, "embed"],
        "top_k": 3, "score_min": 0.25, "nms_iou": 0.4, "model": "any", "response": "annotated",
    }));
    request.validate().unwrap();
    let sources = request.sources().unwrap();
    assert_eq!(sources[0], ImageSource::Bytes(b"\x89PNG\r\n\x1a\n".to_vec()));
    assert_eq!(sources[1], ImageSource::File("file-1".to_owned()));
    let sent = request.to_grpc(vec![vec![1], vec![2]]).unwrap();
    let of = |index: usize| {
        let task = &sent.tasks[index];
        (task.task.as_str(), task.top_k, task.score_min, task.nms_iou)
    };
    assert_eq!(of(0), ("classify", 3, Some(0.25), None));
    assert_eq!(of(1), ("faces", 0, Some(0.6), Some(0.4)));
    assert_eq!(of(2), ("embed", 0, None, None));
    assert!(sent.annotated && sent.tasks.iter().all(|task| task.model == "any"));
    let again: AnalyzeRequest = serde_json::from_str(&serde_json::to_string(&request).unwrap())
        .expect("what is written can be read");
    assert_eq!(again, request);
}

#[test]
fn each_wrong_field_is_named_with_its_limit() {
    check(tasks(json!([])), "tasks", "the tasks are classify, embed");
    check(tasks(json!(["dream"])), "tasks", "\"dream\" is unknown; the tasks are classify");
    check(tasks(json!(["faces", "faces"])), "tasks[1]", "given twice");
    check(tasks(json!(vec!["faces"; 8])), "tasks", "at most 7");
    check(tasks(json!(["zero_shot"])), "tasks[0]", "needs labels");
    let labels = vec!["a"; 10_000];
    check(tasks(json!([{"task": "zero_shot", "labels": labels}])), "tasks[0]", "at most 1000");
    check(tasks(json!([{"task": "zero_shot", "labels": [""]}])), "tasks[0]", "1 and 256 bytes");
    check(tasks(json!([{"task": "ocr", "labels": ["a"]}])), "tasks[0]", "mean nothing");
    check(tasks(json!([{"task": "ocr", "top_k": 3}])), "tasks", "top_k means nothing");
    check(tasks(json!([{"task": "embed", "nms_iou": 0.3}])), "tasks", "nms_iou means nothing");
    check(tasks(json!([{"task": "classify", "top_k": 0}])), "tasks", "between 1 and 1000");
    check(tasks(json!([{"task": "classify", "top_k": 1001}])), "tasks[0]", "between 1 and 1000");
    check(tasks(json!([{"task": "faces", "score_min": 1.5}])), "tasks[0]", "between 0 and 1");
    let images = |images: Value| json!({"images": images, "tasks": ["classify"]});
    check(images(json!([{}])), "images[0]", "give data (base64) or file");
    check(images(json!([{"data": DOT, "file": "f"}])), "images[0]", "not both");
    check(images(json!([{"file": ""}])), "images[0]", "between 1 and 128");
    check(images(json!([{"data": DOT}, {"data": "*"}])), "images[1]", "not the base64");
    check(images(json!(vec![json!({"data": DOT}); 17])), "images", "at most 16");
}

#[test]
fn an_unknown_field_is_refused_by_name() {
    for (text, field) in [
        (r#"{"tasks":["faces"],"task":1}"#, "task"),
        (r#"{"tasks":[{"task":"faces","score":1}]}"#, "score"),
        (r#"{"tasks":[3]}"#, "name of a task"),
    ] {
        let error = serde_json::from_str::<AnalyzeRequest>(text).unwrap_err().to_string();
        assert!(error.contains(field), "{error}");
    }
}

#[test]
fn bytes_are_limited_one_by_one_and_together() {
    let classify = request(json!({"tasks": ["classify"]}));
    let refused = |images: Vec<Vec<u8>>| classify.to_grpc(images).unwrap_err();
    assert_eq!(refused(vec![]).param.as_deref(), Some("images"));
    assert_eq!(refused(vec![vec![1], vec![]]).param.as_deref(), Some("images[1]"));
    let error = refused(vec![vec![0; IMAGE_BYTES_MAX + 1]]);
    assert_eq!(
        (error.code, error.param.as_deref()),
        (ErrorCode::PayloadTooLarge, Some("images[0]"))
    );
    let error = refused(vec![vec![0; IMAGE_BYTES_MAX]; 3]);
    assert_eq!((error.code, error.param.as_deref()), (ErrorCode::PayloadTooLarge, Some("images")));
    classify.to_grpc(vec![vec![0; IMAGE_BYTES_MAX]; 2]).unwrap();
}

proptest! {
    #[test]
    fn any_request_is_taken_or_refused_and_never_panics(text in ".{0,200}", value in any::<f32>(), top_k in any::<u32>()) {
        let wild = json!({"images": [{"data": text}], "tasks": [{"task": text}], "labels": [text]});
        let _parsed = serde_json::from_value::<AnalyzeRequest>(wild).map(|request| {
            (request.validate(), request.sources())
        });
        let request = AnalyzeRequest {
            tasks: vec![Task::Classify.into(), Task::Faces.into()],
            top_k: Some(top_k), score_min: Some(value), nms_iou: Some(value),
            ..AnalyzeRequest::default()
        };
        let sent = request.to_grpc(vec![vec![1]]);
        let fine = (1..=TOP_K_MAX).contains(&top_k) && (0.0..=1.0).contains(&value);
        prop_assert_eq!(sent.is_ok(), fine);
    }
}
