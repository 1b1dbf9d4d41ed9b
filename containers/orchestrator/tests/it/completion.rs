//! The main job: asynchronous, waited for, streamed, replayed, retried.

use serde_json::{Value, json};

use crate::peer::{MODEL, WORDS, text};
use crate::stack::{Event, PATH, Stack};

fn story() -> Value {
    json!({"prompt": "tell a story", "seed": 7})
}

fn tokens(events: &[Event]) -> String {
    let tokens = events.iter().filter(|event| event.name == "token");
    tokens.map(|event| event.json()["text"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn an_asynchronous_job_is_found_at_its_location() {
    let stack = Stack::start().await;
    let answer = stack.admin.post(PATH, &[], &story()).await;
    assert_eq!(answer.status, 202);
    let id = answer.json["id"].as_str().unwrap();
    let location = format!("/jobs/{id}");
    assert_eq!(answer.header("location"), Some(location.as_str()));
    assert_eq!(answer.json["kind"], "llm.completion");
    let job = stack.await_state(id, "succeeded").await;
    assert_eq!((&job["attempt"], &job["priority"]), (&json!(1), &json!("normal")));
    let result = stack.admin.get(&format!("{location}/result")).await;
    assert_eq!(result.status, 200);
    assert_eq!(result.json["job_id"], id);
    assert_eq!(result.json["text"], text(7, WORDS));
    assert_eq!(result.json["model"], MODEL);
    assert_eq!(result.json["finish_reason"], "stop");
    assert_eq!(result.json["seed"], 7);
    let usage = json!({"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8,
        "cached_tokens": 0});
    assert_eq!(result.json["usage"], usage);
}

#[tokio::test]
async fn a_waited_for_job_answers_with_its_result() {
    let stack = Stack::start().await;
    let answer = stack.admin.post(PATH, &[("prefer", "wait=20")], &story()).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.header("preference-applied"), Some("wait=20"));
    assert_eq!(answer.json["text"], text(7, WORDS));
    let id = answer.json["job_id"].as_str().unwrap();
    assert_eq!(answer.header("location"), Some(format!("/jobs/{id}").as_str()));
    let job = stack.admin.get(&format!("/jobs/{id}")).await;
    assert_eq!(job.json["priority"], "interactive");
}

#[tokio::test]
async fn a_wait_that_runs_out_answers_with_the_job() {
    let stack = Stack::start().await;
    let body = json!({"prompt": "hold on"});
    let answer = stack.admin.post(PATH, &[("prefer", "wait=1")], &body).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    let id = answer.json["id"].as_str().unwrap();
    stack.peer().let_go(100);
    stack.await_state(id, "succeeded").await;
}

#[tokio::test]
async fn a_failed_job_answers_with_its_error() {
    let stack = Stack::start().await;
    let body = json!({"prompt": "word ".repeat(300)});
    let answer = stack.admin.post(PATH, &[("prefer", "wait=20")], &body).await;
    answer.check_problem(422, "unprocessable", "the context has 200");
    assert_eq!(answer.header("x-should-retry"), Some("false"));
    let location = answer.header("location").unwrap();
    let result = stack.admin.get(&format!("{location}/result")).await;
    result.check_problem(422, "unprocessable", "the context has 200");
}

#[tokio::test]
async fn a_stream_gives_the_job_then_the_tokens_as_they_come_then_the_result() {
    let stack = Stack::start().await;
    let body = json!({"prompt": "hold on", "seed": 7, "stream": true});
    let mut events = stack.admin.post_events(PATH, &[], &body).await;
    let job = events.next().await.unwrap();
    assert_eq!(job.name, "job");
    let id = job.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(events.response_headers["location"], format!("/jobs/{id}").as_str());
    for index in 0..3_u32 {
        stack.peer().let_go(1);
        let token = events.next().await.unwrap();
        let expected = json!({"text": crate::peer::word(7, index), "index": index});
        assert_eq!((token.name.as_str(), token.json()), ("token", expected), "live");
    }
    stack.peer().let_go(100);
    let rest = events.rest().await;
    assert_eq!(tokens(&rest), [3, 4].map(|index| crate::peer::word(7, index)).concat());
    let result = rest.last().unwrap();
    assert_eq!(result.name, "result");
    assert_eq!(result.json()["text"], text(7, WORDS));
}

#[tokio::test]
async fn accept_asks_for_a_stream_too() {
    let stack = Stack::start().await;
    let events = stack.admin.post_events(PATH, &[("accept", "text/event-stream")], &story()).await;
    let events = events.rest().await;
    assert_eq!(events[0].name, "job");
    assert_eq!(tokens(&events), text(7, WORDS));
    assert_eq!(events.last().unwrap().name, "result");
}

#[tokio::test]
async fn a_stream_of_a_job_that_fails_ends_with_its_error() {
    let stack = Stack::start().await;
    let body = json!({"prompt": "word ".repeat(300), "stream": true});
    let events = stack.admin.post_events(PATH, &[], &body).await.rest().await;
    let error = events.last().unwrap();
    assert_eq!(error.name, "error");
    assert_eq!(error.json()["code"], "unprocessable");
    assert_eq!(error.json()["status"], 422);
}

#[tokio::test]
async fn a_service_that_dies_costs_an_attempt_and_nothing_else() {
    let stack = Stack::start().await;
    let body = json!({"prompt": "die once", "stream": true});
    let events = stack.admin.post_events(PATH, &[], &body).await.rest().await;
    let result = events.last().unwrap();
    assert_eq!(result.name, "result", "{events:?}");
    assert_eq!(tokens(&events), result.json()["text"].as_str().unwrap(), "no token twice");
    assert!(!events.iter().any(|event| event.name == "restart"), "the seed was kept");
    let id = result.json()["job_id"].as_str().unwrap().to_owned();
    let job = stack.admin.get(&format!("/jobs/{id}")).await.json;
    assert_eq!((&job["state"], &job["attempt"]), (&json!("succeeded"), &json!(2)));
    let events = stack.admin.events(&format!("/jobs/{id}/events"), &[]).await.rest().await;
    let retried = events.iter().find(|event| event.json()["state"] == "scheduled").unwrap();
    assert_eq!(retried.json()["error"]["code"], "unavailable", "why its first attempt failed");
}

#[tokio::test]
async fn a_key_makes_one_job_whether_it_runs_or_has_ended() {
    let stack = Stack::start().await;
    let key = [("idempotency-key", "k-1")];
    let body = json!({"prompt": "hold on"});
    let first = stack.admin.post(PATH, &key, &body).await;
    assert_eq!((first.status, first.header("idempotency-replayed")), (202, None));
    let running = stack.admin.post(PATH, &key, &body).await;
    assert_eq!((running.status, running.header("idempotency-replayed")), (202, Some("true")));
    assert_eq!(running.json["id"], first.json["id"]);
    stack.peer().let_go(100);
    let waited = [("idempotency-key", "k-1"), ("prefer", "wait=20")];
    let ended = stack.admin.post(PATH, &waited, &body).await;
    assert_eq!((ended.status, ended.header("idempotency-replayed")), (200, Some("true")));
    assert_eq!(ended.json["job_id"], first.json["id"]);
    assert_eq!(stack.peer().calls(), 1, "the replays ran nothing");
    let other = stack.admin.post(PATH, &key, &json!({"prompt": "else"})).await;
    other.check_problem(422, "unprocessable", "different request");
    let elsewhere = stack.client(&[aisemble_protocol::keys::Scope::Llm]);
    let theirs = elsewhere.post(PATH, &key, &json!({"prompt": "else"})).await;
    assert_eq!(theirs.status, 202, "keys are within one owner");
}

#[tokio::test]
async fn many_with_the_same_key_at_once_make_one_job() {
    let stack = Stack::start().await;
    let same = || stack.admin.post(PATH, &[("idempotency-key", "k-2")], &SAME);
    let answers = futures_util::future::join_all((0..16).map(|_| same())).await;
    let ids: std::collections::BTreeSet<String> =
        answers.iter().map(|answer| answer.json["id"].to_string()).collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    let made = answers.iter().filter(|a| a.header("idempotency-replayed").is_none()).count();
    assert_eq!(made, 1);
}

static SAME: std::sync::LazyLock<Value> = std::sync::LazyLock::new(story);

#[tokio::test]
async fn a_trace_goes_from_the_client_to_the_service() {
    let stack = Stack::start().await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let headers = [("traceparent", trace), ("x-request-id", "mine-1"), ("prefer", "wait=20")];
    let answer = stack.admin.post(PATH, &headers, &story()).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("x-request-id"), Some("mine-1"));
    assert_eq!(answer.header("traceparent").unwrap()[..35], trace[..35]);
    let seen = stack.peer().traces();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0][..35], trace[..35]);
}
