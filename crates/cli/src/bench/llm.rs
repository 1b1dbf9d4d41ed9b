//! Prefill and decode speed of the served model over the HTTP API, one stream and several, and a
//! peer's on the same file in the same run.

use std::time::{Duration, Instant};

use aisemble_client::Client;
use aisemble_protocol::completion::{CompletionRequest, CompletionResult};
use futures_util::{StreamExt as _, TryStreamExt as _};
use serde::Serialize;
use serde_json::json;

use super::peer::{self, Measured};
use crate::args::{BenchLlm, Global};
use crate::failure::{Exit, Failure, Outcome};
use crate::remote;
use crate::terminal::Terminal;

const WAIT: Duration = Duration::from_secs(300);
/// Words that are one token each, with their space, in common vocabularies.
const WORDS: [&str; 16] = [
    " the", " of", " and", " to", " in", " is", " was", " for", " on", " that", " with", " as",
    " by", " at", " from", " it",
];

/// What was measured with a number of streams at once.
#[derive(Debug, Clone, Serialize)]
struct Row {
    streams: usize,
    prompt_tokens: u32,
    output_tokens: u32,
    ours: Measured,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<Measured>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prefill_ratio: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decode_ratio: Option<f64>,
}

pub(super) async fn run(global: &Global, options: BenchLlm, terminal: Terminal) -> Outcome<()> {
    if options.output_tokens < 2 || options.prompt_tokens == 0 || options.streams.contains(&0) {
        return Err(Failure::new(
            Exit::Usage,
            "at least 1 prompt token, 2 output tokens, 1 stream",
        ));
    }
    let client = remote::connect(global)?;
    let load = load_average();
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    #[expect(clippy::cast_precision_loss, reason = "a number of processors")]
    if load > 0.5 * processors as f64 {
        terminal.warn(&format!(
            "the load average is {load:.1} on {processors} processors: these figures, and still \
             more the ratio to a peer whose threads spin, say little"
        ));
    }
    let mut rows = Vec::new();
    let mut salt = salt();
    for &streams in &options.streams {
        let mut best: Option<Row> = None;
        for repeat in 0..options.repeat.max(1) {
            terminal.note(&format!("{streams} streams, run {} …", repeat + 1));
            let row = ours(&client, &options, streams, &mut salt).await?;
            let is_better = best
                .as_ref()
                .is_none_or(|best| row.ours.decode_tokens_per_s > best.ours.decode_tokens_per_s);
            if is_better {
                best = Some(row);
            }
        }
        let Some(mut row) = best else { continue };
        if options.peer.is_some() {
            terminal.note(&format!("{streams} streams, the peer …"));
            let peer = peer::measure(global, &options, streams, row.prompt_tokens)?;
            row.prefill_ratio = Some(row.ours.prefill_tokens_per_s / peer.prefill_tokens_per_s);
            row.decode_ratio = Some(row.ours.decode_tokens_per_s / peer.decode_tokens_per_s);
            row.peer = Some(peer);
        }
        rows.push(row);
    }
    report(&rows, load, terminal)
}

