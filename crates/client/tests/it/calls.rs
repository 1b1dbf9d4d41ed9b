//! Whole answers: retries, deadlines, errors, and what is sent.

use std::time::{Duration, Instant};

use aisemble_client::{Cancelled, Client, ClientConfig, ClientError, JobQuery, RetryPolicy};
use aisemble_protocol::completion::CompletionRequest;
use aisemble_protocol::{ErrorCode, JobState};
use serde_json::json;

use crate::server::{Reply, Server};

pub(crate) fn client(server: &Server) -> Client {
    let mut config = ClientConfig::new(&server.url, Some("ais_1".to_owned()));
    config.retry = RetryPolicy {
        attempts_max: 4,
        base: Duration::from_millis(1),
        cap: Duration::from_millis(5),
    };
    config.deadline = Duration::from_secs(20);
    Client::new(config).unwrap()
}

pub(crate) fn job(state: &str) -> serde_json::Value {
    json!({
        "id": "0197a0c0-0000-7000-8000-000000000001", "kind": "llm.completion", "state": state,
        "priority": "normal", "attempt": 0, "attempts_max": 3, "created_at_ms": 1, "event_seq": 1,
    })
}

pub(crate) fn result(text: &str) -> serde_json::Value {
    json!({
        "model": "m", "model_sha256": "00", "text": text, "finish_reason": "stop", "seed": 1,
        "usage": { "prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2 },
        "timings": {
            "queue_ms": 0.0, "prompt_ms": 1.0, "decode_ms": 1.0, "decode_tokens_per_s": 1.0,
        },
    })
}

pub(crate) fn block<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

fn problem(status: &'static str, code: &str, retry_after: Option<&'static str>) -> Reply {
    let mut headers = vec![("content-type", "application/problem+json")];
    headers.extend(retry_after.map(|seconds| ("retry-after", seconds)));
    let body = json!({ "detail": format!("it is {code}"), "code": code, "request_id": "r-7" });
    Reply::Answer(status, headers, body.to_string())
}

fn prompt() -> CompletionRequest {
    CompletionRequest { prompt: Some("a".into()), ..CompletionRequest::default() }
}

#[test]
fn a_refused_submission_is_repeated_with_the_same_key_and_body() {
    let server = Server::start(vec![
        problem("429 Too Many Requests", "overloaded", Some("0")),
        Reply::Silence,
        problem("503 Service Unavailable", "unavailable", None),
        Reply::json("202 Accepted", &job("queued")),
    ]);
    let view = block(client(&server).submit_completion(&prompt(), None)).unwrap();
    assert_eq!(view.state, JobState::Queued);
    let asked = server.asked();
    assert_eq!(asked.len(), 4);
    let key = asked[0].header("idempotency-key").unwrap();
    assert_eq!(key.len(), 32);
    for request in &asked {
        assert_eq!(request.line, "POST /ai/llm/completion HTTP/1.1");
        assert_eq!(request.header("idempotency-key"), Some(key));
        assert_eq!(request.header("authorization"), Some("Bearer ais_1"));
        assert_eq!(request.body, asked[0].body);
    }
}

#[test]
fn the_server_s_wish_is_met_and_a_wish_beyond_the_deadline_is_told_at_once() {
    let full = || problem("429 Too Many Requests", "overloaded", Some("1"));
    let server = Server::start(vec![full(), Reply::json("200 OK", &json!({"status": "ok"}))]);
    let begun = Instant::now();
    block(client(&server).health()).unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(1));

    let far = problem("503 Service Unavailable", "unavailable", Some("3600"));
    let server = Server::start(vec![far]);
    let begun = Instant::now();
    let error = block(client(&server).health()).unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(error.code(), Some(ErrorCode::Unavailable));
    assert_eq!(error.retry_after(), Some(Duration::from_secs(3600)));
}

