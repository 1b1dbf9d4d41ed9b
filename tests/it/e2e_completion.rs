//! The main job as a user runs it: asynchronous, waited for, streamed, cancelled, replayed, and
//! through the official OpenAI client. Real processes, the real model.

use std::process::Command;
use std::time::Duration;

use aisemble_tests::stack::{Stack, shared};
use aisemble_tests::{cache, repository_root};
use serde_json::{Value, json};

const PATH: &str = "/ai/llm/completion";

fn capital_question() -> Value {
    json!({
        "messages": [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": "What is the capital of France?"},
        ],
        "max_tokens": 32,
        "temperature": 0,
    })
}

/// A completion that runs for a while: the model is kept from ending it.
fn long_story(tokens: u32) -> Value {
    json!({
        "prompt": "Once upon a time",
        "max_tokens": tokens,
        "ignore_eos": true,
        "seed": 7,
    })
}

fn submit(stack: &Stack, body: &Value) -> String {
    let answer = stack.client().post(PATH, &[], body);
    assert_eq!(answer.status, 202, "{}", answer.text);
    let id = answer.json["id"].as_str().unwrap().to_owned();
    assert_eq!(answer.header("location"), Some(format!("/jobs/{id}").as_str()));
    id
}

fn state(stack: &Stack, id: &str) -> String {
    let answer = stack.client().get(&format!("/jobs/{id}"));
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json["state"].as_str().unwrap().to_owned()
}

fn await_state(stack: &Stack, id: &str, wanted: &str) {
    stack.eventually(&format!("{id} is {wanted}"), Duration::from_secs(90), || {
        (state(stack, id) == wanted).then_some(())
    });
}

#[test]
fn a_waited_for_completion_answers_the_question() {
    let stack = shared();
    let answer = stack.client().post(PATH, &[("prefer", "wait=60")], &capital_question());
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert!(answer.json["text"].as_str().unwrap().contains("Paris"), "{}", answer.text);
    assert_eq!(answer.json["finish_reason"], "stop");
    assert_eq!(answer.json["model"], "smollm2-135m-instruct");
    let usage = &answer.json["usage"];
    let tokens = |name: &str| usage[name].as_u64().unwrap();
    assert_eq!(tokens("total_tokens"), tokens("prompt_tokens") + tokens("completion_tokens"));
    assert!(answer.header("x-request-id").is_some());
    let id = answer.json["job_id"].as_str().unwrap();
    let stored = stack.client().get(&format!("/jobs/{id}/result"));
    assert_eq!(stored.json["text"], answer.json["text"], "GET reads what was answered");
}

#[test]
fn an_asynchronous_completion_is_found_again_by_its_location() {
    let stack = shared();
    let id = submit(&stack, &capital_question());
    await_state(&stack, &id, "succeeded");
    let result = stack.client().get(&format!("/jobs/{id}/result"));
    assert_eq!(result.status, 200);
    assert!(result.json["text"].as_str().unwrap().contains("Paris"));
    let listed = stack.client().get("/jobs?state=succeeded&limit=200");
    let ids = listed.json["jobs"].as_array().unwrap();
    assert!(ids.iter().any(|job| job["id"] == id.as_str()), "{}", listed.text);
}

