//! What every request gets, whatever it asks: an id, a trace, a log line, its counters, an error
//! body in the right shape, and an answer even when a handler panics.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use aisemble_protocol::{ApiError, ErrorCode};
use aisemble_service::telemetry;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use tracing::Instrument as _;

use super::error::{self, Failure, Place};
use crate::app::App;
use crate::trace::Trace;

/// The header of a request's id.
const REQUEST_ID: &str = "x-request-id";
const TRACE_PARENT: &str = "traceparent";

/// Under which ids a request runs.
#[derive(Debug, Clone)]
pub(super) struct Ids {
    pub(super) request_id: String,
    pub(super) trace: Trace,
}

impl Ids {
    /// Those that [`identify`] gave the request.
    pub(super) fn of(request: &Request) -> Self {
        let ids = request.extensions().get::<Self>();
        ids.cloned().unwrap_or_else(|| Self::from_headers(request))
    }

    /// The client's own request id when it can be logged, or a new one.
    fn from_headers(request: &Request) -> Self {
        let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
        let fits = |id: &&str| {
            (1..=telemetry::ID_BYTES_MAX).contains(&id.len())
                && id.bytes().all(|byte| byte.is_ascii_graphic())
        };
        let made = || format!("req_{}", uuid::Uuid::now_v7().simple());
        Self {
            request_id: header(REQUEST_ID).filter(fits).map_or_else(made, str::to_owned),
            trace: Trace::continuing(header(TRACE_PARENT)),
        }
    }
}

/// Gives the request its ids and the answer the same.
pub(super) async fn identify(mut request: Request, next: Next) -> Response {
    let ids = Ids::from_headers(&request);
    request.extensions_mut().insert(ids.clone());
    let span = telemetry::request_span(Some(&ids.request_id), None);
    let mut response = next.run(request).instrument(span).await;
    for (name, text) in [(REQUEST_ID, ids.request_id), (TRACE_PARENT, ids.trace.to_string())] {
        if let Ok(value) = HeaderValue::from_str(&text) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// Counts, logs, contains panics, and writes error bodies.
pub(super) async fn answer(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let in_flight = InFlight::new(&app);
    let method = method_label(request.method());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let place = Place { path: request.uri().path().to_owned(), ids: Ids::of(&request) };
    let answered = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    let response = answered.unwrap_or_else(|_| {
        let message = "a defect of ours; the log has it under this request's id";
        Failure::from(ApiError::new(ErrorCode::Internal, message)).into_response()
    });
    drop(in_flight);
    let response = error::with_body(response, &place);
    let route = route.as_ref().map_or("unmatched", MatchedPath::as_str);
    note(&app, (method, route), &response, started);
    response
}

fn note(app: &App, (method, route): (&str, &str), response: &Response, started: Instant) {
    let (status, elapsed) = (response.status(), started.elapsed());
    app.metrics.answered(method, route, status.as_u16(), elapsed.as_secs_f64());
    let code = error::code_of(response);
    if let Some(code) = code {
        app.metrics.refused(code);
    }
    let duration_ms = elapsed.as_secs_f64() * 1e3;
    let status = status.as_u16();
    let code = code.map(ErrorCode::as_str);
    // "Not ready" is an answer: whoever starts the services asks many times a second.
    if status >= StatusCode::INTERNAL_SERVER_ERROR.as_u16() && route != "/ready" {
        tracing::warn!(
            http.method = method,
            http.route = route,
            http.status = status,
            error.code = code,
            duration_ms,
            "answered"
        );
    } else {
        tracing::info!(
            http.method = method,
            http.route = route,
            http.status = status,
            error.code = code,
            duration_ms,
            "answered"
        );
    }
}

/// The method as a label: clients may send any word.
fn method_label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

/// One request whose answer has not begun; a client that goes away ends it too.
struct InFlight<'a>(&'a App);

impl<'a> InFlight<'a> {
    fn new(app: &'a App) -> Self {
        app.metrics.http_in_flight.inc();
        Self(app)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.metrics.http_in_flight.dec();
    }
}
