//! Wrong input of each kind, against the running product: the right status, and a sentence that
//! helps.

use std::time::Duration;

use aisemble_tests::http::{Answer, raw};
use aisemble_tests::stack::shared;
use serde_json::{Value, json};

const PATH: &str = "/ai/llm/completion";

/// One wrong request: what it is, its body, and what must come back.
struct Case {
    what: &'static str,
    body: String,
    status: u16,
    code: &'static str,
    sentence: &'static str,
}

fn case(
    what: &'static str,
    body: &Value,
    (status, code): (u16, &'static str),
    sentence: &'static str,
) -> Case {
    Case { what, body: body.to_string(), status, code, sentence }
}

fn check_problem(what: &str, answer: &Answer, status: u16, code: &str, sentence: &str) {
    assert_eq!(answer.status, status, "{what}: {}", answer.text);
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{what}");
    assert_eq!(answer.json["code"], code, "{what}: {}", answer.text);
    assert_eq!(answer.json["status"], status, "{what}");
    let detail = answer.json["detail"].as_str().unwrap_or_default();
    assert!(detail.contains(sentence), "{what}: {detail:?} does not say {sentence:?}");
    assert!(answer.json["request_id"].is_string(), "{what}");
}

#[test]
fn each_wrong_body_is_answered_with_what_is_wrong() {
    let stack = shared();
    let invalid = (400, "invalid_request");
    let long_prompt = "word ".repeat(20_000);
    let cases = [
        Case {
            what: "malformed JSON",
            body: "{\"prompt\": \"a\",,}".to_owned(),
            status: 400,
            code: "invalid_request",
            sentence: "column",
        },
        case("unknown field", &json!({"prompt": "a", "max_token": 3}), invalid, "max_token"),
        case("wrong type", &json!({"prompt": 7}), invalid, "string"),
        case("empty prompt", &json!({"prompt": ""}), invalid, "prompt is empty"),
        case("neither", &json!({}), invalid, "prompt or messages is required"),
        case("both", &json!({"prompt": "a", "messages": []}), invalid, "not both"),
        case("max_tokens 0", &json!({"prompt": "a", "max_tokens": 0}), invalid, "between 1 and"),
        case("max_tokens huge", &json!({"prompt": "a", "max_tokens": 4e9}), invalid, "max_tokens"),
        case("temperature", &json!({"prompt": "a", "temperature": -1}), invalid, "temperature"),
        case(
            "unknown model",
            &json!({"prompt": "a", "model": "gpt-9"}),
            (404, "not_found"),
            "smollm2-135m-instruct",
        ),
        case(
            "prompt over the context",
            &json!({"prompt": long_prompt}),
            (422, "unprocessable"),
            "context",
        ),
    ];
    for case in cases {
        let headers = [("prefer", "wait=60")];
        let answer = stack.client().send("POST", PATH, &headers, case.body.as_bytes());
        check_problem(case.what, &answer, case.status, case.code, case.sentence);
    }
}

#[test]
fn keys_open_what_they_were_made_for() {
    let stack = shared();
    let body = json!({"prompt": "a", "max_tokens": 1});
    let none = stack.client().with_key(None).post(PATH, &[], &body);
    check_problem("no key", &none, 401, "unauthenticated", "key");
    assert_eq!(none.header("www-authenticate"), Some("Bearer"));
    let wrong = stack.client().with_key(Some("ais_00")).post(PATH, &[], &body);
    check_problem("wrong key", &wrong, 401, "unauthenticated", "key");

    let (status, key, err) =
        stack.command(&["keys", "create", "--name", "scraper", "--scope", "metrics"]);
    assert_eq!(status, 0, "{err}");
    let scraper = stack.client().with_key(Some(key.trim()));
    let seen = stack.eventually("the new key is known", Duration::from_secs(10), || {
        let page = scraper.get("/metrics");
        (page.status == 200).then_some(page)
    });
    assert!(seen.text.contains("aisemble_"));
    let refused = scraper.post(PATH, &[], &body);
    check_problem("scope", &refused, 403, "forbidden", "llm");
}

#[test]
fn another_key_s_job_is_not_there() {
    let stack = shared();
    let (_, key, _) = stack.command(&["keys", "create", "--name", "other", "--scope", "llm,jobs"]);
    let other = stack.client().with_key(Some(key.trim()));
    let mine = stack.client().post(PATH, &[], &json!({"prompt": "a", "max_tokens": 1}));
    let id = mine.json["id"].as_str().unwrap();
    stack.eventually("the new key is known", Duration::from_secs(10), || {
        (other.get("/jobs").status == 200).then_some(())
    });
    let answer = other.get(&format!("/jobs/{id}"));
    check_problem("another's job", &answer, 404, "not_found", id);
}

#[test]
fn what_is_not_there_is_not_found() {
    let stack = shared();
    let client = stack.client();
    let job = client.get("/jobs/0197d7f2-0000-7000-8000-000000000000");
    check_problem("no such job", &job, 404, "not_found", "0197d7f2");
    check_problem("no such route", &client.get("/nope"), 404, "not_found", "/nope");
    let method = client.send("PUT", PATH, &[], b"");
    check_problem("method", &method, 405, "method_not_allowed", "PUT");
    let id = client.get("/jobs/not-an-id");
    check_problem("malformed id", &id, 400, "invalid_request", "id");
    let state = client.get("/jobs?state=sleeping");
    check_problem("unknown state", &state, 400, "invalid_request", "state");
}

#[test]
fn a_body_of_50_mb_is_refused() {
    let stack = shared();
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\ncontent-length: 52428800\r\n\r\n",
        stack.key()
    );
    let piece = vec![b'a'; 1024 * 1024];
    let pieces: Vec<&[u8]> =
        std::iter::once(head.as_bytes()).chain(std::iter::repeat_n(piece.as_slice(), 6)).collect();
    let answer = raw(stack.address(), &pieces, Duration::ZERO, Duration::from_secs(20));
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("payload_too_large"), "{answer}");
}

#[test]
fn a_slow_head_and_a_slow_body_are_cut_off() {
    let stack = shared();
    let patience = Duration::from_secs(60);
    let head = raw(
        stack.address(),
        &[b"POST /ai/llm/completion HTTP/1.1\r\nhost: x\r\n", b"x-slow: "],
        Duration::from_millis(100),
        patience,
    );
    assert!(head.is_empty() || head.starts_with("HTTP/1.1 408 "), "{head}");
    let start = format!(
        "POST {PATH} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\ncontent-length: 100\r\n\r\n{{\"prompt\"",
        stack.key()
    );
    let body = raw(stack.address(), &[start.as_bytes()], Duration::ZERO, patience);
    assert!(body.starts_with("HTTP/1.1 408 "), "{body}");
    assert!(body.contains("request_timeout"), "{body}");
}
