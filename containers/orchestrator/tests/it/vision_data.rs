//! Pictures and tables: JSON and forms, items and progress, and what is wrong with them.

use aisemble_orchestrator::capability::Capability;
use reqwest::Method;
use serde_json::{Value, json};

use crate::services::STEPS;
use crate::stack::{Answer, Stack};

const ANALYZE: &str = "/ai/vision/analyze";
const PROCESS: &str = "/data/process";
/// `cat` and `dog` in base64.
const CAT: &str = "Y2F0";
const DOG: &str = "ZG9n";

fn tables() -> Value {
    json!([{"name": "t", "rows": [{"a": 1}, {"a": 2}]}])
}

#[tokio::test]
async fn pictures_in_json_are_analysed_one_by_one() {
    let stack = Stack::of(&[Capability::Vision]).await;
    let images = json!([{"data": CAT}, {"data": format!("data:image/png;base64,{DOG}")}]);
    let body = json!({"images": images, "tasks": ["classify"]});
    let accept = [("accept", "text/event-stream")];
    let events = stack.admin.post_events(ANALYZE, &accept, &body).await.rest().await;
    let names: Vec<&str> = events.iter().map(|event| event.name.as_str()).collect();
    assert_eq!(names, ["job", "item", "item", "result"]);
    let label = |value: &Value| value["classify"][0]["label"].as_str().unwrap().to_owned();
    assert_eq!((label(&events[1].json()), label(&events[2].json())), ("cat".into(), "dog".into()));
    let result = events[3].json();
    assert_eq!(label(&result["results"][1]), "dog");
    let id = result["job_id"].as_str().unwrap();
    assert_eq!(stack.admin.get(&format!("/jobs/{id}")).await.json["kind"], "vision.analyze");
}

fn form(parts: &[(&str, &str)]) -> Vec<u8> {
    let mut body = String::new();
    for (name, value) in parts {
        let file = if *name == "image" { "; filename=\"a.png\"" } else { "" };
        body.push_str(&format!(
            "--xYz\r\ncontent-disposition: form-data; name=\"{name}\"{file}\r\n\r\n{value}\r\n"
        ));
    }
    body.push_str("--xYz--\r\n");
    body.into_bytes()
}

async fn send(stack: &Stack, parts: &[(&str, &str)]) -> Answer {
    let kind = ("content-type", "multipart/form-data; boundary=xYz");
    stack.admin.ask(Method::POST, ANALYZE, &[kind, ("prefer", "wait=20")], form(parts)).await
}

#[tokio::test]
async fn pictures_in_a_form_are_analysed() {
    let stack = Stack::of(&[Capability::Vision]).await;
    let parts = [("tasks", "classify"), ("image", "cat"), ("image", "dog"), ("top_k", "2")];
    let answer = send(&stack, &parts).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.json["results"][1]["classify"][0]["label"], "dog");
    let whole = r#"{"tasks": ["faces"]}"#;
    assert_eq!(send(&stack, &[("request", whole), ("image", "cat")]).await.status, 200);
    send(&stack, &[("tasks", "classify")]).await.check_problem(400, "invalid_request", "no image");
    let wrong = send(&stack, &[("image", "cat"), ("colour", "red")]).await;
    wrong.check_problem(400, "invalid_request", "a part \"colour\"");
    let unbound = [("content-type", "multipart/form-data")];
    let answer = stack.admin.ask(Method::POST, ANALYZE, &unbound, form(&[])).await;
    answer.check_problem(400, "invalid_request", "boundary");
}

