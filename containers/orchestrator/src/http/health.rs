//! `/health`, `/ready`, `/metrics`, and what is not there.

use std::collections::BTreeMap;
use std::sync::Arc;

use aisemble_protocol::{ApiError, ErrorCode};
use axum::Json;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde::Serialize;
use utoipa::ToSchema;

use super::error::Failure;
use crate::app::App;
use crate::metrics::CONTENT_TYPE;

/// Characters of a path that an error repeats.
const SHOWN_CHARS_MAX: usize = 200;

/// The process lives.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Health {
    /// Always `ok`.
    status: &'static str,
}

/// Whether work is taken.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Ready {
    /// Every capability takes work.
    ready: bool,
    /// Each capability.
    capabilities: BTreeMap<&'static str, Capability>,
}

/// One capability.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Capability {
    /// At least one instance takes work.
    ready: bool,
    /// How many do, and why not all.
    detail: String,
}

/// The process lives; says nothing of the services.
#[utoipa::path(get, path = "/health", tag = "operation",
    responses((status = 200, body = Health)))]
pub(super) async fn health() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Whether every capability takes work, after a warm-up whose output was checked.
#[utoipa::path(get, path = "/ready", tag = "operation",
    responses((status = 200, body = Ready), (status = 503, body = Ready)))]
pub(super) async fn ready(State(app): State<Arc<App>>) -> (StatusCode, Json<Ready>) {
    let all = app.readiness();
    let ready = all.iter().all(|one| one.ready);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let capabilities = all
        .into_iter()
        .map(|one| (one.capability.as_str(), Capability { ready: one.ready, detail: one.detail }))
        .collect();
    (status, Json(Ready { ready, capabilities }))
}

/// Figures of the orchestrator and of every service, in the Prometheus text format.
#[utoipa::path(get, path = "/metrics", tag = "operation", security(("key" = ["metrics"])),
    responses((status = 200, body = String, content_type = "text/plain")))]
pub(super) async fn metrics(State(app): State<Arc<App>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], app.metrics_page().await)
}

/// No such route.
pub(super) async fn no_route(request: Request) -> Failure {
    let path: String = request.uri().path().chars().take(SHOWN_CHARS_MAX).collect();
    let message = format!("there is no route {path}; GET /openapi.json lists those there are");
    ApiError::new(ErrorCode::NotFound, message).into()
}

/// The route is there, the method is not.
pub(super) async fn no_method(request: Request) -> Failure {
    let path: String = request.uri().path().chars().take(SHOWN_CHARS_MAX).collect();
    let method: String = request.method().as_str().chars().take(SHOWN_CHARS_MAX).collect();
    let message = format!("{path} does not offer {method}; GET /openapi.json lists what it does");
    ApiError::new(ErrorCode::MethodNotAllowed, message).into()
}
