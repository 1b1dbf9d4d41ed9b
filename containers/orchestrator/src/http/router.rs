//! The whole API at a glance: each route, and the scope that it needs. A route that is not in this
//! table does not exist, and one whose entry names no scope cannot be written.

use std::sync::Arc;

use aisemble_protocol::keys::Scope;
use axum::Router;
use axum::handler::Handler;
use axum::http::Method;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{MethodFilter, MethodRouter, on};

use super::{
    completion, correlate, data, docs, files, guard, health, jobs, nlp, openapi, tei, tokens, v1,
    vision, workflows,
};
use crate::app::App;

/// What a caller needs for a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nothing.
    Open,
    /// Any live key.
    AnyKey,
    /// Any live key, also as the password of HTTP basic authentication: what a browser can send.
    Browser,
    /// A key with that scope.
    Key(Scope),
}

struct Route {
    method: Method,
    path: &'static str,
    access: Access,
    handler: MethodRouter<Arc<App>>,
}

const LLM: Access = Access::Key(Scope::Llm);
const NLP: Access = Access::Key(Scope::Nlp);
const VISION: Access = Access::Key(Scope::Vision);
const DATA: Access = Access::Key(Scope::Data);
const ADMIN: Access = Access::Key(Scope::Admin);
const JOBS: Access = Access::Key(Scope::Jobs);
const METRICS: Access = Access::Key(Scope::Metrics);

fn routes() -> Vec<Route> {
    vec![
        get("/health", Access::Open, health::health),
        get("/ready", Access::Open, health::ready),
        get("/metrics", METRICS, health::metrics),
        get("/openapi.json", Access::AnyKey, openapi::serve),
        get("/docs", Access::Browser, docs::serve),
        post("/ai/llm/completion", LLM, completion::create),
        post("/ai/nlp/embed", NLP, nlp::embed),
        post("/ai/nlp/rerank", NLP, nlp::rerank),
        post("/ai/nlp/classify", NLP, nlp::classify),
        post("/ai/nlp/entities", NLP, nlp::entities),
        post("/ai/nlp/redact", NLP, nlp::redact),
        post("/ai/vision/analyze", VISION, vision::analyze),
        post("/data/process", DATA, data::process),
        post("/tokenize", LLM, tokens::tokenize),
        post("/detokenize", LLM, tokens::detokenize),
        post("/embed_sparse", NLP, tei::embed_sparse),
        get("/jobs", JOBS, jobs::list),
        get("/jobs/{id}", JOBS, jobs::show),
        delete("/jobs/{id}", JOBS, jobs::cancel),
        get("/jobs/{id}/result", JOBS, jobs::result),
        get("/jobs/{id}/events", JOBS, jobs::events),
        post("/jobs/{id}/retry", JOBS, workflows::retry_job),
        post("/files", JOBS, files::create),
        get("/files", JOBS, files::list),
        get("/files/{id}", JOBS, files::show),
        get("/files/{id}/content", JOBS, files::content),
        delete("/files/{id}", JOBS, files::remove),
        post("/workflows", JOBS, workflows::create),
        post("/workflows/validate", JOBS, workflows::validate),
        get("/workflows/{id}", JOBS, workflows::show),
        delete("/workflows/{id}", JOBS, workflows::cancel),
        get("/workflows/{id}/graph", JOBS, workflows::graph),
        get("/workflows/{id}/events", JOBS, workflows::events),
        post("/schedules", JOBS, workflows::create_schedule),
        get("/schedules", JOBS, workflows::list_schedules),
        get("/schedules/{id}", JOBS, workflows::show_schedule),
        put("/schedules/{id}", JOBS, workflows::replace_schedule),
        delete("/schedules/{id}", JOBS, workflows::delete_schedule),
        get("/queues", ADMIN, workflows::list_queues),
        post("/queues/{capability}/pause", ADMIN, workflows::pause_queue),
        post("/queues/{capability}/resume", ADMIN, workflows::resume_queue),
        post("/v1/files", JOBS, files::create_v1),
        get("/v1/files", JOBS, files::list_v1),
        get("/v1/files/{id}", JOBS, files::show_v1),
        get("/v1/files/{id}/content", JOBS, files::content_v1),
        delete("/v1/files/{id}", JOBS, files::remove_v1),
        post("/v1/batches", JOBS, v1::batches::create),
        get("/v1/batches", JOBS, v1::batches::list),
        get("/v1/batches/{id}", JOBS, v1::batches::show),
        post("/v1/batches/{id}/cancel", JOBS, v1::batches::cancel),
        get("/v1/models", Access::AnyKey, v1::models::list),
        get("/v1/models/{id}", Access::AnyKey, v1::models::show),
        post("/v1/chat/completions", LLM, v1::chat::create),
        post("/v1/completions", LLM, v1::text::create),
        post("/v1/responses", LLM, v1::responses::create),
        get("/v1/responses/{id}", LLM, v1::responses::show),
        delete("/v1/responses/{id}", LLM, v1::responses::remove),
        post("/v1/responses/{id}/cancel", LLM, v1::responses::cancel),
        post("/v1/embeddings", NLP, v1::embeddings::create),
        post("/v1/rerank", NLP, v1::rerank::create),
    ]
}

/// Method, path and access of each route.
#[must_use]
pub fn access_table() -> Vec<(Method, &'static str, Access)> {
    routes().into_iter().map(|route| (route.method, route.path, route.access)).collect()
}

/// The service that answers every request.
pub fn router(app: Arc<App>) -> Router {
    let guard = guard::Guard::new(Arc::clone(&app), access_table());
    let mut router = Router::new();
    for route in routes() {
        router = router.route(route.path, route.handler);
    }
    router
        .fallback(health::no_route)
        .method_not_allowed_fallback(health::no_method)
        .layer(from_fn_with_state(guard, guard::check))
        .layer(from_fn_with_state(Arc::clone(&app), correlate::answer))
        .layer(from_fn(correlate::identify))
        .with_state(app)
}

fn get<H, T>(path: &'static str, access: Access, handler: H) -> Route
where
    H: Handler<T, Arc<App>>,
    T: 'static,
{
    Route { method: Method::GET, path, access, handler: on(MethodFilter::GET, handler) }
}

fn post<H, T>(path: &'static str, access: Access, handler: H) -> Route
where
    H: Handler<T, Arc<App>>,
    T: 'static,
{
    Route { method: Method::POST, path, access, handler: on(MethodFilter::POST, handler) }
}

fn put<H, T>(path: &'static str, access: Access, handler: H) -> Route
where
    H: Handler<T, Arc<App>>,
    T: 'static,
{
    Route { method: Method::PUT, path, access, handler: on(MethodFilter::PUT, handler) }
}

fn delete<H, T>(path: &'static str, access: Access, handler: H) -> Route
where
    H: Handler<T, Arc<App>>,
    T: 'static,
{
    Route { method: Method::DELETE, path, access, handler: on(MethodFilter::DELETE, handler) }
}
