//! `/workflows` and `/schedules`.

use std::sync::Arc;

use aisemble_protocol::workflow::{Validation, WorkflowRequest, WorkflowView};
use aisemble_protocol::{ApiError, ErrorCode};
use axum::Json as Body;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::error::{Failure, Problem};
use super::extract::{From, Id, Json, Params};
use super::jobs::last_event_id;
use super::sse;
use crate::app::App;
use crate::workflow::{ScheduleRequest, ScheduleView};

/// How a picture is drawn.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Picture {
    /// `mermaid` (the default) or `dot`.
    format: Option<String>,
}

/// Takes a workflow in: steps over the capabilities, joined by references. It is checked as a whole
/// before anything runs; what is wrong names its step.
#[utoipa::path(post, path = "/workflows", tag = "workflows", security(("key" = ["jobs"])),
    params(("Idempotency-Key" = Option<String>, Header,
        description = "the same key and body give the same workflow, for 24 hours")),
    request_body = WorkflowRequest,
    responses((status = 202, body = WorkflowView, description = "`Location` says where it is"),
        (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    From(origin): From,
    Json(request): Json<WorkflowRequest>,
) -> Result<Response, Failure> {
    let (view, replayed) = app.desk.submit(&origin, request).await?;
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_str(&format!("/workflows/{}", view.id)) {
        headers.insert(header::LOCATION, value);
    }
    if replayed {
        headers.insert("idempotency-replayed", HeaderValue::from_static("true"));
    }
    Ok((StatusCode::ACCEPTED, headers, Body(view)).into_response())
}

/// Checks a workflow and runs nothing: every fault, each with its step.
#[utoipa::path(post, path = "/workflows/validate", tag = "workflows",
    security(("key" = ["jobs"])), request_body = WorkflowRequest,
    responses((status = 200, body = Validation),
        (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn validate(
    State(app): State<Arc<App>>,
    Json(request): Json<WorkflowRequest>,
) -> Body<Validation> {
    Body(app.desk.validate(&request))
}

/// Shows a workflow and its steps.
#[utoipa::path(get, path = "/workflows/{id}", tag = "workflows", security(("key" = ["jobs"])),
    params(("id" = String, Path, description = "the workflow's id")),
    responses((status = 200, body = WorkflowView),
        (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    From(origin): From,
    Id(id): Id,
) -> Result<Body<WorkflowView>, Failure> {
    Ok(Body(app.desk.show(&origin.caller, id).await?))
}

/// Cancels a workflow with all its steps.
#[utoipa::path(delete, path = "/workflows/{id}", tag = "workflows", security(("key" = ["jobs"])),
    params(("id" = String, Path, description = "the workflow's id")),
    responses((status = 202, body = WorkflowView),
        (status = 409, body = Problem, content_type = "application/problem+json"),
        (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn cancel(
    State(app): State<Arc<App>>,
    From(origin): From,
    Id(id): Id,
) -> Result<(StatusCode, Body<WorkflowView>), Failure> {
    Ok((StatusCode::ACCEPTED, Body(app.desk.cancel(&origin.caller, id).await?)))
}

/// Draws a workflow, its steps with their states.
#[utoipa::path(get, path = "/workflows/{id}/graph", tag = "workflows",
    security(("key" = ["jobs"])), params(Picture,
        ("id" = String, Path, description = "the workflow's id")),
    responses((status = 200, body = String, content_type = "text/plain"),
        (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn graph(
    State(app): State<Arc<App>>,
    From(origin): From,
    Id(id): Id,
    Params(Picture { format }): Params<Picture>,
) -> Result<String, Failure> {
    let graphviz = match format.as_deref() {
        None | Some("mermaid") => false,
        Some("dot") => true,
        Some(_) => return Err(ApiError::invalid("format", "format is mermaid or dot").into()),
    };
    Ok(app.desk.graph(&origin.caller, id, graphviz).await?)
}

/// Follows a workflow: `step` for each change of a step and what a map has done, then `state`.
/// `Last-Event-ID` goes on after the event of that number.
#[utoipa::path(get, path = "/workflows/{id}/events", tag = "workflows",
    security(("key" = ["jobs"])),
    params(("id" = String, Path, description = "the workflow's id"),
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
    app.desk.show(&origin.caller, id).await?;
    let events = app.events(&origin.caller, id, after_seq).await?;
    Ok(sse::recorded(&app, events))
}

/// The `{id}` of a schedule's path.
pub(super) struct ScheduleId(Uuid);

impl FromRequestParts<Arc<App>> for ScheduleId {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Failure> {
        let malformed = || ApiError::invalid("id", "the schedule's id is not a UUID");
        let Path(text) =
            Path::<String>::from_request_parts(parts, app).await.map_err(|_| malformed())?;
        Ok(Self(text.parse().map_err(|_| malformed())?))
    }
}

/// The schedules of a key.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ScheduleList {
    /// The schedules, oldest first.
    schedules: Vec<ScheduleView>,
}

/// Keeps a schedule: a workflow that is submitted at the times of a cron expression, in UTC.
#[utoipa::path(post, path = "/schedules", tag = "workflows", security(("key" = ["jobs"])),
    request_body = ScheduleRequest,
    responses((status = 201, body = ScheduleView),
        (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn create_schedule(
    State(app): State<Arc<App>>,
    From(origin): From,
    Json(request): Json<ScheduleRequest>,
) -> Result<(StatusCode, Body<ScheduleView>), Failure> {
    let view = app.desk.put_schedule(&origin, None, request).await?;
    Ok((StatusCode::CREATED, Body(view)))
}

/// Lists the key's schedules.
#[utoipa::path(get, path = "/schedules", tag = "workflows", security(("key" = ["jobs"])),
    responses((status = 200, body = ScheduleList),
        (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list_schedules(
    State(app): State<Arc<App>>,
    From(origin): From,
) -> Result<Body<ScheduleList>, Failure> {
    Ok(Body(ScheduleList { schedules: app.desk.schedules(&origin.caller).await? }))
}

/// Shows a schedule.
#[utoipa::path(get, path = "/schedules/{id}", tag = "workflows", security(("key" = ["jobs"])),
    params(("id" = String, Path, description = "the schedule's id")),
    responses((status = 200, body = ScheduleView),
        (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn show_schedule(
    State(app): State<Arc<App>>,
    From(origin): From,
    ScheduleId(id): ScheduleId,
) -> Result<Body<ScheduleView>, Failure> {
    Ok(Body(app.desk.schedule(&origin.caller, id).await?))
}

/// Replaces a schedule; `paused` makes it rest.
#[utoipa::path(put, path = "/schedules/{id}", tag = "workflows", security(("key" = ["jobs"])),
    params(("id" = String, Path, description = "the schedule's id")),
    request_body = ScheduleRequest,
    responses((status = 200, body = ScheduleView),
        (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn replace_schedule(
    State(app): State<Arc<App>>,
    From(origin): From,
    ScheduleId(id): ScheduleId,
    Json(request): Json<ScheduleRequest>,
) -> Result<Body<ScheduleView>, Failure> {
    Ok(Body(app.desk.put_schedule(&origin, Some(id), request).await?))
}

/// Deletes a schedule; workflows that it made go on.
#[utoipa::path(delete, path = "/schedules/{id}", tag = "workflows", security(("key" = ["jobs"])),
    params(("id" = String, Path, description = "the schedule's id")),
    responses((status = 204),
        (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn delete_schedule(
    State(app): State<Arc<App>>,
    From(origin): From,
    ScheduleId(id): ScheduleId,
) -> Result<StatusCode, Failure> {
    app.desk.drop_schedule(&origin.caller, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The queues.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct QueueList {
    /// One for each capability that has jobs or is paused.
    queues: Vec<crate::workflow::Queue>,
}

/// The `{capability}` of a queue's path.
pub(super) struct QueueName(String);

impl FromRequestParts<Arc<App>> for QueueName {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Failure> {
        let missing = || ApiError::new(ErrorCode::NotFound, "there is no such queue");
        let Path(text) =
            Path::<String>::from_request_parts(parts, app).await.map_err(|_| missing())?;
        Ok(Self(text))
    }
}

/// Shows how much waits and runs in each queue, and which are paused.
#[utoipa::path(get, path = "/queues", tag = "operation", security(("key" = ["admin"])),
    responses((status = 200, body = QueueList),
        (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list_queues(State(app): State<Arc<App>>) -> Result<Body<QueueList>, Failure> {
    Ok(Body(QueueList { queues: app.desk.queues().await? }))
}

/// Keeps the jobs of a queue from beginning; what runs goes on. Outlives restarts.
#[utoipa::path(post, path = "/queues/{capability}/pause", tag = "operation",
    security(("key" = ["admin"])),
    params(("capability" = String, Path, description = "the queue: `llm`, `map`, ...")),
    responses((status = 200, body = QueueList),
        (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn pause_queue(
    State(app): State<Arc<App>>,
    From(origin): From,
    QueueName(name): QueueName,
) -> Result<Body<QueueList>, Failure> {
    Ok(Body(QueueList { queues: app.desk.pause(&origin.caller, &name, true).await? }))
}

/// Lets the jobs of a paused queue begin again.
#[utoipa::path(post, path = "/queues/{capability}/resume", tag = "operation",
    security(("key" = ["admin"])),
    params(("capability" = String, Path, description = "the queue: `llm`, `map`, ...")),
    responses((status = 200, body = QueueList),
        (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn resume_queue(
    State(app): State<Arc<App>>,
    From(origin): From,
    QueueName(name): QueueName,
) -> Result<Body<QueueList>, Failure> {
    Ok(Body(QueueList { queues: app.desk.pause(&origin.caller, &name, false).await? }))
}

/// Submits a job that failed or expired again, as a new one with the same request.
#[utoipa::path(post, path = "/jobs/{id}/retry", tag = "jobs", security(("key" = ["jobs"])),
    params(("id" = String, Path, description = "the job's id")),
    responses((status = 202, body = aisemble_protocol::job::JobView),
        (status = 409, body = Problem, content_type = "application/problem+json"),
        (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn retry_job(
    State(app): State<Arc<App>>,
    From(origin): From,
    Id(id): Id,
) -> Result<Response, Failure> {
    let view = app.desk.retry(&origin, id).await?;
    let location = format!("/jobs/{}", view.id);
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], Body(view)).into_response())
}
