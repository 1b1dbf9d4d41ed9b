//! Responses that are kept: a completion, and what its caller is to be shown of the request.

use aisemble_jobs::JobFailure;
use aisemble_protocol::ApiError;
use aisemble_protocol::completion::{CompletionRequest, CompletionResult};
use aisemble_protocol::job::JobOptions;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Attempt, Completion, Work};
use crate::capability::Capability;
use crate::dispatch::Dispatch;

/// A response to be made and kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeptResponse {
    /// What is to be made.
    pub request: CompletionRequest,
    /// The first message is the `instructions`, which the next response does not take over.
    pub instructed: bool,
    /// Fields of the request that its answer repeats.
    pub shown: Map<String, Value>,
}

/// A response by a language model.
#[derive(Debug)]
pub struct Response;

impl Work for Response {
    const KIND: &'static str = "llm.response";
    const CAPABILITY: Capability = Capability::Llm;
    type Request = KeptResponse;
    type Answer = CompletionResult;

    fn options(request: &KeptResponse) -> Option<&JobOptions> {
        Completion::options(&request.request)
    }

    fn streams(request: &KeptResponse) -> bool {
        request.request.stream
    }

    fn set_streams(request: &mut KeptResponse, streams: bool) {
        request.request.stream = streams;
    }

    fn check(request: &KeptResponse) -> Result<(), ApiError> {
        Completion::check(&request.request)
    }

    fn resolve(request: &KeptResponse, dispatch: &Dispatch) -> Result<(), ApiError> {
        Completion::resolve(&request.request, dispatch)
    }

    fn settle(request: &mut KeptResponse) {
        Completion::settle(&mut request.request);
    }

    async fn run(attempt: Attempt, request: KeptResponse) -> Result<CompletionResult, JobFailure> {
        Completion::run(attempt, request.request).await
    }
}