#[test]
fn the_same_seed_gives_the_same_text_whoever_else_is_served() {
    let stack = shared();
    let body = json!({"prompt": "The sea", "max_tokens": 24, "temperature": 1.0, "seed": 11});
    let texts: Vec<String> = std::thread::scope(|scope| {
        let ask = || {
            let answer = stack.client().post(PATH, &[("prefer", "wait=90")], &body);
            assert_eq!(answer.status, 200, "{}", answer.text);
            answer.json["text"].as_str().unwrap().to_owned()
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(texts.iter().all(|text| *text == texts[0]), "{texts:?}");
    let alone = stack.client().post(PATH, &[("prefer", "wait=90")], &body);
    assert_eq!(alone.json["text"].as_str(), Some(texts[0].as_str()));
}

#[test]
fn a_stream_gives_the_job_then_tokens_then_the_same_text_as_the_result() {
    let stack = shared();
    let mut body = capital_question();
    body["stream"] = json!(true);
    let events = stack
        .client()
        .events(PATH, &[], Some(&body), |event| event.name == "result" || event.name == "error");
    assert_eq!(events[0].name, "job");
    let id = events[0].json()["id"].as_str().unwrap().to_owned();
    let last = events.last().unwrap();
    assert_eq!(last.name, "result", "{last:?}");
    let tokens: String = events
        .iter()
        .filter(|event| event.name == "token")
        .map(|event| event.json()["text"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(tokens, last.json()["text"].as_str().unwrap());
    assert!(events.iter().filter(|event| event.name == "token").count() > 2);
    await_state(&stack, &id, "succeeded");
}

#[test]
fn events_can_be_read_again_from_any_number() {
    let stack = shared();
    let id = submit(&stack, &long_story(60));
    let path = format!("/jobs/{id}/events");
    let all = stack.client().events(&path, &[], None, |_| false);
    let numbers: Vec<u64> = all.iter().map(|event| event.id.parse().unwrap()).collect();
    let expected: Vec<u64> = (1..=numbers.len() as u64).collect();
    assert_eq!(numbers, expected, "numbered from 1 without gaps");
    assert_eq!(all.last().unwrap().json()["state"], "succeeded");
    let rest = stack.client().events(&path, &[("last-event-id", "2")], None, |_| false);
    assert_eq!(rest, all[2..], "the rest and nothing twice");
}

#[test]
fn a_cancelled_job_stops_and_says_so() {
    let stack = shared();
    let id = submit(&stack, &long_story(6000));
    await_state(&stack, &id, "running");
    let answer = stack.client().send("DELETE", &format!("/jobs/{id}"), &[], b"");
    assert!(matches!(answer.status, 200 | 202), "{}", answer.text);
    await_state(&stack, &id, "cancelled");
    let result = stack.client().get(&format!("/jobs/{id}/result"));
    assert_eq!(result.status, 409, "{}", result.text);
    let again = stack.client().send("DELETE", &format!("/jobs/{id}"), &[], b"");
    assert!(matches!(again.status, 200 | 409), "{}", again.text);
}

#[test]
fn an_idempotency_key_makes_one_job() {
    let stack = shared();
    let body = capital_question();
    let key = [("idempotency-key", "a-b-c-1"), ("prefer", "wait=60")];
    let first = stack.client().post(PATH, &key, &body);
    let second = stack.client().post(PATH, &key, &body);
    assert_eq!((first.status, second.status), (200, 200), "{}", second.text);
    assert_eq!(first.json["job_id"], second.json["job_id"]);
    assert_eq!(second.header("idempotency-replayed"), Some("true"));
    let other = stack.client().post(PATH, &key, &json!({"prompt": "something else"}));
    assert_eq!(other.status, 422, "{}", other.text);
}

#[test]
fn a_deadline_that_passes_expires_the_job() {
    let stack = shared();
    let mut body = long_story(6000);
    body["job"] = json!({"deadline_ms": 700});
    let id = submit(&stack, &body);
    await_state(&stack, &id, "expired");
}

#[test]
fn the_official_openai_client_works_against_it() {
    let stack = shared();
    let python = cache().join("openai-client/bin/python");
    assert!(python.exists(), "no OpenAI client: run scripts/test.sh");
    let output = Command::new(python)
        .arg(repository_root().join("tests/it/openai_client.py"))
        .env("OPENAI_BASE_URL", format!("http://{}/v1", stack.address()))
        .env("OPENAI_API_KEY", stack.key())
        .output()
        .unwrap();
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}\n{}", stack.log());
    assert!(out.ends_with("all calls as the specification says\n"), "{out}");
}

#[test]
fn the_metrics_page_tells_what_happened() {
    let stack = shared();
    let answer = stack.client().post(PATH, &[("prefer", "wait=60")], &capital_question());
    assert_eq!(answer.status, 200);
    let page = stack.client().get("/metrics");
    assert_eq!(page.status, 200);
    for name in [
        "aisemble_http_requests_total",
        "aisemble_jobs",
        "aisemble_tokens_total",
        "aisemble_time_to_first_token_seconds_bucket",
        "aisemble_sandbox",
        "gen_ai_server_request_duration_seconds_bucket",
        "gen_ai_server_time_per_output_token_seconds_bucket",
        "gen_ai_client_token_usage_bucket",
    ] {
        assert!(page.text.contains(name), "{name} is not in\n{}", page.text);
    }
}
