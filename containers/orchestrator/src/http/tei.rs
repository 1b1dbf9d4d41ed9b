//! `POST /embed_sparse`, as text-embeddings-inference has it. Keeps no job.

use std::sync::Arc;

use aisemble_protocol::nlp::{EmbedRequest, Representation, SparseTerm, Texts};
use axum::Json as Body;
use axum::extract::State;
use serde::Deserialize;
use utoipa::ToSchema;

use super::error::{Failure, Problem};
use super::extract::{From, Json};
use crate::app::App;

/// Texts to make sparse embeddings of.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SparseRequest {
    /// A text or several.
    #[schema(value_type = Vec<String>)]
    inputs: Texts,
    /// Accepted and without effect: long texts are computed in windows, never cut.
    #[serde(default, rename = "truncate")]
    _truncate: Option<bool>,
    /// Accepted and without effect.
    #[serde(default, rename = "truncation_direction")]
    _truncation_direction: Option<String>,
}

/// Makes a sparse embedding of each text: terms of the vocabulary and their weights.
#[utoipa::path(post, path = "/embed_sparse", tag = "nlp", security(("key" = ["nlp"])),
    request_body = SparseRequest,
    responses((status = 200, body = Vec<Vec<SparseTerm>>),
        (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn embed_sparse(
    State(app): State<Arc<App>>,
    From(origin): From,
    Json(request): Json<SparseRequest>,
) -> Result<Body<Vec<Vec<SparseTerm>>>, Failure> {
    let representation = Representation::Sparse;
    let texts = Some(request.inputs);
    let embed = EmbedRequest { texts, representation, ..EmbedRequest::default() };
    let result = app.nlp(&origin, &embed).await.map_err(|error| {
        let inputs = matches!(error.param.as_deref(), Some("texts" | "tokens"));
        if inputs { error.with_param("inputs") } else { error }
    })?;
    Ok(Body(result.results.into_iter().map(|one| one.sparse.unwrap_or_default()).collect()))
}
