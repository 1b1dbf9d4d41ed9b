//! `config.json`: the shape of a network, each number within a limit before anything is built of
//! it. A key that the file leaves out has the default of transformers where that library has one.

use std::collections::BTreeMap;

use candle_nn::Activation;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Bytes of a configuration file.
pub(super) const CONFIG_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Values of a hidden vector, or of the layer between two of them.
const WIDTH_MAX: usize = 65_536;
const LAYERS_MAX: usize = 256;
const HEADS_MAX: usize = 256;
/// Words of a vocabulary.
const VOCABULARY_MAX: usize = 2_000_000;
/// Tokens of a text.
const POSITIONS_MAX: usize = 8192;
/// Pixels of an input's side.
pub(super) const SIDE_MAX: usize = 2048;
/// Patches along a side.
const PATCHES_MAX: usize = 256;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It is larger than any configuration.
    #[error("{file} has {bytes} bytes; at most {CONFIG_BYTES_MAX} are read")]
    TooLarge {
        /// The file.
        file: &'static str,
        /// Its size.
        bytes: usize,
    },
    /// It is no JSON, or lacks a key, or a key has a wrong type.
    #[error("{file} is not what this architecture needs")]
    Json {
        /// The file.
        file: &'static str,
        /// Which key is wrong.
        #[source]
        source: serde_path_to_error::Error<serde_json::Error>,
    },
    /// It is of another kind of model.
    #[error("config.json says model_type {found:?}; the architecture {expected} is configured")]
    OtherModel {
        /// What it says.
        found: String,
        /// What was configured.
        expected: &'static str,
    },
    /// A number is over its limit.
    #[error("{key} is {value}; it must be between {low} and {high}")]
    Range {
        /// The key.
        key: &'static str,
        /// What it says.
        value: usize,
        /// The smallest.
        low: usize,
        /// The largest.
        high: usize,
    },
    /// A variant of the family that is not built here.
    #[error("{key} is {value}; {reason}")]
    Unsupported {
        /// The key.
        key: &'static str,
        /// What it says.
        value: String,
        /// What would be served.
        reason: &'static str,
    },
}

/// Reads a JSON file of the folder.
pub(super) fn parse<T: DeserializeOwned>(
    file: &'static str,
    bytes: &[u8],
) -> Result<T, ConfigError> {
    if bytes.len() > CONFIG_BYTES_MAX {
        return Err(ConfigError::TooLarge { file, bytes: bytes.len() });
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    serde_path_to_error::deserialize(&mut json).map_err(|source| ConfigError::Json { file, source })
}

/// What every `config.json` may have.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Head {
    /// `vit`, `clip`, ...
    model_type: Option<String>,
    /// Names of classes.
    #[serde(default)]
    pub(super) id2label: BTreeMap<String, String>,
    /// What timm writes in place of a `preprocessor_config.json`.
    pub(super) pretrained_cfg: Option<serde_json::Value>,
    /// What timm calls the network.
    pub(super) architecture: Option<String>,
}

impl Head {
    pub(super) fn check(&self, expected: &'static str) -> Result<(), ConfigError> {
        match &self.model_type {
            Some(found) if found != expected => {
                Err(ConfigError::OtherModel { found: found.clone(), expected })
            }
            Some(_) | None => Ok(()),
        }
    }
}

fn within(key: &'static str, value: usize, high: usize) -> Result<(), ConfigError> {
    if (1..=high).contains(&value) {
        Ok(())
    } else {
        Err(ConfigError::Range { key, value, low: 1, high })
    }
}

/// The dimensions that every transformer has, checked.
pub(super) struct Dimensions {
    pub(super) hidden: usize,
    pub(super) intermediate: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
}

impl Dimensions {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        within("hidden_size", self.hidden, WIDTH_MAX)?;
        within("intermediate_size", self.intermediate, 4 * WIDTH_MAX)?;
        within("num_hidden_layers", self.layers, LAYERS_MAX)?;
        within("num_attention_heads", self.heads, HEADS_MAX)?;
        if self.hidden.is_multiple_of(self.heads) {
            return Ok(());
        }
        Err(ConfigError::Unsupported {
            key: "num_attention_heads",
            value: self.heads.to_string(),
            reason: "it must divide hidden_size",
        })
    }
}

