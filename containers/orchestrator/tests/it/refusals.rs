//! Full and not ready: 429 and 503, each with when to come again.

use serde_json::json;

use crate::peer::Peer;
use crate::stack::{PATH, PATIENCE, Stack};

const CHAT: &str = "/v1/chat/completions";

#[tokio::test]
async fn without_a_service_who_waits_is_refused_and_who_does_not_is_kept() {
    let mut stack = Stack::start_with(|_| {}, None).await;
    let ready = stack.stranger().get("/ready").await;
    assert_eq!((ready.status, &ready.json["ready"]), (503, &json!(false)));
    assert_eq!(ready.json["capabilities"]["llm"]["ready"], false);
    assert_eq!(stack.stranger().get("/health").await.json, json!({"status": "ok"}));

    let body = json!({"prompt": "a"});
    let waiting = stack.admin.post(PATH, &[("prefer", "wait=5")], &body).await;
    waiting.check_problem(503, "unavailable", "does not take work now");
    waiting.retry_after_s();
    let streaming = stack.admin.post(PATH, &[("accept", "text/event-stream")], &body).await;
    streaming.check_problem(503, "unavailable", "does not take work now");
    let messages = json!({"messages": [{"role": "user", "content": "a"}]});
    let openai = stack.admin.post(CHAT, &[], &messages).await;
    assert_eq!((openai.status, &openai.json["error"]["type"]), (503, &json!("server_error")));
    openai.retry_after_s();

    let id = stack.submit(&body).await;
    assert_eq!(stack.admin.get(&format!("/jobs/{id}")).await.json["state"], "queued");
    stack.peer = Some(Peer::start(&stack.socket(), (1, 1)).await);
    stack.await_state(&id, "succeeded").await;
    assert_eq!(stack.stranger().get("/ready").await.status, 200);
}

#[tokio::test]
async fn a_service_that_says_it_is_not_ready_gets_nothing_and_its_models_stay_known() {
    let stack = Stack::start().await;
    stack.peer().unready().await;
    let body = json!({"prompt": "a"});
    stack
        .eventually("refused", async || {
            let answer = stack.admin.post("/v1/completions", &[], &body).await;
            answer.status == 503 && answer.retry_after_s() == 3
        })
        .await;
    let unknown = json!({"prompt": "a", "model": "gpt-9"});
    let answer = stack.admin.post(PATH, &[("prefer", "wait=5")], &unknown).await;
    answer.check_problem(404, "not_found", crate::peer::MODEL);
    let models = stack.admin.get("/v1/models").await;
    assert_eq!(models.json["data"][0]["ready"], false);
}

#[tokio::test]
async fn a_full_queue_of_jobs_is_429() {
    let small = |config: &mut aisemble_orchestrator::config::Config| {
        config.limits.queued_jobs_max = 3;
    };
    let stack = Stack::start_with(small, None).await;
    let body = json!({"prompt": "a"});
    for _ in 0..3 {
        stack.submit(&body).await;
    }
    let answer = stack.admin.post(PATH, &[], &body).await;
    answer.check_problem(429, "overloaded", "3 llm jobs wait");
    answer.retry_after_s();
    let page = stack.admin.get("/metrics").await.text;
    assert!(page.contains("aisemble_queue_depth{capability=\"llm\"} 3\n"), "{page}");
    assert!(page.contains("aisemble_errors_total{code=\"overloaded\"} 1\n"), "{page}");
}

#[tokio::test]
async fn a_full_service_is_429_and_has_room_again_when_a_call_ends() {
    let stack = Stack::start_with(|_| {}, Some((1, 1))).await;
    let body = json!({"prompt": "hold on"});
    let call = || {
        let (client, body) = (stack.admin.clone(), body.clone());
        tokio::spawn(async move { client.post("/v1/completions", &[], &body).await })
    };
    let held = [call(), call()];
    stack
        .eventually("both arrive", async || {
            stack.admin.get("/health").await;
            stack.peer().calls() == 2
        })
        .await;
    let full = stack.admin.post("/v1/completions", &[], &body).await;
    assert_eq!(full.status, 429, "{}", full.text);
    assert_eq!(full.json["error"]["type"], "rate_limit_error");
    assert_eq!(full.json["error"]["code"], "rate_limit_exceeded");
    full.retry_after_s();
    let job = stack.submit(&json!({"prompt": "a"})).await;
    let waiting = stack.admin.get(&format!("/jobs/{job}")).await;
    assert_eq!(waiting.json["state"], "queued", "a job waits in the store");
    stack.peer().let_go(100);
    for held in held {
        let answer = tokio::time::timeout(PATIENCE, held).await.unwrap().unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    stack.await_state(&job, "succeeded").await;
}

#[tokio::test]
async fn a_service_that_dies_in_a_call_is_503_or_an_error_in_the_stream() {
    let stack = Stack::start().await;
    let answer = stack.admin.post("/v1/completions", &[], &json!({"prompt": "die"})).await;
    assert_eq!(answer.status, 503, "{}", answer.text);
    answer.retry_after_s();

    let stack = Stack::start().await;
    let body = json!({"prompt": "die", "stream": true});
    let events = stack.admin.post_events("/v1/completions", &[], &body).await.rest().await;
    let last = events.last().unwrap().json();
    assert_eq!(last["error"]["code"], "service_unavailable", "{events:?}");
}

#[tokio::test]
async fn a_full_disk_is_507_and_what_was_accepted_stays() {
    let small = |config: &mut aisemble_orchestrator::config::Config| {
        config.store.bytes_max = 1_000_000;
    };
    let stack = Stack::start_with(small, None).await;
    let body = json!({"prompt": "a".repeat(100_000)});
    let mut accepted = Vec::new();
    let full = loop {
        let answer = stack.admin.post(PATH, &[], &body).await;
        if answer.status != 202 {
            break answer;
        }
        accepted.push(answer.json["id"].as_str().unwrap().to_owned());
    };
    full.check_problem(507, "storage_full", "full");
    assert!(!accepted.is_empty());
    for id in accepted {
        assert_eq!(stack.admin.get(&format!("/jobs/{id}")).await.json["state"], "queued");
    }
}
