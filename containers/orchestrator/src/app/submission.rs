//! What becomes of a request for work of any kind, without HTTP: checked, admitted, made durable,
//! and waited for.

use std::time::Duration;

use aisemble_jobs::{Idempotency, JobsError, NewJob, Submitted};
use aisemble_protocol::job::{JobView, Priority};
use aisemble_protocol::{ApiError, ErrorCode, FileId, JobId, JobState, limits};

use super::{App, Origin, admission, now_ms, store_error};
use crate::capability::Capability;
use crate::work::Work;

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
    NotYet(Box<JobView>),
    /// It ended otherwise; asking again does not help.
    Error(ApiError),
}

/// How the caller wants to learn of the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// It looks later: the job may wait for a service.
    Later,
    /// It waits: a service must be ready.
    Waits,
    /// It waits and follows what comes meanwhile.
    Follows,
}

impl App {
    /// Takes a request in as a job.
    ///
    /// # Errors
    /// What is wrong with the request; `not_found` for an unknown model; `unavailable` and
    /// `overloaded` with when to come again; `unprocessable` for a key that was used for another
    /// request, or when nobody here does such work; the store's.
    pub async fn submit<W: Work>(
        &self,
        origin: &Origin,
        request: W::Request,
        patience: Patience,
    ) -> Result<Accepted, ApiError> {
        W::check(&request)?;
        self.check_files::<W>(origin, &request).await?;
        let mut refused = None;
        if let Err(error) = W::resolve(&request, &self.dispatch) {
            if error.code != ErrorCode::Unavailable {
                return Err(error);
            }
            refused = (patience != Patience::Later).then_some(error);
        }
        let job = new_job::<W>(origin, request, patience)?;
        if refused.is_none() {
            refused = self.admit(W::CAPABILITY).await.err();
        }
        let accepted = match refused {
            None => self.make(job, W::CAPABILITY).await?,
            Some(error) => self.replay(&job, error).await?,
        };
        tracing::info!(
            job.id = %accepted.view.id,
            job.kind = W::KIND,
            job.replayed = accepted.replayed,
            key.id = origin.caller.key_id,
            "job accepted"
        );
        Ok(accepted)
    }

    /// Checks that the files are there: the job itself finds them anew.
    async fn check_files<W: Work>(
        &self,
        origin: &Origin,
        request: &W::Request,
    ) -> Result<(), ApiError> {
        for (param, id) in W::files(request) {
            let shown: String = id.chars().take(64).collect();
            let unknown = || {
                let message = format!("{param}: there is no file {shown}");
                ApiError::new(ErrorCode::NotFound, message).with_param(&param)
            };
            let id: FileId = id.parse().map_err(|_| unknown())?;
            let found = self.files.open_blob(&origin.caller.key_id, id).await;
            found.map_err(
                |error| {
                    if error.code == ErrorCode::NotFound { unknown() } else { error }
                },
            )?;
        }
        Ok(())
    }

    async fn make(&self, job: NewJob, capability: Capability) -> Result<Accepted, ApiError> {
        let submitted = self.jobs.submit(job).await.map_err(|error| {
            let public = store_error(&error);
            if matches!(error, JobsError::OwnerFull { .. }) {
                return public.with_retry_after_ms(self.dispatch.retry_after_ms(capability, 1));
            }
            public
        })?;
        Ok(match submitted {
            Submitted::Created(view) => Accepted { view, replayed: false },
            Submitted::Existing(view) => Accepted { view, replayed: true },
        })
    }

    /// The job that the same key made before, which is given even when there is no room for
    /// another; else the refusal.
    async fn replay(&self, job: &NewJob, refusal: ApiError) -> Result<Accepted, ApiError> {
        let Some(idempotency) = &job.idempotency else { return Err(refusal) };
        let found = self.jobs.replay(&job.owner, idempotency).await;
        let view = found.map_err(|error| store_error(&error))?.ok_or(refusal)?;
        Ok(Accepted { view, replayed: true })
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
                return Ok(Ended::NotYet(Box::new(view)));
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

fn new_job<W: Work>(
    origin: &Origin,
    mut request: W::Request,
    patience: Patience,
) -> Result<NewJob, ApiError> {
    // Somebody who waits goes first, unless the request says otherwise.
    let unsaid = if patience == Patience::Later { Priority::Normal } else { Priority::Interactive };
    let priority = W::options(&request).map_or(unsaid, |job| job.priority);
    let options = W::options(&request).cloned().unwrap_or_default();
    admission::check_options(&options)?;
    // How the answer is to be delivered does not make it another request.
    W::set_streams(&mut request, false);
    let idempotency = match &origin.idempotency_key {
        None => None,
        Some(key) => {
            Some(Idempotency { key: key.clone(), fingerprint: fingerprint::<W>(&request)? })
        }
    };
    W::settle(&mut request);
    W::set_streams(&mut request, patience == Patience::Follows);
    let payload = encode::<W>(&request)?;
    let mut job = NewJob::new(W::KIND, W::CAPABILITY.as_str(), &origin.caller.key_id, payload);
    job.priority = priority;
    job.needs = options.needs;
    job.deadline_at_ms = options.deadline_ms.map(|ms| now_ms().saturating_add(ms));
    job.attempts_max = options.attempts_max.unwrap_or(job.attempts_max);
    job.idempotency = idempotency;
    job.open_jobs_max = origin.caller.limits.open_jobs_max;
    job.metadata = options.metadata;
    job.trace_parent = Some(origin.trace.to_string());
    Ok(job)
}

fn fingerprint<W: Work>(request: &W::Request) -> Result<[u8; 32], ApiError> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(W::KIND.as_bytes()).update(&[0]).update(&encode::<W>(request)?);
    Ok(*hasher.finalize().as_bytes())
}

fn encode<W: Work>(request: &W::Request) -> Result<Vec<u8>, ApiError> {
    serde_json::to_vec(request)
        .map_err(|_| ApiError::new(ErrorCode::Internal, "the request cannot be stored"))
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
