//! The decoder on a device beside the decoder on the CPU: first whether both say the same, then how
//! fast the device is. One JSON object a line on stdout; ends with an error when they disagree.
//!
//! `cargo bench -p aisemble-llm --bench device -- MODEL.gguf [--device cuda:0] [--quick]
//! [--speed-only] [--bandwidth-gb-s N]`; scripts/bench-gpu.sh runs it; `--device cpu` is its
//! dry run.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aisemble_llm::model::{BLOCK_TOKENS, CacheKind, Caches, Decoder, StepBatch};
use aisemble_weights::GgufFile;
use aisemble_weights::candle::Device;
use aisemble_weights::kernels::Pool;

/// A gap between the two likeliest tokens below which both engines may choose differently: each
/// rounds activations to 8 bits, with an error of 0.14 in a gap (root mean square, docs/llm.md);
/// three standard deviations of two such errors.
const TIE_LOGITS: f32 = 0.6;
/// Tokens that are compared, each after the CPU's choices before it.
const COMPARED_TOKENS: usize = 96;
const STREAMS: [usize; 5] = [1, 8, 32, 64, 128];
const PROMPT_TOKENS: usize = 256;
const OUTPUT_TOKENS: usize = 128;
const PREFILL_TOKENS: usize = 4096;
const CHUNK_TOKENS: usize = 2048;

type Failure = Box<dyn std::error::Error>;

struct Options {
    device: String,
    quick: bool,
    speed_only: bool,
    /// Of the card's memory, to compare with.
    bandwidth_gb_s: Option<f64>,
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let after = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).cloned()
    };
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    // cargo itself adds `--bench`; without a model there is nothing to measure.
    let Some(path) = arguments.iter().find(|argument| argument.ends_with(".gguf")) else {
        return Err("usage: --bench device -- MODEL.gguf [--device cuda:0] [--quick]".into());
    };
    let options = Options {
        device: after("--device").unwrap_or_else(|| "cuda:0".to_owned()),
        quick: has("--quick"),
        speed_only: has("--speed-only"),
        bandwidth_gb_s: after("--bandwidth-gb-s").and_then(|text| text.parse().ok()),
    };
    let path = Path::new(path);
    let gguf = GgufFile::open(path)?;
    let device = aisemble_weights::device(&options.device)?.device;
    let decoder = loaded(&gguf, &device)?;
    if !options.speed_only {
        agree(&loaded(&gguf, &Device::Cpu)?, &decoder, &options)?;
    }
    speed(&decoder, gguf.file_bytes(), path, &options)
}

fn loaded(gguf: &GgufFile, device: &Device) -> Result<Decoder, Failure> {
    let pool = Arc::new(Pool::new(None)?);
    let positions = (PREFILL_TOKENS + OUTPUT_TOKENS).max(PROMPT_TOKENS + OUTPUT_TOKENS);
    Ok(Decoder::load(gguf, positions, pool, device, |_, _| {})?)
}

fn prompt(decoder: &Decoder, tokens: usize) -> Vec<u32> {
    let vocabulary = decoder.config().vocabulary as u32;
    (0..tokens as u32).map(|i| (i * 7919 + 11) % vocabulary).collect()
}

/// The same tokens through both, each step after the CPU's choice.
fn agree(cpu: &Decoder, other: &Decoder, options: &Options) -> Result<(), Failure> {
    let tokens = if options.quick { 8 } else { COMPARED_TOKENS };
    let table: Vec<u32> = (0..(64 + tokens).div_ceil(BLOCK_TOKENS) as u32).rev().collect();
    let mut caches = [cpu, other].map(|it| it.caches(table.len(), CacheKind::F16));
    let mut feed = prompt(cpu, 64);
    let (mut at, mut apart_max, mut squares, mut choices) = (0, 0.0_f32, 0.0_f64, 0);
    let mut worst_gap = 0.0_f32;
    for _ in 0..tokens {
        let mut rows = Vec::new();
        for (decoder, caches) in [cpu, other].into_iter().zip(&mut caches) {
            let caches = caches.as_mut().map_err(|error| error.to_string())?;
            let mut batch = StepBatch::default();
            batch.push(&feed, at, &table, true);
            let logits = decoder.forward(&batch, caches)?;
            rows.push(logits.rows().next().ok_or("no logits")?.to_vec());
        }
        let apart = rows[0].iter().zip(&rows[1]).map(|(a, b)| (a - b).abs());
        apart_max = apart.clone().fold(apart_max, f32::max);
        squares += apart.map(|a| f64::from(a) * f64::from(a)).sum::<f64>() / rows[0].len() as f64;
        let (token, theirs) = (likeliest(&rows[0]), likeliest(&rows[1]));
        if token != theirs {
            choices += 1;
            worst_gap = worst_gap.max(rows[0][token as usize] - rows[0][theirs as usize]);
        }
        at += feed.len();
        feed = vec![token];
    }
    say(&serde_json::json!({
        "bench": "llm.device.agreement",
        "device": options.device,
        "tokens": tokens,
        "logits_apart_max": apart_max,
        "logits_apart_rms": (squares / tokens as f64).sqrt(),
        "other_choices": choices,
        "largest_gap_of_another_choice": worst_gap,
        "allowed_gap": TIE_LOGITS,
    }));
    if worst_gap > TIE_LOGITS || !apart_max.is_finite() {
        return Err(format!("the device disagrees with the CPU: a gap of {worst_gap}").into());
    }
    Ok(())
}

