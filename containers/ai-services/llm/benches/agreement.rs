//! How well the service agrees with a reference on the same model file: tokens of texts, greedy
//! tokens alone and in a batch, perplexity. One JSON object a line on stdout.
//!
//! `cargo bench -p aisemble-llm --bench agreement -- MODEL.gguf REFERENCE.json [--threads N]`, the
//! reference made by `scripts/reference/agreement.sh`. Fails when the perplexity is off by more
//! than a hundredth, a token of a text is another, or the batch changes a token.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use aisemble_llm::model::{BLOCK_TOKENS, CacheKind, Caches, Decoder, StepBatch};
use aisemble_weights::candle::Device;
use aisemble_weights::kernels::Pool;
use aisemble_weights::{GgufFile, Tokenizer, digest};
use serde::Deserialize;
use serde_json::json;

/// Sequences at once in the second run.
const BATCH: usize = 8;
/// Positions of a sequence at most.
const POSITIONS: usize = 1024;
/// Rows whose logits are wanted at once: a row of a large vocabulary is a megabyte.
const LOGITS_ROWS: usize = 64;
/// What the perplexity may differ by.
const PERPLEXITY_RATIO_MAX: f64 = 1.01;

type Failure = Box<dyn std::error::Error>;

#[derive(Deserialize)]
struct Reference {
    model_sha256: String,
    texts: Vec<Text>,
    cases: Vec<Case>,
    perplexity: Perplexity,
}

#[derive(Deserialize)]
struct Text {
    text: String,
    plain: Vec<u32>,
    special: Vec<u32>,
}

#[derive(Deserialize)]
struct Case {
    prompt_tokens: Vec<u32>,
    output_tokens: Vec<u32>,
    logit_gaps: Vec<f32>,
}

#[derive(Deserialize)]
struct Perplexity {
    context: usize,
    tokens: Vec<u32>,
    nll_sum: f64,
    count: usize,
    /// The token that each piece begins with; below zero for none.
    begin: i64,
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let ending = |ending: &str| arguments.iter().find(|argument| argument.ends_with(ending));
    let (Some(model), Some(reference)) = (ending(".gguf"), ending(".json")) else {
        // `cargo bench` runs every bench: without its files this one has nothing to compare.
        let usage = "agreement MODEL.gguf REFERENCE.json [--threads N]";
        return say(&json!({"check": "none", "usage": usage}));
    };
    let threads = arguments.iter().position(|argument| argument == "--threads");
    let threads = threads.and_then(|at| arguments.get(at + 1)?.parse().ok());
    let reference: Reference = serde_json::from_slice(&std::fs::read(reference)?)?;
    let sha256 = digest::sha256_file(Path::new(model), |_, _| {})?;
    if sha256 != reference.model_sha256 {
        return Err(format!("the reference is of another file: {}", reference.model_sha256).into());
    }
    let gguf = GgufFile::open(Path::new(model))?;
    let tokenizer = Tokenizer::from_gguf(&gguf)?;
    let pool = Arc::new(Pool::new(threads)?);
    let decoder = Decoder::load(&gguf, POSITIONS, pool, &Device::Cpu, |_, _| {})?;
    drop(gguf);
    let tokens = tokens(&tokenizer, &reference.texts)?;
    let batch = greedy(&decoder, &reference.cases)?;
    let perplexity = perplexity(&decoder, &reference.perplexity)?;
    if tokens && batch && perplexity { Ok(()) } else { Err("the model does not agree".into()) }
}

fn say(line: &serde_json::Value) -> Result<(), Failure> {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}

/// Whether all texts have the reference's tokens.
fn tokens(tokenizer: &Tokenizer, texts: &[Text]) -> Result<bool, Failure> {
    let mut wrong = Vec::new();
    for text in texts {
        for (parse_special, expected) in [(false, &text.plain), (true, &text.special)] {
            if tokenizer.encode(&text.text, parse_special)? != *expected {
                wrong.push(text.text.chars().take(40).collect::<String>());
            }
        }
    }
    say(&json!({"check": "tokens", "texts": texts.len(), "different": wrong}))?;
    Ok(wrong.is_empty())
}

/// One sequence fed by hand.
struct Sequence {
    blocks: Vec<u32>,
    computed: usize,
    output: Vec<u32>,
}

impl Sequence {
    fn new(index: usize) -> Self {
        let each = (POSITIONS / BLOCK_TOKENS) as u32;
        let blocks = (index as u32 * each..(index as u32 + 1) * each).collect();
        Self { blocks, computed: 0, output: Vec::new() }
    }
}

fn caches(decoder: &Decoder, sequences: usize) -> Result<Caches, Failure> {
    Ok(decoder.caches(sequences * POSITIONS / BLOCK_TOKENS, CacheKind::F16)?)
}

