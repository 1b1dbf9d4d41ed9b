//! What the scheduler asks of those who do the work, and what it gives them. It knows nothing of
//! how the work is done.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use aisemble_protocol::job::Priority;
use aisemble_protocol::{ApiError, ErrorCode, JobId};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::error::JobsError;
use crate::store::row_results::{ROW_RESULT_BYTES_MAX, RowResult};
use crate::store::{Emission, Held, Store};

/// The future of one attempt.
pub type JobFuture<'a> = Pin<Box<dyn Future<Output = Result<Vec<u8>, JobFailure>> + Send + 'a>>;

/// Does the work of jobs.
pub trait Executor: Send + Sync + 'static {
    /// How many more jobs of `capability` it could take now. A job counts as taken from the first
    /// poll of its future on. Called often: it must be quick and must not block.
    fn free(&self, capability: &str) -> usize;

    /// How many jobs of `capability` one owner may have running; `None` = as many as there is
    /// room for.
    fn per_owner_max(&self, capability: &str) -> Option<u64> {
        let _ = capability;
        None
    }

    /// Runs one attempt. When `context.cancel` fires, it should come back soon with a failure of
    /// code `cancelled`; what it then answers no longer counts if the lease is gone.
    fn execute(&self, job: ClaimedJob, context: JobContext) -> JobFuture<'_>;
}

/// A job under a lease.
#[derive(Debug, Clone, PartialEq)]
pub struct ClaimedJob {
    /// Identity.
    pub id: JobId,
    /// What is done.
    pub kind: String,
    /// Who can do it.
    pub capability: String,
    /// Whose it is.
    pub owner: String,
    /// What to do.
    pub payload: Vec<u8>,
    /// The attempt, from 1.
    pub attempt: u32,
    /// Attempts that it may take.
    pub attempts_max: u32,
    /// The fencing token of this claim: grows with every claim of the job.
    pub lease: u64,
    /// Who goes first.
    pub priority: Priority,
    /// W3C `traceparent` of the request that made it.
    pub trace_parent: Option<String>,
    /// Expired from then on, milliseconds since 1970.
    pub deadline_at_ms: Option<u64>,
}

/// What an attempt has besides its job.
#[derive(Debug, Clone)]
pub struct JobContext {
    /// Fires when the job is to be cancelled, has expired, lost its lease, or at shutdown.
    pub cancel: CancellationToken,
    /// Where its events go.
    pub events: EventSink,
}

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobFailure {
    /// For a machine; `retryable()` decides whether there is another attempt.
    pub code: ErrorCode,
    /// For a person.
    pub message: String,
    /// The next attempt is not to come earlier, milliseconds from now.
    pub retry_after_ms: Option<u64>,
}

impl JobFailure {
    /// A failure of `code` that says `message`.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after_ms: None }
    }
}

impl From<ApiError> for JobFailure {
    fn from(error: ApiError) -> Self {
        Self { code: error.code, message: error.message, retry_after_ms: error.retry_after_ms }
    }
}

/// Records events of one attempt: durable, numbered within the job, and seen by live readers.
#[derive(Clone)]
pub struct EventSink {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Clock,
    pub(crate) id: JobId,
    pub(crate) lease: u64,
    pub(crate) muted: bool,
}

impl EventSink {
    /// Records an event and gives its number. Coalescing is the caller's: each call is a write that
    /// is committed when this returns. The kinds `state` and `cancel` are the store's own.
    ///
    /// # Errors
    /// [`JobsError::LeaseLost`] when the attempt no longer holds the job, [`JobsError::EventsFull`]
    /// when the job has emitted as many as it may, [`JobsError::TooLarge`], or the store's error.
    pub async fn emit(&self, kind: &str, data: serde_json::Value) -> Result<u64, JobsError> {
        if self.muted {
            return Ok(0);
        }
        let emission = Emission::new(self.id, self.lease, kind, &data)?;
        self.store.emit(emission, self.clock.now_ms()).await
    }

    /// A sink that records nothing: for work that is a part of the job and has nothing to tell.
    #[must_use]
    pub fn muted(&self) -> Self {
        Self { muted: true, ..self.clone() }
    }

    /// Records rows of the job, durable when this returns. Those that it has stay as they are.
    ///
    /// # Errors
    /// [`JobsError::LeaseLost`], [`JobsError::TooLarge`], or the store's error.
    pub async fn put_rows(&self, rows: Vec<RowResult>) -> Result<(), JobsError> {
        for row in &rows {
            let (bytes, bytes_max) = (row.data.len(), ROW_RESULT_BYTES_MAX);
            if bytes > bytes_max {
                return Err(JobsError::TooLarge { field: "row", bytes, bytes_max });
            }
        }
        self.store.put_rows(Held { id: self.id, lease: self.lease }, rows).await
    }
}

impl fmt::Debug for EventSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventSink").field("id", &self.id).field("lease", &self.lease).finish()
    }
}
