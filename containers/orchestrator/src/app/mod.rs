//! What the orchestrator decides: who may do what, what is taken in, what becomes of it.
//!
//! It must not know axum, status codes or gRPC clients.

mod admission;
mod caller;
mod interactive;
mod jobs;
mod keyring;
mod models;
mod progress;
mod quota;
pub mod responses;
mod submission;
pub mod transcript;

use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aisemble_jobs::Jobs;
use aisemble_protocol::{ApiError, v1};
use tokio_util::sync::CancellationToken;

use crate::capability::Capability;
use crate::config::LimitsConfig;
use crate::dispatch::{Dispatch, Readiness};
use crate::files::Files;
use crate::live::Live;
use crate::metrics::{Metrics, ProcessFigures, Samples};
use crate::workflow::Desk;

use admission::QueueGate;
pub use caller::{Caller, Origin};
pub use jobs::{Cancelled, ListQuery};
pub use keyring::{Keyring, KeyringError};
pub use progress::{Progress, Update};
use quota::Quotas;
pub use submission::{Accepted, Ended, Patience, check_idempotency_key};

/// How long the metrics page waits for the store to count its jobs.
const DEPTH_WAIT: Duration = Duration::from_millis(250);

/// The state behind the routes.
#[derive(Debug)]
pub struct App {
    pub(crate) limits: LimitsConfig,
    pub(crate) jobs: Jobs,
    pub(crate) dispatch: std::sync::Arc<Dispatch>,
    pub(crate) keyring: Keyring,
    pub(crate) metrics: Metrics,
    pub(crate) live: Live,
    pub(crate) files: Files,
    pub(crate) desk: Desk,
    pub(crate) figures: ProcessFigures,
    pub(crate) gate: QueueGate,
    quotas: Quotas,
    /// What confines this process, once it is locked down.
    pub(crate) sandbox: OnceLock<v1::SandboxInfo>,
    /// Fires when the drain begins: `/ready` says so.
    pub(crate) draining: CancellationToken,
    /// Fires when it ends: whoever still waits is told to come again.
    pub(crate) closing: CancellationToken,
}

/// What an [`App`] is made of.
#[derive(Debug)]
pub struct Parts {
    /// Bounds.
    pub limits: LimitsConfig,
    /// The job store.
    pub jobs: Jobs,
    /// The services.
    pub dispatch: std::sync::Arc<Dispatch>,
    /// The keys.
    pub keyring: Keyring,
    /// The counters.
    pub metrics: Metrics,
    /// The process.
    pub figures: ProcessFigures,
    /// Who looks on.
    pub live: Live,
    /// The files of callers.
    pub files: Files,
    /// Workflows, batches, schedules.
    pub desk: Desk,
}

impl App {
    /// Puts the parts together.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts { limits, jobs, dispatch, keyring, metrics, figures, live, files, desk } = parts;
        Self {
            gate: QueueGate::new(limits.queued_jobs_max),
            quotas: Quotas::default(),
            limits,
            jobs,
            dispatch,
            keyring,
            metrics,
            live,
            files,
            desk,
            figures,
            sandbox: OnceLock::new(),
            draining: CancellationToken::new(),
            closing: CancellationToken::new(),
        }
    }

    /// Whether each capability can be used now; none can once the drain has begun.
    #[must_use]
    pub fn readiness(&self) -> Vec<Readiness> {
        let mut all = self.dispatch.readiness();
        if self.draining.is_cancelled() {
            for one in &mut all {
                one.ready = false;
                "the orchestrator is stopping".clone_into(&mut one.detail);
            }
        }
        all
    }

    /// The metrics page. It calls no service, and does without the job counts when the store does
    /// not give them at once.
    pub async fn metrics_page(&self) -> String {
        let depth = tokio::time::timeout(DEPTH_WAIT, self.jobs.depth()).await;
        let samples = Samples {
            depth: depth.ok().and_then(Result::ok),
            capabilities: self.dispatch.configured().into_iter().map(Capability::as_str).collect(),
            store: self.jobs.metrics(),
            instances: self.dispatch.sampled(),
            sandbox: self.sandbox.get().cloned(),
            resident_bytes: self.figures.resident_bytes(),
            open_fds: self.figures.open_fds(),
            started_s: self.figures.started_s(),
        };
        self.metrics.page(&samples)
    }
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// The store's error for the caller; what is our affair is logged here, once.
pub(crate) fn store_error(error: &aisemble_jobs::JobsError) -> ApiError {
    let public = ApiError::from(error);
    if public.code == aisemble_protocol::ErrorCode::Internal {
        let cause = std::error::Error::source(error).map(ToString::to_string);
        tracing::error!(error.cause = cause, "the job store failed: {error}");
    }
    public
}
