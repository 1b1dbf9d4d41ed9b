//! `kill -9` of the text service and of the picture service in the middle of a batch: the job is
//! done again from its beginning and gives what it would have given, and nothing else is lost.

use std::time::Duration;

use aisemble_tests::cache;
use aisemble_tests::stack::Stack;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(240);
const WAIT: [(&str, &str); 1] = [("prefer", "wait=120")];

fn submit(stack: &Stack, path: &str, body: &Value) -> String {
    let answer = stack.client().post(path, &[], body);
    assert_eq!(answer.status, 202, "{}", answer.text);
    answer.json["id"].as_str().unwrap().to_owned()
}

fn result(stack: &Stack, id: &str) -> Value {
    stack.eventually("the job succeeds", PATIENCE, || {
        let job = stack.client().get(&format!("/jobs/{id}")).json;
        let state = job["state"].as_str()?.to_owned();
        assert!(!matches!(state.as_str(), "failed" | "cancelled" | "expired"), "{job}");
        (state == "succeeded").then_some(())
    });
    stack.client().get(&format!("/jobs/{id}/result")).json
}

/// Follows a job until a part of it is done, kills the service, and waits until job and service are
/// there again.
fn killed_in_the_middle(stack: &Stack, service: &str, (path, body): (&str, &Value)) -> Value {
    let id = submit(stack, path, body);
    let events = stack.client().events(&format!("/jobs/{id}/events"), &[], None, |event| {
        event.name == "progress" && event.json()["done"].as_u64().is_some_and(|done| done > 0)
    });
    let last = events.last().unwrap_or_else(|| panic!("no event\n{}", stack.log())).json();
    assert!(last["done"].as_u64() < last["total"].as_u64(), "in the middle: {last}");
    let name = format!("ai-semble-{service}");
    let orchestrator = stack.pid("ai-semble-orchestrator");
    let old = stack.kill(&name);
    // What comes while the service is away waits for it.
    let later: Vec<String> = (0..4).map(|_| submit(stack, path, &smaller(body))).collect();
    let answer = result(stack, &id);
    let job = stack.client().get(&format!("/jobs/{id}")).json;
    assert_eq!(job["attempt"], 2, "{job}");
    for id in &later {
        assert_eq!(result(stack, id)["results"][0]["index"], 0);
    }
    assert_eq!(stack.pid("ai-semble-orchestrator"), orchestrator, "it was left alone");
    assert!(stack.pid(&name).is_some_and(|pid| pid != old));
    assert_eq!(stack.client().get("/ready").status, 200);
    answer
}

/// The same request with its first text or picture alone.
fn smaller(body: &Value) -> Value {
    let mut body = body.clone();
    for list in ["texts", "images"] {
        if let Some(items) = body[list].as_array_mut() {
            items.truncate(1);
        }
    }
    if let Some(fields) = body.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    body
}

fn indices(answer: &Value) -> Vec<u64> {
    let results = answer["results"].as_array().unwrap();
    results.iter().map(|one| one["index"].as_u64().unwrap()).collect()
}

#[test]
fn killing_the_text_service_in_a_batch_costs_an_attempt() {
    let stack = Stack::with(&["nlp"], &[]);
    let texts: Vec<String> = (0..240)
        .map(|n| format!("Note {n}: {}", "the patient slept well and ate a little. ".repeat(6)))
        .collect();
    let answer = killed_in_the_middle(&stack, "nlp", ("/ai/nlp/embed", &json!({"texts": texts})));
    assert_eq!(indices(&answer), (0..240).collect::<Vec<_>>(), "each once, in order");
    let body = json!({"texts": [texts[239]]});
    let alone = stack.client().post("/ai/nlp/embed", &WAIT, &body).json;
    let values = |answer: &Value, index: usize| -> Vec<f64> {
        let values = answer["results"][index]["embedding"].as_array().unwrap();
        values.iter().map(|value| value.as_f64().unwrap()).collect()
    };
    let cosine: f64 = values(&answer, 239).iter().zip(values(&alone, 0)).map(|(a, b)| a * b).sum();
    assert!(cosine > 0.9999, "{cosine}");
}

#[test]
fn killing_the_picture_service_in_a_batch_costs_an_attempt() {
    let stack = Stack::with(&["vision"], &[]);
    let names = ["astronaut.png", "china.jpg", "flower.jpg", "grace_hopper.jpg"];
    let files: Vec<Value> = names
        .iter()
        .map(|name| {
            let content = std::fs::read(cache().join("pictures").join(name)).unwrap();
            let path = format!("/files?filename={name}&purpose=vision");
            let kind = if name.ends_with("png") { "image/png" } else { "image/jpeg" };
            let answer = stack.client().send("POST", &path, &[("content-type", kind)], &content);
            assert_eq!(answer.status, 200, "{}", answer.text);
            json!({"file": answer.json["id"]})
        })
        .collect();
    let images: Vec<&Value> = (0..16).map(|n| &files[n % files.len()]).collect();
    let body = json!({"images": images, "tasks": ["classify", "faces", "detect"]});
    let answer = killed_in_the_middle(&stack, "vision", ("/ai/vision/analyze", &body));
    assert_eq!(indices(&answer), (0..16).collect::<Vec<_>>(), "each once, in order");
    for (at, image) in answer["results"].as_array().unwrap().iter().enumerate() {
        let faces = image["faces"].as_array().unwrap().len();
        let expected = usize::from(matches!(names[at % 4], "astronaut.png" | "grace_hopper.jpg"));
        assert_eq!(faces, expected, "{}: {image}", names[at % 4]);
    }
}
