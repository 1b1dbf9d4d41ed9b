//! The shape of a model from GGUF metadata. It knows keys, not layers.

use std::num::NonZeroUsize;

use super::{
    BLOCKS_MAX, CONTEXT_TOKENS_MAX, ConfigError, EMBEDDING_MAX, FEED_FORWARD_MAX, HEAD_DIM_MAX,
    HEADS_MAX, ModelConfig, RopeScaling, SOFTCAP_MAX, Window, attention_scale, periodic,
};
use crate::family::Family;
use crate::gguf::GgufFile;

impl ModelConfig {
    /// Reads the metadata of `general.architecture`'s own namespace.
    ///
    /// # Errors
    /// [`ConfigError`] names the key.
    pub fn from_gguf(gguf: &GgufFile) -> Result<Self, ConfigError> {
        const ARCHITECTURE: &str = "general.architecture";
        let architecture = gguf.require_str(ARCHITECTURE)?.to_owned();
        let family = Family::of_gguf(&architecture).ok_or_else(|| ConfigError::Architecture {
            key: ARCHITECTURE,
            found: architecture.clone(),
            supported: Family::ALL
                .into_iter()
                .filter_map(Family::gguf_name)
                .collect::<Vec<_>>()
                .join(", "),
        })?;
        let keys = Keys { gguf, architecture: &architecture };
        let blocks = keys.size("block_count", 1, limit(BLOCKS_MAX))?;
        let embedding = keys.size("embedding_length", 1, limit(EMBEDDING_MAX))?;
        let heads = keys.size("attention.head_count", 1, limit(HEADS_MAX))?;
        let kv_heads = keys.size_or("attention.head_count_kv", heads, (1, heads))?;
        if !heads.is_multiple_of(kv_heads) {
            let allowed = format!("a divisor of {heads} heads");
            return Err(keys.range("attention.head_count_kv", kv_heads, allowed));
        }
        let head_dim = keys.head_dim((embedding, heads))?;
        let rope_dim = keys.size_or("rope.dimension_count", head_dim, (2, head_dim))?;
        if !rope_dim.is_multiple_of(2) {
            return Err(keys.range("rope.dimension_count", rope_dim, "an even number".to_owned()));
        }
        let text = |key| gguf.metadata(key).and_then(|value| value.as_str()).map(str::to_owned);
        let softcap = |key, default| keys.softcap(key, default);
        let caps = family == Family::Gemma2;
        Ok(Self {
            family,
            name: text("general.name"),
            license: text("general.license"),
            blocks,
            embedding,
            heads,
            kv_heads,
            head_dim,
            feed_forward: keys.size("feed_forward_length", 1, limit(FEED_FORWARD_MAX))?,
            rms_eps: keys.float("attention.layer_norm_rms_epsilon", None, (0.0, 0.1))?,
            norm_offset: 0.0,
            head_norms: family.has_head_norms(),
            post_norms: family.is_gemma(),
            gate: family.gate(),
            embedding_scale: if family.is_gemma() { (embedding as f32).sqrt() } else { 1.0 },
            attention_scale: attention_scale(family, blocks, (embedding, heads, head_dim)),
            attention_softcap: softcap("attn_logit_softcapping", caps.then_some(50.0))?,
            logit_softcap: softcap("final_logit_softcapping", caps.then_some(30.0))?,
            window: keys.window(family, blocks)?,
            rope_style: family.gguf_rope_style(),
            rope_base: keys.float("rope.freq_base", Some(10_000.0), (1.0, 1e12))?,
            rope_dim,
            rope_scaling: keys.scaling()?,
            context_tokens: keys.size("context_length", 1, limit(CONTEXT_TOKENS_MAX))?,
            vocabulary: vocabulary(gguf)?,
            tied_embeddings: !gguf.has_tensor("output.weight"),
            architecture,
        })
    }
}

