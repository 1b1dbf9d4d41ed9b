//! The shape of a model from the `config.json` that lies beside its safetensors. It knows the keys
//! of Hugging Face `transformers` (4 and 5), not layers.

use std::num::NonZeroUsize;

use aisemble_kernels::RopeStyle;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::{
    BLOCKS_MAX, CONTEXT_TOKENS_MAX, ConfigError, EMBEDDING_MAX, FEED_FORWARD_MAX, HEAD_DIM_MAX,
    HEADS_MAX, ModelConfig, RopeScaling, SOFTCAP_MAX, Window, attention_scale, periodic,
};
use crate::family::{Family, Gate};

/// What `transformers` takes where the file does not say it.
const ROPE_BASE: f64 = 10_000.0;
const ROPE_BASE_GEMMA3: f64 = 1_000_000.0;
const HEAD_DIM_QWEN3: usize = 128;
const HEAD_DIM_GEMMA: usize = 256;
const QUERY_PRE_ATTN_SCALAR: f64 = 256.0;
const ATTENTION_SOFTCAP_GEMMA2: f64 = 50.0;
const LOGIT_SOFTCAP_GEMMA2: f64 = 30.0;
const WINDOW_TOKENS: u64 = 4_096;
const MAX_WINDOW_LAYERS: usize = 28;
/// What a layer with a window is called.
const WINDOWED: &str = "sliding_attention";
/// What a layer without is called.
const FULL: &str = "full_attention";

#[derive(Deserialize)]
struct Raw {
    model_type: String,
    hidden_size: u64,
    num_hidden_layers: u64,
    num_attention_heads: u64,
    num_key_value_heads: Option<u64>,
    head_dim: Option<u64>,
    intermediate_size: u64,
    rms_norm_eps: f64,
    max_position_embeddings: u64,
    vocab_size: u64,
    tie_word_embeddings: Option<bool>,
    hidden_act: Option<String>,
    hidden_activation: Option<String>,
    query_pre_attn_scalar: Option<f64>,
    // `null` says that there is none; what is not there has its usual value.
    #[serde(default, deserialize_with = "there")]
    attn_logit_softcapping: Option<Option<f64>>,
    #[serde(default, deserialize_with = "there")]
    final_logit_softcapping: Option<Option<f64>>,
    #[serde(default, deserialize_with = "there")]
    sliding_window: Option<Option<u64>>,
    use_sliding_window: Option<bool>,
    max_window_layers: Option<usize>,
    sliding_window_pattern: Option<usize>,
    layer_types: Option<Vec<String>>,
    use_bidirectional_attention: Option<bool>,
    partial_rotary_factor: Option<f64>,
    rope_theta: Option<f64>,
    rope_local_base_freq: Option<f64>,
    rope_scaling: Option<Value>,
    rope_parameters: Option<Value>,
}

