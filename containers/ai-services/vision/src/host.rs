//! The models as the gRPC handlers see them: the catalog, the door to the model thread, and how
//! many requests, decodes and decoded bytes there may be at the same time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aisemble_batcher::{Batcher, Lost, Refused, SubmitOptions};
use aisemble_protocol::{ApiError, ErrorCode, v1};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::catalog::Catalog;
use crate::config::VisionConfig;
use crate::hub::Caption;
use crate::label_vectors::LabelVectors;
use crate::picture::ImageLimits;
use crate::serving::{Done, Job, Meters, Row};

/// Images of one request that are worked on at the same time. Each has at most one job at the
/// model, so the batcher has room for all requests that are let in.
pub const IMAGES_AT_ONCE: usize = 4;
/// When a caller is told to come again to a service that goes down or is broken, milliseconds.
const RETRY_AFTER_MS: u64 = 1000;
/// The longest time to come again that is told, seconds. SDKs obey at most 60.
const RETRY_AFTER_S_MAX: f64 = 60.0;
/// Decoded bytes are counted in these.
const MEMORY_UNIT_BYTES: u64 = 4096;

/// Models that are loaded and run.
#[derive(Debug)]
pub struct Host {
    /// The models.
    pub catalog: Catalog,
    /// What a picture may be.
    pub limits: ImageLimits,
    /// The longer side that text is looked for at.
    pub text_side_max: usize,
    /// Vectors of labels that were asked for lately.
    pub label_vectors: LabelVectors,
    /// What Describe says.
    pub info: Vec<v1::ModelInfo>,
    /// The model thread.
    pub batcher: Batcher<Job, Done>,
    /// Its figures.
    pub meters: Arc<Meters>,
    /// Requests inside.
    pub requests: Arc<Semaphore>,
    requests_max: usize,
    decodes: Arc<Semaphore>,
    memory: Arc<Semaphore>,
    memory_units: u32,
}

/// What came out of a job, row by row, and the waits.
#[derive(Debug, Default)]
pub struct Computed {
    /// The outputs of each row of the job.
    pub rows: Vec<Vec<crate::compute::Map>>,
    /// The caption of a job of one.
    pub caption: Option<Caption>,
    /// The longest wait of a row.
    pub queued: Duration,
    /// The rows' shares of their steps.
    pub model: Duration,
}

impl Host {
    /// A host of these models; `batcher` has room for [`IMAGES_AT_ONCE`] times `requests_max` jobs.
    #[must_use]
    pub fn new(
        config: &VisionConfig,
        catalog: Catalog,
        batcher: Batcher<Job, Done>,
        meters: Arc<Meters>,
    ) -> Self {
        let (engine, images) = (&config.engine, &config.images);
        let units = u32::try_from(images.memory_bytes_max / MEMORY_UNIT_BYTES).unwrap_or(u32::MAX);
        Self {
            limits: images.limits(),
            text_side_max: engine.text_side_max,
            label_vectors: LabelVectors::default(),
            info: catalog.info(engine),
            catalog,
            batcher,
            meters,
            requests: Arc::new(Semaphore::new(engine.requests_max)),
            requests_max: engine.requests_max,
            decodes: Arc::new(Semaphore::new(engine.decodes_max)),
            memory: Arc::new(Semaphore::new(units as usize)),
            memory_units: units,
        }
    }

    /// Requests inside now.
    #[must_use]
    pub fn requests_inside(&self) -> usize {
        self.requests_max.saturating_sub(self.requests.available_permits())
    }

    /// Requests that may be inside.
    #[must_use]
    pub fn requests_max(&self) -> usize {
        self.requests_max
    }

    /// A place for a request.
    ///
    /// # Errors
    /// `overloaded` with when to come again.
    pub fn enter(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        Arc::clone(&self.requests).try_acquire_owned().map_err(|_full| {
            let inside = self.requests_max;
            let drain_per_s = self.batcher.stats().drain_per_s.unwrap_or(1.0).max(1e-3);
            let seconds = (inside as f64 / drain_per_s).ceil().clamp(1.0, RETRY_AFTER_S_MAX);
            let message = format!("the models are busy: {inside} requests are running or waiting");
            ApiError::new(ErrorCode::Overloaded, message)
                .with_retry_after_ms((seconds * 1000.0) as u64)
        })
    }