/// The patches that a picture is cut into, checked.
pub(super) fn check_patches(
    image: usize,
    patch: usize,
    channels: usize,
) -> Result<(), ConfigError> {
    within("image_size", image, SIDE_MAX)?;
    within("patch_size", patch, image)?;
    within("image_size / patch_size", image / patch, PATCHES_MAX)?;
    if channels == 3 {
        return Ok(());
    }
    let reason = "pictures have 3";
    Err(ConfigError::Unsupported { key: "num_channels", value: channels.to_string(), reason })
}

pub(super) fn check_text(vocabulary: usize, positions: usize) -> Result<(), ConfigError> {
    within("vocab_size", vocabulary, VOCABULARY_MAX)?;
    within("max_position_embeddings", positions, POSITIONS_MAX)
}

/// `config.json` of `vit` and `dinov2`.
#[derive(Debug, Deserialize)]
pub(super) struct VitConfig {
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    /// `vit`; `dinov2` has `mlp_ratio`.
    intermediate_size: Option<usize>,
    #[serde(default = "four")]
    mlp_ratio: usize,
    pub(super) image_size: usize,
    pub(super) patch_size: usize,
    #[serde(default = "three")]
    num_channels: usize,
    #[serde(default)]
    hidden_act: Activation,
    layer_norm_eps: f64,
    #[serde(default = "yes")]
    qkv_bias: bool,
    #[serde(default)]
    use_swiglu_ffn: bool,
}

impl VitConfig {
    /// As candle takes it, for inputs of `side` pixels.
    pub(super) fn checked(
        &self,
        side: usize,
    ) -> Result<candle_transformers::models::vit::Config, ConfigError> {
        let ratio = self.mlp_ratio.min(64);
        let intermediate = self.intermediate_size.unwrap_or(self.hidden_size.saturating_mul(ratio));
        let (hidden, heads) = (self.hidden_size, self.num_attention_heads);
        Dimensions { hidden, intermediate, layers: self.num_hidden_layers, heads }.check()?;
        check_patches(self.image_size, self.patch_size, self.num_channels)?;
        check_patches(side, self.patch_size, self.num_channels)?;
        if self.use_swiglu_ffn {
            let (key, value) = ("use_swiglu_ffn", "true".to_owned());
            let reason = "the giant one of this family is not served";
            return Err(ConfigError::Unsupported { key, value, reason });
        }
        Ok(candle_transformers::models::vit::Config {
            hidden_size: hidden,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: heads,
            intermediate_size: intermediate,
            hidden_act: self.hidden_act,
            layer_norm_eps: self.layer_norm_eps,
            image_size: side,
            patch_size: self.patch_size,
            num_channels: self.num_channels,
            qkv_bias: self.qkv_bias,
        })
    }
}

/// `config.json` of a `resnet` as transformers writes it.
#[derive(Debug, Deserialize)]
pub(super) struct ResnetConfig {
    pub(super) depths: Vec<usize>,
    pub(super) hidden_sizes: Vec<usize>,
    #[serde(default = "bottleneck")]
    pub(super) layer_type: String,
    #[serde(default)]
    pub(super) downsample_in_bottleneck: bool,
    #[serde(default)]
    pub(super) downsample_in_first_stage: bool,
}

/// A layer's activation, or what candle's layers of the family cannot do.
pub(super) fn quick_gelu(found: &str) -> Result<(), ConfigError> {
    if found == "quick_gelu" {
        return Ok(());
    }
    let reason = "CLIP is served with quick_gelu, as OpenAI's are";
    Err(ConfigError::Unsupported { key: "hidden_act", value: found.to_owned(), reason })
}

fn yes() -> bool {
    true
}

fn three() -> usize {
    3
}

fn four() -> usize {
    4
}

fn bottleneck() -> String {
    "bottleneck".to_owned()
}
