//! What every attempt at a job has: the services, who follows it, its deadline, and how it waits
//! for room without losing the job's turn.

use std::future::Future;
use std::path::{Component, Path};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aisemble_jobs::{ClaimedJob, EventSink, JobContext, JobFailure, Priority};
use aisemble_protocol::data::Blob;
use aisemble_protocol::file::Purpose;
use aisemble_protocol::vision::IMAGE_BYTES_MAX;
use aisemble_protocol::{ApiError, ErrorCode, FileId, JobId, v1};
use tokio_util::sync::CancellationToken;

use crate::app::now_ms;
use crate::dispatch::{self, Call, Class, Dispatch};
use crate::files::{Files, NewFile, Reach};
use crate::live::Live;
use crate::trace::Trace;

/// The scheduler is who says that a job has expired; the call to the service ends a little later,
/// should nobody have ended it by then.
const EXPIRY_SLACK: Duration = Duration::from_secs(5);

/// What all attempts share.
#[derive(Debug, Clone)]
pub struct Bench {
    /// The services.
    pub dispatch: Arc<Dispatch>,
    /// Who looks on.
    pub live: Live,
    /// The files of callers.
    pub files: Files,
    /// How long an attempt without a deadline may take.
    pub attempt_max: Duration,
}

/// One attempt at one job.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// What all attempts share.
    pub bench: Bench,
    /// The job.
    pub id: JobId,
    /// Which attempt it is, from 1.
    pub number: u32,
    /// Whose it is.
    pub owner: String,
    /// Who goes first.
    pub priority: Priority,
    /// The span that it belongs to.
    pub trace: Trace,
    /// It is given up then.
    pub deadline: Instant,
    /// Fires when it is to stop.
    pub cancel: CancellationToken,
    /// Where its events go.
    pub events: EventSink,
}

impl Attempt {
    /// The attempt that the scheduler asks for.
    #[must_use]
    pub fn new(bench: Bench, job: &ClaimedJob, context: JobContext) -> Self {
        let left = job.deadline_at_ms.map_or(bench.attempt_max, |at_ms| {
            let left = Duration::from_millis(at_ms.saturating_sub(now_ms()));
            left.saturating_add(EXPIRY_SLACK).min(bench.attempt_max)
        });
        Self {
            id: job.id,
            number: job.attempt,
            owner: job.owner.clone(),
            priority: job.priority,
            trace: Trace::continuing(job.trace_parent.as_deref()),
            deadline: dispatch::deadline_in(left),
            cancel: context.cancel,
            events: context.events,
            bench,
        }
    }

    /// A call of this attempt.
    pub(crate) fn call<R>(&self, request: R) -> Call<R> {
        Call { request, class: Class::Job, trace: self.trace, deadline: self.deadline }
    }

    /// What `work` gives, unless the attempt is cancelled before.
    ///
    /// # Errors
    /// `cancelled`, or as `work`.
    pub(crate) async fn unless_cancelled<T, E: Into<JobFailure>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, JobFailure> {
        tokio::select! {
            done = work => done.map_err(Into::into),
            () = self.cancel.cancelled() => Err(cancelled()),
        }
    }

    /// The bytes of an uploaded picture, the request's `index`th.
    ///
    /// # Errors
    /// `not_found` when the owner has no such file.
    pub(crate) async fn read_image(&self, index: usize, id: &str) -> Result<Vec<u8>, JobFailure> {
        let named = |error: ApiError| {
            JobFailure::new(error.code, format!("images[{index}].file: {}", error.message))
        };
        let id = file_id(id).map_err(named)?;
        let max = IMAGE_BYTES_MAX as u64;
        let read = self.bench.files.read_bytes_limited(&self.owner, id, max).await;
        read.map(|bytes| bytes.to_vec()).map_err(named)
    }

    /// An uploaded file as the data processor finds it.
    ///
    /// # Errors
    /// `not_found` when the owner has no such file.
    pub(crate) async fn blob(&self, id: &str) -> Result<Blob, JobFailure> {
        let view = self.bench.files.open_blob(&self.owner, file_id(id)?).await?.view;
        Ok(Blob { sha256: view.sha256, name: view.filename })
    }

    /// Takes over a file that the data processor wrote, and gives its id.
    ///
    /// # Errors
    /// When it cannot be stored.
    pub(crate) async fn import(
        &self,
        file: &v1::OutputFile,
        name: &str,
    ) -> Result<String, JobFailure> {
        let path = Path::new(&file.path);
        let new = NewFile::new(name, Purpose::Result);
        let imported = self.bench.files.import_path(&self.owner, path, new).await;
        if let Some(Component::Normal(folder)) = path.components().next() {
            self.bench.files.clear_exchange(&folder.to_string_lossy()).await;
        }
        let view = imported?;
        if view.sha256 != file.sha256 {
            tracing::error!(job.id = %self.id, "an output is not what the service said it wrote");
            self.bench.files.delete(Reach::Own(&self.owner), view.id).await?;
            return Err(JobFailure::new(ErrorCode::Internal, "the output was changed on its way"));
        }
        Ok(view.id.to_string())
    }

    /// Begins a call. The scheduler claims what there is room for; when somebody else was faster,
    /// the attempt waits here for the next room.
    ///
    /// # Errors
    /// As `begin`; `overloaded` only once the deadline has passed; `cancelled`.
    pub(crate) async fn patiently<T, W>(&self, begin: impl Fn() -> W) -> Result<T, JobFailure>
    where
        W: Future<Output = Result<T, ApiError>>,
    {
        let mut changes = self.bench.dispatch.changes();
        self.unless_cancelled(async {
            loop {
                changes.borrow_and_update();
                match begin().await {
                    Err(error)
                        if error.code == ErrorCode::Overloaded
                            && Instant::now() < self.deadline =>
                    {
                        let pause = Duration::from_millis(error.retry_after_ms.unwrap_or(1_000));
                        tokio::select! {
                            _ = changes.changed() => {}
                            () = tokio::time::sleep(pause) => {}
                            () = tokio::time::sleep_until(self.deadline.into()) => {}
                        }
                    }
                    begun => return begun,
                }
            }
        })
        .await
    }
}

fn file_id(text: &str) -> Result<FileId, ApiError> {
    let shown: String = text.chars().take(64).collect();
    let unknown = |_| ApiError::new(ErrorCode::NotFound, format!("there is no file {shown}"));
    text.parse().map_err(unknown)
}

/// The failure of an attempt that was told to stop.
pub(crate) fn cancelled() -> JobFailure {
    JobFailure::new(ErrorCode::Cancelled, "the job was cancelled")
}