/// The value of a key that is there.
fn there<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl ModelConfig {
    /// Reads a `config.json`. `has_output`: whether the weights have an output layer of their own.
    ///
    /// # Errors
    /// [`ConfigError`] names the key.
    pub fn from_huggingface(json: &[u8], has_output: bool) -> Result<Self, ConfigError> {
        let raw: Raw =
            serde_json::from_slice(json).map_err(|source| ConfigError::Json { source })?;
        let family =
            Family::of_huggingface(&raw.model_type).ok_or_else(|| ConfigError::Architecture {
                key: "model_type",
                found: raw.model_type.clone(),
                supported: Family::ALL.map(Family::huggingface_name).join(", "),
            })?;
        raw.check_act(family)?;
        let blocks = size("num_hidden_layers", raw.num_hidden_layers, (1, BLOCKS_MAX))?;
        let embedding = size("hidden_size", raw.hidden_size, (1, EMBEDDING_MAX))?;
        let (heads, kv_heads, head_dim) = raw.heads(family, embedding)?;
        let scale = if family.is_gemma() {
            let scalar = raw.query_pre_attn_scalar.unwrap_or(QUERY_PRE_ATTN_SCALAR);
            1.0 / float("query_pre_attn_scalar", scalar, (0.0, 1e6))?.sqrt()
        } else {
            attention_scale(family, blocks, (embedding, heads, head_dim))
        };
        let softcap = |key, value: Option<Option<f64>>, usual| {
            let value = value.unwrap_or((family == Family::Gemma2).then_some(usual));
            value.map(|value| float(key, value, (0.0, SOFTCAP_MAX))).transpose()
        };
        let attention_cap = ("attn_logit_softcapping", raw.attn_logit_softcapping);
        let logit_cap = ("final_logit_softcapping", raw.final_logit_softcapping);
        let rope = raw.rope(family)?;
        let tied = raw.tie_word_embeddings.unwrap_or(family.is_gemma()) || !has_output;
        let context = (1, CONTEXT_TOKENS_MAX);
        Ok(Self {
            family,
            name: None,
            license: None,
            blocks,
            embedding,
            heads,
            kv_heads,
            head_dim,
            feed_forward: size("intermediate_size", raw.intermediate_size, (1, FEED_FORWARD_MAX))?,
            rms_eps: float("rms_norm_eps", raw.rms_norm_eps, (0.0, 0.1))?,
            norm_offset: if family.is_gemma() { 1.0 } else { 0.0 },
            head_norms: family.has_head_norms(),
            post_norms: family.is_gemma(),
            gate: family.gate(),
            embedding_scale: if family.is_gemma() { (embedding as f32).sqrt() } else { 1.0 },
            attention_scale: scale,
            attention_softcap: softcap(attention_cap.0, attention_cap.1, ATTENTION_SOFTCAP_GEMMA2)?,
            logit_softcap: softcap(logit_cap.0, logit_cap.1, LOGIT_SOFTCAP_GEMMA2)?,
            window: raw.window(family, blocks, rope.windowed_base)?,
            rope_style: RopeStyle::Halves,
            rope_base: rope.base,
            rope_dim: head_dim,
            rope_scaling: rope.scaling,
            context_tokens: size("max_position_embeddings", raw.max_position_embeddings, context)?,
            vocabulary: size("vocab_size", raw.vocab_size, (1, u64::from(u32::MAX)))?,
            tied_embeddings: tied,
            architecture: raw.model_type,
        })
    }
}

/// What turns.
struct Rope {
    base: f32,
    windowed_base: Option<f32>,
    scaling: RopeScaling,
}

impl Raw {
    /// What is computed inside the feed-forward layers, and what is not computed at all.
    fn check_act(&self, family: Family) -> Result<(), ConfigError> {
        let found = self.hidden_activation.as_ref().or(self.hidden_act.as_ref());
        let expected = match family.gate() {
            Gate::Silu => "silu",
            Gate::Gelu => "gelu_pytorch_tanh",
        };
        // Gemma's first files say `gelu` for its tanh form; `hidden_activation` replaced that.
        let is_other = found.is_some_and(|found| {
            found != expected && !(family.is_gemma() && self.hidden_activation.is_none())
        });
        if is_other {
            return Err(range("hidden_act", found.map_or("", String::as_str), expected));
        }
        if self.use_bidirectional_attention == Some(true) {
            return Err(range("use_bidirectional_attention", true, "false"));
        }
        if self.partial_rotary_factor.is_some_and(|factor| factor != 1.0) {
            return Err(range("partial_rotary_factor", "a part", "1"));
        }
        Ok(())
    }

    fn heads(
        &self,
        family: Family,
        embedding: usize,
    ) -> Result<(usize, usize, usize), ConfigError> {
        let heads = size("num_attention_heads", self.num_attention_heads, (1, HEADS_MAX))?;
        let found = self.num_key_value_heads.unwrap_or(self.num_attention_heads);
        let kv_heads = size("num_key_value_heads", found, (1, heads as u64))?;
        if !heads.is_multiple_of(kv_heads) {
            return Err(range("num_key_value_heads", kv_heads, &format!("a divisor of {heads}")));
        }
        let head_dim = match self.head_dim {
            Some(head_dim) => size("head_dim", head_dim, (2, HEAD_DIM_MAX))?,
            None if family == Family::Qwen3 => HEAD_DIM_QWEN3,
            None if family.is_gemma() => HEAD_DIM_GEMMA,
            None if embedding.is_multiple_of(heads) => embedding / heads,
            None => return Err(range("hidden_size", embedding, &format!("x {heads} heads"))),
        };
        if !head_dim.is_multiple_of(2) {
            return Err(range("head_dim", head_dim, "an even number"));
        }
        Ok((heads, kv_heads, head_dim))
    }

