//! `/jobs`: list, show, cancel, result, events.

use std::sync::Arc;

use aisemble_protocol::completion::CompletionResult;
use aisemble_protocol::job::{JobPage, JobView};
use aisemble_protocol::{ApiError, ErrorCode};
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Deserialize;
use utoipa::IntoParams;

use super::error::{Failure, Problem};
use super::extract::{From, Id, Params};
use super::{door, sse};
use crate::app::{App, Cancelled, Ended, ListQuery};

/// When to look again for a result that is not there yet, milliseconds.
const RESULT_RETRY_MS: u64 = 1_000;

/// Which jobs to list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct List {
    /// Only in these states, separated by commas.
    state: Option<String>,
    /// Only of this kind: `llm.completion`.
    kind: Option<String>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// Jobs on the page: 1 to 500, default 50.
    limit: Option<u32>,
}

/// Lists the key's jobs, newest first; every key's for an admin.
#[utoipa::path(get, path = "/jobs", tag = "jobs", security(("key" = ["jobs"])), params(List),
    responses((status = 200, body = JobPage),
        (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    From(origin): From,
    Params(List { state, kind, cursor, limit }): Params<List>,
) -> Result<Json<JobPage>, Failure> {
    let query = ListQuery { state, kind, cursor, limit };
    Ok(Json(app.list(&origin.caller, query).await?))
}

/// Shows a job.
#[utoipa::path(get, path = "/jobs/{id}", tag = "jobs", security(("key" = ["jobs"])),
    params(("id" = String, Path, description = "the job's id")),
    responses((status = 200, body = JobView),
        (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    From(origin): From,
    Id(id): Id,
) -> Result<Json<JobView>, Failure> {
    Ok(Json(app.job(&origin.caller, id).await?))
}

/// Cancels a job: at once when it does not run (200), by asking its worker when it does (202).
#[utoipa::path(delete, path = "/jobs/{id}", tag = "jobs", security(("key" = ["jobs"])),
    params(("id" = String, Path, description = "the job's id")),
    responses((status = 200, body = JobView), (status = 202, body = JobView),
        (status = 409, body = Problem, content_type = "application/problem+json"),
        (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn cancel(
    State(app): State<Arc<App>>,
    From(origin): From,
    Id(id): Id,
) -> Result<(StatusCode, Json<JobView>), Failure> {
    Ok(match app.cancel(&origin.caller, id).await? {
        Cancelled::Now(view) => (StatusCode::OK, Json(view)),
        Cancelled::Asked(view) => (StatusCode::ACCEPTED, Json(view)),
    })
}

/// Gives a job's result; 409 while there is none, the job's own error when it ended with one.
#[utoipa::path(get, path = "/jobs/{id}/result", tag = "jobs", security(("key" = ["jobs"])),
    params(("id" = String, Path, description = "the job's id")),
    responses((status = 200, body = CompletionResult),
        (status = 409, body = Problem, content_type = "application/problem+json"),
        (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn result(
    State(app): State<Arc<App>>,
    From(origin): From,
    Id(id): Id,
) -> Result<Response, Failure> {
    match app.result(&origin.caller, id).await? {
        Ended::Result(result) => Ok(door::json(result)),
        Ended::Error(error) => Err(Failure::of_job(error, id)),
        Ended::NotYet(view) => {
            let message = format!("the job has no result yet: it is {}", view.state.as_str());
            let error = ApiError::new(ErrorCode::Conflict, message);
            Err(error.with_retry_after_ms(RESULT_RETRY_MS).into())
        }
    }
}

/// Follows a job's events: those there are, then each new one, until it has ended. `Last-Event-ID`
/// goes on after the event of that number.
#[utoipa::path(get, path = "/jobs/{id}/events", tag = "jobs", security(("key" = ["jobs"])),
    params(("id" = String, Path, description = "the job's id"),
        ("Last-Event-ID" = Option<u64>, Header, description = "number of the last event seen")),
    responses((status = 200, body = String, content_type = "text/event-stream"),
        (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn events(
    State(app): State<Arc<App>>,
    From(origin): From,
    Id(id): Id,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let after_seq = last_event_id(&headers)?;
    let events = app.events(&origin.caller, id, after_seq).await?;
    Ok(sse::recorded(&app, events))
}

pub(super) fn last_event_id(headers: &HeaderMap) -> Result<u64, ApiError> {
    let Some(value) = headers.get("last-event-id") else { return Ok(0) };
    let number = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    number.filter(|number| i64::try_from(*number).is_ok()).ok_or_else(|| {
        ApiError::invalid("Last-Event-ID", "Last-Event-ID must be the number of an event")
    })
}
