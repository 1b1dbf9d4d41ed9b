//! Workflows, batches and schedules: graphs of steps over the capabilities, durable and resumable.
//!
//! A workflow is a job that submits its steps as jobs and waits for them; a map is a step that
//! submits chunks of rows as jobs and waits for those. Every id follows from the id above it, so
//! what is submitted again after a crash is what is there already. It must not know HTTP.

mod batch;
mod batch_desk;
mod call;
mod chunk;
pub mod cron;
mod desk;
mod gate;
mod map;
mod merge;
mod plot;
mod queues;
mod reduce;
mod report;
mod resume;
mod run;
mod schedule;
mod step;
mod table;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use aisemble_jobs::{ClaimedJob, Executor, JobContext, JobFailure, JobFuture, Jobs};
use aisemble_protocol::job::JobError;
use aisemble_protocol::workflow::{StepError, StepState};
use aisemble_protocol::{ApiError, ErrorCode, JobId};
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use batch::{Batch, BatchCounts, BatchError, BatchErrors, BatchList, BatchRequest};
pub use desk::Desk;
pub use queues::Queue;
pub use schedule::{Missed, ScheduleRequest, ScheduleView};

use crate::files::Files;
use crate::work::Bench;

/// Kind of the job that is a workflow.
pub const WORKFLOW_KIND: &str = "workflow";
/// Kind of the job that is a step of a workflow.
pub const STEP_KIND: &str = "workflow.step";
/// Kind of the job that is a part of a table's rows.
pub const CHUNK_KIND: &str = "map.chunk";
/// Kind of the job that is a batch.
pub const BATCH_KIND: &str = "batch";

/// Queue of workflows and batches: they wait for steps and chunks.
pub const WORKFLOWS: &str = "workflow";
/// Queue of steps: they wait for chunks.
pub const STEPS: &str = "step";
/// Queue of chunks: they wait for nobody's job, so the three cannot wait for each other.
pub const CHUNKS: &str = "map";

/// Workflows and batches at the same time.
const WORKFLOWS_RUNNING_MAX: usize = 256;
/// Steps at the same time.
const STEPS_RUNNING_MAX: usize = 512;
/// Chunks at the same time.
const CHUNKS_RUNNING_MAX: usize = 64;

/// Answers one line of a batch as its `/v1` route would.
pub trait Lines: Send + Sync + 'static {
    /// The answer to `owner`'s `body` at `endpoint`, JSON.
    fn answer<'l>(
        &'l self,
        owner: &'l str,
        endpoint: &'l str,
        body: Map<String, Value>,
    ) -> BoxFuture<'l, Result<Value, ApiError>>;

    /// An error as that route would answer it: status and body.
    fn error(&self, error: &JobError) -> (u16, Value);
}

/// What every part of the machinery has.
#[derive(Clone)]
pub struct Engine {
    pub(crate) jobs: Jobs,
    pub(crate) files: Files,
    bench: Bench,
    gates: gate::Gates,
    lines: Arc<OnceLock<Arc<dyn Lines>>>,
    running: Arc<Running>,
}

#[derive(Debug, Default)]
struct Running {
    workflows: AtomicUsize,
    steps: AtomicUsize,
    chunks: AtomicUsize,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("running", &self.running).finish_non_exhaustive()
    }
}

/// What a step's job has as its result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct StepResult {
    pub(crate) status: StepState,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub(crate) output: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<StepError>,
    /// Tokens used, in and out.
    #[serde(default)]
    pub(crate) tokens: u64,
    /// The step of an earlier run whose result this is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) kept_from: Option<JobId>,
}

impl Engine {
    /// The machinery over these parts.
    #[must_use]
    pub fn new(jobs: Jobs, files: Files, bench: Bench) -> Self {
        let (gates, lines, running) = <_>::default();
        Self { jobs, files, bench, gates, lines, running }
    }

    /// Names who answers the lines of batches, once.
    pub fn answer_with(&self, lines: Arc<dyn Lines>) {
        let _ = self.lines.set(lines);
    }

    fn lines(&self) -> Result<&Arc<dyn Lines>, JobFailure> {
        let missing = || JobFailure::new(ErrorCode::Unavailable, "batches are not served yet");
        self.lines.get().ok_or_else(missing)
    }

