//! Runs jobs: takes a claimed completion through the dispatcher, records its tokens in coalesced
//! events, shows them live, and gives the result.
//!
//! It must not know HTTP, or how jobs are claimed and retried.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aisemble_jobs::{
    ClaimedJob, EventSink, Executor, JobContext, JobFailure, JobFuture, JobsError,
};
use aisemble_protocol::completion::{CompletionRequest, CompletionResult};
use aisemble_protocol::v1::generate_event::Event;
use aisemble_protocol::{ApiError, ErrorCode, v1};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::app::transcript::Transcript;
use crate::app::{COMPLETION_KIND, now_ms};
use crate::dispatch::{self, Call, Class, Dispatch, Generation};
use crate::live::{Feed, Live};
use crate::trace::Trace;

/// Shortest time between two recorded token events of a job.
const TOKENS_EVENT_INTERVAL: Duration = Duration::from_millis(100);
/// The scheduler is who says that a job has expired; the call to the service ends a little later,
/// should nobody have ended it by then.
const EXPIRY_SLACK: Duration = Duration::from_secs(5);
/// Tokens that may wait to be recorded.
const TOKENS_WAITING_MAX: usize = 4_096;

/// Runs the jobs of every capability.
#[derive(Debug)]
pub struct DispatchExecutor {
    dispatch: Arc<Dispatch>,
    live: Live,
    generation_max: Duration,
}

impl DispatchExecutor {
    /// An executor that gives an attempt without a deadline `generation_max`.
    #[must_use]
    pub fn new(dispatch: Arc<Dispatch>, live: Live, generation_max: Duration) -> Self {
        Self { dispatch, live, generation_max }
    }

    async fn run(&self, job: ClaimedJob, context: JobContext) -> Result<Vec<u8>, JobFailure> {
        if job.kind != COMPLETION_KIND {
            let message = format!("this version does not know jobs of kind {}", job.kind);
            return Err(JobFailure::new(ErrorCode::Unprocessable, message));
        }
        let call = self.call(&job)?;
        let generation = tokio::select! {
            generation = self.begin(call) => generation?,
            () = context.cancel.cancelled() => return Err(cancelled()),
        };
        let feed = self.live.feed(job.id);
        feed.begin(job.attempt);
        let mut result = complete(generation, &feed, &context).await?;
        result.job_id = Some(job.id);
        serde_json::to_vec(&result)
            .map_err(|_| JobFailure::new(ErrorCode::Internal, "the result cannot be stored"))
    }

    fn call(&self, job: &ClaimedJob) -> Result<Call, JobFailure> {
        let request: CompletionRequest = serde_json::from_slice(&job.payload).map_err(|error| {
            let line = error.line();
            tracing::error!(job.id = %job.id, error.line = line, "a stored job is malformed");
            JobFailure::new(ErrorCode::Internal, "the stored job cannot be read")
        })?;
        let mut generate = request.to_generate()?;
        generate.job_id = job.id.to_string();
        generate.priority = job.priority.to_grpc().into();
        generate.owner.clone_from(&job.owner);
        let left = job.deadline_at_ms.map_or(self.generation_max, |at_ms| {
            let left = Duration::from_millis(at_ms.saturating_sub(now_ms()));
            left.saturating_add(EXPIRY_SLACK).min(self.generation_max)
        });
        Ok(Call {
            request: generate,
            class: Class::Job,
            trace: Trace::continuing(job.trace_parent.as_deref()),
            deadline: dispatch::deadline_in(left),
        })
    }

    /// Sends the call. The scheduler claims what there is room for; when somebody else was faster,
    /// the job waits here for the next room.
    async fn begin(&self, call: Call) -> Result<Generation, ApiError> {
        let mut changes = self.dispatch.changes();
        loop {
            changes.borrow_and_update();
            match self.dispatch.generate(call.clone()).await {
                Err(error)
                    if error.code == ErrorCode::Overloaded && Instant::now() < call.deadline =>
                {
                    let deadline = call.deadline.into();
                    let pause = Duration::from_millis(error.retry_after_ms.unwrap_or(1_000));
                    tokio::select! {
                        _ = changes.changed() => {}
                        () = tokio::time::sleep(pause) => {}
                        () = tokio::time::sleep_until(deadline) => {}
                    }
                }
                begun => return begun,
            }
        }
    }
}

impl Executor for DispatchExecutor {
    fn free(&self, capability: &str) -> usize {
        self.dispatch.free(capability)
    }

    fn execute(&self, job: ClaimedJob, context: JobContext) -> JobFuture<'_> {
        Box::pin(self.run(job, context))
    }
}

fn cancelled() -> JobFailure {
    JobFailure::new(ErrorCode::Cancelled, "the job was cancelled")
}

/// Reads the generation to its end while its events are recorded beside it.
async fn complete(
    generation: Generation,
    feed: &Feed,
    context: &JobContext,
) -> Result<CompletionResult, JobFailure> {
    let (tokens, recorded) = mpsc::channel(TOKENS_WAITING_MAX);
    let lost = CancellationToken::new();
    let reading = async {
        tokio::select! {
            result = read(generation, feed, tokens) => result,
            () = context.cancel.cancelled() => Err(cancelled()),
            () = lost.cancelled() => Err(cancelled()),
        }
    };
    let (result, ()) = tokio::join!(reading, record(recorded, &context.events, &lost));
    result
}

/// What is to be recorded.
enum Record {
    Started(v1::Started),
    Token(String),
}

async fn read(
    mut generation: Generation,
    feed: &Feed,
    records: mpsc::Sender<Record>,
) -> Result<CompletionResult, JobFailure> {
    let mut transcript = Transcript::new();
    loop {
        let event = generation.next().await?;
        let record = match &event {
            Event::Started(started) => Record::Started(started.clone()),
            Event::Token(token) => {
                feed.push(&token.text);
                Record::Token(token.text.clone())
            }
            Event::Finished(finished) => {
                feed.push(&finished.text_tail);
                Record::Token(finished.text_tail.clone())
            }
        };
        // Nobody records any more once the lease is lost, and then nobody reads either.
        let _ = records.send(record).await;
        if let Some(result) = transcript.add(event) {
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
