//! `/v1/models`.

use std::sync::Arc;

use aisemble_protocol::model::{ModelList, ModelObject};
use axum::Json;
use axum::extract::{Path, State};

use super::super::error::{Failure, OpenAiError};
use crate::app::App;

/// Lists the models, with what Ai-semble tells beyond the OpenAI shape.
#[utoipa::path(get, path = "/v1/models", tag = "openai", security(("key" = [])),
    responses((status = 200, body = ModelList), (status = "default", body = OpenAiError)))]
pub(in crate::http) async fn list(State(app): State<Arc<App>>) -> Json<ModelList> {
    Json(ModelList { object: "list".to_owned(), data: app.models() })
}

/// Shows a model.
#[utoipa::path(get, path = "/v1/models/{id}", tag = "openai", security(("key" = [])),
    params(("id" = String, Path, description = "the model's name")),
    responses((status = 200, body = ModelObject), (status = "default", body = OpenAiError)))]
pub(in crate::http) async fn show(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Json<ModelObject>, Failure> {
    Ok(Json(app.model(&id)?))
}
