//! What happens at the limits: callers that leave, full queues, deadlines, readers that do not
//! read.

use std::time::Duration;

use aisemble_protocol::v1::generate_event::Event;
use aisemble_protocol::{ApiError, ErrorCode, v1};
use tonic::Streaming;

use crate::instance::{Instance, answer, prompt};

fn endless(max_tokens: u32) -> v1::GenerateRequest {
    v1::GenerateRequest { ignore_eos: true, ..prompt("Once upon a time", max_tokens) }
}

async fn begun(instance: &Instance, max_tokens: u32) -> Streaming<v1::GenerateEvent> {
    let mut stream = instance.llm().generate(endless(max_tokens)).await.unwrap().into_inner();
    loop {
        if let Event::Token(_) = stream.message().await.unwrap().unwrap().event.unwrap() {
            return stream;
        }
    }
}

/// Asks for the figures until they are as wanted; each question is a round trip, not a pause.
async fn stats_when(
    instance: &Instance,
    wanted: impl Fn(&v1::StatsResponse) -> bool,
) -> v1::StatsResponse {
    let patience = std::time::Instant::now() + Duration::from_secs(60);
    loop {
        let stats = instance.stats().await;
        if wanted(&stats) {
            return stats;
        }
        assert!(std::time::Instant::now() < patience, "it never came: {stats:?}");
    }
}

#[tokio::test]
async fn who_leaves_frees_his_place_and_costs_no_further_steps() {
    // Drafts would make fewer steps than tokens.
    let instance = Instance::serving(&["engine.draft_tokens_max=0"]);
    let stream = begun(&instance, 4000).await;
    drop(stream);
    let stats = stats_when(&instance, |stats| stats.requests_running == 0).await;
    // The step that sees it works on nobody, and is not counted.
    let steps = stats.steps_total;
    assert_eq!(stats.kv_tokens_used, 0);
    assert_eq!(stats.requests_cancelled_total, 1);
    // The steps from here on are those of the next caller: one for the prompt, which gives the
    // first token, and 39 more.
    let answered = answer(instance.llm(), endless(40)).await.unwrap();
    assert_eq!(answered.tokens.len(), 40);
    let after = stats_when(&instance, |stats| stats.steps_total >= steps + 40).await;
    assert_eq!(after.steps_total, steps + 40);
}

#[tokio::test]
async fn a_full_house_refuses_at_once_with_the_time_to_come_again() {
    let instance = Instance::serving(&["engine.batch_rows_max=1", "engine.queue_depth_max=1"]);
    let running = begun(&instance, 4000).await;
    let waiting = instance.llm().generate(endless(4)).await.unwrap().into_inner();
    let error = answer(instance.llm(), endless(4)).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Overloaded);
    assert!(error.message.contains("2 requests are running or waiting"), "{error:?}");
    let ms = error.retry_after_ms.unwrap();
    assert!((1000..=60_000).contains(&ms), "{ms}");
    drop(waiting);
    drop(running);
    stats_when(&instance, |stats| stats.requests_running + stats.requests_queued == 0).await;
    answer(instance.llm(), endless(4)).await.unwrap();
}

#[tokio::test]
async fn a_deadline_ends_the_answer() {
    let instance = Instance::serving(&[]);
    let mut request = tonic::Request::new(endless(8000));
    request.set_timeout(Duration::from_millis(300));
    let mut stream = instance.llm().generate(request).await.unwrap().into_inner();
    let error = loop {
        match stream.message().await {
            Ok(event) => assert!(event.is_some(), "an end without a word"),
            Err(status) => break ApiError::from(status),
        }
    };
    assert_eq!(error.code, ErrorCode::Timeout);
    let stats = stats_when(&instance, |stats| stats.requests_running == 0).await;
    assert_eq!(stats.kv_tokens_used, 0);
}
