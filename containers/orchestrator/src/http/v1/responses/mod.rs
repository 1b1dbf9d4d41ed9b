//! `/v1/responses`: made at once, streamed, or as durable jobs that are kept and looked at later.

mod input;
mod object;
mod request;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use aisemble_protocol::ApiError;
use axum::Json as Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Map, Value, json};

use super::super::error::{Failure, OpenAiError};
use super::super::extract::{From, Json};
use crate::app::responses::response_id;
use crate::app::transcript::collect;
use crate::app::{App, Ended, Origin, Patience, now_ms};
use crate::work;
use object::{Head, Stage};
use request::{Asked, ResponseRequest};

/// Makes a response. Nothing of it is kept unless `store` or `background` says so.
#[utoipa::path(post, path = "/v1/responses", tag = "openai", security(("key" = ["llm"])),
    request_body = ResponseRequest,
    responses((status = 200, body = Object,
            description = "a `response`, or events `response.*` when `stream` is true"),
        (status = "default", body = OpenAiError)))]
pub(in crate::http) async fn create(
    State(app): State<Arc<App>>,
    From(origin): From,
    Json(body): Json<Map<String, Value>>,
) -> Result<Response, Failure> {
    let asked = Asked::read(&app, &origin.caller, body).await?;
    if asked.stream {
        return Ok(stream::respond(&app, &origin, asked).await?);
    }
    let made = if asked.store {
        keep(&app, &origin, asked).await?
    } else {
        make(&app, &origin, asked).await?
    };
    Ok(Body(made).into_response())
}

/// Shows a response that is kept.
#[utoipa::path(get, path = "/v1/responses/{id}", tag = "openai", security(("key" = ["llm"])),
    params(("id" = String, Path, description = "the response's id")),
    responses((status = 200, body = Object), (status = "default", body = OpenAiError)))]
pub(in crate::http) async fn show(
    State(app): State<Arc<App>>,
    From(origin): From,
    Path(id): Path<String>,
) -> Result<Body<Value>, Failure> {
    Ok(Body(object::kept(&app.response(&origin.caller, &id).await?)))
}

/// Cancels a response; one that is over stays as it is.
#[utoipa::path(post, path = "/v1/responses/{id}/cancel", tag = "openai",
    security(("key" = ["llm"])),
    params(("id" = String, Path, description = "the response's id")),
    responses((status = 200, body = Object), (status = "default", body = OpenAiError)))]
pub(in crate::http) async fn cancel(
    State(app): State<Arc<App>>,
    From(origin): From,
    Path(id): Path<String>,
) -> Result<Body<Value>, Failure> {
    Ok(Body(object::kept(&app.cancel_response(&origin.caller, &id).await?)))
}

/// Deletes a response and all that is kept of it.
#[utoipa::path(delete, path = "/v1/responses/{id}", tag = "openai", security(("key" = ["llm"])),
    params(("id" = String, Path, description = "the response's id")),
    responses((status = 200, body = Object), (status = "default", body = OpenAiError)))]
pub(in crate::http) async fn remove(
    State(app): State<Arc<App>>,
    From(origin): From,
    Path(id): Path<String>,
) -> Result<Body<Value>, Failure> {
    app.forget_response(&origin.caller, &id).await?;
    Ok(Body(json!({"id": id, "object": "response", "deleted": true})))
}

/// Makes a response that nothing is kept of.
async fn make(app: &App, origin: &Origin, asked: Asked) -> Result<Value, ApiError> {
    let request = asked.kept.request;
    let offer = request.offer()?.map(Arc::new);
    let generation = app.generate(origin, request.to_generate()?).await?;
    let result = collect(generation, offer).await?;
    let id = new_id();
    let items = object::items(&id, &result);
    let (created_at, model) = (now_ms() / 1_000, result.model);
    let head = Head { id, created_at, model, shown: asked.kept.shown };
    Ok(head.response(Stage::Over(&result.finish_reason, result.usage, items)))
}

/// Makes a response as a durable job; waits for it unless it is to be made in the background.
async fn keep(app: &App, origin: &Origin, asked: Asked) -> Result<Value, ApiError> {
    let patience = if asked.background { Patience::Later } else { Patience::Waits };
    let accepted = app.submit::<work::Response>(origin, asked.kept, patience).await?;
    let job = accepted.view.id;
    if !asked.background {
        loop {
            match app.wait(job, Duration::from_secs(600)).await? {
                Ended::NotYet(_) if app.closing.is_cancelled() => break,
                Ended::NotYet(_) => {}
                Ended::Error(error) => return Err(error),
                Ended::Result(_) => break,
            }
        }
    }
    Ok(object::kept(&app.response(&origin.caller, &response_id(job)).await?))
}

/// Of a response that nothing is kept of.
fn new_id() -> String {
    response_id(aisemble_protocol::JobId::generate())
}