    /// Runs work on pictures off the threads that carry calls, as many at once as configured.
    ///
    /// # Errors
    /// What `work` says; `unprocessable` when it panicked, which only a decoder that a strange file
    /// broke does.
    pub async fn on_pictures<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let closed = || ApiError::new(ErrorCode::Internal, "the pictures' door is closed");
        let permit = Arc::clone(&self.decodes).acquire_owned().await.map_err(|_closed| closed())?;
        let task = tokio::task::spawn_blocking(move || {
            let _held_until_done = permit;
            work()
        });
        task.await.map_err(|_panic| {
            ApiError::new(ErrorCode::Unprocessable, "the image could not be decoded")
        })?
    }

    /// Room in memory for a decoded picture; waits until there is. One that is larger than all the
    /// room takes all of it.
    ///
    /// # Errors
    /// Never in practice: the semaphore is not closed.
    pub async fn memory(&self, bytes: u64) -> Result<OwnedSemaphorePermit, ApiError> {
        let units = u32::try_from(bytes.div_ceil(MEMORY_UNIT_BYTES)).unwrap_or(u32::MAX);
        let units = units.min(self.memory_units);
        let acquired = Arc::clone(&self.memory).acquire_many_owned(units).await;
        acquired
            .map_err(|_closed| ApiError::new(ErrorCode::Internal, "the memory's door is closed"))
    }

    /// Computes rows, in batches with those of other requests.
    ///
    /// # Errors
    /// `timeout`, `internal` or `unavailable`.
    pub async fn compute(
        &self,
        rows: Vec<Row>,
        priority: v1::Priority,
        deadline: Option<Instant>,
    ) -> Result<Computed, ApiError> {
        let count = rows.len();
        let mut computed =
            Computed { rows: (0..count).map(|_| Vec::new()).collect(), ..Computed::default() };
        if count == 0 {
            return Ok(computed);
        }
        let permit = self.batcher.permit().map_err(|refused| self.refused(&refused))?;
        let priority = match priority {
            v1::Priority::Interactive => aisemble_batcher::Priority::Interactive,
            v1::Priority::Normal | v1::Priority::Unspecified => aisemble_batcher::Priority::Normal,
            v1::Priority::Batch => aisemble_batcher::Priority::Batch,
        };
        let options = SubmitOptions { priority, deadline, outputs_max: count };
        let job = Job { rows, since: Instant::now() };
        let mut reply = self.batcher.submit(permit, job, options);
        while let Some(done) = reply.recv().await.map_err(lost)? {
            computed.queued = computed.queued.max(done.queued);
            computed.model += done.step;
            computed.rows[done.row] = done.outputs;
            computed.caption = done.caption;
        }
        Ok(computed)
    }

    /// Ends the process when the model thread has given up (it panicked again and again): only a
    /// new process helps.
    fn refused(&self, refused: &Refused) -> ApiError {
        match refused {
            Refused::Full { inside, retry_after, .. } => {
                let ms = u64::try_from(retry_after.as_millis()).unwrap_or(RETRY_AFTER_MS);
                let message = format!("the models are busy: {inside} images are waiting");
                ApiError::new(ErrorCode::Overloaded, message).with_retry_after_ms(ms)
            }
            Refused::Draining => {
                ApiError::new(ErrorCode::Unavailable, "the models' service is going down")
                    .with_retry_after_ms(RETRY_AFTER_MS)
            }
            Refused::Unhealthy => {
                // Nothing in this process can bring the models back, and nothing runs that could be
                // lost: whoever started the process starts it anew.
                tracing::error!("the model thread has ended; the process ends too");
                std::process::abort()
            }
        }
    }
}

fn lost(lost: Lost) -> ApiError {
    match lost {
        Lost::Panicked | Lost::Dropped => {
            ApiError::new(ErrorCode::Internal, "the model failed on this image")
        }
        Lost::DeadlinePassed => ApiError::new(ErrorCode::Timeout, "the deadline passed"),
        Lost::TooLarge => {
            ApiError::new(ErrorCode::Unprocessable, "the image is larger than the model takes")
        }
        Lost::Stopped => ApiError::new(ErrorCode::Unavailable, "the models' service was stopped")
            .with_retry_after_ms(RETRY_AFTER_MS),
    }
}
