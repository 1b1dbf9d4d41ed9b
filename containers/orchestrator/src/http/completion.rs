//! `POST /ai/llm/completion`.

use std::sync::Arc;

use aisemble_protocol::completion::{CompletionRequest, CompletionResult};
use aisemble_protocol::job::JobView;
use axum::extract::State;
use axum::response::Response;

use super::door;
use super::error::{Failure, Problem};
use super::extract::{Delivery, From, Json};
use crate::app::App;
use crate::work::Completion;

const PATH: &str = "/ai/llm/completion";

/// Makes a completion as a durable job. Answers with the job at once; with its result when
/// `Prefer: wait=N` allows; or with events (`Accept: text/event-stream` or `stream: true`): `job`,
/// then `token` as they come, then `result` or `error`.
#[utoipa::path(post, path = "/ai/llm/completion", tag = "completion", security(("key" = ["llm"])),
    params(
        ("Prefer" = Option<String>, Header, description = "`wait=N`: wait up to N seconds"),
        ("Idempotency-Key" = Option<String>, Header,
            description = "the same key and body give the same job, for 24 hours"),
    ),
    request_body = CompletionRequest,
    responses(
        (status = 200, body = CompletionResult, description = "the result, within `wait`"),
        (status = 202, body = JobView, description = "the job; `Location` says where it is"),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    From(origin): From,
    delivery: Delivery,
    Json(request): Json<CompletionRequest>,
) -> Result<Response, Failure> {
    door::enter::<Completion>(&app, origin, delivery, PATH, request).await
}
