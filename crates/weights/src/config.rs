//! The shape of a decoder-only model, read from GGUF metadata. Every number is checked against a
//! range, so that what is built from it needs no second look. It knows keys, not layers.

use aisemble_kernels::RopeStyle;

use crate::gguf::{GgufError, GgufFile};

/// How positions are stretched beyond the context that the model was trained with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// Not at all. Llama 3's frequency factors come as a tensor, `rope_freqs.weight`.
    None,
    /// Positions are divided by `factor`.
    Linear {
        /// The divisor.
        factor: f32,
    },
}

/// The shape of a decoder-only model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// `general.architecture`: `llama`, `qwen2`, ...
    pub architecture: String,
    /// `general.name`, when the file says it.
    pub name: Option<String>,
    /// `general.license`, when the file says it.
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

/// Why the metadata do not describe a model that can be run.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A key is missing or has another type.
    #[error(transparent)]
    Gguf(#[from] GgufError),
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
    #[error("metadata `{key}` asks for `{found}` scaling, supported are `none` and `linear`")]
    Scaling {
        /// The key.
        key: String,
        /// What it says.
        found: String,
    },
}

impl ModelConfig {
    /// Reads the metadata of `general.architecture`'s own namespace.
    ///
    /// # Errors
    /// [`ConfigError`] names the key.
    pub fn from_gguf(gguf: &GgufFile) -> Result<Self, ConfigError> {
        let architecture = gguf.require_str("general.architecture")?.to_owned();
        let keys = Keys { gguf, architecture: &architecture };
        let blocks = keys.size("block_count", 1, 1_024)?;
        let embedding = keys.size("embedding_length", 1, 131_072)?;
        let heads = keys.size("attention.head_count", 1, 1_024)?;
        let kv_heads = keys.size_or("attention.head_count_kv", heads, (1, heads))?;
        if !heads.is_multiple_of(kv_heads) {
            let allowed = format!("a divisor of {heads} heads");
            return Err(keys.range("attention.head_count_kv", kv_heads, allowed));
        }
        let key_length = keys.full("attention.key_length");
        let head_dim = match gguf.metadata(&key_length) {
            Some(_) => keys.size("attention.key_length", 2, 4_096)?,
            None if embedding.is_multiple_of(heads) => embedding / heads,
            None => {
                return Err(keys.range("embedding_length", embedding, format!("x {heads} heads")));
            }
        };
        let rope_dim = keys.size_or("rope.dimension_count", head_dim, (2, head_dim))?;
        if !rope_dim.is_multiple_of(2) {
            return Err(keys.range("rope.dimension_count", rope_dim, "an even number".to_owned()));
        }
        let text = |key| gguf.metadata(key).and_then(|value| value.as_str()).map(str::to_owned);
        Ok(Self {
            name: text("general.name"),
            license: text("general.license"),
            blocks,
            embedding,
            heads,
            kv_heads,
            head_dim,
            feed_forward: keys.size("feed_forward_length", 1, 1_048_576)?,
            rms_eps: keys.float("attention.layer_norm_rms_epsilon", None, (0.0, 0.1))?,
            rope_base: keys.float("rope.freq_base", Some(10_000.0), (1.0, 1e12))?,
            rope_dim,
            rope_scaling: keys.scaling()?,
            context_tokens: keys.size("context_length", 1, 16_777_216)?,
            vocabulary: vocabulary(gguf)?,
            tied_embeddings: !gguf.has_tensor("output.weight"),
            architecture,
        })
    }
}

impl ModelConfig {
    /// Which values of a head turn together in the files of this architecture; `None` for an
    /// architecture that is not known here. (llama.cpp permutes Llama's weights when it converts
    /// them, those of others not.)
    pub fn rope_style(&self) -> Option<RopeStyle> {
        match self.architecture.as_str() {
            "llama" | "mistral" | "granite" => Some(RopeStyle::Interleaved),
            "qwen2" | "qwen3" | "gemma" | "gemma2" | "gemma3" | "phi3" => Some(RopeStyle::Halves),
            _ => None,
        }
    }
}

/// Rows of the embedding table; the vocabulary that the metadata may name can be padded.
fn vocabulary(gguf: &GgufFile) -> Result<usize, ConfigError> {
    let dims = gguf.tensor("token_embd.weight")?.dims;
    dims.first().copied().filter(|_| dims.len() == 2).ok_or_else(|| ConfigError::Range {
        key: "token_embd.weight".to_owned(),
        found: format!("{dims:?}"),
        allowed: "a matrix".to_owned(),
    })
}

struct Keys<'a> {
    gguf: &'a GgufFile,
    architecture: &'a str,
}