/// One run: every stream its own prompt, so that no prefix is shared.
async fn ours(client: &Client, options: &BenchLlm, streams: usize, salt: &mut u64) -> Outcome<Row> {
    let prompts: Vec<_> = (0..streams)
        .map(|_| {
            *salt = salt.wrapping_add(1);
            prompt(options.prompt_tokens, *salt)
        })
        .collect();
    let begun = Instant::now();
    let results: Vec<CompletionResult> = futures_util::stream::iter(prompts)
        .map(|prompt| complete(client, prompt, options.output_tokens))
        .buffer_unordered(streams)
        .try_collect()
        .await?;
    let wall_s = begun.elapsed().as_secs_f64();
    let total = |of: fn(&CompletionResult) -> u32| -> f64 {
        results.iter().map(|r| f64::from(of(r))).sum()
    };
    let computed = total(|r| r.usage.prompt_tokens.saturating_sub(r.usage.cached_tokens));
    let output = total(|r| r.usage.completion_tokens);
    let longest = |of: fn(&CompletionResult) -> f64| results.iter().map(of).fold(0.0, f64::max);
    let first = results.first();
    // One stream: the service's own clock. Several: all tokens over the time in which they ran.
    let (prefill, decode) = if streams == 1 {
        let decode_ms = longest(|r| r.timings.decode_ms);
        (computed / longest(|r| r.timings.prompt_ms) * 1e3, (output - 1.0) / decode_ms * 1e3)
    } else {
        (computed / longest(|r| r.timings.queue_ms + r.timings.prompt_ms) * 1e3, output / wall_s)
    };
    Ok(Row {
        streams,
        prompt_tokens: first.map_or(0, |result| result.usage.prompt_tokens),
        output_tokens: options.output_tokens,
        ours: Measured {
            engine: format!("ai-semble {}", env!("CARGO_PKG_VERSION")),
            prefill_tokens_per_s: prefill,
            decode_tokens_per_s: decode,
        },
        peer: None,
        prefill_ratio: None,
        decode_ratio: None,
    })
}

async fn complete(
    client: &Client,
    prompt: String,
    output_tokens: u32,
) -> Outcome<CompletionResult> {
    let request = CompletionRequest {
        prompt: Some(prompt),
        max_tokens: Some(output_tokens),
        temperature: Some(0.0),
        ignore_eos: true,
        ..CompletionRequest::default()
    };
    client
        .complete(&request, WAIT)
        .await?
        .map_err(|job| Failure::new(Exit::TryLater, format!("job {} did not end in time", job.id)))
}

/// About `tokens` tokens that differ from the first word on for each `salt`.
fn prompt(tokens: usize, salt: u64) -> String {
    let mut state = salt.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut text = String::from("Once");
    for _ in 1..tokens {
        // xorshift64: only variety is wanted here.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        text.push_str(WORDS[(state >> 60) as usize]);
    }
    text
}

/// Differs from run to run, so that no prompt is in the server's prefix cache.
fn salt() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(1, |since| since.as_secs().wrapping_mul(1_000_003))
}

/// Processes that ran or wanted to, averaged over the last minute.
fn load_average() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|load| load.parse().ok()).unwrap_or(0.0)
}

fn report(rows: &[Row], load: f64, terminal: Terminal) -> Outcome<()> {
    if terminal.json {
        return terminal.data(&json!({
            "bench": "llm", "unit": "tokens/s", "load_average_before": load, "rows": rows,
        }));
    }
    let number = |value: Option<f64>, digits: usize| {
        value.map_or("-".to_owned(), |value| format!("{value:.digits$}"))
    };
    let cells: Vec<_> = rows
        .iter()
        .map(|row| {
            let peer = row.peer.as_ref();
            vec![
                row.streams.to_string(),
                format!("{}+{}", row.prompt_tokens, row.output_tokens),
                number(Some(row.ours.prefill_tokens_per_s), 0),
                number(peer.map(|peer| peer.prefill_tokens_per_s), 0),
                number(row.prefill_ratio, 2),
                number(Some(row.ours.decode_tokens_per_s), 1),
                number(peer.map(|peer| peer.decode_tokens_per_s), 1),
                number(row.decode_ratio, 2),
            ]
        })
        .collect();
    let head = ["STREAMS", "TOKENS", "PREFILL", "PEER", "RATIO", "DECODE", "PEER", "RATIO"];
    terminal.note("tokens/s; decode of several streams is their sum");
    terminal.table(&head, &cells)?;
    if let Some(peer) = rows.iter().find_map(|row| row.peer.as_ref()) {
        terminal.note(&format!("peer: {}", peer.engine));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_differ_and_have_their_length() {
        let (one, two) = (prompt(256, 1), prompt(256, 2));
        assert_ne!(one, two);
        assert_eq!(one.split(' ').count(), 256);
        let same = one.bytes().zip(two.bytes()).take_while(|(a, b)| a == b).count();
        assert!(same < 40, "a long common prefix: {same}");
    }
}
