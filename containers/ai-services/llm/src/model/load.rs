//! From a model's files to a decoder: every tensor that the configuration promises, its shape
//! checked, packed once. It knows names of tensors, not what is computed with them.

use std::sync::Arc;

use aisemble_weights::candle::{self, Device, Tensor};
use aisemble_weights::kernels::{KvShape, Pool};
use aisemble_weights::ops::RopeTables;
use aisemble_weights::{
    ConfigError, Embedding, Linear, LoadError, ModelConfig, ModelSource, rope_factors, vector,
};

use super::decoder::{Decoder, Layer};

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

impl Decoder {
    /// Loads and packs all weights. `positions`: the longest sequence that will be computed.
    /// `progress` is called with layers done and layers in all.
    ///
    /// # Errors
    /// [`ModelError`] says what of the files cannot be used.
    pub fn load(
        source: &dyn ModelSource,
        positions: usize,
        pool: Arc<Pool>,
        device: &Device,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<Self, ModelError> {
        let config = source.config().map_err(|source| ModelError::Config { source })?;
        check(&config, positions)?;
        let loader = Loader { source, config: &config, device, pool: &pool };
        let mut layers = Vec::with_capacity(config.blocks);
        let total = config.blocks as u64 + 1;
        for index in 0..config.blocks {
            progress(index as u64, total);
            layers.push(loader.layer(index)?);
        }
        let embedding = Embedding::load(source, "token_embd.weight", device, &pool)?
            .scaled(config.embedding_scale);
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
        let norm = loader.norm("output_norm.weight", config.embedding)?;
        let factors = rope_factors(source, config.rope_dim)?;
        let rope = RopeTables::new(&config, positions, factors)
            .map_err(|source| ModelError::Candle { source })?;
        progress(total, total);
        let device = device.clone();
        Ok(Self { embedding, layers, norm, output, rope, pool, device, config })
    }
}

/// Dimensions that the operations rely on.
fn check(config: &ModelConfig, positions: usize) -> Result<(), ModelError> {
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

/// Loads what the configuration promises and checks every shape against it.
struct Loader<'a> {
    source: &'a dyn ModelSource,
    config: &'a ModelConfig,
    device: &'a Device,
    pool: &'a Arc<Pool>,
}

impl Loader<'_> {
    fn layer(&self, index: usize) -> Result<Layer, ModelError> {
        let ModelConfig { embedding, heads, kv_heads, head_dim, feed_forward, .. } = *self.config;
        let name = |part: &str| format!("blk.{index}.{part}.weight");
        let matrix = |part: &str, rows, cols| self.matrix(&name(part), rows, cols);
        let norm = |part: &str| self.norm(&name(part), embedding);
        let post_norm = |part: &str| self.config.post_norms.then(|| norm(part)).transpose();
        let head_norms = || {
            let norm = |part: &str| self.norm(&name(part), head_dim);
            Ok::<_, ModelError>((norm("attn_q_norm")?, norm("attn_k_norm")?))
        };
        Ok(Layer {
            attention_norm: norm("attn_norm")?,
            query: matrix("attn_q", heads * head_dim, embedding)?,
            key: matrix("attn_k", kv_heads * head_dim, embedding)?,
            value: matrix("attn_v", kv_heads * head_dim, embedding)?,
            head_norms: self.config.head_norms.then(head_norms).transpose()?,
            output: matrix("attn_output", embedding, heads * head_dim)?,
            post_attention_norm: post_norm("post_attention_norm")?,
            feed_forward_norm: norm("ffn_norm")?,
            gate: matrix("ffn_gate", feed_forward, embedding)?,
            up: matrix("ffn_up", feed_forward, embedding)?,
            down: matrix("ffn_down", embedding, feed_forward)?,
            post_feed_forward_norm: post_norm("post_ffw_norm")?,
            window: self.config.window_of(index),
        })
    }

    fn norm(&self, name: &str, len: usize) -> Result<Tensor, ModelError> {
        let weights = vector(self.source, name, len, self.device)?;
        if self.config.norm_offset == 0.0 {
            return Ok(weights);
        }
        let offset = f64::from(self.config.norm_offset);
        weights.affine(1.0, offset).map_err(|source| ModelError::Candle { source })
    }

    fn matrix(&self, name: &str, rows: usize, cols: usize) -> Result<Linear, ModelError> {
        Ok(Linear::load_shaped(self.source, (name, rows, cols), self.device, self.pool)?)
    }
}
