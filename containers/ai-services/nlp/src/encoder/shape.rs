//! `config.json` of an encoder, read without trusting it, as a checked [`Shape`].

use std::collections::BTreeMap;

use aisemble_weights::kernels::Activation;
use serde::Deserialize;

use super::family::Family;

/// Limits of what is served; every real encoder is far below.
const HIDDEN_MAX: usize = 8192;
const LAYERS_MAX: usize = 128;
const INTERMEDIATE_MAX: usize = 65_536;
const VOCABULARY_MAX: usize = 2_000_000;
const POSITIONS_MAX: usize = 65_536;
const LABELS_MAX: usize = 4096;
/// Values that a head is a multiple of.
const HEAD_UNIT: usize = 16;

/// The keys of `config.json` that matter; others are passed over.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ConfigJson {
    /// The family's name.
    pub model_type: String,
    /// `["BertForMaskedLM"]`: what the weights were trained for.
    pub architectures: Vec<String>,
    /// Names of the labels by class number.
    pub id2label: BTreeMap<String, String>,
    /// `multi_label_classification`: labels do not exclude each other.
    pub problem_type: Option<String>,
    /// ModernBERT: `cls` or `mean`.
    pub classifier_pooling: Option<String>,
    #[serde(alias = "dim")]
    hidden_size: usize,
    #[serde(alias = "n_layers")]
    num_hidden_layers: usize,
    #[serde(alias = "n_heads")]
    num_attention_heads: usize,
    #[serde(alias = "hidden_dim")]
    intermediate_size: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    #[serde(alias = "activation", alias = "hidden_activation")]
    hidden_act: Option<String>,
    #[serde(alias = "norm_eps")]
    layer_norm_eps: Option<f64>,
    pad_token_id: Option<i64>,
    position_embedding_type: Option<String>,
    global_attn_every_n_layers: Option<usize>,
    local_attention: Option<usize>,
    global_rope_theta: Option<f64>,
    local_rope_theta: Option<f64>,
}

/// Why a configuration is not served.
#[derive(Debug, thiserror::Error)]
#[error("{key} is {found}; {expected}")]
pub struct ShapeError {
    /// The key.
    pub key: &'static str,
    /// Its value.
    pub found: String,
    /// What is served.
    pub expected: String,
}

/// Sizes of an encoder, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Shape {
    /// Which tensors there are and what is computed of them.
    pub family: Family,
    /// Values of a token's vector.
    pub hidden: usize,
    /// Layers.
    pub layers: usize,
    /// Attention heads; `hidden` is a whole number of them.
    pub heads: usize,
    /// Width of the feed-forward layer.
    pub intermediate: usize,
    /// Token ids are below.
    pub vocabulary: usize,
    /// Tokens of a sequence at most.
    pub positions: usize,
    /// The first token's position (RoBERTa: behind the padding id).
    pub first_position: usize,
    /// Of the feed-forward layer.
    pub activation: Activation,
    /// Added to variances.
    pub eps: f32,
    /// ModernBERT's local attention and rotary positions.
    pub rotary: Option<Rotary>,
}

/// ModernBERT: which layers see everything, and how positions turn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rotary {
    /// Every n-th layer, from the first, sees the whole sequence.
    pub global_every: usize,
    /// Tokens to each side in the others.
    pub local_reach: usize,
    /// Base of the turning in layers that see everything.
    pub global_base: f32,
    /// And in the others.
    pub local_base: f32,
}

/// Sizes that the shapes of tensors tell.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub(super) hidden: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) intermediate: usize,
    pub(super) vocabulary: usize,
    pub(super) positions: usize,
}

impl ConfigJson {
    /// A configuration that says these sizes and nothing else.
    pub(super) fn of_sizes(family: Family, sizes: Sizes) -> Self {
        Self {
            model_type: family.as_str().to_owned(),
            hidden_size: sizes.hidden,
            num_hidden_layers: sizes.layers,
            num_attention_heads: sizes.heads,
            intermediate_size: sizes.intermediate,
            vocab_size: sizes.vocabulary,
            max_position_embeddings: sizes.positions,
            ..Self::default()
        }
    }

