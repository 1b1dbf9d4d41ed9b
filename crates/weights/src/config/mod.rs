//! The shape of a decoder-only model. Every number is checked against a range when it is read
//! (`gguf`, `huggingface`), so that what is built from it needs no second look.

mod gguf;
mod huggingface;

use std::num::NonZeroUsize;

use aisemble_kernels::RopeStyle;

use crate::family::{Family, Gate};
use crate::gguf::GgufError;

/// How positions are stretched beyond the context that the model was trained with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// Not at all. In GGUF, Llama 3's frequency factors come as a tensor, `rope_freqs.weight`.
    None,
    /// Positions are divided by `factor`.
    Linear {
        /// The divisor.
        factor: f32,
    },
    /// Llama 3: slow frequencies are divided by `factor`, fast ones stay, between them a ramp.
    Llama3 {
        /// The divisor.
        factor: f32,
        /// Turns within the trained context below which a frequency is slow.
        low_freq_factor: f32,
        /// Turns within the trained context above which a frequency is fast.
        high_freq_factor: f32,
        /// The trained context, tokens.
        original_context: f32,
    },
}

/// Layers that see the last tokens only.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// Tokens that a row sees, itself included.
    pub tokens: NonZeroUsize,
    /// For each layer, whether it has the window.
    pub layers: Vec<bool>,
    /// Base frequency of the rotary embedding in these layers, where positions are not stretched;
    /// `None`: as in the others.
    pub rope_base: Option<f32>,
}

/// The shape of a decoder-only model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// What the file calls its architecture: `llama`, `qwen2`, ...
    pub architecture: String,
    /// The family that it belongs to.
    pub family: Family,
    /// The model's name, when the file says it.
    pub name: Option<String>,
    /// Its licence, when the file says it.
    pub license: Option<String>,
    /// Layers.
    pub blocks: usize,
    /// Width of the residual stream.
    pub embedding: usize,
    /// Query heads.
    pub heads: usize,
    /// Key/value heads: a divisor of `heads`.
    pub kv_heads: usize,
    /// Values of a head.
    pub head_dim: usize,
    /// Width inside the feed-forward layers.
    pub feed_forward: usize,
    /// Added to the mean square in RMS norms.
    pub rms_eps: f32,
    /// Added to the weights of norms: 1 for Gemma's safetensors, whose weights are stored without.
    pub norm_offset: f32,
    /// Whether each head's queries and keys are normalised.
    pub head_norms: bool,
    /// Whether there are norms behind attention and feed-forward too.
    pub post_norms: bool,
    /// Inside the feed-forward layers.
    pub gate: Gate,
    /// Factor on the embedding's rows.
    pub embedding_scale: f32,
    /// Factor on the scores of attention.
    pub attention_scale: f32,
    /// `cap * tanh(score / cap)` on the scores.
    pub attention_softcap: Option<f32>,
    /// `cap * tanh(logit / cap)` on the logits.
    pub logit_softcap: Option<f32>,
    /// Layers with a window.
    pub window: Option<Window>,
    /// Which values of a head turn together.
    pub rope_style: RopeStyle,
    /// Base frequency of the rotary embedding.
    pub rope_base: f32,
    /// Values of a head that turn (even, at most `head_dim`).
    pub rope_dim: usize,
    /// Stretching of positions.
    pub rope_scaling: RopeScaling,
    /// Tokens that the model was trained to see.
    pub context_tokens: usize,
    /// Rows of the embedding table.
    pub vocabulary: usize,
    /// Whether the output layer is the embedding table.
    pub tied_embeddings: bool,
}

impl ModelConfig {
    /// The window of a layer; `None` when it sees everything.
    pub fn window_of(&self, layer: usize) -> Option<NonZeroUsize> {
        let window = self.window.as_ref()?;
        window.layers.get(layer).copied().unwrap_or(false).then_some(window.tokens)
    }

    /// The model as a windowed layer with a rotary base of its own sees it; `None` when all layers
    /// turn alike.
    pub(crate) fn rope_windowed(&self) -> Option<f32> {
        self.window.as_ref()?.rope_base
    }
}

/// Why a file does not describe a model that can be run.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A key is missing or has another type.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// `config.json` is not what it should be.
    #[error("`config.json` cannot be read")]
    Json {
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// No decoder for this architecture.
    #[error("`{key}` is {found:?}, which is not supported; supported: {supported}")]
    Architecture {
        /// The key.
        key: &'static str,
        /// What the file says.
        found: String,
        /// What it could say.
        supported: String,
    },
    /// A number is outside its range.
    #[error("metadata `{key}` is {found}, allowed is {allowed}")]
    Range {
        /// The key.
        key: String,
        /// The value found.
        found: String,
        /// What is allowed.
        allowed: String,
    },
    /// A way of stretching positions that is not implemented.
    #[error("metadata `{key}` asks for `{found}` scaling, supported are {supported}")]
    Scaling {
        /// The key.
        key: String,
        /// What it says.
        found: String,
        /// What it could say.
        supported: &'static str,
    },
}

/// Layers of a model at most.
const BLOCKS_MAX: u64 = 1_024;
/// Width of the residual stream at most.
const EMBEDDING_MAX: u64 = 131_072;
/// Heads at most.
const HEADS_MAX: u64 = 1_024;
/// Values of a head at most.
const HEAD_DIM_MAX: u64 = 4_096;
/// Width inside the feed-forward layers at most.
const FEED_FORWARD_MAX: u64 = 1_048_576;
/// Trained context at most, tokens.
const CONTEXT_TOKENS_MAX: u64 = 16_777_216;
/// Largest soft cap.
const SOFTCAP_MAX: f64 = 1e6;

/// The layers that have a window when of each `period` the last sees everything.
fn periodic(blocks: usize, period: Option<usize>) -> Vec<bool> {
    (0..blocks).map(|layer| period.is_none_or(|period| layer % period < period - 1)).collect()
}

/// The factor on scores: of Gemma's largest models from the residual width, else of the head.
fn attention_scale(family: Family, blocks: usize, (embedding, heads, head_dim): Widths) -> f32 {
    let largest = match family {
        Family::Gemma2 => blocks == 46,
        Family::Gemma3 => blocks == 62,
        Family::Llama | Family::Mistral | Family::Qwen2 | Family::Qwen3 => false,
    };
    let width = if largest { embedding / heads } else { head_dim };
    1.0 / (width as f32).sqrt()
}

/// Residual width, heads, values of a head.
type Widths = (usize, usize, usize);
