//! `POST /ai/llm/completion`.

use std::sync::Arc;
use std::time::Duration;

use aisemble_protocol::completion::{CompletionRequest, CompletionResult};
use aisemble_protocol::job::JobView;
use axum::Json as Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};

use super::correlate::Ids;
use super::error::{Failure, Place, Problem};
use super::extract::{Delivery, From, Json};
use super::sse;
use crate::app::{Accepted, App, Ended, Progress};

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
    let delivery = delivery.or_stream(request.stream);
    let now = delivery != Delivery::Job;
    let accepted = app.submit_completion(&origin, request, now).await?;
    let ids = Ids { request_id: origin.request_id, trace: origin.trace };
    deliver(&app, accepted, delivery, Place { path: PATH.to_owned(), ids }).await
}

async fn deliver(
    app: &Arc<App>,
    accepted: Accepted,
    delivery: Delivery,
    place: Place,
) -> Result<Response, Failure> {
    let headers = headers(&accepted);
    let response = match delivery {
        Delivery::Job => (StatusCode::ACCEPTED, Body(accepted.view)).into_response(),
        Delivery::Wait(time) => waited(app, accepted.view, time).await?,
        Delivery::Stream => {
            sse::progress(app, Progress::new(Arc::clone(app), accepted.view), place)
        }
    };
    Ok((headers, response).into_response())
}

async fn waited(app: &App, view: JobView, time: Duration) -> Result<Response, Failure> {
    let id = view.id;
    let mut response = match app.wait(id, time).await? {
        Ended::Result(result) => json(result),
        Ended::NotYet(view) => (StatusCode::ACCEPTED, Body(view)).into_response(),
        Ended::Error(error) => return Err(Failure::of_job(error, id)),
    };
    if let Ok(value) = HeaderValue::from_str(&format!("wait={}", time.as_secs())) {
        response.headers_mut().insert("preference-applied", value);
    }
    Ok(response)
}

/// An answer of JSON that is written already.
pub(super) fn json(bytes: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], bytes).into_response()
}

fn headers(accepted: &Accepted) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_str(&format!("/jobs/{}", accepted.view.id)) {
        headers.insert(header::LOCATION, value);
    }
    if accepted.replayed {
        headers.insert("idempotency-replayed", HeaderValue::from_static("true"));
    }
    headers
}
