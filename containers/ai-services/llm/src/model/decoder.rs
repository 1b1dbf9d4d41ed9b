//! The layers of a decoder-only transformer, described by its configuration: RMS norms, grouped
//! query attention with rotary positions over a paged cache, gated feed-forward. It knows no
//! families: what one has and another has not is in the configuration or in a layer.

use std::num::NonZeroUsize;
use std::sync::Arc;

use aisemble_weights::candle::{self, Device, Result, Tensor};
use aisemble_weights::kernels::{AttentionShape, KvShape, Pool};
use aisemble_weights::ops::{self, KvCache, RopeTables, Step};
use aisemble_weights::{Embedding, Gate, Linear, ModelConfig};

use super::batch::{CacheKind, Caches, Logits, StepBatch};

/// Tokens of a KV block: a multiple of what the kernels need, small enough that the unused rest of
/// a sequence's last block does not matter.
pub const BLOCK_TOKENS: usize = 32;

/// Weights and shapes of a model; `&self` all the way, so that it outlives a panic of its user.
#[derive(Debug)]
pub struct Decoder {
    pub(super) config: ModelConfig,
    pub(super) embedding: Embedding,
    pub(super) layers: Vec<Layer>,
    pub(super) norm: Tensor,
    pub(super) output: Linear,
    pub(super) rope: RopeTables,
    pub(super) pool: Arc<Pool>,
    pub(super) device: Device,
}

/// One layer. What a family does not have is `None`.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) attention_norm: Tensor,
    pub(super) query: Linear,
    pub(super) key: Linear,
    pub(super) value: Linear,
    /// Of each head's queries and keys, before they turn.
    pub(super) head_norms: Option<(Tensor, Tensor)>,
    pub(super) output: Linear,
    /// Behind attention, before the residual stream.
    pub(super) post_attention_norm: Option<Tensor>,
    pub(super) feed_forward_norm: Tensor,
    pub(super) gate: Linear,
    pub(super) up: Linear,
    pub(super) down: Linear,
    /// Behind the feed-forward layers, before the residual stream.
    pub(super) post_feed_forward_norm: Option<Tensor>,
    /// Tokens that a row sees.
    pub(super) window: Option<NonZeroUsize>,
}

impl Decoder {
    /// The shape of the model.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Positions that a sequence may have.
    #[must_use]
    pub fn positions(&self) -> usize {
        self.rope.positions()
    }

