//! What goes into a forward pass and what comes out: rows, caches, logits.

use aisemble_weights::candle::{DType, Result, Tensor};
use aisemble_weights::ops::KvCache;

/// The rows of one step, packed: decode rows and chunks of prompts of any number of sequences. Rows
/// of one sequence are adjacent, in the order of their positions.
#[derive(Debug, Default)]
pub struct StepBatch<'a> {
    /// `[rows]`: the token of each row.
    pub tokens: Vec<u32>,
    /// `[rows]`: its position in its sequence, from 0.
    pub positions: Vec<u32>,
    /// `[rows]`: which of `block_tables` it uses.
    pub sequences: Vec<u32>,
    /// Blocks of each sequence in the order of its tokens, up to its last row's at least.
    pub block_tables: Vec<&'a [u32]>,
    /// Rows whose logits are wanted, rising.
    pub logits_rows: Vec<u32>,
}

impl<'a> StepBatch<'a> {
    /// Adds the rows of one sequence: `tokens` from position `start` on. The logits of the last row
    /// are wanted when `samples`.
    pub fn push(&mut self, tokens: &[u32], start: usize, blocks: &'a [u32], samples: bool) {
        self.push_drafted((tokens, &[]), start, blocks, samples);
    }

    /// As [`push`](Self::push), with a row for each token of a draft behind the known ones; their
    /// logits are wanted too when `samples`.
    pub fn push_drafted(
        &mut self,
        (tokens, draft): (&[u32], &[u32]),
        start: usize,
        blocks: &'a [u32],
        samples: bool,
    ) {
        let sequence = self.block_tables.len() as u32;
        let rows = tokens.len() + draft.len();
        self.tokens.extend_from_slice(tokens);
        self.tokens.extend_from_slice(draft);
        self.positions.extend((start..start + rows).map(|position| position as u32));
        self.sequences.extend(std::iter::repeat_n(sequence, rows));
        self.block_tables.push(blocks);
        if samples && !tokens.is_empty() {
            let end = self.tokens.len() as u32;
            self.logits_rows.extend(end - draft.len() as u32 - 1..end);
        }
    }
}

/// What the cache stores its values as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheKind {
    /// Half precision: half the memory and half the traffic. What llama.cpp does by default.
    F16,
    /// Single precision.
    F32,
}

impl CacheKind {
    pub(super) fn dtype(self) -> DType {
        match self {
            Self::F16 => DType::F16,
            Self::F32 => DType::F32,
        }
    }
}

/// The KV caches of all layers: the state of every sequence, apart from the weights.
#[derive(Debug)]
pub struct Caches {
    pub(super) layers: Vec<KvCache>,
}

/// The logits of the rows that wanted them.
#[derive(Debug)]
pub struct Logits {
    values: Vec<f32>,
    vocabulary: usize,
}

impl Logits {
    /// From a tensor `[rows, vocabulary]`; `cap * tanh(logit / cap)` where there is a cap.
    pub(super) fn new(tensor: &Tensor, vocabulary: usize, cap: Option<f32>) -> Result<Self> {
        let mut values: Vec<f32> = tensor.flatten_all()?.to_vec1()?;
        if let Some(cap) = cap {
            values.iter_mut().for_each(|logit| *logit = cap * (*logit / cap).tanh());
        }
        Ok(Self { values, vocabulary })
    }

    pub(super) fn none(vocabulary: usize) -> Self {
        Self { values: Vec::new(), vocabulary }
    }

    /// How many rows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len() / self.vocabulary
    }

    /// Whether no row wanted logits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The rows, in the order of `logits_rows`, one value for each token.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.values.chunks_exact(self.vocabulary)
    }
}