    fn window(
        &self,
        family: Family,
        blocks: usize,
        rope_base: Option<f32>,
    ) -> Result<Option<Window>, ConfigError> {
        let off = match family {
            Family::Llama => true,
            Family::Qwen2 | Family::Qwen3 => self.use_sliding_window != Some(true),
            Family::Mistral | Family::Gemma2 | Family::Gemma3 => false,
        };
        let tokens = self.sliding_window.unwrap_or(Some(WINDOW_TOKENS));
        let tokens = tokens.filter(|_| !off).unwrap_or(0);
        let tokens = size("sliding_window", tokens, (0, CONTEXT_TOKENS_MAX))?;
        let Some(tokens) = NonZeroUsize::new(tokens) else { return Ok(None) };
        let layers = match (&self.layer_types, family) {
            (Some(types), _) => windowed_layers(types, blocks)?,
            (None, Family::Qwen2 | Family::Qwen3) => {
                let first = self.max_window_layers.unwrap_or(MAX_WINDOW_LAYERS);
                (0..blocks).map(|layer| layer >= first).collect()
            }
            (None, Family::Llama | Family::Mistral | Family::Gemma2 | Family::Gemma3) => {
                let period = self.sliding_window_pattern.or(family.window_period());
                if period == Some(0) {
                    return Err(range("sliding_window_pattern", 0, "at least 1"));
                }
                periodic(blocks, period)
            }
        };
        Ok(Some(Window { tokens, layers, rope_base }))
    }

    /// Version 5 has all of it in `rope_parameters`, for each kind of layer where they differ.
    fn rope(&self, family: Family) -> Result<Rope, ConfigError> {
        let both = self.rope_parameters.as_ref();
        let full = both.map(|all| all.get(FULL).unwrap_or(all)).or(self.rope_scaling.as_ref());
        let windowed = both.and_then(|all| all.get(WINDOWED));
        let theta = |part: Option<&Value>| part.and_then(|part| part.get("rope_theta")?.as_f64());
        let usual = if family == Family::Gemma3 { ROPE_BASE_GEMMA3 } else { ROPE_BASE };
        let base = theta(full).or(self.rope_theta).unwrap_or(usual);
        let own = theta(windowed).or(self.rope_local_base_freq).unwrap_or(ROPE_BASE);
        let base_range = (1.0, 1e12);
        Ok(Rope {
            base: float("rope_theta", base, base_range)?,
            windowed_base: match family {
                Family::Gemma3 => Some(float("rope_local_base_freq", own, base_range)?),
                Family::Llama
                | Family::Mistral
                | Family::Qwen2
                | Family::Qwen3
                | Family::Gemma2 => None,
            },
            scaling: full.map_or(Ok(RopeScaling::None), scaling)?,
        })
    }
}

fn windowed_layers(types: &[String], blocks: usize) -> Result<Vec<bool>, ConfigError> {
    if types.len() != blocks {
        let allowed = format!("one for each of {blocks} layers");
        return Err(range("layer_types", format!("{} entries", types.len()), &allowed));
    }
    types
        .iter()
        .map(|kind| match kind.as_str() {
            WINDOWED => Ok(true),
            FULL => Ok(false),
            other => Err(range("layer_types", other, &format!("{FULL}, {WINDOWED}"))),
        })
        .collect()
}

