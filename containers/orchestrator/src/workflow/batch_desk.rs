//! What callers ask of batches: submit, show, list, cancel.

use aisemble_jobs::store::EventsPage;
use aisemble_jobs::{Job, JobFilter, JobState, JobView, NewJob, Priority};
use aisemble_protocol::file::{FILE_EXPIRY_S_MAX, FILE_EXPIRY_S_MIN, Purpose};
use aisemble_protocol::job::JobEvent;
use aisemble_protocol::keys::Scope;
use aisemble_protocol::{ApiError, ErrorCode, FileId, JobId};

use super::batch::{Batch, BatchCounts, BatchList, BatchRequest, ENDPOINTS, Ending, Outcome};
use super::desk::Desk;
use super::{BATCH_KIND, WORKFLOWS};
use crate::app::{Caller, Origin, store_error};

/// How long lines may wait and run, seconds.
const WINDOW_S: u64 = 24 * 3_600;
/// What an id of a batch begins with.
const PREFIX: &str = "batch_";

fn not_found(id: &str) -> ApiError {
    let shown: String = id.chars().take(64).collect();
    ApiError::new(ErrorCode::NotFound, format!("there is no batch {shown}")).with_param("id")
}

fn read_id(text: &str) -> Result<JobId, ApiError> {
    let uuid = text.strip_prefix(PREFIX).ok_or_else(|| not_found(text))?;
    uuid.parse().map_err(|_| not_found(text))
}

impl Desk {
    /// Takes a batch in. It is durable when this returns.
    ///
    /// # Errors
    /// `invalid_request`, naming the field; `not_found` for the file; `forbidden`; the store's.
    pub async fn submit_batch(
        &self,
        origin: &Origin,
        request: BatchRequest,
    ) -> Result<Batch, ApiError> {
        if !ENDPOINTS.contains(&request.endpoint.as_str()) {
            let message = format!("endpoint is one of {}", ENDPOINTS.join(", "));
            return Err(ApiError::invalid("endpoint", message));
        }
        let scope = if request.endpoint == "/v1/embeddings" { Scope::Nlp } else { Scope::Llm };
        origin.caller.require(scope)?;
        if request.completion_window != "24h" {
            return Err(ApiError::invalid("completion_window", "completion_window must be 24h"));
        }
        if let Some(expiry) = &request.output_expires_after
            && (expiry.anchor != "created_at"
                || !(FILE_EXPIRY_S_MIN..=FILE_EXPIRY_S_MAX).contains(&expiry.seconds))
        {
            let message = format!(
                "output_expires_after takes the anchor created_at and {FILE_EXPIRY_S_MIN} to \
                 {FILE_EXPIRY_S_MAX} seconds"
            );
            return Err(ApiError::invalid("output_expires_after", message));
        }
        let missing = || {
            let message = "input_file_id is not the id of a file";
            ApiError::invalid("input_file_id", message)
        };
        let file: FileId = request.input_file_id.parse().map_err(|_| missing())?;
        let blob = self.engine.files.open_blob(&origin.caller.key_id, file).await;
        let blob = blob.map_err(|error| error.with_param("input_file_id"))?;
        if blob.view.purpose != Purpose::Batch {
            let message = "the input file must have been uploaded with the purpose batch";
            return Err(ApiError::invalid("input_file_id", message));
        }
        let payload = serde_json::to_vec(&request);
        let payload = payload
            .map_err(|_| ApiError::new(ErrorCode::Internal, "the batch cannot be stored"))?;
        let mut job = NewJob::new(BATCH_KIND, WORKFLOWS, &origin.caller.key_id, payload);
        job.priority = Priority::Batch;
        job.resumes = true;
        job.attempts_max = 3;
        job.trace_parent = Some(origin.trace.to_string());
        job.idempotency = origin.idempotency_key.as_ref().map(|key| aisemble_jobs::Idempotency {
            key: key.clone(),
            fingerprint: *blake3::hash(&job.payload).as_bytes(),
        });
        let submitted = self.engine.jobs.submit(job).await.map_err(|e| store_error(&e))?;
        let view = submitted.view().clone();
        tracing::info!(job.id = %view.id, key.id = origin.caller.key_id, "batch accepted");
        self.batch_of(&view, &request).await
    }

