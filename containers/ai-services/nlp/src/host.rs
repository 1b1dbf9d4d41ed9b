//! The models as the gRPC handlers see them: which there are, their limits, and the door to the
//! model thread. It must not know gRPC's streams or how a model was loaded.

use std::sync::Arc;
use std::time::Instant;

use aisemble_batcher::{Batcher, Permit, Refused, Reply, SubmitOptions};
use aisemble_protocol::{ApiError, ErrorCode, v1};
use tokio::sync::Semaphore;

use crate::config::EngineSection;
use crate::model::{LoadedModel, Task};
use crate::serving::{Job, Meters, Piece};

/// Requests whose texts are tokenized at the same time: more would take the cores from the models.
const ENCODINGS_MAX: usize = 2;
/// When a caller is told to come again to a service that goes down or is broken, milliseconds.
const RETRY_AFTER_MS: u64 = 1000;
/// Pieces of an answer that may wait for their reader; a request pauses when they do.
const PIECES_WAITING_MAX: usize = 16;

/// The models that are loaded and run.
#[derive(Debug)]
pub struct Host {
    /// In the order of the configuration.
    pub models: Arc<Vec<LoadedModel>>,
    /// What a request may ask for.
    pub engine: EngineSection,
    /// The model thread.
    pub batcher: Batcher<Job, Piece>,
    /// Its figures.
    pub meters: Arc<Meters>,
    /// Bounds [`Host::apart`].
    pub encodings: Semaphore,
}

impl Host {
    /// Permits for [`Host::encodings`].
    #[must_use]
    pub fn encodings() -> Semaphore {
        Semaphore::new(ENCODINGS_MAX)
    }

    /// Which model does a task: the one that was asked for, or the first that does it.
    ///
    /// # Errors
    /// `not_found` for an unknown name; `unprocessable`, naming the models that do the task, for
    /// one that does not.
    pub fn pick(&self, asked: &str, task: Task) -> Result<usize, ApiError> {
        let able: Vec<&str> = self
            .models
            .iter()
            .filter(|model| model.does(task))
            .map(|model| model.name.as_str())
            .collect();
        let (task_name, able) = (task.as_str(), able.join(", "));
        let able = if able.is_empty() { "no loaded model does".to_owned() } else { able };
        if asked.is_empty() {
            return self.models.iter().position(|model| model.does(task)).ok_or_else(|| {
                let message = format!("no loaded model has the task {task_name}");
                ApiError::new(ErrorCode::Unprocessable, message).with_param("model")
            });
        }
        let named = self.models.iter().position(|model| model.name == asked);
        let asked: String = asked.chars().take(128).collect();
        match named {
            Some(index) if self.models.get(index).is_some_and(|model| model.does(task)) => {
                Ok(index)
            }
            Some(_) => {
                let message =
                    format!("the model {asked:?} does not have the task {task_name}; {able}");
                Err(ApiError::new(ErrorCode::Unprocessable, message).with_param("model"))
            }
            None => {
                let message =
                    format!("the model {asked:?} is not hosted here; for {task_name}: {able}");
                Err(ApiError::new(ErrorCode::NotFound, message).with_param("model"))
            }
        }
    }

    /// A place in the queue. Ends the process when the model thread has given up (it panicked again
    /// and again): only a new process helps.
    ///
    /// # Errors
    /// `overloaded` with when to come again; `unavailable` when the service goes down.
    pub fn permit(&self) -> Result<Permit, ApiError> {
        self.batcher.permit().map_err(|refused| match refused {
            Refused::Full { inside, retry_after, .. } => {
                let ms = u64::try_from(retry_after.as_millis()).unwrap_or(RETRY_AFTER_MS);
                let message =
                    format!("the models are busy: {inside} requests are running or waiting");
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
        })
    }

    /// Runs work on texts off the threads that carry calls, at most [`ENCODINGS_MAX`] at once.
    ///
    /// # Errors
    /// What `work` says, or `internal` when it panicked.
    pub async fn apart<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let internal = || ApiError::new(ErrorCode::Internal, "the texts could not be worked on");
        // The semaphore is never closed.
        let _permit = self.encodings.acquire().await.map_err(|_closed| internal())?;
        tokio::task::spawn_blocking(work).await.map_err(|_panic| internal())?
    }

    /// Queues a request.
    #[must_use]
    pub fn submit(
        &self,
        permit: Permit,
        job: Job,
        priority: v1::Priority,
        deadline: Option<Instant>,
    ) -> Reply<Piece> {
        let priority = match priority {
            v1::Priority::Interactive => aisemble_batcher::Priority::Interactive,
            v1::Priority::Normal | v1::Priority::Unspecified => aisemble_batcher::Priority::Normal,
            v1::Priority::Batch => aisemble_batcher::Priority::Batch,
        };
        let options = SubmitOptions { priority, deadline, outputs_max: PIECES_WAITING_MAX };
        self.batcher.submit(permit, job, options)
    }
}