#[tokio::test]
async fn each_wrong_request_for_pictures_is_answered_with_what_is_wrong() {
    let stack = Stack::of(&[Capability::Vision]).await;
    let check = async |body: Value, status: u16, code: &str, sentence: &str| {
        let answer = stack.admin.post(ANALYZE, &[("prefer", "wait=20")], &body).await;
        answer.check_problem(status, code, sentence);
    };
    let image = || json!([{"data": CAT}]);
    let invalid = "invalid_request";
    check(json!({"tasks": ["classify"]}), 400, invalid, "no image").await;
    check(json!({"images": image(), "tasks": []}), 400, invalid, "no task").await;
    check(json!({"images": image(), "tasks": ["fly"]}), 400, invalid, "\"fly\" is unknown").await;
    let twice = json!({"images": image(), "tasks": ["embed", "embed"]});
    check(twice, 400, invalid, "given twice").await;
    let both = json!({"images": [{"data": CAT, "file": "file-1"}], "tasks": ["embed"]});
    check(both, 400, invalid, "not both").await;
    let text = json!({"images": [{"data": "?!"}], "tasks": ["embed"]});
    check(text, 400, invalid, "not the base64").await;
    let many = json!({"images": vec![json!({"data": CAT}); 17], "tasks": ["embed"]});
    check(many, 400, invalid, "17 images").await;
    let zero = json!({"images": [{"data": ""}], "tasks": ["embed"]});
    check(zero, 400, invalid, "no bytes").await;
    // The service's own word: base64 of "broken".
    let broken = json!({"images": [{"data": CAT}, {"data": "YnJva2Vu"}], "tasks": ["embed"]});
    check(broken, 400, invalid, "images[1] is no picture").await;
    let caption = json!({"images": image(), "tasks": ["caption"]});
    check(caption, 422, "unprocessable", "a BLIP model would").await;
    let model = json!({"images": image(), "tasks": ["embed"], "model": "nose"});
    check(model, 404, "not_found", "there is eyes").await;
    let large = json!({"images": [{"data": "A".repeat(16_000_000)}], "tasks": ["embed"]});
    check(large, 413, "payload_too_large", "upload larger pictures as files").await;
}

#[tokio::test]
async fn a_query_tells_how_far_it_is_and_what_came_out() {
    let stack = Stack::of(&[Capability::Data]).await;
    let body = json!({"tables": tables(), "sql": "select 'hold' from t"});
    let accept = [("accept", "text/event-stream")];
    let mut events = stack.admin.post_events(PROCESS, &accept, &body).await;
    assert_eq!(events.next().await.unwrap().name, "job");
    // It is recorded from time to time only, so the service goes on step by step until it was.
    let progress = loop {
        stack.service(Capability::Data).let_go(1);
        tokio::select! {
            event = events.next() => {
                let event = event.unwrap();
                if event.name == "progress" {
                    break event.json();
                }
            }
            _ = stack.admin.get("/health") => {}
        }
    };
    assert_eq!(progress["phase"], "computing");
    assert!(progress["rows_read"].as_u64().unwrap() >= 1, "{progress}");
    stack.service(Capability::Data).let_go(STEPS);
    let rest = events.rest().await;
    assert_eq!(rest.last().unwrap().name, "result");
    assert_eq!(rest.last().unwrap().json()["rows"], 2);
}

#[tokio::test]
async fn a_query_is_cancelled_retried_and_refused() {
    let stack = Stack::of(&[Capability::Data]).await;
    let service = stack.service(Capability::Data);
    let body = json!({"tables": tables(), "sql": "select 'hold' from t"});
    let answer = stack.admin.post(PROCESS, &[], &body).await;
    let id = answer.json["id"].as_str().unwrap().to_owned();
    stack
        .eventually("called", async || {
            stack.admin.get("/health").await;
            service.calls() == 1
        })
        .await;
    stack.admin.delete(&format!("/jobs/{id}")).await;
    service.cancelled().await;
    stack.await_state(&id, "cancelled").await;

    let wait = [("prefer", "wait=20")];
    let body = json!({"tables": tables(), "sql": "select 'die' from t"});
    let answer = stack.admin.post(PROCESS, &wait, &body).await;
    assert_eq!((answer.status, &answer.json["rows"]), (200, &json!(2)), "{}", answer.text);
    let id = answer.json["job_id"].as_str().unwrap();
    assert_eq!(stack.admin.get(&format!("/jobs/{id}")).await.json["attempt"], 2);

    let check = async |body: Value, status: u16, code: &str, sentence: &str| {
        let answer = stack.admin.post(PROCESS, &wait, &body).await;
        answer.check_problem(status, code, sentence);
    };
    let sql = json!({"tables": tables(), "sql": "select nonsense from t"});
    check(sql, 422, "unprocessable", "no column is called nonsense").await;
    check(json!({"tables": []}), 400, "invalid_request", "tables").await;
    check(json!({}), 400, "invalid_request", "missing field `tables`").await;
    let both = json!({"tables": tables(), "sql": "select 1", "pipeline": []});
    check(both, 400, "invalid_request", "pipeline").await;
    let file = json!({"tables": [{"name": "t", "file": "file-nowhere"}]});
    check(file, 404, "not_found", "file-nowhere").await;
}