/// The limits are far below the address space.
fn limit(max: u64) -> usize {
    usize::try_from(max).unwrap_or(usize::MAX)
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
            other => {
                let supported = "`none` and `linear`";
                Err(ConfigError::Scaling { key, found: other.to_owned(), supported })
            }
        }
    }

    /// Values of a head; those of keys and of values are equally many.
    fn head_dim(&self, (embedding, heads): (usize, usize)) -> Result<usize, ConfigError> {
        if self.gguf.metadata(&self.full("attention.key_length")).is_none() {
            if embedding.is_multiple_of(heads) {
                return Ok(embedding / heads);
            }
            return Err(self.range("embedding_length", embedding, format!("x {heads} heads")));
        }
        let head_dim = self.size("attention.key_length", 2, limit(HEAD_DIM_MAX))?;
        self.size_or("attention.value_length", head_dim, (head_dim, head_dim))?;
        Ok(head_dim)
    }

    fn softcap(&self, key: &str, default: Option<f32>) -> Result<Option<f32>, ConfigError> {
        match (self.gguf.metadata(&self.full(key)), default) {
            (None, default) => Ok(default),
            (Some(_), _) => self.float(key, None, (0.0, SOFTCAP_MAX as f32)).map(Some),
        }
    }

    /// The window of the families that have one, when the file gives its size.
    fn window(&self, family: Family, blocks: usize) -> Result<Option<Window>, ConfigError> {
        const TOKENS: &str = "attention.sliding_window";
        const PERIOD: &str = "attention.sliding_window_pattern";
        let default = match family {
            Family::Qwen2 | Family::Qwen3 => return Ok(None),
            // The size that the published models have.
            Family::Gemma2 => 4_096,
            Family::Llama | Family::Mistral | Family::Gemma3 => 0,
        };
        let tokens = self.size_or(TOKENS, default, (0, limit(CONTEXT_TOKENS_MAX)))?;
        let Some(tokens) = NonZeroUsize::new(tokens) else { return Ok(None) };
        let layers = match self.gguf.metadata(&self.full(PERIOD)).map(|value| value.as_array()) {
            None => periodic(blocks, family.window_period()),
            Some(None) => periodic(blocks, Some(self.size(PERIOD, 1, blocks.max(1))?)),
            Some(Some(flags)) => {
                let layers: Vec<bool> = flags.iter().map_while(|flag| flag.as_bool()).collect();
                if layers.len() != blocks {
                    let allowed = format!("a truth value for each of {blocks} layers");
                    return Err(self.range(PERIOD, format!("{} of them", layers.len()), allowed));
                }
                layers
            }
        };
        let rope_base = match family {
            Family::Gemma3 => Some(self.float("rope.freq_base_swa", Some(1e4), (1.0, 1e12))?),
            Family::Llama | Family::Mistral | Family::Qwen2 | Family::Qwen3 | Family::Gemma2 => {
                None
            }
        };
        Ok(Some(Window { tokens, layers, rope_base }))
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
        refused(
            sized(2, 4)
                .u32("llama.attention.key_length", 16)
                .u32("llama.attention.value_length", 8),
            "allowed is 16 to 16",
        );
    }

    #[test]
    fn an_unknown_architecture_is_refused_by_name_with_those_that_are_known() {
        refused(
            Sample::default().str("general.architecture", "mamba"),
            "`general.architecture` is \"mamba\", which is not supported; supported: llama, qwen2, \
             qwen3, gemma2, gemma3",
        );
    }

    #[test]
    fn gemma_3_has_five_windowed_layers_for_each_that_sees_everything() {
        let gemma = |window: u32| {
            Sample::default()
                .str("general.architecture", "gemma3")
                .u32("gemma3.embedding_length", 64)
                .u32("gemma3.feed_forward_length", 128)
                .u32("gemma3.context_length", 512)
                .u32("gemma3.block_count", 8)
                .u32("gemma3.attention.head_count", 4)
                .u32("gemma3.attention.key_length", 32)
                .u32("gemma3.attention.sliding_window", window)
                .f32("gemma3.attention.layer_norm_rms_epsilon", 1e-6)
                .f32("gemma3.rope.freq_base", 1e6)
                .f32_tensor("token_embd.weight", &[7, 64], &[0.0; 7 * 64])
        };
        let config = ModelConfig::from_gguf(&gemma(16).open()).unwrap();
        let windows: Vec<_> = (0..9).map(|layer| config.window_of(layer).is_some()).collect();
        assert_eq!(windows, [true, true, true, true, true, false, true, true, false]);
        assert_eq!(config.window_of(0).unwrap().get(), 16);
        assert_eq!((config.rope_base, config.rope_windowed()), (1e6, Some(1e4)));
        assert_eq!(
            (config.embedding_scale, config.head_norms, config.post_norms),
            (8.0, true, true)
        );
        assert_eq!((config.attention_softcap, config.logit_softcap), (None, None));
        assert_eq!(ModelConfig::from_gguf(&gemma(0).open()).unwrap().window, None);
        let period = gemma(16).u32("gemma3.attention.sliding_window_pattern", 2);
        let config = ModelConfig::from_gguf(&period.open()).unwrap();
        assert_eq!(
            config.window.unwrap().layers,
            [true, false, true, false, true, false, true, false]
        );
        let flags = |count: usize| {
            let key = "gemma3.attention.sliding_window_pattern";
            gemma(16).array(key, 7, count, &vec![1; count])
        };
        let config = ModelConfig::from_gguf(&flags(8).open()).unwrap();
        assert_eq!(config.window.unwrap().layers, [true; 8]);
        refused(flags(7), "a truth value for each of 8 layers");
        refused(gemma(16).f32("gemma3.attn_logit_softcapping", f32::NAN), "attn_logit_softcapping");
    }
}
