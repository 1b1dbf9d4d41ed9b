//! `/v1/batches`.

use std::sync::Arc;

use aisemble_protocol::ApiError;
use axum::Json as Body;
use axum::extract::{Path, State};
use serde::Deserialize;
use utoipa::IntoParams;

use super::super::error::{Failure, OpenAiError};
use super::super::extract::{From, Json, Params};
use crate::app::App;
use crate::workflow::{Batch, BatchList, BatchRequest};

/// Batches on one page.
const PAGE_MAX: u32 = 100;
/// Batches on one page when the caller names no number.
const PAGE_DEFAULT: u32 = 20;

/// Which batches to list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct List {
    /// `last_id` of the page before.
    after: Option<String>,
    /// Batches on the page: 1 to 100, default 20.
    limit: Option<u32>,
}

/// Makes a batch of the lines of an uploaded file.
#[utoipa::path(post, path = "/v1/batches", tag = "openai", security(("key" = ["jobs"])),
    request_body = BatchRequest,
    responses((status = 200, body = Batch), (status = "default", body = OpenAiError)))]
pub(in crate::http) async fn create(
    State(app): State<Arc<App>>,
    From(origin): From,
    Json(request): Json<BatchRequest>,
) -> Result<Body<Batch>, Failure> {
    Ok(Body(app.desk.submit_batch(&origin, request).await?))
}

/// Lists the key's batches, newest first.
#[utoipa::path(get, path = "/v1/batches", tag = "openai", security(("key" = ["jobs"])),
    params(List),
    responses((status = 200, body = BatchList), (status = "default", body = OpenAiError)))]
pub(in crate::http) async fn list(
    State(app): State<Arc<App>>,
    From(origin): From,
    Params(List { after, limit }): Params<List>,
) -> Result<Body<BatchList>, Failure> {
    let limit = limit.unwrap_or(PAGE_DEFAULT);
    if !(1..=PAGE_MAX).contains(&limit) {
        let message = format!("limit is {limit}; it must be between 1 and {PAGE_MAX}");
        return Err(ApiError::invalid("limit", message).into());
    }
    Ok(Body(app.desk.batches(&origin.caller, after.as_deref(), limit).await?))
}

/// Shows a batch.
#[utoipa::path(get, path = "/v1/batches/{id}", tag = "openai", security(("key" = ["jobs"])),
    params(("id" = String, Path, description = "the batch's id")),
    responses((status = 200, body = Batch), (status = "default", body = OpenAiError)))]
pub(in crate::http) async fn show(
    State(app): State<Arc<App>>,
    From(origin): From,
    Path(id): Path<String>,
) -> Result<Body<Batch>, Failure> {
    Ok(Body(app.desk.batch(&origin.caller, &id).await?))
}

/// Cancels a batch: what is done stays and is written to its files.
#[utoipa::path(post, path = "/v1/batches/{id}/cancel", tag = "openai",
    security(("key" = ["jobs"])),
    params(("id" = String, Path, description = "the batch's id")),
    responses((status = 200, body = Batch), (status = "default", body = OpenAiError)))]
pub(in crate::http) async fn cancel(
    State(app): State<Arc<App>>,
    From(origin): From,
    Path(id): Path<String>,
) -> Result<Body<Batch>, Failure> {
    Ok(Body(app.desk.cancel_batch(&origin.caller, &id).await?))
}
