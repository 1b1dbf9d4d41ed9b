//! The OpenAPI document: made from the handlers and types, checked in as `docs/openapi.json`.

use std::sync::LazyLock;

use axum::http::header;
use axum::response::IntoResponse;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::{
    completion, data, docs, error, files, health, jobs, nlp, tei, tokens, v1, vision, workflows,
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Ai-semble",
        description = "Durable jobs for language models, texts, pictures and tables, and \
                       OpenAI-compatible routes, on your own machine.",
    ),
    paths(
        health::health,
        health::ready,
        health::metrics,
        serve,
        docs::serve,
        completion::create,
        nlp::embed,
        nlp::rerank,
        nlp::classify,
        nlp::entities,
        nlp::redact,
        vision::analyze,
        data::process,
        tei::embed_sparse,
        tokens::tokenize,
        tokens::detokenize,
        jobs::list,
        jobs::show,
        jobs::cancel,
        jobs::result,
        jobs::events,
        workflows::retry_job,
        files::create,
        files::list,
        files::show,
        files::content,
        files::remove,
        workflows::create,
        workflows::validate,
        workflows::show,
        workflows::cancel,
        workflows::graph,
        workflows::events,
        workflows::create_schedule,
        workflows::list_schedules,
        workflows::show_schedule,
        workflows::replace_schedule,
        workflows::delete_schedule,
        workflows::list_queues,
        workflows::pause_queue,
        workflows::resume_queue,
        files::create_v1,
        files::list_v1,
        files::show_v1,
        files::content_v1,
        files::remove_v1,
        v1::batches::create,
        v1::batches::list,
        v1::batches::show,
        v1::batches::cancel,
        v1::models::list,
        v1::models::show,
        v1::chat::create,
        v1::text::create,
        v1::responses::create,
        v1::responses::show,
        v1::responses::remove,
        v1::responses::cancel,
        v1::embeddings::create,
        v1::rerank::create,
    ),
    components(schemas(error::Problem, error::OpenAiError)),
    modifiers(&Keys, &OperationIds),
)]
struct Api;

/// `Authorization: Bearer ais_...`.
struct Keys;

impl Modify for Keys {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("an API key: `ai-semble keys create`; its scopes open routes"))
            .build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("key", SecurityScheme::Http(scheme));
    }
}

/// Each operation has a name of its own: its method and the words of its path.
struct OperationIds;

impl Modify for OperationIds {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        for (path, item) in &mut document.paths.paths {
            let methods = [
                ("get", &mut item.get),
                ("post", &mut item.post),
                ("put", &mut item.put),
                ("patch", &mut item.patch),
                ("delete", &mut item.delete),
            ];
            for (method, operation) in methods {
                let Some(operation) = operation else { continue };
                let words = path.split(|c: char| !c.is_ascii_alphanumeric());
                let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
                operation.operation_id = Some(format!("{method}_{}", words.join("_")));
            }
        }
    }
}

/// The document as JSON.
pub(super) fn parsed() -> serde_json::Value {
    // Plain data: it can always be written.
    serde_json::to_value(Api::openapi()).unwrap_or_default()
}

/// The document as text, with a final line break.
#[must_use]
pub fn document() -> String {
    // Plain data: it can always be written.
    let mut text = Api::openapi().to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

static DOCUMENT: LazyLock<String> = LazyLock::new(document);

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "operation", security(("key" = [])),
    responses((status = 200, body = Object)))]
pub(super) async fn serve() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT.as_str())
}
