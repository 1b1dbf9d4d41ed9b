//! What OpenAI's clients expect, to the letter: `/v1/models`, `/v1/chat/completions`,
//! `/v1/completions`, `/v1/responses`, `/v1/embeddings`; and `/v1/rerank`. Nothing is kept of these
//! calls, but responses that ask for it.

mod answer;
pub(super) mod batches;
pub(super) mod chat;
pub(super) mod embeddings;
pub(super) mod lines;
pub(super) mod models;
mod params;
pub(super) mod rerank;
pub(super) mod responses;
mod shapes;
mod stream;
pub(super) mod text;

use std::sync::Arc;

use aisemble_protocol::completion::CompletionResult;
use aisemble_protocol::tools::Offer;
use aisemble_protocol::{ApiError, v1};
use futures_util::future::try_join_all;

use crate::app::transcript::collect;
use crate::app::{App, Origin};
use crate::dispatch::Generation;

/// What one request asks for: generations whose number is the index of the choice.
struct Plan {
    generations: Vec<v1::GenerateRequest>,
    /// Generations that share a prompt: its tokens are counted once.
    per_prompt: usize,
    stream: bool,
    include_usage: bool,
    /// What the model may call.
    offer: Option<Arc<Offer>>,
}

/// Begins all generations of a plan, at the same time.
async fn begin(app: &App, origin: &Origin, plan: &Plan) -> Result<Vec<Generation>, ApiError> {
    let requests = plan.generations.iter().cloned();
    try_join_all(requests.map(|request| app.generate(origin, request))).await
}

/// Runs all generations of a plan to their end, at the same time.
async fn complete(
    app: &App,
    origin: &Origin,
    plan: &Plan,
) -> Result<Vec<CompletionResult>, ApiError> {
    let generations = begin(app, origin, plan).await?;
    let results = generations.into_iter().map(|one| collect(one, plan.offer.clone()));
    try_join_all(results).await
}
