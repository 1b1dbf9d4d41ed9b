//! CLIP and SigLIP: pictures and texts become vectors of one space.

use aisemble_weights::candle::{self, Tensor};
use candle_transformers::models::clip::text_model::{Activation, ClipTextConfig};
use candle_transformers::models::clip::vision_model::ClipVisionConfig;
use candle_transformers::models::clip::{ClipConfig, ClipModel};
use candle_transformers::models::siglip;
use serde::Deserialize;

use super::config::{Dimensions, check_patches, check_text, parse, quick_gelu};
use super::network::{CONFIG, HubError};
use super::tensors::Named;
use super::words::{Length, Words};
use crate::compute::{sigmoid, softmax};

/// A network for pictures and texts.
#[derive(Debug)]
pub struct Pair {
    network: Network,
    /// How scores are made.
    pub scoring: Scoring,
    /// Labels to tokens.
    pub words: Words,
    features: usize,
}

#[derive(Debug)]
enum Network {
    Clip(ClipModel),
    Siglip(siglip::Model),
}

/// From the cosines between a picture and texts to scores.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scoring {
    /// CLIP: the labels share 1 among them, `softmax(scale * cosine)`.
    Shared {
        /// The learnt factor.
        scale: f32,
    },
    /// SigLIP: each label by itself, `sigmoid(scale * cosine + bias)`.
    Each {
        /// The learnt factor.
        scale: f32,
        /// The learnt shift.
        bias: f32,
    },
}

impl Scoring {
    /// Scores, 0 to 1, of labels with these cosines.
    #[must_use]
    pub fn scores(self, cosines: &[f32]) -> Vec<f32> {
        match self {
            Self::Shared { scale } => {
                let mut scores: Vec<f32> = cosines.iter().map(|cosine| scale * cosine).collect();
                softmax(&mut scores);
                scores
            }
            Self::Each { scale, bias } => {
                cosines.iter().map(|cosine| sigmoid(scale * cosine + bias)).collect()
            }
        }
    }
}

/// `config.json` of `clip`; what it leaves out has transformers' defaults.
#[derive(Debug, Deserialize)]
struct ClipFile {
    text_config: ClipText,
    vision_config: ClipVision,
    #[serde(default = "clip_width")]
    projection_dim: usize,
}

#[derive(Debug, Deserialize)]
#[serde(default)]
struct ClipText {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    max_position_embeddings: usize,
    hidden_act: String,
}

#[derive(Debug, Deserialize)]
#[serde(default)]
struct ClipVision {
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_channels: usize,
    image_size: usize,
    patch_size: usize,
    hidden_act: String,
}

impl Default for ClipText {
    fn default() -> Self {
        Self {
            vocab_size: 49_408,
            hidden_size: clip_width(),
            intermediate_size: 2048,
            num_hidden_layers: 12,
            num_attention_heads: 8,
            max_position_embeddings: 77,
            hidden_act: "quick_gelu".to_owned(),
        }
    }
}

impl Default for ClipVision {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            num_channels: 3,
            image_size: 224,
            patch_size: 32,
            hidden_act: "quick_gelu".to_owned(),
        }
    }
}

fn clip_width() -> usize {
    512
}

impl ClipFile {
    fn checked(self) -> Result<ClipConfig, HubError> {
        let Self { text_config: text, vision_config: vision, projection_dim } = self;
        quick_gelu(&text.hidden_act)?;
        quick_gelu(&vision.hidden_act)?;
        let (hidden, heads) = (text.hidden_size, text.num_attention_heads);
        let intermediate = text.intermediate_size;
        Dimensions { hidden, intermediate, layers: text.num_hidden_layers, heads }.check()?;
        let (hidden, heads) = (vision.hidden_size, vision.num_attention_heads);
        let intermediate = vision.intermediate_size;
        Dimensions { hidden, intermediate, layers: vision.num_hidden_layers, heads }.check()?;
        check_patches(vision.image_size, vision.patch_size, vision.num_channels)?;
        check_text(text.vocab_size, text.max_position_embeddings)?;
        Ok(ClipConfig {
            text_config: ClipTextConfig {
                vocab_size: text.vocab_size,
                embed_dim: text.hidden_size,
                activation: Activation::QuickGelu,
                intermediate_size: text.intermediate_size,
                max_position_embeddings: text.max_position_embeddings,
                pad_with: None,
                num_hidden_layers: text.num_hidden_layers,
                num_attention_heads: text.num_attention_heads,
                projection_dim,
            },
            vision_config: ClipVisionConfig {
                embed_dim: vision.hidden_size,
                activation: Activation::QuickGelu,
                intermediate_size: vision.intermediate_size,
                num_hidden_layers: vision.num_hidden_layers,
                num_attention_heads: vision.num_attention_heads,
                projection_dim,
                num_channels: vision.num_channels,
                image_size: vision.image_size,
                patch_size: vision.patch_size,
            },
            logit_scale_init_value: 0.0,
            image_size: vision.image_size,
        })
    }
}

