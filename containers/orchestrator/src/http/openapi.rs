//! The OpenAPI document: made from the handlers and types, checked in as `docs/openapi.json`.

use std::sync::LazyLock;

use axum::http::header;
use axum::response::IntoResponse;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::{completion, error, health, jobs, v1};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Ai-semble",
        description = "Durable jobs and OpenAI-compatible completions on your own machine.",
    ),
    paths(
        health::health,
        health::ready,
        health::metrics,
        serve,
        completion::create,
        jobs::list,
        jobs::show,
        jobs::cancel,
        jobs::result,
        jobs::events,
        v1::models::list,
        v1::models::show,
        v1::chat::create,
        v1::text::create,
    ),
    components(schemas(error::Problem, error::OpenAiError)),
    modifiers(&Keys),
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
