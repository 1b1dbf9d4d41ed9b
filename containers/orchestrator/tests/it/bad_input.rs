//! Wrong input of each kind: the right status and a sentence that helps.

use serde_json::{Value, json};

use crate::peer::MODEL;
use crate::stack::{PATH, Stack};

struct Case {
    body: String,
    status: u16,
    code: &'static str,
    sentence: &'static str,
}

fn invalid(body: &Value, sentence: &'static str) -> Case {
    Case { body: body.to_string(), status: 400, code: "invalid_request", sentence }
}

fn malformed(body: &str, sentence: &'static str) -> Case {
    Case { body: body.to_owned(), status: 400, code: "invalid_request", sentence }
}

fn cases() -> Vec<Case> {
    let job = |options: Value| json!({"prompt": "a", "job": options});
    vec![
        malformed("", "empty"),
        malformed("{\"prompt\": \"a\",,}", "column 16"),
        malformed("{\"prompt\": \"a\"} {}", "not one JSON value"),
        malformed("[]", "must be a JSON object"),
        malformed(&"{\"job\":{\"metadata\":".repeat(5_000), "recursion limit"),
        malformed("{\"prompt\": \"a\", \"prompt\": \"b\"}", "duplicate field `prompt`"),
        malformed("{\"prompt\": \"\\ud800\"}", "column"),
        invalid(&json!({"prompt": "a", "max_token": 3}), "unknown field `max_token`"),
        invalid(&json!({"prompt": 7}), "prompt: invalid type: integer `7`, expected a string"),
        invalid(&json!({"prompt": ""}), "prompt is empty"),
        invalid(&json!({}), "prompt or messages is required"),
        invalid(&json!({"prompt": "a", "messages": []}), "not both"),
        invalid(&json!({"messages": []}), "between 1 and"),
        invalid(&json!({"messages": [{"role": "user"}]}), "messages[0]: missing field `content`"),
        invalid(&json!({"prompt": "a", "max_tokens": 0}), "max_tokens is 0; it must be between 1"),
        invalid(&json!({"prompt": "a", "max_tokens": 4e9}), "max_tokens: invalid type"),
        invalid(&json!({"prompt": "a", "max_tokens": -1}), "max_tokens: invalid value"),
        invalid(&json!({"prompt": "a", "max_tokens": 200_000}), "between 1 and 131072"),
        invalid(&json!({"prompt": "a", "max_tokens": 2_000}), "counting-words gives at most 1000"),
        invalid(&json!({"prompt": "a", "temperature": -1}), "temperature is -1"),
        invalid(&json!({"prompt": "a", "temperature": "hot"}), "temperature: invalid type"),
        invalid(&json!({"prompt": "a", "stop": vec!["x"; 17]}), "at most 16"),
        invalid(&json!({"prompt": "a", "logit_bias": {"x": 1}}), "logit_bias"),
        invalid(&job(json!({"deadline_ms": 0})), "job.deadline_ms is 0"),
        invalid(&job(json!({"attempts_max": 100})), "job.attempts_max is 100"),
        invalid(&job(json!({"needs": ["x"]})), "job.needs[0]"),
        invalid(&job(json!({"priority": "first"})), "job.priority: unknown variant `first`"),
        Case {
            body: json!({"prompt": "a", "model": "gpt-9"}).to_string(),
            status: 404,
            code: "not_found",
            sentence: MODEL,
        },
        Case {
            body: job(json!({"needs": ["0197d7f2-0000-7000-8000-000000000000"]})).to_string(),
            status: 422,
            code: "unprocessable",
            sentence: "0197d7f2",
        },
        Case {
            body: json!({"prompt": "a".repeat(1_100_000)}).to_string(),
            status: 413,
            code: "payload_too_large",
            sentence: "prompt has 1100000 bytes",
        },
        Case {
            body: job(json!({"metadata": {"a": "b".repeat(20_000)}})).to_string(),
            status: 413,
            code: "payload_too_large",
            sentence: "metadata",
        },
    ]
}

#[tokio::test]
async fn each_wrong_body_is_answered_with_what_is_wrong() {
    let stack = Stack::start().await;
    let headers = [("content-type", "application/json"), ("prefer", "wait=20")];
    for case in cases() {
        let body = case.body.into_bytes();
        let answer = stack.admin.ask(reqwest::Method::POST, PATH, &headers, body).await;
        answer.check_problem(case.status, case.code, case.sentence);
    }
    assert_eq!(stack.peer().calls(), 0, "nothing of it reached the service");
    assert_eq!(stack.admin.get("/jobs").await.json["jobs"], json!([]), "or became a job");
}

#[tokio::test]
async fn each_wrong_header_is_answered_with_what_is_wrong() {
    let stack = Stack::start().await;
    let long_key = "k".repeat(256);
    for (name, value, sentence) in [
        ("content-type", "text/plain", "application/json"),
        ("prefer", "wait=soon", "whole seconds"),
        ("idempotency-key", "", "1 to 255"),
        ("idempotency-key", long_key.as_str(), "1 to 255"),
    ] {
        let mut headers = vec![("content-type", "application/json")];
        headers.retain(|(other, _)| *other != name);
        headers.push((name, value));
        let body = json!({"prompt": "a"}).to_string().into();
        let answer = stack.admin.ask(reqwest::Method::POST, PATH, &headers, body).await;
        answer.check_problem(400, "invalid_request", sentence);
    }
}

#[tokio::test]
async fn a_malformed_or_unknown_id_is_told_apart() {
    let stack = Stack::start().await;
    for path in ["/jobs/not-an-id", "/jobs/%ff/result", "/jobs/..%2fx/events"] {
        stack.admin.get(path).await.check_problem(400, "invalid_request", "id");
    }
    let unknown = stack.admin.get("/jobs/0197d7f2-0000-7000-8000-000000000000").await;
    unknown.check_problem(404, "not_found", "0197d7f2");
}
