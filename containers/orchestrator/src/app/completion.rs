//! `POST /ai/llm/completion` without HTTP: check, admit, make the job durable, wait for it.

use std::time::Duration;

use aisemble_jobs::{Idempotency, NewJob, Submitted};
use aisemble_protocol::completion::CompletionRequest;
use aisemble_protocol::job::{JobView, Priority};
use aisemble_protocol::{ApiError, ErrorCode, JobId, JobState, limits, v1};
use uuid::Uuid;

use super::{App, Origin, admission, now_ms, store_error};
use crate::dispatch::LLM;

/// Kind of the job that makes a completion.
pub(crate) const KIND: &str = "llm.completion";

/// A job that was taken in: it is durable.
#[derive(Debug, Clone, PartialEq)]
pub struct Accepted {
    /// The job.
    pub view: JobView,
    /// An earlier request with the same key made it.
    pub replayed: bool,
}

/// What a job has come to.
#[derive(Debug, Clone, PartialEq)]
pub enum Ended {
    /// Its result, JSON.
    Result(Vec<u8>),
    /// It has not ended.
    NotYet(JobView),
    /// It ended otherwise; asking again does not help.
    Error(ApiError),
}

impl App {
    /// Takes a completion in as a job. `now` says that somebody waits for it: then a service must
    /// be ready; without, the job may wait for one.
    ///
    /// # Errors
    /// What is wrong with the request; `not_found` for an unknown model; `unavailable` and
    /// `overloaded` with when to come again; `unprocessable` for a key that was used for another
    /// request; the store's.
    pub async fn submit_completion(
        &self,
        origin: &Origin,
        request: CompletionRequest,
        now: bool,
    ) -> Result<Accepted, ApiError> {
        let generate = request.to_generate()?;
        match self.dispatch.resolve(request.model.as_deref()) {
            Ok(model) => check_against(&generate, &model)?,
            Err(error) if error.code == ErrorCode::Unavailable && !now => {}
            Err(error) => return Err(error),
        }
        let job = new_job(origin, request, now)?;
        self.admit(LLM).await?;
        let submitted = self.jobs.submit(job).await.map_err(|error| store_error(&error))?;
        let accepted = match submitted {
            Submitted::Created(view) => Accepted { view, replayed: false },
            Submitted::Existing(view) => Accepted { view, replayed: true },
        };
        tracing::info!(
            job.id = %accepted.view.id,
            job.kind = KIND,
            job.replayed = accepted.replayed,
            key.id = origin.caller.key_id,
            "job accepted"
        );
        Ok(accepted)
    }

    /// Waits until the job has ended, `timeout` is over, or the orchestrator stops.
    ///
    /// # Errors
    /// The store's.
    pub async fn wait(&self, id: JobId, timeout: Duration) -> Result<Ended, ApiError> {
        let waited = tokio::select! {
            waited = self.jobs.wait(id, timeout) => waited,
            () = self.closing.cancelled() => self.jobs.wait(id, Duration::ZERO).await,
        };
        let view = waited.map_err(|error| store_error(&error))?;
        self.ended(view).await
    }

    /// What a job of that view has come to.
    pub(super) async fn ended(&self, view: JobView) -> Result<Ended, ApiError> {
        let error = match view.state {
            JobState::Pending | JobState::Scheduled | JobState::Queued | JobState::Running => {
                return Ok(Ended::NotYet(view));
            }
            JobState::Succeeded => {
                let result = self.jobs.result(view.id).await.map_err(|e| store_error(&e))?;
                let gone = || ApiError::new(ErrorCode::NotFound, "the result is no longer kept");
                return result.map(Ended::Result).ok_or_else(gone);
            }
            JobState::Cancelled => ApiError::new(ErrorCode::Cancelled, "the job was cancelled"),
            JobState::Expired => ApiError::new(ErrorCode::Timeout, "the job's deadline passed"),
            JobState::Failed => match view.error {
                Some(error) => ApiError::new(error.code, error.message),
                None => ApiError::new(ErrorCode::Internal, "the job failed"),
            },
        };
        Ok(Ended::Error(error))
    }
}

/// Checks a request against the limits of the model that is to answer it.
pub(super) fn check_against(
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

fn new_job(origin: &Origin, mut request: CompletionRequest, now: bool) -> Result<NewJob, ApiError> {
    // Somebody who waits goes first, unless the request says otherwise.
    let unsaid = if now { Priority::Interactive } else { Priority::Normal };
    let priority = request.job.as_ref().map_or(unsaid, |job| job.priority);
    let options = request.job.clone().unwrap_or_default();
    admission::check_options(&options)?;
    let idempotency = match &origin.idempotency_key {
        None => None,
        Some(key) => Some(Idempotency { key: key.clone(), fingerprint: fingerprint(&request)? }),
    };
    // A retry then says the same again, and whoever reads the tokens sees no break.
    request.seed.get_or_insert_with(drawn_seed);
    let payload = encode(&request)?;
    let mut job = NewJob::new(KIND, LLM, &origin.caller.key_id, payload);
    job.priority = priority;
    job.needs = options.needs;
    job.deadline_at_ms = options.deadline_ms.map(|ms| now_ms().saturating_add(ms));
    job.attempts_max = options.attempts_max.unwrap_or(job.attempts_max);
    job.idempotency = idempotency;
    job.metadata = options.metadata;
    job.trace_parent = Some(origin.trace.to_string());
    Ok(job)
}

/// What makes two requests the same: everything but how the answer is to be delivered.
fn fingerprint(request: &CompletionRequest) -> Result<[u8; 32], ApiError> {
    let same = CompletionRequest { stream: false, ..request.clone() };
    let mut hasher = blake3::Hasher::new();
    hasher.update(KIND.as_bytes()).update(&[0]).update(&encode(&same)?);
    Ok(*hasher.finalize().as_bytes())
}

fn encode(request: &CompletionRequest) -> Result<Vec<u8>, ApiError> {
    serde_json::to_vec(request)
        .map_err(|_| ApiError::new(ErrorCode::Internal, "the request cannot be stored"))
}

/// A seed below 2^53, so that every JSON reader gives it back as it was.
fn drawn_seed() -> u64 {
    let (high, _) = Uuid::new_v4().as_u64_pair();
    high >> 11
}

/// Checks an idempotency key's text.
///
/// # Errors
/// `invalid_request` when it is empty, too long, or not visible ASCII.
pub fn check_idempotency_key(key: &str) -> Result<(), ApiError> {
    let max = limits::IDEMPOTENCY_KEY_BYTES_MAX;
    let visible = key.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    if key.is_empty() || key.len() > max || !visible {
        let message = format!("Idempotency-Key must be 1 to {max} visible ASCII characters");
        return Err(ApiError::invalid("Idempotency-Key", message));
    }
    Ok(())
}
