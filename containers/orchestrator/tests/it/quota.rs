//! Limits of a key: how often it may ask, and how many jobs it may have; and that a repeated
//! request is answered although there is no room for another.

use aisemble_protocol::keys::{KeyLimits, Scope};
use serde_json::json;

use crate::stack::{PATH, Stack};

#[tokio::test]
async fn a_key_that_asks_too_often_is_told_when_it_may_again() {
    let stack = Stack::start().await;
    let limits = KeyLimits { requests_per_minute: Some(3), open_jobs_max: None };
    let client = stack.limited_client(&[Scope::Llm, Scope::Jobs], limits);
    let body = json!({"prompt": "a"});
    for _ in 0..3 {
        assert_eq!(client.post(PATH, &[], &body).await.status, 202);
    }
    let refused = client.post(PATH, &[], &body).await;
    refused.check_problem(429, "overloaded", "3 requests a minute");
    assert!((10..=20).contains(&refused.retry_after_s()), "one every twenty seconds");
    let openai = client.post("/v1/completions", &[], &body).await;
    assert_eq!(
        (openai.status, &openai.json["error"]["code"]),
        (429, &json!("rate_limit_exceeded"))
    );
    assert_eq!(client.get("/jobs").await.status, 200, "looking is free");
    assert_eq!(stack.admin.post(PATH, &[], &body).await.status, 202, "other keys are not limited");
}

#[tokio::test]
async fn a_key_has_as_many_open_jobs_as_it_may() {
    let stack = Stack::start().await;
    let limits = KeyLimits { requests_per_minute: None, open_jobs_max: Some(2) };
    let client = stack.limited_client(&[Scope::Llm, Scope::Jobs], limits);
    let body = json!({"prompt": "hold on"});
    let first = client.post(PATH, &[("idempotency-key", "one")], &body).await;
    assert_eq!(client.post(PATH, &[], &body).await.status, 202);
    let full = client.post(PATH, &[], &body).await;
    full.check_problem(429, "overloaded", "2 jobs that have not ended");
    full.retry_after_s();
    let again = client.post(PATH, &[("idempotency-key", "one")], &body).await;
    assert_eq!((again.status, &again.json["id"]), (202, &first.json["id"]), "no new job");
    stack.peer().let_go(100);
    stack.await_state(first.json["id"].as_str().unwrap(), "succeeded").await;
    stack
        .eventually("room again", async || client.post(PATH, &[], &body).await.status == 202)
        .await;
}

#[tokio::test]
async fn a_repeated_request_is_answered_although_the_queue_is_full_or_the_service_gone() {
    let small = |config: &mut aisemble_orchestrator::config::Config| {
        config.limits.queued_jobs_max = 1;
    };
    let stack = Stack::start_with(small, None).await;
    let (body, key) = (json!({"prompt": "a"}), [("idempotency-key", "k")]);
    let first = stack.admin.post(PATH, &key, &body).await;
    assert_eq!(first.status, 202);
    stack.admin.post(PATH, &[], &body).await.check_problem(429, "overloaded", "1 llm jobs wait");
    let again = stack.admin.post(PATH, &key, &body).await;
    assert_eq!((again.status, again.header("idempotency-replayed")), (202, Some("true")));
    assert_eq!(again.json["id"], first.json["id"]);
    let waits = [("idempotency-key", "k"), ("prefer", "wait=1")];
    let waited = stack.admin.post(PATH, &waits, &body).await;
    assert_eq!((waited.status, &waited.json["id"]), (202, &first.json["id"]), "not 503");
    let other = stack.admin.post(PATH, &key, &json!({"prompt": "b"})).await;
    other.check_problem(422, "unprocessable", "different request");
}
