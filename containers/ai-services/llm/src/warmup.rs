//! The inference before the first request: it faults the weights in, and its output is checked, so
//! that a service which computes nonsense (a bad file, a kernel that is wrong on this CPU) never
//! becomes ready.
//!
//! Checked of any model: all logits are finite, the same input gives the same bits, a prompt in
//! pieces gives what it gives in one. Of a file that is known: the tokens themselves.

use aisemble_weights::candle;

use crate::model::{BLOCK_TOKENS, CacheKind, Caches, Decoder, StepBatch};

/// Tokens that are generated.
const OUTPUT_TOKENS: usize = 8;
/// How far the logits of the same prompt may lie apart on a GPU, where the number of rows chooses
/// the kernel of a product. About three times the rounding of activations to 8 bits (docs/llm.md);
/// not yet measured on a GPU.
const GPU_LOGITS_APART_MAX: f32 = 0.5;
/// Blocks that the warm-up's cache has: room for the longest prompt here and its output.
const BLOCKS: usize = 4;

/// A file and what it must say. The gaps between the likeliest token and the next are above 3.8
/// everywhere, so no way of rounding makes another token the likeliest.
struct Known {
    sha256: &'static str,
    prompt: &'static [u32],
    output: [u32; OUTPUT_TOKENS],
}

/// SmolLM2-135M-Instruct Q4_1 counts on from "1, 2, ... 12,"; the answer is llama.cpp's (see
/// `tests/data/llama_cpp_greedy.json`).
const KNOWN: [Known; 1] = [Known {
    sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    prompt: &[
        33, 28, 216, 34, 28, 216, 35, 28, 216, 36, 28, 216, 37, 28, 216, 38, 28, 216, 39, 28, 216,
        40, 28, 216, 41, 28, 216, 33, 32, 28, 216, 33, 33, 28, 216, 33, 34, 28,
    ],
    output: [216, 33, 35, 28, 216, 33, 36, 28],
}];

/// The model must not serve.
#[derive(Debug, thiserror::Error)]
pub enum WarmupError {
    /// The forward pass failed.
    #[error("the forward pass failed")]
    Forward {
        /// Why.
        #[source]
        source: candle::Error,
    },
    /// Some logits are NaN or infinite.
    #[error("{count} of {vocabulary} logits are not finite")]
    NotFinite {
        /// How many.
        count: usize,
        /// Of how many.
        vocabulary: usize,
    },
    /// The same input gave another output.
    #[error("the same prompt gave other logits {how}")]
    Unstable {
        /// What was different in the second run.
        how: &'static str,
    },
    /// The output of a known file is wrong.
    #[error("the model answers with tokens {found:?}; the file is known to answer {expected:?}")]
    Wrong {
        /// What it said.
        found: Vec<u32>,
        /// What it must say.
        expected: Vec<u32>,
    },
}

/// Runs the warm-up. `exact`: the same input must give the same bits, as on the CPU. `progress` is
/// called with passes done and passes in all.
///
/// # Errors
/// [`WarmupError`]: the service must not become ready.
pub fn check(
    decoder: &Decoder,
    sha256: &str,
    (kind, exact): (CacheKind, bool),
    mut progress: impl FnMut(u64, u64),
) -> Result<(), WarmupError> {
    let known = KNOWN.iter().find(|known| known.sha256 == sha256);
    let vocabulary = decoder.config().vocabulary as u32;
    let any: Vec<u32> = (0..24).map(|i| (i * 37 + 5) % vocabulary).collect();
    let prompt = known.map_or(any.as_slice(), |known| known.prompt);
    let total = OUTPUT_TOKENS as u64 + 2;
    let mut run = Run::new(decoder, kind)?;

    let first = run.feed(prompt)?;
    let bad = first.iter().filter(|logit| !logit.is_finite()).count();
    if bad > 0 {
        return Err(WarmupError::NotFinite { count: bad, vocabulary: first.len() });
    }
    progress(1, total);
    let mut again = Run::new(decoder, kind)?;
    again.feed(&prompt[..prompt.len() / 3])?;
    let apart = again.feed(&prompt[prompt.len() / 3..])?;
    if !(if exact { same_bits(&first, &apart) } else { close(&first, &apart) }) {
        return Err(WarmupError::Unstable { how: "when it was computed in two pieces" });
    }
    progress(2, total);

    let mut found = vec![likeliest(&first)];
    while found.len() < OUTPUT_TOKENS {
        let logits = run.feed(&found[found.len() - 1..])?;
        found.push(likeliest(&logits));
        progress(found.len() as u64 + 2, total);
    }
    match known {
        Some(known) if known.output[..] != found[..] => {
            Err(WarmupError::Wrong { found, expected: known.output.to_vec() })
        }
        Some(_) | None => Ok(()),
    }
}

/// One sequence with a cache of its own.
struct Run<'a> {
    decoder: &'a Decoder,
    caches: Caches,
    blocks: Vec<u32>,
    computed: usize,
}

impl<'a> Run<'a> {
    fn new(decoder: &'a Decoder, kind: CacheKind) -> Result<Self, WarmupError> {
        let caches = decoder.caches(BLOCKS, kind).map_err(forward)?;
        // The prompt spans two blocks: one beyond the first is used too.
        const { assert!(BLOCKS * BLOCK_TOKENS >= 64) };
        let blocks = (0..BLOCKS as u32).rev().collect();
        Ok(Self { decoder, caches, blocks, computed: 0 })
    }

    /// The logits after `tokens`.
    fn feed(&mut self, tokens: &[u32]) -> Result<Vec<f32>, WarmupError> {
        let mut batch = StepBatch::default();
        batch.push(tokens, self.computed, &self.blocks, true);
        let logits = self.decoder.forward(&batch, &mut self.caches).map_err(forward)?;
        self.computed += tokens.len();
        Ok(logits.rows().next().unwrap_or_default().to_vec())
    }
}

fn forward(source: candle::Error) -> WarmupError {
    WarmupError::Forward { source }
}

fn same_bits(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

fn close(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= GPU_LOGITS_APART_MAX)
}

fn likeliest(logits: &[f32]) -> u32 {
    let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b]).then(b.cmp(a)));
    best.unwrap_or(0) as u32
}