    /// The caller's batch.
    ///
    /// # Errors
    /// `not_found`; the store's.
    pub async fn batch(&self, caller: &Caller, id: &str) -> Result<Batch, ApiError> {
        let job = self.find_batch(caller, id).await?;
        self.batch_of(&job.view, &request_of(&job)?).await
    }

    /// A page of the caller's batches, newest first.
    ///
    /// # Errors
    /// `not_found` for an unknown `after`; the store's.
    pub async fn batches(
        &self,
        caller: &Caller,
        after: Option<&str>,
        limit: u32,
    ) -> Result<BatchList, ApiError> {
        let mut after = after.map(read_id).transpose()?;
        let owner = Some(caller.key_id.clone());
        let kind = Some(BATCH_KIND.to_owned());
        let mut filter = JobFilter { owner, kind, limit: 100, ..JobFilter::default() };
        let (mut data, mut has_more) = (Vec::new(), false);
        'pages: loop {
            let page = self.engine.jobs.list(filter.clone()).await;
            let page = page.map_err(|error| store_error(&error))?;
            for view in page.jobs {
                if let Some(wanted) = after {
                    if wanted == view.id {
                        after = None;
                    }
                    continue;
                }
                if data.len() == limit as usize {
                    has_more = true;
                    break 'pages;
                }
                let job = self.engine.jobs.get(view.id).await.map_err(|e| store_error(&e))?;
                if let Some(job) = job {
                    data.push(self.batch_of(&job.view, &request_of(&job)?).await?);
                }
            }
            filter.cursor = page.next_cursor;
            if filter.cursor.is_none() {
                break;
            }
        }
        let id = |batch: &Batch| batch.id.clone();
        let (first_id, last_id) = (data.first().map(id), data.last().map(id));
        Ok(BatchList { object: "list", data, first_id, last_id, has_more })
    }

    /// Cancels the caller's batch: what is done stays, the rest is not begun.
    ///
    /// # Errors
    /// `not_found`; `conflict` when it has ended; the store's.
    pub async fn cancel_batch(&self, caller: &Caller, id: &str) -> Result<Batch, ApiError> {
        let job = self.find_batch(caller, id).await?;
        if job.view.state.is_final() {
            let status = self.batch_of(&job.view, &request_of(&job)?).await?.status;
            let message = format!("the batch has ended: it is {status}");
            return Err(ApiError::new(ErrorCode::Conflict, message));
        }
        let jobs = &self.engine.jobs;
        jobs.cancel_children(job.view.id).await.map_err(|error| store_error(&error))?;
        let lines = jobs.children(job.view.id).await.map_err(|error| store_error(&error))?;
        if lines.is_empty() {
            // Nothing has begun: there is nothing to keep.
            jobs.cancel(job.view.id).await.map_err(|error| store_error(&error))?;
        }
        tracing::info!(audit = true, job.id = %job.view.id, key.id = caller.key_id, "cancelled");
        self.batch(caller, id).await
    }

    async fn find_batch(&self, caller: &Caller, id: &str) -> Result<Job, ApiError> {
        let job = self.engine.jobs.get(read_id(id)?).await.map_err(|error| store_error(&error))?;
        let own = job.filter(|job| {
            job.view.kind == BATCH_KIND && (caller.is_admin() || job.owner == caller.key_id)
        });
        own.ok_or_else(|| not_found(id))
    }

    async fn batch_of(&self, view: &JobView, request: &BatchRequest) -> Result<Batch, ApiError> {
        let jobs = &self.engine.jobs;
        let page = jobs.store().events(view.id, 0).await.map_err(|error| store_error(&error))?;
        let phases = Phases::of(&page);
        let outcome = if view.state == JobState::Succeeded {
            let result = jobs.result(view.id).await.map_err(|error| store_error(&error))?;
            result.and_then(|bytes| serde_json::from_slice::<Outcome>(&bytes).ok())
        } else {
            None
        };
        let children = if view.state.is_final() {
            Vec::new()
        } else {
            jobs.children(view.id).await.map_err(|error| store_error(&error))?
        };
        let asked = view.cancel_requested
            || children.iter().any(|c| c.cancel_requested || c.state == JobState::Cancelled);
        let status = status(view, &phases, outcome.as_ref(), asked);
        let counts = match &outcome {
            Some(outcome) => outcome.counts,
            None => self.counts(view.id, phases.total).await?,
        };
        let finished = view.finished_at_ms.map(|ms| ms / 1_000);
        let at = |wanted: &str| finished.filter(|_| status == wanted);
        let finalizing = outcome.as_ref().and_then(|outcome| outcome.finalizing_at_ms);
        Ok(Batch {
            id: format!("{PREFIX}{}", view.id.0.simple()),
            object: "batch",
            endpoint: request.endpoint.clone(),
            errors: outcome.as_ref().and_then(|outcome| outcome.errors.clone()),
            input_file_id: request.input_file_id.clone(),
            completion_window: request.completion_window.clone(),
            status,
            output_file_id: outcome.as_ref().and_then(|outcome| outcome.output_file_id),
            error_file_id: outcome.as_ref().and_then(|outcome| outcome.error_file_id),
            created_at: view.created_at_ms / 1_000,
            in_progress_at: phases.in_progress_ms.map(|ms| ms / 1_000),
            expires_at: Some(view.created_at_ms / 1_000 + WINDOW_S),
            finalizing_at: finalizing.or(phases.finalizing_ms).map(|ms| ms / 1_000),
            completed_at: at("completed"),
            failed_at: at("failed"),
            expired_at: at("expired"),
            cancelling_at: at("cancelled"),
            cancelled_at: at("cancelled"),
            request_counts: counts,
            metadata: request.metadata.clone(),
        })
    }

    async fn counts(&self, id: JobId, total: u64) -> Result<BatchCounts, ApiError> {
        let tally = self.engine.jobs.store().row_tally(id).await;
        let tally = tally.map_err(|error| store_error(&error))?;
        let completed = tally.done.saturating_sub(tally.failed);
        Ok(BatchCounts { total, completed, failed: tally.failed })
    }
}

