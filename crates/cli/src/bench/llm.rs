//! Prefill and decode of the language model through the API, beside a peer that is called in its
//! own process on the same file with the same numbers; and what a single stream notices.

mod modes;
mod stream;

use std::time::Instant;

use aisemble_client::Client;
use futures_util::future::try_join_all;
use serde::Serialize;
use serde_json::json;

use self::modes::{Latency, Memory, Prefix};
use self::stream::{Ask, Timed, prompt, read, salt};
use super::peer::{self, Measured};
use crate::args::{BenchLlm, BenchLlmMode, Global};
use crate::failure::{Exit, Failure, Outcome};
use crate::remote;
use crate::terminal::Terminal;

/// Tokens of a long context.
const CONTEXT_TOKENS: usize = 4096;
/// Times that a run is repeated with twice the output, when prompts took so long that the streams
/// decoded together too shortly.
const LENGTHENED_MAX: u32 = 2;

/// What was measured with a number of streams at once.
#[derive(Debug, Clone, Serialize)]
struct Row {
    streams: usize,
    prompt_tokens: u32,
    output_tokens: u32,
    ours: Measured,
    /// Tokens generated over the whole time, prompts included.
    whole_tokens_per_s: f64,
    first_token_ms_max: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<Measured>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prefill_ratio: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decode_ratio: Option<f64>,
}

/// All that was measured.
#[derive(Debug, Default, Serialize)]
struct Figures {
    rows: Vec<Row>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prefix: Option<Prefix>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency: Option<Latency>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<Memory>,
}

/// A run, and whom it asks.
struct Bench<'a> {
    global: &'a Global,
    options: &'a BenchLlm,
    client: Client,
    model: String,
    salt: u64,
    terminal: Terminal,
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
    let model = client.models().await?.data.into_iter().next().map(|model| model.id);
    let model = model.ok_or_else(|| Failure::new(Exit::TryLater, "no model is served"))?;
    let mut bench = Bench { global, options: &options, client, model, salt: salt(), terminal };
    let mut figures = Figures::default();
    for mode in &options.modes {
        match mode {
            BenchLlmMode::Streams => {
                for &streams in &options.streams {
                    figures.rows.push(bench.row(streams, options.prompt_tokens).await?);
                }
            }
            BenchLlmMode::Context => figures.rows.push(bench.row(1, CONTEXT_TOKENS).await?),
            BenchLlmMode::Prefix => figures.prefix = Some(bench.prefix().await?),
            BenchLlmMode::Latency => figures.latency = Some(bench.latency().await?),
            BenchLlmMode::Memory => figures.memory = Some(modes::memory(global).await?),
        }
    }
    report(&figures, load, terminal)
}

impl Bench<'_> {
    /// The best of some runs, and the peer.
    async fn row(&mut self, streams: usize, prompt_tokens: usize) -> Outcome<Row> {
        let mut best: Option<Row> = None;
        for repeat in 0..self.options.repeat.max(1) {
            self.terminal.note(&format!("{streams} streams, run {} …", repeat + 1));
            let row = self.ours(streams, prompt_tokens).await?;
            let rate = |row: &Row| row.ours.decode_tokens_per_s;
            if best.as_ref().is_none_or(|best| rate(&row) > rate(best)) {
                best = Some(row);
            }
        }
        let mut row = best.ok_or_else(|| Failure::new(Exit::Failed, "nothing was measured"))?;
        if self.options.peer.is_some() {
            self.terminal.note(&format!("{streams} streams, the peer …"));
            let tokens = (row.prompt_tokens, self.options.output_tokens);
            let peer = peer::measure(self.global, self.options, streams, tokens)?;
            row.prefill_ratio = Some(row.ours.prefill_tokens_per_s / peer.prefill_tokens_per_s);
            row.decode_ratio = Some(row.ours.decode_tokens_per_s / peer.decode_tokens_per_s);
            row.peer = Some(peer);
        }
        Ok(row)
    }

    /// One run: every stream its own prompt, so that no prefix is shared.
    async fn ours(&mut self, streams: usize, prompt_tokens: usize) -> Outcome<Row> {
        let mut output_tokens = self.options.output_tokens;
        let mut lengthened = 0;
        loop {
            let asks: Vec<Ask> = (0..streams)
                .map(|_| {
                    self.salt = self.salt.wrapping_add(1);
                    let prompt = prompt(prompt_tokens, self.salt);
                    Ask { model: self.model.clone(), prompt, output_tokens, temperature: 0.0 }
                })
                .collect();
            let begun = Instant::now();
            let reads = asks.iter().map(|ask| read(&self.client, ask, |_| true));
            let all = try_join_all(reads).await?;
            let whole_s = begun.elapsed().as_secs_f64();
            let (row, decoded) = row(&all, begun, whole_s);
            let enough = f64::from(self.options.output_tokens) * streams as f64 / 2.0;
            if decoded >= enough || lengthened == LENGTHENED_MAX {
                return Ok(row);
            }
            lengthened += 1;
            output_tokens *= 2;
        }
    }

    async fn prefix(&mut self) -> Outcome<Prefix> {
        let mut best: Option<Prefix> = None;
        for _ in 0..self.options.repeat.max(1) {
            self.terminal.note("a prompt, and one that begins like it …");
            self.salt = self.salt.wrapping_add(3);
            let found = modes::prefix(&self.client, &self.model, self.salt).await?;
            if best.as_ref().is_none_or(|best| found.again_percent < best.again_percent) {
                best = Some(found);
            }
        }
        best.ok_or_else(|| Failure::new(Exit::Failed, "nothing was measured"))
    }

    async fn latency(&mut self) -> Outcome<Latency> {
        let mut best: Option<Latency> = None;
        for _ in 0..self.options.repeat.max(1) {
            self.terminal.note("a stream beside a long prompt …");
            self.salt = self.salt.wrapping_add(2);
            let found = modes::latency(&self.client, &self.model, self.salt).await?;
            if best.as_ref().is_none_or(|best| found.ratio < best.ratio) {
                best = Some(found);
            }
        }
        best.ok_or_else(|| Failure::new(Exit::Failed, "nothing was measured"))
    }
}