    /// Empty caches of `blocks` blocks of [`BLOCK_TOKENS`] tokens for every layer.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn caches(&self, blocks: usize, kind: CacheKind) -> Result<Caches> {
        let shape = self.kv_shape(blocks);
        let layer = || KvCache::new(shape, kind.dtype(), &self.device);
        Ok(Caches { layers: self.layers.iter().map(|_| layer()).collect::<Result<_>>()? })
    }

    /// Bytes of caches of `blocks` blocks.
    #[must_use]
    pub fn cache_bytes(&self, blocks: usize, kind: CacheKind) -> usize {
        2 * self.layers.len() * self.kv_shape(blocks).values() * kind.dtype().size_in_bytes()
    }

    /// Weights of the model.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        let matrices = |layer: &Layer| {
            [&layer.query, &layer.key, &layer.value, &layer.output, &layer.gate, &layer.up]
                .into_iter()
                .chain([&layer.down])
                .map(|linear| linear.in_features() * linear.out_features())
                .sum::<usize>()
        };
        let each = if self.config.post_norms { 4 } else { 2 };
        let heads = if self.config.head_norms { 2 * self.config.head_dim } else { 0 };
        let norms =
            (each * self.layers.len() + 1) * self.config.embedding + self.layers.len() * heads;
        let table = self.config.vocabulary * self.config.embedding;
        let tables = if self.config.tied_embeddings { table } else { 2 * table };
        (self.layers.iter().map(matrices).sum::<usize>() + norms + tables) as u64
    }

    /// Computes the rows of `batch`, writes their keys and values into `caches`, and gives the
    /// logits of those that want them. The rows that a row sees must have been computed before, or
    /// be in the same batch. A row's logits do not depend on the other sequences of the batch.
    ///
    /// # Errors
    /// When a token is not in the vocabulary, a position has no block or is past the model's
    /// positions, or an operation fails.
    pub fn forward(&self, batch: &StepBatch<'_>, caches: &mut Caches) -> Result<Logits> {
        let Some(shape) = caches.layers.first().map(KvCache::shape) else {
            candle::bail!("the model has no layers");
        };
        let step = Step::new(&batch.positions, &batch.sequences, &batch.block_tables, &shape)?;
        let mut x = self.embedding.rows(&batch.tokens)?;
        let attention = AttentionShape {
            kv: shape,
            heads: self.config.heads,
            scale: self.config.attention_scale,
            window: None,
            softcap: self.config.attention_softcap,
        };
        let last = self.layers.len().saturating_sub(1);
        for (index, (layer, cache)) in self.layers.iter().zip(&caches.layers).enumerate() {
            let shape = AttentionShape { window: layer.window, ..attention };
            let attended = self.attend(layer, &x, cache, (&shape, &step))?;
            let mut y = ops::add(&x, &attended)?;
            // Behind the last attention only the rows that want logits matter.
            if index == last && batch.logits_rows.len() < batch.tokens.len() {
                if batch.logits_rows.is_empty() {
                    return Ok(Logits::none(self.config.vocabulary));
                }
                let rows = Tensor::new(batch.logits_rows.as_slice(), &self.device)?;
                y = y.index_select(&rows, 0)?;
            }
            x = ops::add(&y, &self.feed_forward(layer, &y)?)?;
        }
        let normal = ops::rms_norm(&x, &self.norm, self.config.rms_eps)?;
        let logits = self.output.forward(&normal)?;
        Logits::new(&logits, self.config.vocabulary, self.config.logit_softcap)
    }

    fn attend(
        &self,
        layer: &Layer,
        x: &Tensor,
        cache: &KvCache,
        (shape, step): (&AttentionShape, &Step),
    ) -> Result<Tensor> {
        let normal = ops::rms_norm(x, &layer.attention_norm, self.config.rms_eps)?;
        let projected = Linear::forward_group(&[&layer.query, &layer.key, &layer.value], &normal)?;
        let [query, key, value] = projected.as_slice() else {
            candle::bail!("three layers gave {} products", projected.len());
        };
        let (rows, head_dim) = (step.rows(), self.config.head_dim);
        let heads = |tensor: &Tensor, heads| tensor.reshape((rows, heads, head_dim));
        let query = heads(query, self.config.heads)?;
        let key = heads(key, self.config.kv_heads)?;
        let value = heads(value, self.config.kv_heads)?;
        let (query, key) = match &layer.head_norms {
            Some((of_query, of_key)) => {
                let eps = self.config.rms_eps;
                (ops::rms_norm(&query, of_query, eps)?, ops::rms_norm(&key, of_key, eps)?)
            }
            None => (query, key),
        };
        let table = self.rope.of(layer.window.is_some());
        let query = ops::rope(&query, step.positions(), table)?;
        let key = ops::rope(&key, step.positions(), table)?;
        ops::kv_write(cache, &key, &value, step)?;
        let attended = ops::paged_attention(&self.pool, shape, &query, cache, step)?;
        let attended = attended.reshape((rows, self.config.heads * head_dim))?;
        self.normal(layer.output.forward(&attended)?, layer.post_attention_norm.as_ref())
    }

    fn feed_forward(&self, layer: &Layer, x: &Tensor) -> Result<Tensor> {
        let normal = ops::rms_norm(x, &layer.feed_forward_norm, self.config.rms_eps)?;
        let projected = Linear::forward_group(&[&layer.gate, &layer.up], &normal)?;
        let [gate, up] = projected.as_slice() else {
            candle::bail!("two layers gave {} products", projected.len());
        };
        let inner = match self.config.gate {
            Gate::Silu => ops::silu_mul(gate, up)?,
            Gate::Gelu => ops::gelu_mul(gate, up)?,
        };
        self.normal(layer.down.forward(&inner)?, layer.post_feed_forward_norm.as_ref())
    }

    /// What a norm that the family may have makes of `x`.
    fn normal(&self, x: Tensor, norm: Option<&Tensor>) -> Result<Tensor> {
        match norm {
            Some(norm) => ops::rms_norm(&x, norm, self.config.rms_eps),
            None => Ok(x),
        }
    }

    fn kv_shape(&self, blocks: usize) -> KvShape {
        let (kv_heads, head_dim) = (self.config.kv_heads, self.config.head_dim);
        KvShape { blocks, block_tokens: BLOCK_TOKENS, kv_heads, head_dim }
    }
}
