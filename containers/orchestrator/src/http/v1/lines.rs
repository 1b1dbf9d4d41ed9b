//! Lines of batches: the `/v1` routes without a connection, at the rank of jobs.

use std::sync::Weak;

use aisemble_protocol::job::JobError;
use aisemble_protocol::{ApiError, ErrorCode};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde_json::{Map, Value};

use super::super::error::{OpenAiError, status_of};
use super::{chat, embeddings, text};
use crate::app::{App, Caller, Origin};
use crate::trace::Trace;
use crate::workflow::Lines;

/// Answers lines with the app's own routes.
#[derive(Debug)]
pub(in crate::http) struct Routes {
    /// Weak: the app holds what holds this.
    pub(in crate::http) app: Weak<App>,
}

impl Lines for Routes {
    fn answer<'l>(
        &'l self,
        owner: &'l str,
        endpoint: &'l str,
        body: Map<String, Value>,
    ) -> BoxFuture<'l, Result<Value, ApiError>> {
        async move {
            let stopping = || ApiError::new(ErrorCode::Unavailable, "the orchestrator stops");
            let app = self.app.upgrade().ok_or_else(stopping)?;
            // What the key opens was checked when the batch was taken in.
            let origin = Origin {
                caller: Caller::for_job(owner),
                request_id: String::new(),
                trace: Trace::continuing(None),
                idempotency_key: None,
            };
            match endpoint {
                "/v1/chat/completions" => chat::answer_line(&app, &origin, body).await,
                "/v1/completions" => text::answer_line(&app, &origin, body).await,
                "/v1/embeddings" => embeddings::answer_line(&app, &origin, body).await,
                _ => Err(ApiError::new(ErrorCode::NotFound, "batches do not serve this route")),
            }
        }
        .boxed()
    }

    fn error(&self, error: &JobError) -> (u16, Value) {
        let error = ApiError::new(error.code, error.message.clone());
        // As the route itself would answer.
        let status = if error.code == ErrorCode::Unprocessable {
            400
        } else {
            status_of(error.code).as_u16()
        };
        (status, serde_json::to_value(OpenAiError::new(&error)).unwrap_or_default())
    }
}

/// An answer as JSON.
pub(super) fn written<T: serde::Serialize>(answer: &T) -> Result<Value, ApiError> {
    serde_json::to_value(answer)
        .map_err(|_| ApiError::new(ErrorCode::Internal, "the answer cannot be written"))
}
