//! `POST /ai/vision/analyze`: pictures in JSON, or beside the fields of a form.

use std::sync::Arc;

use aisemble_protocol::ErrorCode;
use aisemble_protocol::job::JobView;
use aisemble_protocol::vision::{AnalyzeRequest, AnalyzeResult};
use axum::extract::{FromRequest, Request, State};
use axum::http::header;
use axum::response::Response;

use super::door;
use super::error::{Failure, Problem};
use super::extract::{self, Delivery, From};
use super::form;
use crate::app::App;
use crate::work::Analysis;

const PATH: &str = "/ai/vision/analyze";
/// Body of a request with pictures in it, bytes: what a job may carry. Larger pictures come as
/// uploaded files.
const BODY_BYTES_MAX: usize = 15 * 1024 * 1024;

/// Analyses pictures, as a durable job: answered with the job, or with its result when `Prefer:
/// wait=N` allows, or with events (`Accept: text/event-stream`): `job`, an `item` for each picture
/// as it is done, then `result` or `error`. A body of `multipart/form-data` has the pictures as
/// parts named `image`, and the other fields as parts of their own or together as JSON in
/// `request`.
#[utoipa::path(post, path = "/ai/vision/analyze", tag = "vision", security(("key" = ["vision"])),
    params(
        ("Prefer" = Option<String>, Header, description = "`wait=N`: wait up to N seconds"),
        ("Idempotency-Key" = Option<String>, Header,
            description = "the same key and body give the same job, for 24 hours"),
    ),
    request_body(content((AnalyzeRequest = "application/json"),
        (AnalyzeForm = "multipart/form-data"))),
    responses(
        (status = 200, body = AnalyzeResult, description = "the result, within `wait`"),
        (status = 202, body = JobView, description = "the job; `Location` says where it is"),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn analyze(
    State(app): State<Arc<App>>,
    From(origin): From,
    delivery: Delivery,
    Pictures(request): Pictures,
) -> Result<Response, Failure> {
    door::enter::<Analysis>(&app, origin, delivery, PATH, request).await
}

/// The form of `multipart/form-data`.
#[derive(Debug, utoipa::ToSchema)]
#[expect(dead_code, reason = "only its description matters")]
pub(super) struct AnalyzeForm {
    /// The pictures; the part may be repeated.
    #[schema(value_type = Vec<String>, format = Binary)]
    image: Vec<Vec<u8>>,
    /// Names of tasks with commas between them; the part may be repeated.
    tasks: String,
    /// The model for every task.
    model: Option<String>,
    /// How many labels.
    top_k: Option<u32>,
    /// Leave out what is less certain.
    score_min: Option<f32>,
    /// Which boxes are one.
    nms_iou: Option<f32>,
    /// Labels of `zero_shot` with commas between them; the part may be repeated.
    labels: Option<String>,
    /// `json` or `annotated`.
    response: Option<String>,
    /// The whole request as JSON, without its pictures, in place of the fields above.
    request: Option<String>,
}

/// The request, from whichever body.
pub(super) struct Pictures(AnalyzeRequest);

impl FromRequest<Arc<App>> for Pictures {
    type Rejection = Failure;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Failure> {
        let content_type = request.headers().get(header::CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok()).map(str::to_owned);
        let boundary = content_type.as_deref().filter(|text| form::is_form(text));
        let boundary = boundary.map(form::boundary).transpose()?;
        if boundary.is_none() {
            extract::check_json(content_type.as_deref())?;
        }
        let bytes = extract::body(request, app.limits.body_max(), BODY_BYTES_MAX);
        let bytes = bytes.await.map_err(|mut error| {
            if error.code == ErrorCode::PayloadTooLarge {
                error.message.push_str("; upload larger pictures as files");
            }
            error
        })?;
        let request = match boundary {
            None => extract::parse(&bytes)?,
            Some(boundary) => form::analyze_request(bytes, boundary).await?,
        };
        Ok(Self(request))
    }
}