fn request_of(job: &Job) -> Result<BatchRequest, ApiError> {
    serde_json::from_slice(&job.payload)
        .map_err(|_| ApiError::new(ErrorCode::Internal, "the stored batch cannot be read"))
}

/// What a batch told of its way.
#[derive(Debug, Default)]
struct Phases {
    in_progress_ms: Option<u64>,
    finalizing_ms: Option<u64>,
    total: u64,
}

impl Phases {
    fn of(page: &EventsPage) -> Self {
        let mut phases = Self::default();
        let told = |event: &&JobEvent| event.kind == "phase";
        for event in page.events.iter().filter(told) {
            match event.data["phase"].as_str() {
                Some("in_progress") => {
                    phases.in_progress_ms.get_or_insert(event.at_ms);
                    phases.total = event.data["total"].as_u64().unwrap_or(0);
                }
                Some("finalizing") => {
                    phases.finalizing_ms.get_or_insert(event.at_ms);
                }
                Some(_) | None => {}
            }
        }
        phases
    }
}

fn status(view: &JobView, phases: &Phases, outcome: Option<&Outcome>, asked: bool) -> &'static str {
    match view.state {
        JobState::Succeeded => match outcome.map(|outcome| outcome.ending) {
            Some(Ending::Completed) => "completed",
            Some(Ending::Expired) => "expired",
            Some(Ending::Cancelled) => "cancelled",
            Some(Ending::Failed) | None => "failed",
        },
        JobState::Failed => "failed",
        JobState::Cancelled => "cancelled",
        JobState::Expired => "expired",
        JobState::Pending | JobState::Scheduled | JobState::Queued | JobState::Running => {
            if asked {
                "cancelling"
            } else if phases.finalizing_ms.is_some() {
                "finalizing"
            } else if phases.in_progress_ms.is_some() {
                "in_progress"
            } else {
                "validating"
            }
        }
    }
}
