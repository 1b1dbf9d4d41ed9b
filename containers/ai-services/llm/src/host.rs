//! The model as the gRPC handlers see it: who it is, its limits, its tokenizer, and the door to the
//! model thread. It must not know gRPC's streams or how the model was loaded.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aisemble_batcher::{Batcher, Permit, Refused, Reply, SubmitOptions};
use aisemble_protocol::{ApiError, ErrorCode, v1};
use aisemble_weights::Tokenizer;
use tokio::sync::Semaphore;

use crate::constraint::{CallWriting, Constraint, Constraints, Form, FormError, Vocabulary};
use crate::engine::{Footprint, Scheduler, SchedulerLimits};
use crate::serving::{Job, Meters, Piece};
use crate::text::{PromptEncoder, SpecialToken};

/// Texts that are tokenized at the same time: more would take the cores from the model.
const ENCODINGS_MAX: usize = 2;
/// When a caller is told to come again to a service that goes down or is broken, milliseconds.
const RETRY_AFTER_MS: u64 = 1000;
/// Pieces of an answer that may wait for their reader; a sequence pauses when they do.
const PIECES_WAITING_MAX: usize = 64;

/// What a request may ask for.
#[derive(Debug, Clone, Copy)]
pub struct RequestLimits {
    /// Prompt and completion together.
    pub context_tokens_max: usize,
    /// Tokens of one completion.
    pub output_tokens_max: usize,
    /// What the scheduler keeps to.
    pub scheduler: SchedulerLimits,
    /// How long a running sequence waits for its reader.
    pub reader_wait_max: Duration,
}

/// A model that is loaded and runs.
#[derive(Debug)]
pub struct Host {
    /// Who it is.
    pub info: v1::ModelInfo,
    /// What a request may ask for.
    pub limits: RequestLimits,
    /// Ids to bytes.
    pub tokenizer: Arc<Tokenizer>,
    /// Prompts to ids.
    pub encoder: Arc<PromptEncoder>,
    /// What outputs can be held to.
    pub constraints: Arc<Constraints>,
    /// The model thread.
    pub batcher: Batcher<Job, Piece>,
    /// Its figures.
    pub meters: Arc<Meters>,
    /// Bounds [`Host::encode`].
    pub encodings: Semaphore,
}

impl Host {
    /// Permits for [`Host::encodings`].
    #[must_use]
    pub fn encodings() -> Semaphore {
        Semaphore::new(ENCODINGS_MAX)
    }

    /// What compiles forms for a model with this tokenizer.
    #[must_use]
    pub fn constraints(
        tokenizer: &Arc<Tokenizer>,
        encoder: &Arc<PromptEncoder>,
    ) -> Arc<Constraints> {
        let (tokenizer, encoder) = (Arc::clone(tokenizer), Arc::clone(encoder));
        Arc::new(Constraints::new(move || vocabulary(&tokenizer, &encoder)))
    }

    /// Compiles what an output must fit; costly for large forms.
    ///
    /// # Errors
    /// `unprocessable` with the reason.
    pub async fn constraint(&self, form: Option<Form>) -> Result<Option<Constraint>, ApiError> {
        let Some(form) = form else { return Ok(None) };
        let param = match form {
            Form::Calls(_) => "tools",
            Form::JsonSchema(_) | Form::Regex(_) | Form::Lark(_) => "response_format",
        };
        match self.constraints.compile(form).await {
            Ok(constraint) => Ok(Some(constraint)),
            Err(error @ FormError::Unable) => {
                Err(ApiError::new(ErrorCode::Internal, error.to_string()))
            }
            Err(error) => {
                let message = format!("{param}: {error}");
                Err(ApiError::new(ErrorCode::Unprocessable, message).with_param(param))
            }
        }
    }

    /// Refuses a request for a model that is not hosted here.
    ///
    /// # Errors
    /// `not_found`, naming the one that is.
    pub fn check_model(&self, asked: &str) -> Result<(), ApiError> {
        if asked.is_empty() || asked == self.info.name {
            return Ok(());
        }
        let asked: String = asked.chars().take(128).collect();
        let hosted = &self.info.name;
        let message = format!("the model {asked:?} is not hosted here; {hosted:?} is");
        Err(ApiError::new(ErrorCode::NotFound, message).with_param("model"))
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
                    format!("the model is busy: {inside} requests are running or waiting");
                ApiError::new(ErrorCode::Overloaded, message).with_retry_after_ms(ms)
            }
            Refused::Draining => {
                ApiError::new(ErrorCode::Unavailable, "the model's service is going down")
                    .with_retry_after_ms(RETRY_AFTER_MS)
            }
            Refused::Unhealthy => {
                // Nothing in this process can bring the model back, and nothing runs that could be
                // lost: whoever started the process starts it anew.
                tracing::error!("the model thread has ended; the process ends too");
                std::process::abort()
            }
        })
    }

    /// Runs a tokenization off the threads that carry calls, at most [`ENCODINGS_MAX`] at once.
    ///
    /// # Errors
    /// What `work` says, or `internal` when it panicked.
    pub async fn encode<T: Send + 'static>(
        &self,
        work: impl FnOnce(&PromptEncoder) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let internal = || ApiError::new(ErrorCode::Internal, "the text could not be tokenized");
        // The semaphore is never closed.
        let _permit = self.encodings.acquire().await.map_err(|_closed| internal())?;
        let encoder = Arc::clone(&self.encoder);
        tokio::task::spawn_blocking(move || work(&encoder)).await.map_err(|_panic| internal())?
    }

    /// How many tokens may be sampled after a prompt of `prompt_tokens` when the caller asks for
    /// `asked`: what it asks for, cut to the service's limit and to what is left of the context.
    /// The answer then ends with the reason `length`, as the caller knows it from `max_tokens`.
    ///
    /// # Errors `unprocessable` naming both numbers when no token is left, or the KV cache can
    /// never hold it.
    pub fn output_tokens(&self, prompt_tokens: usize, asked: usize) -> Result<usize, ApiError> {
        let context = self.limits.context_tokens_max;
        if prompt_tokens >= context {
            let message = format!(
                "the prompt has {prompt_tokens} tokens; the model's context is {context}, and at \
                 least one must be left for the answer"
            );
            return Err(ApiError::new(ErrorCode::Unprocessable, message).with_param("prompt"));
        }
        let output = asked.min(self.limits.output_tokens_max).min(context - prompt_tokens);
        let footprint = Footprint { prompt_tokens, output_tokens_max: output };
        Scheduler::check(&self.limits.scheduler, footprint).map_err(|never| {
            ApiError::new(ErrorCode::Unprocessable, never.to_string()).with_param("max_tokens")
        })?;
        Ok(output)
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

/// The tokens as constraints see them. What is no text has no bytes.
fn vocabulary(tokenizer: &Tokenizer, encoder: &PromptEncoder) -> Vocabulary {
    let ids = 0..tokenizer.vocabulary_len() as u32;
    let piece = |id: u32| {
        let is_text = !tokenizer.is_control(id) && !tokenizer.ends_generation(id);
        is_text.then(|| tokenizer.piece(id).unwrap_or_default().to_vec())
    };
    let marker = |token: &SpecialToken| (token.text.clone(), token.id);
    let calls = CallWriting {
        text: encoder.call_style().text(),
        markers: encoder.call_markers().iter().map(marker).collect(),
    };
    let ends = tokenizer.end_of_generation().to_vec();
    Vocabulary { pieces: ids.map(piece).collect(), ends, calls }
}
