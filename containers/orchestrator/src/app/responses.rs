//! Responses that are kept: looked at, cancelled, forgotten, gone on from. Another key's response
//! is not there.

use std::time::Duration;

use aisemble_protocol::completion::{ChatMessage, CompletionResult};
use aisemble_protocol::job::JobView;
use aisemble_protocol::{ApiError, ErrorCode, JobId};

use super::{App, Caller, Cancelled, Ended, store_error};
use crate::work::{KeptResponse, Response, Work as _};

/// What a response's id begins with; a job's id follows.
const ID_PREFIX: &str = "resp_";
/// How long a cancellation waits for the worker to stop.
const CANCEL_WAIT: Duration = Duration::from_secs(5);

/// A response that is kept.
#[derive(Debug)]
pub struct Kept {
    /// Its job.
    pub view: JobView,
    /// What was asked.
    pub asked: KeptResponse,
    /// What came of it; none while it is not over.
    pub ended: Option<Result<CompletionResult, ApiError>>,
}

/// The id of the response that a job makes.
#[must_use]
pub fn response_id(job: JobId) -> String {
    format!("{ID_PREFIX}{}", job.0.simple())
}

impl App {
    /// A response of the caller.
    ///
    /// # Errors
    /// `not_found`; the store's.
    pub async fn response(&self, caller: &Caller, id: &str) -> Result<Kept, ApiError> {
        let shown: String = id.chars().take(64).collect();
        let gone = || {
            let message = format!("Response with id '{shown}' not found.");
            ApiError::new(ErrorCode::NotFound, message).with_param("response_id")
        };
        let job = id.strip_prefix(ID_PREFIX).and_then(|id| id.parse::<JobId>().ok());
        let job = job.ok_or_else(gone)?;
        let found = self.jobs.get(job).await.map_err(|error| store_error(&error))?;
        let mine = found.filter(|job| caller.is_admin() || job.owner == caller.key_id);
        let found = mine.filter(|job| job.view.kind == Response::KIND).ok_or_else(gone)?;
        let asked = serde_json::from_slice(&found.payload).map_err(|_malformed| unreadable())?;
        let ended = match self.ended(found.view.clone()).await? {
            Ended::NotYet(_) => None,
            Ended::Error(error) => Some(Err(error)),
            Ended::Result(result) => {
                Some(Ok(serde_json::from_slice(&result).map_err(|_malformed| unreadable())?))
            }
        };
        Ok(Kept { view: found.view, asked, ended })
    }

    /// Cancels a response of the caller; one that is over stays as it is.
    ///
    /// # Errors
    /// `not_found`; the store's.
    pub async fn cancel_response(&self, caller: &Caller, id: &str) -> Result<Kept, ApiError> {
        let kept = self.response(caller, id).await?;
        if kept.ended.is_some() {
            return Ok(kept);
        }
        match self.cancel(caller, kept.view.id).await {
            Ok(Cancelled::Now(_)) => {}
            Ok(Cancelled::Asked(view)) => drop(self.wait(view.id, CANCEL_WAIT).await?),
            // It has ended meanwhile.
            Err(error) if error.code == ErrorCode::Conflict => {}
            Err(error) => return Err(error),
        }
        self.response(caller, id).await
    }

    /// Deletes a response of the caller and all that is kept of it; one that is not over is
    /// cancelled first.
    ///
    /// # Errors
    /// `not_found`; `conflict` when its worker has not stopped yet; the store's.
    pub async fn forget_response(&self, caller: &Caller, id: &str) -> Result<(), ApiError> {
        let kept = self.cancel_response(caller, id).await?;
        let removed = self.jobs.remove(kept.view.id).await.map_err(|error| store_error(&error))?;
        if removed {
            return Ok(());
        }
        let message = "the response is being cancelled; delete it again in a moment";
        Err(ApiError::new(ErrorCode::Conflict, message))
    }

    /// The chat that a response has come to, without its instructions.
    ///
    /// # Errors
    /// `not_found`; `conflict` when it is not over or did not succeed; the store's.
    pub async fn chat_of(&self, caller: &Caller, id: &str) -> Result<Vec<ChatMessage>, ApiError> {
        let param = "previous_response_id";
        let found = self.response(caller, id).await.map_err(|error| error.with_param(param))?;
        let Some(Ok(result)) = found.ended else {
            let message = format!("{param}: that response is not over, or has failed");
            return Err(ApiError::invalid(param, message));
        };
        let skipped = usize::from(found.asked.instructed);
        let asked = found.asked.request.messages.unwrap_or_default().into_iter().skip(skipped);
        let tool_calls = result.tool_calls;
        let answer = ChatMessage { tool_calls, ..ChatMessage::said("assistant", &result.text) };
        Ok(asked.chain([answer]).collect())
    }
}

fn unreadable() -> ApiError {
    tracing::error!("a stored response is malformed");
    ApiError::new(ErrorCode::Internal, "the stored response cannot be read")
}
