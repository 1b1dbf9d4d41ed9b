//! The layers of a decoder-only transformer, described by the file's metadata: RMS norm, grouped
//! query attention with rotary positions over a paged cache, gated feed-forward.

use std::sync::Arc;

use aisemble_weights::candle::{self, Device, Result, Tensor};
use aisemble_weights::kernels::{AttentionShape, KvShape, Pool, RopeTable};
use aisemble_weights::ops::{self, KvCache, Step};
use aisemble_weights::{ConfigError, Embedding, GgufFile, Linear, LoadError, ModelConfig, vector};

use super::batch::{CacheKind, Caches, Logits, StepBatch};
use super::family::Family;

/// Tokens of a KV block: a multiple of what the kernels need, small enough that the unused rest of
/// a sequence's last block does not matter.
pub const BLOCK_TOKENS: usize = 32;
/// Rotary tables grow with the context; 1 M positions of 64 pairs are half a gigabyte.
const POSITIONS_MAX: usize = 1 << 20;

/// Why a file does not give a decoder.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The metadata do not describe a model.
    #[error("the model's metadata cannot be used")]
    Config {
        /// Which.
        #[source]
        source: ConfigError,
    },
    /// No decoder for this architecture.
    #[error("the architecture {found:?} is not supported; supported is {supported}")]
    Architecture {
        /// What the file says.
        found: String,
        /// What it could say.
        supported: String,
    },
    /// A layer cannot be loaded.
    #[error("the weights cannot be loaded")]
    Load {
        /// Which and why.
        #[source]
        source: LoadError,
    },
    /// A dimension that the kernels cannot work with.
    #[error("the model's {what} is {found}; it must be {allowed}")]
    Dimension {
        /// Which.
        what: &'static str,
        /// What it is.
        found: usize,
        /// What it may be.
        allowed: String,
    },
    /// candle refuses something.
    #[error("the weights cannot be prepared")]
    Candle {
        /// What it said.
        #[source]
        source: candle::Error,
    },
}

impl From<LoadError> for ModelError {
    fn from(source: LoadError) -> Self {
        Self::Load { source }
    }
}

/// Weights and shapes of a model; `&self` all the way, so that it outlives a panic of its user.
#[derive(Debug)]
pub struct Decoder {
    config: ModelConfig,
    embedding: Embedding,
    layers: Vec<Layer>,
    norm: Tensor,
    output: Linear,
    rope: Arc<RopeTable>,
    pool: Arc<Pool>,
    device: Device,
}

#[derive(Debug)]
struct Layer {
    attention_norm: Tensor,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    feed_forward_norm: Tensor,
    gate: Linear,
    up: Linear,
    down: Linear,
}

impl Decoder {
    /// Loads and packs all weights. `positions`: the longest sequence that will be computed.
    /// `progress` is called with layers done and layers in all.
    ///
    /// # Errors
    /// [`ModelError`] says what of the file cannot be used.
    pub fn load(
        gguf: &GgufFile,
        positions: usize,
        pool: Arc<Pool>,
        device: &Device,
        mut progress: impl FnMut(u64, u64),
    ) -> std::result::Result<Self, ModelError> {
        let config =
            ModelConfig::from_gguf(gguf).map_err(|source| ModelError::Config { source })?;
        let family = Family::of(&config.architecture).ok_or_else(|| ModelError::Architecture {
            found: config.architecture.clone(),
            supported: Family::ALL.map(Family::as_str).join(", "),
        })?;
        check(&config, positions)?;
        let loader = Loader { gguf, config: &config, device, pool: &pool };
        let mut layers = Vec::with_capacity(config.blocks);
        let total = config.blocks as u64 + 1;
        for index in 0..config.blocks {
            progress(index as u64, total);
            layers.push(loader.layer(index)?);
        }
        let embedding = Embedding::load(gguf, "token_embd.weight", device, &pool)?;
        let width = (config.vocabulary, config.embedding);
        if (embedding.vocabulary(), embedding.width()) != width {
            let (name, found) = ("token_embd.weight", (embedding.vocabulary(), embedding.width()));
            return Err(shape_error(name, found, width));
        }
        let output = if config.tied_embeddings {
            embedding.as_linear()
        } else {
            loader.matrix("output.weight", config.vocabulary, config.embedding)?
        };
        let norm = vector(gguf, "output_norm.weight", config.embedding, device)?;
        let factors = loader.rope_factors()?;
        let rope = ops::rope_table(&config, family.rope_style(), positions, factors)
            .map_err(|source| ModelError::Candle { source })?;
        progress(total, total);
        let device = device.clone();
        Ok(Self { embedding, layers, norm, output, rope, pool, device, config })
    }

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
        let norms = (2 * self.layers.len() + 1) * self.config.embedding;
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
            scale: 1.0 / (self.config.head_dim as f32).sqrt(),
            window: None,
            softcap: None,
        };
        let last = self.layers.len().saturating_sub(1);
        for (index, (layer, cache)) in self.layers.iter().zip(&caches.layers).enumerate() {
            let attended = self.attend(layer, &x, cache, (&attention, &step))?;
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
        Logits::new(&self.output.forward(&normal)?, self.config.vocabulary)
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
        let query = ops::rope(&query, step.positions(), &self.rope)?;
        let key = ops::rope(&key, step.positions(), &self.rope)?;
        ops::kv_write(cache, &key, &value, step)?;
        let attended = ops::paged_attention(&self.pool, shape, &query, cache, step)?;
        layer.output.forward(&attended.reshape((rows, self.config.heads * head_dim))?)
    }

    fn feed_forward(&self, layer: &Layer, x: &Tensor) -> Result<Tensor> {
        let normal = ops::rms_norm(x, &layer.feed_forward_norm, self.config.rms_eps)?;
        let projected = Linear::forward_group(&[&layer.gate, &layer.up], &normal)?;
        let [gate, up] = projected.as_slice() else {
            candle::bail!("two layers gave {} products", projected.len());
        };
        layer.down.forward(&ops::silu_mul(gate, up)?)
    }

    fn kv_shape(&self, blocks: usize) -> KvShape {
        let (kv_heads, head_dim) = (self.config.kv_heads, self.config.head_dim);
        KvShape { blocks, block_tokens: BLOCK_TOKENS, kv_heads, head_dim }
    }
}