fn speed(
    decoder: &Decoder,
    file_bytes: u64,
    path: &Path,
    options: &Options,
) -> Result<(), Failure> {
    let (prompt_tokens, output_tokens, prefill_tokens) =
        if options.quick { (32, 4, 64) } else { (PROMPT_TOKENS, OUTPUT_TOKENS, PREFILL_TOKENS) };
    let model = path.file_name().map(|name| name.to_string_lossy().into_owned());
    let took = prefill(decoder, prefill_tokens)?;
    let rate = prefill_tokens as f64 / took.as_secs_f64();
    say(&serde_json::json!({
        "bench": "llm.device.prefill",
        "device": options.device,
        "model": model,
        "tokens": prefill_tokens,
        "tokens_per_s": rate.round(),
        "tflop_per_s": 2.0 * decoder.parameters() as f64 * rate / 1e12,
    }));
    for streams in STREAMS.into_iter().filter(|streams| !options.quick || *streams <= 8) {
        let step = decode(decoder, streams, (prompt_tokens, output_tokens))?;
        // Every step reads all weights once.
        let gb_s = file_bytes as f64 / step.as_secs_f64() / 1e9;
        say(&serde_json::json!({
            "bench": "llm.device.decode",
            "device": options.device,
            "model": model,
            "streams": streams,
            "step_ms": step.as_secs_f64() * 1e3,
            "tokens_per_s": (streams as f64 / step.as_secs_f64()).round(),
            "weights_gb_per_s": gb_s,
            "share_of_bandwidth": options.bandwidth_gb_s.map(|limit| gb_s / limit),
        }));
    }
    Ok(())
}

fn prefill(decoder: &Decoder, tokens: usize) -> Result<Duration, Failure> {
    let table: Vec<u32> = (0..tokens.div_ceil(BLOCK_TOKENS) as u32).collect();
    let mut caches = decoder.caches(table.len(), CacheKind::F16)?;
    let prompt = prompt(decoder, tokens);
    let mut best = Duration::MAX;
    // The first pass compiles and loads what the device needs.
    for _ in 0..3 {
        let begun = Instant::now();
        for (index, chunk) in prompt.chunks(CHUNK_TOKENS).enumerate() {
            let is_last = (index + 1) * CHUNK_TOKENS >= prompt.len();
            let mut batch = StepBatch::default();
            batch.push(chunk, index * CHUNK_TOKENS, &table, is_last);
            // Reading the logits waits for the device.
            decoder.forward(&batch, &mut caches)?;
        }
        best = best.min(begun.elapsed());
    }
    Ok(best)
}

/// The mean time of a step of `streams` rows, logits copied back.
fn decode(
    decoder: &Decoder,
    streams: usize,
    (prompt_tokens, output_tokens): (usize, usize),
) -> Result<Duration, Failure> {
    let blocks = (prompt_tokens + output_tokens).div_ceil(BLOCK_TOKENS);
    let mut caches = decoder.caches(streams * blocks, CacheKind::F16)?;
    let tables: Vec<Vec<u32>> = (0..streams)
        .map(|stream| ((stream * blocks) as u32..((stream + 1) * blocks) as u32).collect())
        .collect();
    let prompt = prompt(decoder, prompt_tokens);
    for table in &tables {
        let mut batch = StepBatch::default();
        batch.push(&prompt, 0, table, true);
        decoder.forward(&batch, &mut caches)?;
    }
    let step = |at: usize, caches: &mut Caches| {
        let mut batch = StepBatch::default();
        for table in &tables {
            batch.push(&prompt[at % prompt_tokens..=at % prompt_tokens], at, table, true);
        }
        decoder.forward(&batch, caches)
    };
    step(prompt_tokens, &mut caches)?;
    let begun = Instant::now();
    for at in prompt_tokens + 1..prompt_tokens + output_tokens {
        step(at, &mut caches)?;
    }
    Ok(begun.elapsed() / (output_tokens - 1).max(1) as u32)
}

fn likeliest(row: &[f32]) -> u32 {
    let best = (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b]));
    best.unwrap_or(0) as u32
}

#[expect(clippy::print_stdout, reason = "figures are what the program is for")]
fn say(figures: &serde_json::Value) {
    println!("{figures}");
}
