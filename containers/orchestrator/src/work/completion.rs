//! Completions: a generation read to its end, its tokens recorded in coalesced events and shown
//! live.

use std::sync::Arc;
use std::time::Duration;

use aisemble_jobs::{EventSink, JobFailure, JobsError};
use aisemble_protocol::completion::{CompletionRequest, CompletionResult, RedactOutput};
use aisemble_protocol::job::JobOptions;
use aisemble_protocol::nlp::{NlpTask as _, RedactRequest};
use aisemble_protocol::v1::generate_event::Event;
use aisemble_protocol::{ApiError, ErrorCode, v1};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::attempt::cancelled;
use super::{Attempt, Work, nlp, stream_field};
use crate::app::transcript::{Transcript, collect};
use crate::capability::Capability;
use crate::dispatch::{Dispatch, Generation};
use crate::live::Feed;

/// Shortest time between two recorded token events of a job.
const TOKENS_EVENT_INTERVAL: Duration = Duration::from_millis(100);
/// Tokens that may wait to be recorded.
const TOKENS_WAITING_MAX: usize = 4_096;

/// A completion by a language model.
#[derive(Debug)]
pub struct Completion;

impl Work for Completion {
    const KIND: &'static str = "llm.completion";
    const CAPABILITY: Capability = Capability::Llm;
    type Request = CompletionRequest;
    type Answer = CompletionResult;

    stream_field!();

    fn options(request: &CompletionRequest) -> Option<&JobOptions> {
        request.job.as_ref()
    }

    fn check(request: &CompletionRequest) -> Result<(), ApiError> {
        request.to_generate().map(drop)
    }

    fn resolve(request: &CompletionRequest, dispatch: &Dispatch) -> Result<(), ApiError> {
        let model = dispatch.resolve(Self::CAPABILITY, request.model.as_deref(), None)?;
        if let Some(redact) = &request.redact {
            dispatch.resolve_nlp::<RedactRequest>(&redact.to_request("-").to_run()?)?;
        }
        check_against(&request.to_generate()?, &model)
    }

    fn settle(request: &mut CompletionRequest) {
        // A retry then says the same again, and whoever reads the tokens sees no break.
        request.seed.get_or_insert_with(drawn_seed);
    }

    async fn run(
        attempt: Attempt,
        request: CompletionRequest,
    ) -> Result<CompletionResult, JobFailure> {
        let mut generate = request.to_generate()?;
        let offer = request.offer()?.map(Arc::new);
        generate.job_id = attempt.id.to_string();
        generate.priority = attempt.priority.to_grpc().into();
        let call = attempt.call(generate);
        let dispatch = &attempt.bench.dispatch;
        let generation = attempt.patiently(|| dispatch.generate(call.clone())).await?;
        if let Some(redact) = &request.redact {
            let result = attempt.unless_cancelled(collect(generation, None)).await?;
            return redacted(&attempt, redact, result).await;
        }
        let feed = attempt.bench.live.feed(attempt.id);
        feed.begin(attempt.number);
        complete((generation, Transcript::new(offer)), &feed, &attempt).await
    }
}

/// The completion without what is to be hidden. When that cannot be found out, there is none.
async fn redacted(
    attempt: &Attempt,
    redact: &RedactOutput,
    mut result: CompletionResult,
) -> Result<CompletionResult, JobFailure> {
    if result.text.is_empty() {
        result.redactions = Some(Vec::new());
        return Ok(result);
    }
    let request = redact.to_request(&result.text);
    let mut run = request.to_run()?;
    run.job_id = attempt.id.to_string();
    run.priority = attempt.priority.to_grpc().into();
    let (dispatch, call) = (&attempt.bench.dispatch, attempt.call(run));
    let flow = attempt.patiently(|| nlp::start::<RedactRequest>(dispatch, call.clone())).await?;
    let answer = attempt.unless_cancelled(nlp::collect(&request, flow)).await?;
    let hidden = answer.results.into_iter().next().ok_or_else(|| {
        JobFailure::new(ErrorCode::Internal, "the service answered no text to redact")
    })?;
    result.text = hidden.text;
    result.redactions = Some(hidden.spans);
    Ok(result)
}