/// Alone beside the reference, token by token and free; then in batches, which must not matter.
fn greedy(decoder: &Decoder, cases: &[Case]) -> Result<bool, Failure> {
    let mut alone = Vec::with_capacity(cases.len());
    let (mut same_prompts, mut prefix, mut parted) = (0, 0, Vec::new());
    let (mut compared, mut other_choices, mut largest_gap) = (0, 0, 0.0_f32);
    for case in cases {
        let output = free(decoder, &[case])?.remove(0);
        let same = output.iter().zip(&case.output_tokens).take_while(|(a, b)| a == b).count();
        prefix += same;
        if same == case.output_tokens.len() {
            same_prompts += 1;
        } else {
            parted.push(case.logit_gaps[same]);
        }
        alone.push(output);
        for (ours, gap, theirs) in forced(decoder, case)? {
            compared += 1;
            if !ours {
                other_choices += 1;
                largest_gap = largest_gap.max(gap.max(theirs));
            }
        }
    }
    parted.sort_by(f32::total_cmp);
    let mut batched = 0;
    for (cases, alone) in cases.chunks(BATCH).zip(alone.chunks(BATCH)) {
        let outputs = free(decoder, &cases.iter().collect::<Vec<_>>())?;
        batched += outputs.iter().zip(alone).filter(|(a, b)| a == b).count();
    }
    let line = json!({
        "check": "greedy", "prompts": cases.len(), "tokens_each": cases[0].output_tokens.len(),
        "prompts_equal_throughout": same_prompts,
        "tokens_equal_before_parting_mean": prefix as f64 / cases.len() as f64,
        "reference_gap_where_parted_median": parted.get(parted.len() / 2),
        "reference_gap_where_parted_largest": parted.last(),
        "after_the_same_tokens": {"compared": compared, "other_choice": other_choices,
            "largest_gap": largest_gap},
        "in_a_batch_as_alone": batched,
    });
    say(&line)?;
    Ok(batched == cases.len())
}

/// What the model says by itself after each prompt, all in one batch.
fn free(decoder: &Decoder, cases: &[&Case]) -> Result<Vec<Vec<u32>>, Failure> {
    let mut caches = caches(decoder, cases.len())?;
    let mut sequences: Vec<Sequence> = (0..cases.len()).map(Sequence::new).collect();
    for _ in 0..cases[0].output_tokens.len() {
        let feeds: Vec<Vec<u32>> = sequences
            .iter()
            .zip(cases)
            .map(|(sequence, case)| match sequence.output.last() {
                Some(last) => vec![*last],
                None => case.prompt_tokens.clone(),
            })
            .collect();
        let mut batch = StepBatch::default();
        for (sequence, feed) in sequences.iter().zip(&feeds) {
            batch.push(feed, sequence.computed, &sequence.blocks, true);
        }
        let logits = decoder.forward(&batch, &mut caches)?;
        let chosen: Vec<u32> = logits.rows().map(likeliest).collect();
        for ((sequence, feed), token) in sequences.iter_mut().zip(&feeds).zip(chosen) {
            sequence.computed += feed.len();
            sequence.output.push(token);
        }
    }
    Ok(sequences.into_iter().map(|sequence| sequence.output).collect())
}

/// After the reference's own tokens: whether the choice is the reference's, by how much the service
/// prefers its own, and by how much the reference does.
fn forced(decoder: &Decoder, case: &Case) -> Result<Vec<(bool, f32, f32)>, Failure> {
    let known = [case.prompt_tokens.as_slice(), &case.output_tokens].concat();
    let mut found = Vec::with_capacity(case.output_tokens.len());
    let first = case.prompt_tokens.len() - 1;
    each_row(decoder, &known[..known.len() - 1], |row, logits| {
        if let Some(at) = row.checked_sub(first) {
            let theirs = case.output_tokens[at];
            let best = likeliest(logits);
            let gap = logits[best as usize] - logits[theirs as usize];
            found.push((best == theirs, gap, case.logit_gaps[at]));
        }
    })?;
    Ok(found)
}

/// Whether the perplexity is within a hundredth of the reference's.
fn perplexity(decoder: &Decoder, reference: &Perplexity) -> Result<bool, Failure> {
    let (mut sum, mut count) = (0.0_f64, 0);
    for piece in reference.tokens.chunks_exact(reference.context) {
        let mut piece = piece.to_vec();
        if let Ok(begin) = u32::try_from(reference.begin) {
            piece[0] = begin;
        }
        each_row(decoder, &piece, |row, logits| {
            if row >= piece.len() / 2 && row + 1 < piece.len() {
                let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let all: f64 = logits.iter().map(|x| f64::from(x - largest).exp()).sum();
                let next = logits[piece[row + 1] as usize];
                sum += f64::from(largest) + all.ln() - f64::from(next);
                count += 1;
            }
        })?;
    }
    let value = |sum: f64, count: usize| (sum / count as f64).exp();
    let (ours, theirs) = (value(sum, count), value(reference.nll_sum, reference.count));
    let line = json!({"check": "perplexity", "tokens": count, "ours": ours, "reference": theirs,
        "ratio": ours / theirs});
    say(&line)?;
    let ratio = (ours / theirs).max(theirs / ours);
    Ok(count == reference.count && ratio <= PERPLEXITY_RATIO_MAX)
}

/// Calls `see` with each row of one sequence and its logits.
fn each_row(
    decoder: &Decoder,
    tokens: &[u32],
    mut see: impl FnMut(usize, &[f32]),
) -> Result<(), Failure> {
    let mut caches = caches(decoder, 1)?;
    let sequence = Sequence::new(0);
    for (index, part) in tokens.chunks(LOGITS_ROWS).enumerate() {
        let start = index * LOGITS_ROWS;
        let mut batch = StepBatch::default();
        // Known tokens as a draft: each of their rows wants logits.
        batch.push_drafted((&part[..1], &part[1..]), start, &sequence.blocks, true);
        let logits = decoder.forward(&batch, &mut caches)?;
        for (row, logits) in logits.rows().enumerate() {
            see(start + row, logits);
        }
    }
    Ok(())
}

/// The likeliest token, the first of equals.
fn likeliest(logits: &[f32]) -> u32 {
    let better =
        |best: usize, token: usize| if logits[token] > logits[best] { token } else { best };
    (0..logits.len()).fold(0, better) as u32
}