/// The figures of a run, and the tokens that came while all streams decoded.
fn row(all: &[Timed], begun: Instant, whole_s: f64) -> (Row, f64) {
    let firsts = || all.iter().filter_map(|timed| timed.pieces.first().copied());
    let lasts = || all.iter().filter_map(|timed| timed.pieces.last().copied());
    // From the last first token to the first last one.
    let (start, end) = (firsts().max().unwrap_or(begun), lasts().min().unwrap_or(begun));
    let decoded: f64 = all.iter().map(|timed| timed.tokens_between(start, end)).sum();
    let decode_s = end.saturating_duration_since(start).as_secs_f64();
    let prompts: u32 = all.iter().map(|t| t.prompt_tokens.saturating_sub(t.cached_tokens)).sum();
    let output: u32 = all.iter().map(|timed| timed.output_tokens).sum();
    let prefill_s = start.saturating_duration_since(begun).as_secs_f64();
    let first = all.first();
    let row = Row {
        streams: all.len(),
        prompt_tokens: first.map_or(0, |timed| timed.prompt_tokens),
        output_tokens: first.map_or(0, |timed| timed.output_tokens),
        ours: Measured {
            engine: format!("ai-semble {}", env!("CARGO_PKG_VERSION")),
            prefill_tokens_per_s: f64::from(prompts) / prefill_s.max(1e-9),
            decode_tokens_per_s: if decode_s > 0.0 { decoded / decode_s } else { 0.0 },
        },
        whole_tokens_per_s: f64::from(output) / whole_s.max(1e-9),
        first_token_ms_max: all.iter().map(Timed::first_ms).fold(0.0, f64::max),
        peer: None,
        prefill_ratio: None,
        decode_ratio: None,
    };
    (row, decoded)
}

/// Processes that ran or wanted to, averaged over the last minute.
fn load_average() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|load| load.parse().ok()).unwrap_or(0.0)
}

fn report(figures: &Figures, load: f64, terminal: Terminal) -> Outcome<()> {
    if terminal.json {
        return terminal.data(&json!({
            "bench": "llm", "unit": "tokens/s", "load_average_before": load, "figures": figures,
        }));
    }
    if !figures.rows.is_empty() {
        report_rows(&figures.rows, terminal)?;
    }
    let mut lines = Vec::new();
    if let Some(prefix) = &figures.prefix {
        lines.push(vec![
            format!("first token of {} tokens", prefix.prompt_tokens),
            format!("{:.1} ms", prefix.first_ms),
        ]);
        lines.push(vec![
            format!("the same beginning again ({} tokens reused)", prefix.cached_tokens),
            format!("{:.1} ms, {:.1} %", prefix.again_ms, prefix.again_percent),
        ]);
    }
    if let Some(latency) = &figures.latency {
        let spread = |s: &super::figures::Spread| format!("{:.1} / {:.1} ms", s.p50_ms, s.p99_ms);
        lines.push(vec!["between tokens, p50 / p99".to_owned(), spread(&latency.alone)]);
        lines.push(vec![
            format!("beside a prompt of {} tokens", latency.prompt_tokens),
            format!("{}, p99 {:.2} x p50", spread(&latency.beside_prompt), latency.ratio),
        ]);
        let first = format!("{:.0} ms", latency.prompt_first_token_ms);
        lines.push(vec!["first token of that prompt".to_owned(), first]);
    }
    if let Some(memory) = &figures.memory {
        let mb = |bytes: u64| format!("{} MB", bytes / 1_000_000);
        lines.push(vec!["resident memory".to_owned(), mb(memory.resident_bytes)]);
        lines.push(vec!["model file".to_owned(), mb(memory.model_file_bytes)]);
        let kv = format!(
            "{} used, {} kept, of {} tokens",
            memory.kv_tokens_used, memory.kv_tokens_cached, memory.kv_tokens_max
        );
        lines.push(vec!["KV cache".to_owned(), kv]);
        let drafts = format!("{} of {} right", memory.draft_tokens_accepted, memory.draft_tokens);
        lines.push(vec!["proposed tokens since the start".to_owned(), drafts]);
        lines.push(vec!["preemptions".to_owned(), memory.preemptions.to_string()]);
    }
    if lines.is_empty() { Ok(()) } else { terminal.table(&["WHAT", "FIGURE"], &lines) }
}

fn report_rows(rows: &[Row], terminal: Terminal) -> Outcome<()> {
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
                number(Some(row.ours.decode_tokens_per_s).filter(|rate| *rate > 0.0), 1),
                number(peer.map(|peer| peer.decode_tokens_per_s), 1),
                number(row.decode_ratio.filter(|ratio| *ratio > 0.0), 2),
                number(Some(row.whole_tokens_per_s), 1),
            ]
        })
        .collect();
    let head =
        ["STREAMS", "TOKENS", "PREFILL", "PEER", "RATIO", "DECODE", "PEER", "RATIO", "WHOLE"];
    terminal.note(
        "tokens/s; decode of several streams is their sum while all of them decode, - if that never was",
    );
    terminal.table(&head, &cells)?;
    if let Some(peer) = rows.iter().find_map(|row| row.peer.as_ref()) {
        terminal.note(&format!("peer: {}", peer.engine));
    }
    Ok(())
}