fn scaling(parameters: &Value) -> Result<RopeScaling, ConfigError> {
    let text = |key| parameters.get(key).and_then(Value::as_str);
    let number = |key, limits| {
        let value = parameters.get(key).and_then(Value::as_f64).unwrap_or(f64::NAN);
        float(key, value, limits)
    };
    match text("rope_type").or_else(|| text("type")).unwrap_or("default") {
        "default" | "none" => Ok(RopeScaling::None),
        "linear" => Ok(RopeScaling::Linear { factor: number("factor", (0.0, 1_024.0))? }),
        "llama3" => {
            let low_freq_factor = number("low_freq_factor", (0.0, 1_024.0))?;
            Ok(RopeScaling::Llama3 {
                factor: number("factor", (0.0, 1_024.0))?,
                low_freq_factor,
                high_freq_factor: number(
                    "high_freq_factor",
                    (f64::from(low_freq_factor), 65_536.0),
                )?,
                original_context: number(
                    "original_max_position_embeddings",
                    (0.0, CONTEXT_TOKENS_MAX as f64),
                )?,
            })
        }
        other => Err(ConfigError::Scaling {
            key: "rope_scaling.rope_type".to_owned(),
            found: other.to_owned(),
            supported: "`default`, `linear` and `llama3`",
        }),
    }
}

fn range(key: &str, found: impl ToString, allowed: &str) -> ConfigError {
    ConfigError::Range {
        key: key.to_owned(),
        found: found.to_string(),
        allowed: allowed.to_owned(),
    }
}

fn size(key: &str, found: u64, (min, max): (u64, u64)) -> Result<usize, ConfigError> {
    usize::try_from(found)
        .ok()
        .filter(|_| (min..=max).contains(&found))
        .ok_or_else(|| range(key, found, &format!("{min} to {max}")))
}