    /// The shape, for a family that was configured or that the file names.
    ///
    /// # Errors
    /// [`ShapeError`] names the key.
    pub fn shape(&self, family: Option<Family>) -> Result<Shape, ShapeError> {
        let named = Family::parse(&self.model_type);
        let family = family.or(named).ok_or_else(|| ShapeError {
            key: "model_type",
            found: format!("{:?}", self.model_type.chars().take(64).collect::<String>()),
            expected: "bert, distilbert, roberta, xlm-roberta and modernbert are served".to_owned(),
        })?;
        let hidden = within("hidden_size", self.hidden_size, 1, HIDDEN_MAX)?;
        let heads = within("num_attention_heads", self.num_attention_heads, 1, HIDDEN_MAX)?;
        if !hidden.is_multiple_of(heads * HEAD_UNIT) {
            return Err(ShapeError {
                key: "hidden_size",
                found: format!("{hidden} with {heads} heads"),
                expected: format!("a head must be a multiple of {HEAD_UNIT} values"),
            });
        }
        if let Some(other) = &self.position_embedding_type
            && other != "absolute"
            && family != Family::ModernBert
        {
            return Err(ShapeError {
                key: "position_embedding_type",
                found: format!("{other:?}"),
                expected: "absolute is served".to_owned(),
            });
        }
        let rows =
            within("max_position_embeddings", self.max_position_embeddings, 1, POSITIONS_MAX)?;
        let first_position = match family {
            Family::Roberta => {
                let pad = usize::try_from(self.pad_token_id.unwrap_or(1)).unwrap_or(1);
                within("pad_token_id", pad, 0, rows.saturating_sub(2))? + 1
            }
            Family::Bert | Family::DistilBert | Family::ModernBert => 0,
        };
        Ok(Shape {
            family,
            hidden,
            layers: within("num_hidden_layers", self.num_hidden_layers, 1, LAYERS_MAX)?,
            heads,
            intermediate: within("intermediate_size", self.intermediate_size, 1, INTERMEDIATE_MAX)?,
            vocabulary: within("vocab_size", self.vocab_size, 1, VOCABULARY_MAX)?,
            positions: rows - first_position,
            first_position,
            activation: self.activation()?,
            eps: self.eps(family)?,
            rotary: (family == Family::ModernBert).then(|| self.rotary()).transpose()?,
        })
    }

    fn activation(&self) -> Result<Activation, ShapeError> {
        match self.hidden_act.as_deref().unwrap_or("gelu") {
            "gelu" => Ok(Activation::Gelu),
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Ok(Activation::GeluTanh),
            "relu" => Ok(Activation::Relu),
            other => Err(ShapeError {
                key: "hidden_act",
                found: format!("{other:?}"),
                expected: "gelu, gelu_new and relu are served".to_owned(),
            }),
        }
    }

    fn eps(&self, family: Family) -> Result<f32, ShapeError> {
        let default = match family {
            Family::Bert | Family::DistilBert => 1e-12,
            Family::Roberta | Family::ModernBert => 1e-5,
        };
        let eps = self.layer_norm_eps.unwrap_or(default);
        if (0.0..0.1).contains(&eps) {
            return Ok(eps as f32);
        }
        let (key, expected) = ("layer_norm_eps", "it must be between 0 and 0.1".to_owned());
        Err(ShapeError { key, found: eps.to_string(), expected })
    }

    fn rotary(&self) -> Result<Rotary, ShapeError> {
        let base = |key, value: Option<f64>, default: f64| {
            let value = value.unwrap_or(default);
            let expected = "it must be between 1 and 1e9".to_owned();
            if (1.0..1e9).contains(&value) {
                Ok(value as f32)
            } else {
                Err(ShapeError { key, found: value.to_string(), expected })
            }
        };
        let every = self.global_attn_every_n_layers.unwrap_or(3);
        let local = self.local_attention.unwrap_or(128);
        let global_base = base("global_rope_theta", self.global_rope_theta, 160_000.0)?;
        Ok(Rotary {
            global_every: within("global_attn_every_n_layers", every, 1, LAYERS_MAX)?,
            local_reach: within("local_attention", local, 2, POSITIONS_MAX)? / 2,
            global_base,
            local_base: base("local_rope_theta", self.local_rope_theta, 10_000.0)?,
        })
    }

    /// Names of the labels, by class number; empty when there are none.
    ///
    /// # Errors
    /// When the numbers are not 0, 1, 2, ...
    pub fn labels(&self) -> Result<Vec<String>, ShapeError> {
        let wrong = |found: String| ShapeError {
            key: "id2label",
            found,
            expected: format!("it must number up to {LABELS_MAX} labels from 0"),
        };
        let count = self.id2label.len();
        if count > LABELS_MAX {
            return Err(wrong(format!("{count} labels")));
        }
        (0..count)
            .map(|id| {
                let label = self.id2label.get(&id.to_string());
                label.cloned().ok_or_else(|| wrong(format!("without a label {id}")))
            })
            .collect()
    }
}

fn within(key: &'static str, value: usize, low: usize, high: usize) -> Result<usize, ShapeError> {
    if (low..=high).contains(&value) {
        return Ok(value);
    }
    let expected = format!("it must be between {low} and {high}");
    Err(ShapeError { key, found: value.to_string(), expected })
}