/// Dimensions that the operations rely on.
fn check(config: &ModelConfig, positions: usize) -> std::result::Result<(), ModelError> {
    if !config.head_dim.is_multiple_of(KvShape::HEAD_DIM_STEP) {
        let allowed = format!("a multiple of {}", KvShape::HEAD_DIM_STEP);
        let (what, found) = ("head dimension", config.head_dim);
        return Err(ModelError::Dimension { what, found, allowed });
    }
    if positions == 0 || positions > POSITIONS_MAX {
        let allowed = format!("between 1 and {POSITIONS_MAX}");
        return Err(ModelError::Dimension { what: "context", found: positions, allowed });
    }
    Ok(())
}

fn shape_error(name: &str, found: (usize, usize), expected: (usize, usize)) -> ModelError {
    let pair = |(rows, cols)| vec![rows, cols];
    let (found, expected) = (pair(found), pair(expected));
    LoadError::Shape { name: name.to_owned(), found, expected }.into()
}

/// Loads what the metadata promise and checks every shape against them.
struct Loader<'a> {
    gguf: &'a GgufFile,
    config: &'a ModelConfig,
    device: &'a Device,
    pool: &'a Arc<Pool>,
}

impl Loader<'_> {
    fn layer(&self, index: usize) -> std::result::Result<Layer, ModelError> {
        let ModelConfig { embedding, heads, kv_heads, head_dim, feed_forward, .. } = *self.config;
        let name = |part: &str| format!("blk.{index}.{part}.weight");
        let matrix = |part: &str, rows, cols| self.matrix(&name(part), rows, cols);
        let norm = |part: &str| vector(self.gguf, &name(part), embedding, self.device);
        Ok(Layer {
            attention_norm: norm("attn_norm")?,
            query: matrix("attn_q", heads * head_dim, embedding)?,
            key: matrix("attn_k", kv_heads * head_dim, embedding)?,
            value: matrix("attn_v", kv_heads * head_dim, embedding)?,
            output: matrix("attn_output", embedding, heads * head_dim)?,
            feed_forward_norm: norm("ffn_norm")?,
            gate: matrix("ffn_gate", feed_forward, embedding)?,
            up: matrix("ffn_up", feed_forward, embedding)?,
            down: matrix("ffn_down", embedding, feed_forward)?,
        })
    }

    fn matrix(
        &self,
        name: &str,
        rows: usize,
        cols: usize,
    ) -> std::result::Result<Linear, ModelError> {
        Ok(Linear::load_shaped(self.gguf, (name, rows, cols), self.device, self.pool)?)
    }

    /// Llama 3's frequency factors; none when the file has none.
    fn rope_factors(&self) -> std::result::Result<Vec<f32>, ModelError> {
        const NAME: &str = "rope_freqs.weight";
        if !self.gguf.has_tensor(NAME) {
            return Ok(Vec::new());
        }
        let tensor = vector(self.gguf, NAME, self.config.rope_dim / 2, self.device)?;
        tensor.to_vec1().map_err(|source| ModelError::Candle { source })
    }
}
