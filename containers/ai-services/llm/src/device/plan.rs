//! What a model takes of its device's memory when everything is in use: computed from its shape and
//! the configuration before a byte is loaded, so that what cannot fit is refused with its sum.

use std::fmt;

use aisemble_weights::ModelConfig;

use crate::config::{EngineSection, KvType};
use crate::engine::DRAFTED_ROWS_MAX;
use crate::model::BLOCK_TOKENS;

/// What a CUDA context, candle's and our kernels and cuBLAS take besides. An estimate from the
/// vendors' documents, not yet measured.
const GPU_CONTEXT_BYTES: u64 = 700_000_000;
/// Tokens of a piece of a long context: `aisemble_cuda`'s.
const ATTENTION_CHUNK_TOKENS: u64 = 256;
const F32_BYTES: u64 = 4;

/// Bytes at most, by part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryPlan {
    /// The weights as they are kept.
    pub weights_bytes: u64,
    /// All blocks of the KV cache.
    pub kv_bytes: u64,
    /// Intermediate results of the largest step, tables, the device's own context.
    pub workspace_bytes: u64,
}

/// The largest step.
#[derive(Debug, Clone, Copy)]
struct StepShape {
    rows: usize,
    /// Those of them whose logits are wanted.
    logits_rows: usize,
    /// The longest context.
    context_tokens: usize,
}

impl MemoryPlan {
    /// For a model of that shape, as `engine` serves it. `tensors`: bytes of each in its files;
    /// they are kept as they are there.
    #[must_use]
    pub fn new(
        config: &ModelConfig,
        tensors: impl Iterator<Item = u64>,
        engine: &EngineSection,
        is_gpu: bool,
    ) -> Self {
        let value_bytes = match engine.kv_type {
            KvType::F16 => 2,
            KvType::F32 => 4,
        };
        let token = 2 * config.blocks * config.kv_heads * config.head_dim * value_bytes;
        let kv_tokens = engine.kv_tokens_max / BLOCK_TOKENS * BLOCK_TOKENS;
        let decoding = engine.batch_rows_max + DRAFTED_ROWS_MAX;
        let beside = engine.prefill_chunk_tokens_beside_decode + decoding;
        let step = StepShape {
            rows: engine.prefill_chunk_tokens.max(beside),
            logits_rows: decoding,
            context_tokens: engine.context_tokens_max.min(config.context_tokens),
        };
        Self {
            weights_bytes: tensors.sum(),
            kv_bytes: kv_tokens as u64 * token as u64,
            workspace_bytes: workspace(config, step, is_gpu),
        }
    }

    /// The sum.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.weights_bytes + self.kv_bytes + self.workspace_bytes
    }
}

/// candle frees nothing before the operation behind it is done, so inputs and outputs of the widest
/// part of a layer are there at once.
fn workspace(config: &ModelConfig, step: StepShape, is_gpu: bool) -> u64 {
    let heads = (config.heads * config.head_dim) as u64;
    let kv = (config.kv_heads * config.head_dim) as u64;
    let attention = 3 * config.embedding as u64 + 3 * heads + 3 * kv;
    let feed_forward = 3 * config.embedding as u64 + 3 * config.feed_forward as u64;
    let rows = step.rows as u64 * attention.max(feed_forward);
    let logits = step.logits_rows as u64 * config.vocabulary as u64;
    let angles = step.context_tokens as u64 * config.rope_dim as u64;
    if !is_gpu {
        return F32_BYTES * (rows + logits + angles);
    }
    let chunks = (step.context_tokens as u64).div_ceil(ATTENTION_CHUNK_TOKENS);
    let partials = step.rows as u64 * (heads + 2 * config.heads as u64) * chunks;
    GPU_CONTEXT_BYTES + F32_BYTES * (rows + logits + angles + partials)
}

impl fmt::Display for MemoryPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { weights_bytes, kv_bytes, workspace_bytes } = *self;
        let [total, weights, kv, workspace] =
            [self.total_bytes(), weights_bytes, kv_bytes, workspace_bytes].map(gigabytes);
        write!(f, "{total} (weights {weights} + KV cache {kv} + workspace {workspace})")
    }
}

pub(super) fn gigabytes(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_and_its_parts_are_said() {
        let plan =
            MemoryPlan { weights_bytes: 4_900_000_000, kv_bytes: 1 << 31, workspace_bytes: 50 };
        assert_eq!(
            plan.to_string(),
            "7.0 GB (weights 4.9 GB + KV cache 2.1 GB + workspace 0.0 GB)"
        );
    }
}