impl Pair {
    pub(super) fn clip(
        config: &[u8],
        tokenizer: &[u8],
        tensors: &Named,
        side: usize,
    ) -> Result<Self, HubError> {
        let config = parse::<ClipFile>(CONFIG, config)?.checked()?;
        side_is(side, config.image_size)?;
        let network = Network::Clip(ClipModel::new(tensors.builder(), &config)?);
        let scale = learnt(tensors, "logit_scale")?.exp();
        let (text, features) = (&config.text_config, config.vision_config.projection_dim);
        let words =
            Words::new(tokenizer, Length::ToEnd, text.max_position_embeddings, text.vocab_size)?;
        Ok(Self { network, scoring: Scoring::Shared { scale }, words, features })
    }

    pub(super) fn siglip(
        config: &[u8],
        tokenizer: &[u8],
        tensors: &Named,
        side: usize,
    ) -> Result<Self, HubError> {
        let config: siglip::Config = parse(CONFIG, config)?;
        let (text, vision) = (&config.text_config, &config.vision_config);
        let (hidden, heads) = (text.hidden_size, text.num_attention_heads);
        let intermediate = text.intermediate_size;
        Dimensions { hidden, intermediate, layers: text.num_hidden_layers, heads }.check()?;
        let (hidden, heads) = (vision.hidden_size, vision.num_attention_heads);
        let intermediate = vision.intermediate_size;
        Dimensions { hidden, intermediate, layers: vision.num_hidden_layers, heads }.check()?;
        check_patches(vision.image_size, vision.patch_size, vision.num_channels)?;
        check_text(text.vocab_size, text.max_position_embeddings)?;
        side_is(side, vision.image_size)?;
        let network = Network::Siglip(siglip::Model::new(&config, tensors.builder())?);
        let (scale, bias) = (learnt(tensors, "logit_scale")?, learnt(tensors, "logit_bias")?);
        let scoring = Scoring::Each { scale: scale.exp(), bias };
        let length = Length::Filled(text.pad_token_id);
        let words = Words::new(tokenizer, length, text.max_position_embeddings, text.vocab_size)?;
        Ok(Self { network, scoring, words, features: vision.hidden_size })
    }

    /// Values of a vector.
    pub(super) fn features(&self) -> usize {
        self.features
    }

    /// Vectors, `n x features`, of `n x 3 x h x w`.
    pub(super) fn pictures(&self, pictures: &Tensor) -> candle::Result<Tensor> {
        match &self.network {
            Network::Clip(network) => network.get_image_features(pictures),
            Network::Siglip(network) => network.get_image_features(pictures),
        }
    }

    /// Vectors, `n x features`, of `n` texts of one length.
    pub(super) fn texts(&self, tokens: &Tensor) -> candle::Result<Tensor> {
        match &self.network {
            Network::Clip(network) => network.get_text_features(tokens),
            Network::Siglip(network) => network.get_text_features(tokens),
        }
    }
}

/// A model of pictures of one size gets no others.
pub(super) fn side_is(given: usize, expected: usize) -> Result<(), HubError> {
    if given == expected {
        return Ok(());
    }
    Err(HubError::Side { given, expected: expected.to_string() })
}

fn learnt(tensors: &Named, name: &'static str) -> Result<f32, HubError> {
    let found = tensors.scalar(name).filter(|value| value.exp().is_finite());
    found.ok_or(HubError::Missing { tensor: name })
}
