//! A request's way to the model and back: checks, windows, a queued job, its pieces as messages.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aisemble_batcher::{Lost, Reply};
use aisemble_protocol::v1::nlp_event::Event;
use aisemble_protocol::{ApiError, ErrorCode, v1};
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use tonic::Status;

use super::check::{Checked, Subjects, check};
use super::prepare::{Prepared, prepare};
use crate::host::Host;
use crate::model::Task;
use crate::serving::{Job, Piece};
use crate::tasks::assemble::{Assembly, Goal};
use crate::tasks::redact::Redaction;

/// Results of one message: their vectors and texts stay far below the largest message.
const RESULTS_PER_PART: usize = 256;

type Item = Result<v1::NlpEvent, Status>;

/// Checks and queues a request; the stream is its answer. Dropping the stream cancels it.
pub(super) async fn run(
    host: Arc<Host>,
    request: v1::NlpRequest,
    deadline: Option<Instant>,
) -> Result<BoxStream<'static, Item>, ApiError> {
    let since = Instant::now();
    let priority = v1::Priority::try_from(request.priority)
        .map_err(|_| ApiError::invalid("priority", "the priority is none that exists"))?;
    tracing::debug!(request.id = request.request_id, job.id = request.job_id, "asked");
    match check(request.task)? {
        Checked::Rules { redaction, texts } => rules(&host, redaction, texts, since).await,
        Checked::Model { task, goal, subjects } => {
            let order = Order { task, goal, subjects, model: request.model };
            let queued = order.queue(host, priority, deadline, since).await?;
            Ok(stream::unfold(Some(queued), next).boxed())
        }
    }
}

/// What a model is asked for.
struct Order {
    task: Task,
    goal: Goal,
    subjects: Subjects,
    model: String,
}

impl Order {
    async fn queue(
        self,
        host: Arc<Host>,
        priority: v1::Priority,
        deadline: Option<Instant>,
        since: Instant,
    ) -> Result<Answer, ApiError> {
        let index = host.pick(&self.model, self.task)?;
        // Before the costly part: a full queue is said at once.
        let permit = host.permit()?;
        let (models, engine) = (Arc::clone(&host.models), host.engine.clone());
        let (goal, subjects) = (self.goal, self.subjects);
        let gone = || ApiError::new(ErrorCode::Internal, "the model is not there");
        let work = move || {
            let model = models.get(index).ok_or_else(gone)?;
            prepare(model, &engine, goal, subjects)
        };
        let (goal, Prepared { inputs, places, subjects, tokens }) = host.apart(work).await?;
        let model = host.models.get(index).ok_or_else(gone)?;
        let assembly = Assembly::new(goal, model.labels.clone().into(), subjects, places);
        let started = v1::NlpStarted {
            model: model.name.clone(),
            sha256: model.sha256.clone(),
            texts: assembly.results() as u32,
            tokens: tokens as u32,
            windows: inputs.len() as u32,
        };
        let job = Job { model: index, windows: inputs, since };
        let reply = host.submit(permit, job, priority, deadline);
        let (queued, ready) = (Duration::ZERO, VecDeque::new());
        Ok(Answer { reply, assembly, started: Some(started), tokens, queued, ready })
    }
}

/// An answer that is being read. Dropping it drops the reply, which cancels the request.
struct Answer {
    reply: Reply<Piece>,
    assembly: Assembly,
    started: Option<v1::NlpStarted>,
    tokens: usize,
    queued: Duration,
    /// Messages that are made already.
    ready: VecDeque<Event>,
}

async fn next(answer: Option<Answer>) -> Option<(Item, Option<Answer>)> {
    let mut answer = answer?;
    loop {
        if let Some(event) = answer.ready.pop_front() {
            return Some((Ok(v1::NlpEvent { event: Some(event) }), Some(answer)));
        }
        match answer.reply.recv().await {
            Ok(Some(piece)) => answer.take(piece),
            Ok(None) => return None,
            Err(lost) => return Some((Err(refusal(lost).into()), None)),
        }
    }
}

impl Answer {
    fn take(&mut self, piece: Piece) {
        match piece {
            Piece::Started { queued } => {
                self.queued = queued;
                self.ready.extend(self.started.take().map(Event::Started));
            }
            Piece::Windows(outputs) => {
                self.ready.extend(parts(self.assembly.take(outputs)));
            }
            Piece::Finished { compute, batches } => {
                self.ready.push_back(Event::Finished(v1::NlpFinished {
                    tokens: self.tokens as u32,
                    queue_us: micros(self.queued),
                    compute_us: micros(compute),
                    batches,
                }));
            }
        }
    }
}

fn parts(results: Vec<v1::TextResult>) -> Vec<Event> {
    let parts = results.chunks(RESULTS_PER_PART);
    parts.map(|results| Event::Part(v1::NlpPart { results: results.to_vec() })).collect()
}

/// Redaction by rules and patterns: no model is asked.
async fn rules(
    host: &Host,
    redaction: Redaction,
    texts: Vec<String>,
    since: Instant,
) -> Result<BoxStream<'static, Item>, ApiError> {
    let started = v1::NlpStarted { texts: texts.len() as u32, ..v1::NlpStarted::default() };
    let work = move || {
        let begun = Instant::now();
        let results = texts.iter().enumerate().map(|(index, text)| v1::TextResult {
            index: index as u32,
            tokens: 0,
            windows: 0,
            result: Some(v1::text_result::Result::Redacted(redaction.apply(text, Vec::new()))),
        });
        Ok((results.collect::<Vec<_>>(), begun))
    };
    let (results, begun) = host.apart(work).await?;
    let finished = v1::NlpFinished {
        queue_us: micros(begun.saturating_duration_since(since)),
        compute_us: micros(begun.elapsed()),
        ..v1::NlpFinished::default()
    };
    let events = std::iter::once(Event::Started(started))
        .chain(parts(results))
        .chain(std::iter::once(Event::Finished(finished)));
    let events: Vec<Item> = events.map(|event| Ok(v1::NlpEvent { event: Some(event) })).collect();
    Ok(stream::iter(events).boxed())
}

fn refusal(lost: Lost) -> ApiError {
    match lost {
        Lost::Panicked => ApiError::new(ErrorCode::Internal, "the model failed on this request"),
        Lost::DeadlinePassed => ApiError::new(ErrorCode::Timeout, "the deadline passed"),
        Lost::Dropped => ApiError::new(ErrorCode::Cancelled, "cancelled"),
        Lost::TooLarge => {
            ApiError::new(ErrorCode::Unprocessable, "the request is larger than the model takes")
        }
        Lost::Stopped => ApiError::new(ErrorCode::Unavailable, "the models' service was stopped")
            .with_retry_after_ms(1000),
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
