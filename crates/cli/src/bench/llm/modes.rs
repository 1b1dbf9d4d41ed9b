//! What one stream notices: a long context, a beginning that is known already, somebody else's long
//! prompt; and the memory of the service.

use std::time::Instant;

use aisemble_client::Client;
use aisemble_protocol::v1;
use aisemble_protocol::v1::model_client::ModelClient;
use serde::Serialize;
use tokio::sync::watch;

use super::stream::{Ask, Timed, prompt, read};
use crate::args::Global;
use crate::bench::figures::{Spread, ms};
use crate::direct;
use crate::failure::{Exit, Failure, Outcome};
use crate::home::Home;

/// Tokens of the prompt that begins like the one before.
const PREFIX_TOKENS: usize = 1024;
/// Words behind the common beginning.
const TAIL_WORDS: usize = 8;
/// Tokens of the prompt that disturbs a running stream.
const DISTURBING_TOKENS: usize = 2048;
/// Tokens of the running stream before it is disturbed.
const UNDISTURBED_TOKENS: usize = 100;
/// Tokens of the running stream at most; it is ended when the other has its first token.
const RUNNING_TOKENS_MAX: u32 = 4000;

/// A prompt, and another that begins like it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Prefix {
    pub(super) prompt_tokens: u32,
    pub(super) cached_tokens: u32,
    pub(super) first_ms: f64,
    pub(super) again_ms: f64,
    pub(super) again_percent: f64,
}

/// A stream before and while somebody else's prompt is computed.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Latency {
    pub(super) alone: Spread,
    pub(super) beside_prompt: Spread,
    /// p99 beside the prompt over p50 alone.
    pub(super) ratio: f64,
    pub(super) prompt_tokens: u32,
    pub(super) prompt_first_token_ms: f64,
}

/// The service's own figures.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Memory {
    pub(super) resident_bytes: u64,
    pub(super) model_file_bytes: u64,
    pub(super) kv_tokens_used: u64,
    pub(super) kv_tokens_cached: u64,
    pub(super) kv_tokens_max: u64,
    pub(super) draft_tokens: u64,
    pub(super) draft_tokens_accepted: u64,
    pub(super) preemptions: u64,
}

pub(super) async fn prefix(client: &Client, model: &str, salt: u64) -> Outcome<Prefix> {
    let beginning = prompt(PREFIX_TOKENS - TAIL_WORDS, salt);
    let with = |tail| {
        let prompt = beginning.clone() + prompt(TAIL_WORDS, tail).trim_start_matches("Once");
        Ask { model: model.to_owned(), prompt, output_tokens: 2, temperature: 0.0 }
    };
    let first = read(client, &with(salt + 1), |_| true).await?;
    let again = read(client, &with(salt + 2), |_| true).await?;
    Ok(Prefix {
        prompt_tokens: again.prompt_tokens,
        cached_tokens: again.cached_tokens,
        first_ms: first.first_ms(),
        again_ms: again.first_ms(),
        again_percent: again.first_ms() / first.first_ms() * 100.0,
    })
}

pub(super) async fn latency(client: &Client, model: &str, salt: u64) -> Outcome<Latency> {
    let ask = |tokens, salt, output_tokens| {
        let prompt = prompt(tokens, salt);
        Ask { model: model.to_owned(), prompt, output_tokens, temperature: 1.0 }
    };
    let (running, disturbing) =
        (ask(32, salt, RUNNING_TOKENS_MAX), ask(DISTURBING_TOKENS, salt + 1, 1));
    let (begin, mut begun) = watch::channel(false);
    let (end, ended) = watch::channel(false);
    let stream = read(client, &running, |pieces| {
        // Nobody listens any more only when the other has failed; then the end comes too.
        let _heard = (pieces.len() == UNDISTURBED_TOKENS).then(|| begin.send(true));
        !*ended.borrow()
    });
    let other = async {
        let _begun = begun.wait_for(|begun| *begun).await;
        let result = read(client, &disturbing, |_| true).await;
        let _ended = end.send(true);
        result
    };
    let (stream, other): (Outcome<Timed>, Outcome<Timed>) = tokio::join!(stream, other);
    let (stream, other) = (stream?, other?);
    let first = other.pieces.first().copied().unwrap_or(other.begun);
    let gaps = |within: &dyn Fn(Instant) -> bool| {
        let pairs = stream.pieces.windows(2).filter(|pair| within(pair[1]));
        Spread::of(pairs.map(|pair| ms(pair[1].saturating_duration_since(pair[0]))).collect())
    };
    let alone = gaps(&|at| at <= other.begun);
    let beside_prompt = gaps(&|at| at > other.begun && at <= first);
    if alone.count == 0 || beside_prompt.count == 0 {
        return Err(Failure::new(Exit::Failed, "the running stream gave nothing to compare"));
    }
    Ok(Latency {
        ratio: beside_prompt.p99_ms / alone.p50_ms,
        alone,
        beside_prompt,
        prompt_tokens: other.prompt_tokens,
        prompt_first_token_ms: other.first_ms(),
    })
}

pub(super) async fn memory(global: &Global) -> Outcome<Memory> {
    let mut service = ModelClient::new(direct::channel(&Home::named(global)?.llm_socket()).await?);
    let failed = |status: tonic::Status| {
        Failure::new(Exit::Failed, format!("the service refused: {}", status.message()))
    };
    let stats = service.stats(v1::StatsRequest {}).await.map_err(failed)?.into_inner();
    let described = service.describe(v1::DescribeRequest {}).await.map_err(failed)?.into_inner();
    Ok(Memory {
        resident_bytes: stats.resident_bytes,
        model_file_bytes: described.models.first().map_or(0, |model| model.file_bytes),
        kv_tokens_used: stats.kv_tokens_used,
        kv_tokens_cached: stats.kv_tokens_cached,
        kv_tokens_max: stats.kv_tokens_max,
        draft_tokens: stats.draft_tokens_total,
        draft_tokens_accepted: stats.draft_tokens_accepted_total,
        preemptions: stats.preemptions_total,
    })
}