fn float(key: &str, found: f64, (min, max): (f64, f64)) -> Result<f32, ConfigError> {
    // Written so that NaN is outside.
    if found > min && found <= max {
        Ok(found as f32)
    } else {
        Err(range(key, found, &format!("above {min} up to {max}")))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn config(changes: Value) -> Result<ModelConfig, ConfigError> {
        let mut whole = json!({
            "model_type": "qwen3", "hidden_size": 64, "num_hidden_layers": 4,
            "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 128,
            "rms_norm_eps": 1e-6, "max_position_embeddings": 512, "vocab_size": 96,
        });
        let (all, changes) = (whole.as_object_mut().unwrap(), changes.as_object().unwrap());
        all.extend(changes.iter().map(|(key, value)| (key.clone(), value.clone())));
        ModelConfig::from_huggingface(whole.to_string().as_bytes(), true)
    }

    #[track_caller]
    fn refused(changes: Value, says: &str) {
        let error = config(changes).unwrap_err().to_string();
        assert!(error.contains(says), "expected `{says}` in: {error}");
    }

    #[test]
    fn both_ways_of_writing_rotary_parameters_are_read() {
        let old = config(json!({"rope_theta": 5e5, "rope_scaling": {
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192}}));
        let new = config(json!({"rope_parameters": {
            "rope_theta": 5e5, "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}}));
        let (old, new) = (old.unwrap(), new.unwrap());
        assert_eq!(old, new);
        assert_eq!(old.rope_base, 5e5);
        assert!(matches!(old.rope_scaling, RopeScaling::Llama3 { .. }));
        let gemma = config(json!({"model_type": "gemma3_text", "sliding_window": 16,
            "layer_types": [WINDOWED, FULL, WINDOWED, FULL],
            "rope_parameters": {FULL: {"rope_theta": 1e6, "rope_type": "linear", "factor": 8.0},
                WINDOWED: {"rope_theta": 2e4, "rope_type": "default"}}}));
        let gemma = gemma.unwrap();
        assert_eq!((gemma.rope_base, gemma.rope_windowed()), (1e6, Some(2e4)));
        assert_eq!(gemma.rope_scaling, RopeScaling::Linear { factor: 8.0 });
        assert_eq!(gemma.window.unwrap().layers, [true, false, true, false]);
        assert!(gemma.tied_embeddings);
    }

    #[test]
    fn windows_are_where_the_family_has_them() {
        let window = |changes| config(changes).unwrap().window.map(|window| window.layers);
        assert_eq!(window(json!({"sliding_window": 8})), None);
        let qwen = json!({"sliding_window": 8, "use_sliding_window": true, "max_window_layers": 3});
        assert_eq!(window(qwen), Some(vec![false, false, false, true]));
        let mistral = json!({"model_type": "mistral", "sliding_window": 8});
        assert_eq!(window(mistral), Some(vec![true; 4]));
        assert_eq!(window(json!({"model_type": "mistral", "sliding_window": null})), None);
        let gemma = json!({"model_type": "gemma2", "sliding_window": 8});
        assert_eq!(window(gemma), Some(vec![true, false, true, false]));
    }

    #[test]
    fn what_is_not_there_is_usual_and_null_is_none() {
        let gemma2 = config(json!({"model_type": "gemma2"})).unwrap();
        assert_eq!((gemma2.attention_softcap, gemma2.logit_softcap), (Some(50.0), Some(30.0)));
        assert_eq!((gemma2.head_dim, gemma2.window_of(0).unwrap().get()), (256, 4_096));
        assert_eq!(gemma2.attention_scale, 0.0625);
        let without = json!({"model_type": "gemma2", "attn_logit_softcapping": null,
            "final_logit_softcapping": null});
        let without = config(without).unwrap();
        assert_eq!((without.attention_softcap, without.logit_softcap), (None, None));
        let gemma3 = config(json!({"model_type": "gemma3_text"})).unwrap();
        assert_eq!((gemma3.rope_base, gemma3.rope_windowed()), (1e6, Some(1e4)));
        assert_eq!((gemma3.attention_softcap, gemma3.logit_softcap), (None, None));
        assert_eq!(config(json!({})).unwrap().head_dim, 128);
        let mistral = config(json!({"model_type": "mistral"})).unwrap();
        assert_eq!(mistral.window_of(3).unwrap().get(), 4_096);
    }

    #[test]
    fn what_cannot_be_computed_is_refused_by_name() {
        refused(
            json!({"model_type": "mamba"}),
            "`model_type` is \"mamba\", which is not supported; supported: llama, mistral, qwen2, \
             qwen3, gemma2, gemma3_text",
        );
        refused(json!({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}), "`yarn` scaling");
        refused(json!({"rope_scaling": {"type": "linear"}}), "`factor` is NaN");
        refused(json!({"hidden_act": "relu"}), "`hidden_act` is relu, allowed is silu");
        refused(json!({"num_hidden_layers": 0}), "`num_hidden_layers` is 0");
        refused(json!({"num_key_value_heads": 3}), "a divisor of 4");
        refused(json!({"model_type": "llama", "hidden_size": 65}), "x 4 heads");
        refused(
            json!({"layer_types": [], "model_type": "mistral", "sliding_window": 1}),
            "0 entries",
        );
        let pattern =
            json!({"model_type": "gemma2", "sliding_window": 1, "sliding_window_pattern": 0});
        refused(pattern, "`sliding_window_pattern` is 0");
        refused(json!({"use_bidirectional_attention": true}), "`use_bidirectional_attention`");
    }

    proptest! {
        #[test]
        fn any_json_is_a_shape_or_an_error(
            sizes in prop::collection::vec(any::<u64>(), 6),
            family in prop::sample::select(Family::ALL.to_vec()),
            theta in any::<f64>(),
            window in prop::option::of(any::<u64>()),
            text in "[{}\\[\\]\",:a-z0-9. ]{0,60}",
        ) {
            let _any = ModelConfig::from_huggingface(text.as_bytes(), true);
            let changes = json!({
                "model_type": family.huggingface_name(), "hidden_size": sizes[0],
                "num_hidden_layers": sizes[1] % 2_000, "num_attention_heads": sizes[2] % 2_000,
                "num_key_value_heads": sizes[3] % 64, "head_dim": sizes[4] % 5_000,
                "sliding_window": window, "sliding_window_pattern": sizes[5] % 4,
                "rope_theta": theta,
            });
            if let Ok(config) = config(changes) {
                prop_assert!(config.blocks <= 1_024 && config.attention_scale.is_finite());
                prop_assert!(config.window.is_none_or(|w| w.layers.len() == config.blocks));
            }
        }
    }
}