/// Checks a request against the limits of the model that is to answer it.
///
/// # Errors
/// `invalid_request` when it asks for more tokens than the model gives.
pub(crate) fn check_against(
    request: &v1::GenerateRequest,
    model: &v1::ModelInfo,
) -> Result<(), ApiError> {
    let max = model.limits.map_or(u32::MAX, |limits| limits.output_tokens_max);
    if request.max_tokens > max && max > 0 {
        let (given, name) = (request.max_tokens, &model.name);
        let message = format!("max_tokens is {given}; model {name} gives at most {max}");
        return Err(ApiError::invalid("max_tokens", message));
    }
    Ok(())
}

/// A seed below 2^53, so that every JSON reader gives it back as it was.
fn drawn_seed() -> u64 {
    let (high, _) = Uuid::new_v4().as_u64_pair();
    high >> 11
}

/// Reads the generation to its end while its events are recorded beside it.
async fn complete(
    begun: (Generation, Transcript),
    feed: &Feed,
    attempt: &Attempt,
) -> Result<CompletionResult, JobFailure> {
    let (tokens, recorded) = mpsc::channel(TOKENS_WAITING_MAX);
    let lost = CancellationToken::new();
    let reading = async {
        tokio::select! {
            result = read(begun, feed, tokens) => result,
            () = attempt.cancel.cancelled() => Err(cancelled()),
            () = lost.cancelled() => Err(cancelled()),
        }
    };
    let (result, ()) = tokio::join!(reading, record(recorded, &attempt.events, &lost));
    result
}

/// What is to be recorded.
enum Record {
    Started(v1::Started),
    Token(String),
}

async fn read(
    (mut generation, mut transcript): (Generation, Transcript),
    feed: &Feed,
    records: mpsc::Sender<Record>,
) -> Result<CompletionResult, JobFailure> {
    loop {
        let event = generation.next().await?;
        let started = match &event {
            Event::Started(started) => Some(started.clone()),
            Event::Token(_) | Event::Finished(_) => None,
        };
        let result = transcript.add(event);
        let record = match started {
            Some(started) => Record::Started(started),
            None => {
                let words = transcript.words();
                feed.push(&words);
                Record::Token(words)
            }
        };
        // Nobody records any more once the lease is lost, and then nobody reads either.
        let _ = records.send(record).await;
        if let Some(result) = result {
            return Ok(result);
        }
    }
}

/// Records until the reader is done: tokens together, at most one event in each interval.
async fn record(mut records: mpsc::Receiver<Record>, events: &EventSink, lost: &CancellationToken) {
    while let Some(first) = records.recv().await {
        let (kind, data) = match first {
            Record::Started(started) => ("started", started_event(&started)),
            Record::Token(text) => {
                let (text, count) = gather(text, &mut records).await;
                if text.is_empty() {
                    continue;
                }
                ("tokens", json!({"text": text, "count": count}))
            }
        };
        match events.emit(kind, data).await {
            Ok(_) => {}
            Err(JobsError::LeaseLost { .. }) => {
                lost.cancel();
                return;
            }
            // The text is in the result all the same.
            Err(error) => tracing::debug!("an event of a job was not recorded: {error}"),
        }
    }
}

/// The tokens of one interval. Started comes before all tokens, so none can be among them.
async fn gather(first: String, records: &mut mpsc::Receiver<Record>) -> (String, u32) {
    let (mut text, mut count) = (first, 1);
    let end = tokio::time::sleep(TOKENS_EVENT_INTERVAL);
    tokio::pin!(end);
    loop {
        tokio::select! {
            biased;
            () = &mut end => return (text, count),
            record = records.recv() => match record {
                Some(Record::Token(token)) => {
                    text.push_str(&token);
                    count += 1;
                }
                Some(Record::Started(_)) => {}
                None => return (text, count),
            },
        }
    }
}

fn started_event(started: &v1::Started) -> serde_json::Value {
    json!({
        "model": started.model,
        "model_sha256": started.sha256,
        "prompt_tokens": started.prompt_tokens,
        "cached_tokens": started.cached_tokens,
        "queue_ms": started.queue_us / 1_000,
        "seed": started.seed,
    })
}