    fn count(&self, capability: &str) -> Option<(&AtomicUsize, usize)> {
        match capability {
            WORKFLOWS => Some((&self.running.workflows, WORKFLOWS_RUNNING_MAX)),
            STEPS => Some((&self.running.steps, STEPS_RUNNING_MAX)),
            CHUNKS => Some((&self.running.chunks, CHUNKS_RUNNING_MAX)),
            _ => None,
        }
    }

    /// How many more jobs of one of the machinery's own queues there is room for; none for another
    /// queue.
    fn free(&self, capability: &str) -> Option<usize> {
        let (running, max) = self.count(capability)?;
        Some(max.saturating_sub(running.load(Ordering::Relaxed)))
    }

    async fn execute(self, job: ClaimedJob, context: JobContext) -> Result<Vec<u8>, JobFailure> {
        let _counted = Counted::new(&self, &job.capability);
        match job.kind.as_str() {
            WORKFLOW_KIND => run::run(&self, job, context).await,
            STEP_KIND => step::run(&self, job, context).await,
            CHUNK_KIND => chunk::run(&self, job, context).await,
            BATCH_KIND => batch::run(&self, job, context).await,
            other => {
                let message = format!("this version does not know jobs of kind {other}");
                Err(JobFailure::new(ErrorCode::Unprocessable, message))
            }
        }
    }
}

/// A running job of the machinery.
struct Counted<'e>(Option<&'e AtomicUsize>);

impl<'e> Counted<'e> {
    fn new(engine: &'e Engine, capability: &str) -> Self {
        let count = engine.count(capability).map(|(count, _)| count);
        if let Some(count) = count {
            count.fetch_add(1, Ordering::Relaxed);
        }
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        if let Some(count) = self.0 {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Runs the machinery's own jobs, and gives all others to another executor.
pub struct WithWorkflows<E> {
    engine: Engine,
    others: E,
}

impl<E> std::fmt::Debug for WithWorkflows<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WithWorkflows").field("engine", &self.engine).finish_non_exhaustive()
    }
}

impl<E: Executor> WithWorkflows<E> {
    /// An executor for all jobs.
    pub fn new(engine: Engine, others: E) -> Self {
        Self { engine, others }
    }
}

impl<E: Executor> Executor for WithWorkflows<E> {
    fn free(&self, capability: &str) -> usize {
        self.engine.free(capability).unwrap_or_else(|| self.others.free(capability))
    }

    fn per_owner_max(&self, capability: &str) -> Option<u64> {
        // Coordinators hold no model; what they wait for is counted.
        if self.engine.count(capability).is_some() {
            return None;
        }
        self.others.per_owner_max(capability)
    }

    fn execute(&self, job: ClaimedJob, context: JobContext) -> JobFuture<'_> {
        if self.engine.count(&job.capability).is_some() {
            return Box::pin(self.engine.clone().execute(job, context));
        }
        self.others.execute(job, context)
    }
}

/// The failure of an attempt that was told to stop.
fn cancelled() -> JobFailure {
    JobFailure::new(ErrorCode::Cancelled, "the job was cancelled")
}

/// The failure that a store's refusal is.
fn store_failure(error: &aisemble_jobs::JobsError) -> JobFailure {
    JobFailure::from(crate::app::store_error(error))
}

/// A stored payload that cannot be read.
fn unreadable(error: &serde_json::Error) -> JobFailure {
    tracing::error!(error.line = error.line(), "a stored payload is malformed");
    JobFailure::new(ErrorCode::Unprocessable, "the stored job cannot be read")
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, JobFailure> {
    serde_json::to_vec(value)
        .map_err(|_| JobFailure::new(ErrorCode::Internal, "the result cannot be stored"))
}

/// Whether the attempt is to stop for good: cancelled or over, not only given back.
async fn stops_for_good(engine: &Engine, id: JobId) -> bool {
    match engine.jobs.wait(id, std::time::Duration::ZERO).await {
        Ok(view) => view.cancel_requested || view.state.is_final(),
        Err(_) => false,
    }
}
