//! `POST /ai/nlp/*`: one door a task.

use std::sync::Arc;

use aisemble_protocol::job::JobView;
use aisemble_protocol::nlp::{
    ClassifyRequest, ClassifyResult, EmbedRequest, EmbedResult, EntitiesRequest, EntitiesResult,
    RedactRequest, RedactResult, RerankRequest, RerankResult,
};
use axum::extract::State;
use axum::response::Response;

use super::door;
use super::error::{Failure, Problem};
use super::extract::{Delivery, From, Json};
use crate::app::App;
use crate::work::Nlp;

/// Makes embeddings of texts: one vector each, or weights of terms (`representation: sparse`). As a
/// durable job: answered with the job, or with its result when `Prefer: wait=N` allows, or with
/// events: `job`, an `item` for each text as it is done, `progress`, then `result` or `error`.
#[utoipa::path(post, path = "/ai/nlp/embed", tag = "nlp", security(("key" = ["nlp"])),
    params(
        ("Prefer" = Option<String>, Header, description = "`wait=N`: wait up to N seconds"),
        ("Idempotency-Key" = Option<String>, Header,
            description = "the same key and body give the same job, for 24 hours"),
    ),
    request_body = EmbedRequest,
    responses(
        (status = 200, body = EmbedResult, description = "the result, within `wait`"),
        (status = 202, body = JobView, description = "the job; `Location` says where it is"),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn embed(
    State(app): State<Arc<App>>,
    From(origin): From,
    delivery: Delivery,
    Json(request): Json<EmbedRequest>,
) -> Result<Response, Failure> {
    door::enter::<Nlp<EmbedRequest>>(&app, origin, delivery, "/ai/nlp/embed", request).await
}

/// Orders documents by how well they answer a query. As a durable job: answered with the job, or
/// with its result when `Prefer: wait=N` allows, or with events: `job`, an `item` for each text as
/// it is done, `progress`, then `result` or `error`.
#[utoipa::path(post, path = "/ai/nlp/rerank", tag = "nlp", security(("key" = ["nlp"])),
    params(
        ("Prefer" = Option<String>, Header, description = "`wait=N`: wait up to N seconds"),
        ("Idempotency-Key" = Option<String>, Header,
            description = "the same key and body give the same job, for 24 hours"),
    ),
    request_body = RerankRequest,
    responses(
        (status = 200, body = RerankResult, description = "the result, within `wait`"),
        (status = 202, body = JobView, description = "the job; `Location` says where it is"),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn rerank(
    State(app): State<Arc<App>>,
    From(origin): From,
    delivery: Delivery,
    Json(request): Json<RerankRequest>,
) -> Result<Response, Failure> {
    door::enter::<Nlp<RerankRequest>>(&app, origin, delivery, "/ai/nlp/rerank", request).await
}

/// Puts labels on texts. As a durable job: answered with the job, or with its result when `Prefer:
/// wait=N` allows, or with events: `job`, an `item` for each text as it is done, `progress`, then
/// `result` or `error`.
#[utoipa::path(post, path = "/ai/nlp/classify", tag = "nlp", security(("key" = ["nlp"])),
    params(
        ("Prefer" = Option<String>, Header, description = "`wait=N`: wait up to N seconds"),
        ("Idempotency-Key" = Option<String>, Header,
            description = "the same key and body give the same job, for 24 hours"),
    ),
    request_body = ClassifyRequest,
    responses(
        (status = 200, body = ClassifyResult, description = "the result, within `wait`"),
        (status = 202, body = JobView, description = "the job; `Location` says where it is"),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn classify(
    State(app): State<Arc<App>>,
    From(origin): From,
    delivery: Delivery,
    Json(request): Json<ClassifyRequest>,
) -> Result<Response, Failure> {
    door::enter::<Nlp<ClassifyRequest>>(&app, origin, delivery, "/ai/nlp/classify", request).await
}

/// Finds entities in texts, with their places in characters. As a durable job: answered with the
/// job, or with its result when `Prefer: wait=N` allows, or with events: `job`, an `item` for each
/// text as it is done, `progress`, then `result` or `error`.
#[utoipa::path(post, path = "/ai/nlp/entities", tag = "nlp", security(("key" = ["nlp"])),
    params(
        ("Prefer" = Option<String>, Header, description = "`wait=N`: wait up to N seconds"),
        ("Idempotency-Key" = Option<String>, Header,
            description = "the same key and body give the same job, for 24 hours"),
    ),
    request_body = EntitiesRequest,
    responses(
        (status = 200, body = EntitiesResult, description = "the result, within `wait`"),
        (status = 202, body = JobView, description = "the job; `Location` says where it is"),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn entities(
    State(app): State<Arc<App>>,
    From(origin): From,
    delivery: Delivery,
    Json(request): Json<EntitiesRequest>,
) -> Result<Response, Failure> {
    door::enter::<Nlp<EntitiesRequest>>(&app, origin, delivery, "/ai/nlp/entities", request).await
}

/// Hides personal data in texts: by rules, by patterns of your own, and by what a model finds. As a
/// durable job: answered with the job, or with its result when `Prefer: wait=N` allows, or with
/// events: `job`, an `item` for each text as it is done, `progress`, then `result` or `error`.
#[utoipa::path(post, path = "/ai/nlp/redact", tag = "nlp", security(("key" = ["nlp"])),
    params(
        ("Prefer" = Option<String>, Header, description = "`wait=N`: wait up to N seconds"),
        ("Idempotency-Key" = Option<String>, Header,
            description = "the same key and body give the same job, for 24 hours"),
    ),
    request_body = RedactRequest,
    responses(
        (status = 200, body = RedactResult, description = "the result, within `wait`"),
        (status = 202, body = JobView, description = "the job; `Location` says where it is"),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn redact(
    State(app): State<Arc<App>>,
    From(origin): From,
    delivery: Delivery,
    Json(request): Json<RedactRequest>,
) -> Result<Response, Failure> {
    door::enter::<Nlp<RedactRequest>>(&app, origin, delivery, "/ai/nlp/redact", request).await
}
