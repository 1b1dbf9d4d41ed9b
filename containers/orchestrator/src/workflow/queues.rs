//! What operators ask of queues, and dead letters: pause, resume, retry.

use std::collections::BTreeMap;

use aisemble_jobs::{JobState, JobView, NewJob};
use aisemble_protocol::workflow::WorkflowRequest;
use aisemble_protocol::{ApiError, ErrorCode, JobId};
use serde::Serialize;
use utoipa::ToSchema;

use super::desk::Desk;
use super::{CHUNKS, STEPS, WORKFLOW_KIND, WORKFLOWS};
use crate::app::{Caller, Origin, store_error};
use crate::capability::Capability;

/// A queue: the jobs of one capability.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Queue {
    /// Its name.
    pub capability: String,
    /// None of its jobs begins.
    pub paused: bool,
    /// Jobs that wait for other jobs.
    pub pending: u64,
    /// Jobs that wait for their time.
    pub scheduled: u64,
    /// Jobs that wait for room.
    pub queued: u64,
    /// Jobs that run.
    pub running: u64,
    /// How long the first of those that wait for room has, milliseconds.
    pub oldest_ms: u64,
}

fn names() -> impl Iterator<Item = &'static str> {
    Capability::ALL.into_iter().map(Capability::as_str).chain([WORKFLOWS, STEPS, CHUNKS])
}

impl Desk {
    /// Every queue.
    ///
    /// # Errors
    /// The store's.
    pub async fn queues(&self) -> Result<Vec<Queue>, ApiError> {
        let jobs = &self.engine.jobs;
        let depth = jobs.depth().await.map_err(|error| store_error(&error))?;
        let paused = jobs.store().paused().await.map_err(|error| store_error(&error))?;
        let mut all: BTreeMap<String, Queue> = BTreeMap::new();
        for name in names() {
            all.entry(name.to_owned()).or_default();
        }
        for entry in depth.entries {
            let queue = all.entry(entry.capability).or_default();
            match entry.state {
                JobState::Pending => queue.pending = entry.count,
                JobState::Scheduled => queue.scheduled = entry.count,
                JobState::Queued => {
                    (queue.queued, queue.oldest_ms) = (entry.count, entry.oldest_ms);
                }
                JobState::Running => queue.running = entry.count,
                JobState::Succeeded
                | JobState::Failed
                | JobState::Cancelled
                | JobState::Expired => {}
            }
        }
        for name in paused {
            all.entry(name).or_default().paused = true;
        }
        let named = |(capability, queue)| Queue { capability, ..queue };
        Ok(all.into_iter().map(named).collect())
    }

    /// Pauses a queue, or lets it go on; gives all queues.
    ///
    /// # Errors
    /// `not_found`; the store's.
    pub async fn pause(
        &self,
        caller: &Caller,
        name: &str,
        paused: bool,
    ) -> Result<Vec<Queue>, ApiError> {
        if !names().any(|known| known == name) {
            let all: Vec<_> = names().collect();
            let message = format!("there is no such queue; there is {}", all.join(", "));
            return Err(ApiError::new(ErrorCode::NotFound, message));
        }
        let done = self.engine.jobs.store().pause(name.to_owned(), paused).await;
        done.map_err(|error| store_error(&error))?;
        tracing::info!(
            audit = true,
            queue.name = name,
            queue.paused = paused,
            key.id = caller.key_id,
            "a queue was paused or resumed"
        );
        self.queues().await
    }

    /// Submits a dead letter again: a new job with the same request. What it was is not changed; a
    /// workflow takes over what it had finished.
    ///
    /// # Errors
    /// `not_found`; `conflict` when the job has not failed, or is a part of another; the store's.
    pub async fn retry(&self, origin: &Origin, id: JobId) -> Result<JobView, ApiError> {
        let job = self.engine.jobs.get(id).await.map_err(|error| store_error(&error))?;
        let caller = &origin.caller;
        let job = job.filter(|job| caller.is_admin() || job.owner == caller.key_id);
        let missing = || ApiError::new(ErrorCode::NotFound, format!("there is no job {id}"));
        let job = job.ok_or_else(missing)?;
        if let Some(parent) = job.view.parent {
            let message = format!("the job is a part of job {parent}: retry that one");
            return Err(ApiError::new(ErrorCode::Conflict, message));
        }
        if !matches!(job.view.state, JobState::Failed | JobState::Expired) {
            let message =
                format!("the job is {}; only a failed one is retried", job.view.state.as_str());
            return Err(ApiError::new(ErrorCode::Conflict, message));
        }
        let payload = if job.view.kind == WORKFLOW_KIND {
            continuing(&job.payload, id)?
        } else {
            job.payload
        };
        let mut new = NewJob::new(&job.view.kind, &job.capability, &job.owner, payload);
        new.priority = job.view.priority;
        new.attempts_max = job.view.attempts_max;
        new.resumes = self.engine.free(&job.capability).is_some();
        new.metadata = job.view.metadata;
        new.trace_parent = Some(origin.trace.to_string());
        // The same retry asked twice is one.
        let again = id.child("retry");
        let submitted = self.engine.jobs.submit_as(again, new).await;
        let submitted = submitted.map_err(|error| store_error(&error))?;
        tracing::info!(job.id = %again, job.retry_of = %id, key.id = caller.key_id, "job retried");
        Ok(submitted.view().clone())
    }
}

/// The request of a workflow as one that continues the run `earlier`.
fn continuing(payload: &[u8], earlier: JobId) -> Result<Vec<u8>, ApiError> {
    let broken = |_| ApiError::new(ErrorCode::Internal, "the stored workflow cannot be read");
    let mut request: WorkflowRequest = serde_json::from_slice(payload).map_err(broken)?;
    request.continue_from = Some(earlier);
    serde_json::to_vec(&request).map_err(broken)
}
