//! `POST /data/process`.

use std::sync::Arc;

use aisemble_protocol::data::{ProcessRequest, ProcessResult};
use aisemble_protocol::job::JobView;
use axum::extract::State;
use axum::response::Response;

use super::door;
use super::error::{Failure, Problem};
use super::extract::{Delivery, From, Json};
use crate::app::App;
use crate::work::Processing;

/// Runs SQL or a pipeline of operations over tables, as a durable job: answered with the job, or
/// with its result when `Prefer: wait=N` allows, or with events (`Accept: text/event-stream`):
/// `job`, `progress`, then `result` or `error`.
#[utoipa::path(post, path = "/data/process", tag = "data", security(("key" = ["data"])),
    params(
        ("Prefer" = Option<String>, Header, description = "`wait=N`: wait up to N seconds"),
        ("Idempotency-Key" = Option<String>, Header,
            description = "the same key and body give the same job, for 24 hours"),
    ),
    request_body = ProcessRequest,
    responses(
        (status = 200, body = ProcessResult, description = "the result, within `wait`"),
        (status = 202, body = JobView, description = "the job; `Location` says where it is"),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn process(
    State(app): State<Arc<App>>,
    From(origin): From,
    delivery: Delivery,
    Json(request): Json<ProcessRequest>,
) -> Result<Response, Failure> {
    door::enter::<Processing>(&app, origin, delivery, "/data/process", request).await
}