impl Keys<'_> {
    fn full(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    fn range(&self, key: &str, found: impl ToString, allowed: String) -> ConfigError {
        ConfigError::Range { key: self.full(key), found: found.to_string(), allowed }
    }

    fn size(&self, key: &str, min: usize, max: usize) -> Result<usize, ConfigError> {
        let found = self.gguf.require_u64(&self.full(key))?;
        usize::try_from(found)
            .ok()
            .filter(|size| (min..=max).contains(size))
            .ok_or_else(|| self.range(key, found, format!("{min} to {max}")))
    }

    fn size_or(
        &self,
        key: &str,
        default: usize,
        (min, max): (usize, usize),
    ) -> Result<usize, ConfigError> {
        match self.gguf.metadata(&self.full(key)) {
            Some(_) => self.size(key, min, max),
            None => Ok(default),
        }
    }

    fn float(
        &self,
        key: &str,
        default: Option<f32>,
        (min, max): (f32, f32),
    ) -> Result<f32, ConfigError> {
        let full = self.full(key);
        if let (None, Some(default)) = (self.gguf.metadata(&full), default) {
            return Ok(default);
        }
        let found = self.gguf.require_f64(&full)? as f32;
        // Written so that NaN is outside.
        if found > min && found <= max {
            Ok(found)
        } else {
            Err(self.range(key, found, format!("above {min} up to {max}")))
        }
    }

    fn scaling(&self) -> Result<RopeScaling, ConfigError> {
        let key = self.full("rope.scaling.type");
        let kind = match self.gguf.metadata(&key) {
            None => "none",
            Some(_) => self.gguf.require_str(&key)?,
        };
        match kind {
            "none" | "" => Ok(RopeScaling::None),
            "linear" => {
                let factor = self.float("rope.scaling.factor", Some(1.0), (0.0, 1_024.0))?;
                Ok(RopeScaling::Linear { factor })
            }
            other => Err(ConfigError::Scaling { key, found: other.to_owned() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::sample::Sample;

    fn llama() -> Sample {
        Sample::default()
            .str("general.architecture", "llama")
            .u32("llama.embedding_length", 64)
            .u32("llama.feed_forward_length", 128)
            .u32("llama.context_length", 512)
            .f32("llama.attention.layer_norm_rms_epsilon", 1e-5)
            .f32_tensor("token_embd.weight", &[7, 64], &[0.0; 7 * 64])
    }

    fn sized(blocks: u32, heads: u32) -> Sample {
        llama().u32("llama.block_count", blocks).u32("llama.attention.head_count", heads)
    }

    #[track_caller]
    fn refused(sample: Sample, says: &str) {
        let error = ModelConfig::from_gguf(&sample.open()).unwrap_err().to_string();
        assert!(error.contains(says), "expected `{says}` in: {error}");
    }

    #[test]
    fn what_a_file_does_not_say_has_its_usual_value() {
        let config = ModelConfig::from_gguf(&sized(2, 4).open()).unwrap();
        assert_eq!((config.kv_heads, config.head_dim, config.rope_dim), (4, 16, 16));
        assert_eq!((config.rope_base, config.rope_scaling), (10_000.0, RopeScaling::None));
        assert_eq!((config.vocabulary, config.tied_embeddings), (7, true));
        assert_eq!(config.name, None);
    }

    #[test]
    fn what_a_file_says_is_taken() {
        let sample = sized(2, 4)
            .u32("llama.attention.head_count_kv", 2)
            .u32("llama.attention.key_length", 32)
            .u32("llama.rope.dimension_count", 24)
            .f32("llama.rope.freq_base", 5e5)
            .str("llama.rope.scaling.type", "linear")
            .f32("llama.rope.scaling.factor", 4.0)
            .f32_tensor("output.weight", &[1, 1], &[0.0]);
        let config = ModelConfig::from_gguf(&sample.open()).unwrap();
        assert_eq!((config.kv_heads, config.head_dim, config.rope_dim), (2, 32, 24));
        assert_eq!(config.rope_scaling, RopeScaling::Linear { factor: 4.0 });
        assert_eq!((config.rope_base, config.tied_embeddings), (5e5, false));
    }

    #[test]
    fn numbers_outside_their_range_are_refused_with_their_key() {
        refused(Sample::default(), "no `general.architecture`");
        refused(llama(), "no `llama.block_count`");
        refused(sized(0, 4), "`llama.block_count` is 0, allowed is 1 to 1024");
        refused(sized(u32::MAX, 4), "`llama.block_count` is 4294967295");
        refused(sized(2, 0), "`llama.attention.head_count` is 0");
        refused(sized(2, 5), "`llama.embedding_length` is 64, allowed is x 5 heads");
        let kv = |heads| sized(2, 4).u32("llama.attention.head_count_kv", heads);
        refused(kv(3), "a divisor of 4 heads");
        refused(kv(8), "allowed is 1 to 4");
        let rope = |dim| sized(2, 4).u32("llama.rope.dimension_count", dim);
        refused(rope(3), "an even number");
        refused(rope(18), "allowed is 2 to 16");
        for base in [f32::NAN, f32::INFINITY, 0.0, -1.0] {
            refused(sized(2, 4).f32("llama.rope.freq_base", base), "llama.rope.freq_base");
        }
        refused(sized(2, 4).str("llama.rope.scaling.type", "yarn"), "asks for `yarn` scaling");
    }
}