#[test]
fn an_error_that_will_not_pass_is_not_repeated() {
    let server = Server::start(vec![problem("403 Forbidden", "forbidden", None)]);
    let error = block(client(&server).jobs(&JobQuery::default())).unwrap_err();
    assert_eq!(error.to_string(), "it is forbidden");
    let ClientError::Api { problem } = error else { panic!("{error:?}") };
    assert_eq!((problem.status, problem.request_id.as_deref()), (403, Some("r-7")));
    assert_eq!(server.asked().len(), 1);
}

#[test]
fn a_server_that_never_answers_meets_the_deadline() {
    let server = Server::start(vec![Reply::Hang]);
    let mut config = ClientConfig::new(&server.url, None);
    config.deadline = Duration::from_millis(200);
    let error = block(Client::new(config).unwrap().health()).unwrap_err();
    assert!(matches!(error, ClientError::Deadline { .. }), "{error:?}");
    assert_eq!(error.to_string(), "GET /health took longer than 200 ms");
}

#[test]
fn nobody_there_is_told_with_the_address() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut config = ClientConfig::new(format!("http://{port}/"), None);
    config.retry = RetryPolicy::NEVER;
    let error = block(Client::new(config).unwrap().health()).unwrap_err();
    assert!(matches!(error, ClientError::Connect { .. }), "{error:?}");
    assert_eq!(error.to_string(), format!("cannot connect to http://{port}"));
}

#[test]
fn waiting_gives_the_result_or_the_job_that_still_runs() {
    let server = Server::start(vec![
        Reply::json("200 OK", &result("Paris")),
        Reply::json("202 Accepted", &job("running")),
        Reply::json("200 OK", &json!({"text": "not a result"})),
    ]);
    let client = client(&server);
    let wait = Duration::from_secs(7);
    assert_eq!(block(client.complete(&prompt(), wait)).unwrap().unwrap().text, "Paris");
    assert_eq!(server.asked()[0].header("prefer"), Some("wait=7"));
    let view = block(client.complete(&prompt(), wait)).unwrap().unwrap_err();
    assert_eq!(view.state, JobState::Running);
    let error = block(client.complete(&prompt(), wait)).unwrap_err();
    assert!(matches!(error, ClientError::Decode { .. }), "{error:?}");
}

#[test]
fn not_ready_is_an_answer_and_cancelling_tells_what_it_did() {
    let loading = json!({ "ready": false, "capabilities": {
        "llm": { "ready": false, "detail": "the model is loading, 43 %" },
    }});
    let server = Server::start(vec![
        Reply::json("503 Service Unavailable", &loading),
        Reply::json("202 Accepted", &job("running")),
        Reply::json("200 OK", &job("cancelled")),
    ]);
    let client = client(&server);
    let ready = block(client.ready()).unwrap();
    assert!(!ready.ready);
    assert_eq!(ready.capabilities["llm"].sentence(), "the model is loading, 43 %");
    let id = "0197a0c0-0000-7000-8000-000000000001".parse().unwrap();
    assert!(matches!(block(client.cancel_job(id)).unwrap(), Cancelled::Asked(_)));
    assert!(matches!(block(client.cancel_job(id)).unwrap(), Cancelled::Now(_)));
    assert_eq!(server.asked()[2].line, format!("DELETE /jobs/{id} HTTP/1.1"));
}

#[test]
fn only_plain_urls_and_keys_are_taken() {
    for url in ["", "localhost:80", "https://a", "http://a/path", "http://a?x=1", "ftp://a"] {
        let made = Client::new(ClientConfig::new(url, None));
        assert!(matches!(made, Err(ClientError::Url { .. })), "{url}");
    }
    let key = Client::new(ClientConfig::new("http://a", Some("a\nb".into())));
    assert!(matches!(key, Err(ClientError::Key)));
    let config = ClientConfig::new("http://a", Some("ais_secret".into()));
    assert!(!format!("{config:?}").contains("secret"));
    assert!(!format!("{:?}", Client::new(config).unwrap()).contains("secret"));
}
