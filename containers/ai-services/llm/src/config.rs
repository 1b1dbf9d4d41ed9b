//! The settings of the llm service: `configs/llm.toml` is the same with a comment on each key, and
//! a test compares them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use aisemble_service::config::{LogConfig, SocketPath};
use aisemble_service::{DrainConfig, GrpcConfig, InvalidConfig, ServiceConfig, SocketConfig};
use serde::{Deserialize, Serialize};

/// Settings of one instance: one model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LlmConfig {
    /// `[model]`.
    pub model: ModelSection,
    /// `[engine]`.
    pub engine: EngineSection,
    /// `[socket]`.
    pub socket: SocketConfig,
    /// `[log]`.
    pub log: LogConfig,
    /// `[drain]`.
    pub drain: DrainConfig,
}

/// `[model]`: which file, and who it is said to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelSection {
    /// The GGUF file, or the folder with safetensors.
    pub path: PathBuf,
    /// What a request's `model` says.
    pub name: String,
    /// SHA-256 of the GGUF file in hexadecimal, checked before anything of it is parsed. Empty =
    /// any file.
    pub sha256: String,
    /// What becomes of float matrices of safetensors when they are loaded.
    pub quantize: Quantize,
    /// Its licence, as Describe reports it. Empty = as the file says.
    pub license: String,
    /// SHA-256 of each file of a folder, checked before anything of it is parsed. Empty = any.
    pub files: BTreeMap<String, String>,
}

/// What becomes of float matrices.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quantize {
    /// They stay what they are.
    #[default]
    None,
    /// Blocks of 32 weights of 8 bits with a scale.
    Q8_0,
}

/// `[engine]`: sizes and limits. A token of the KV cache takes the same memory whoever owns it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EngineSection {
    /// `auto`, `cpu` or `cuda:N`.
    pub device: String,
    /// Bytes of the device that weights, KV cache and workspace may take together; 0 = all that is
    /// free.
    pub memory_bytes_max: u64,
    /// Threads that compute; 0 = as many as the affinity mask and the CPU quota allow.
    pub threads: usize,
    /// Prompt and completion together; cut to what the model was trained for.
    pub context_tokens_max: usize,
    /// Tokens of one completion.
    pub output_tokens_max: usize,
    /// Sequences that run at the same time.
    pub batch_rows_max: usize,
    /// Tokens that the KV cache holds, over all sequences.
    pub kv_tokens_max: usize,
    /// What the KV cache stores its values as.
    pub kv_type: KvType,
    /// Requests that wait for a place in the batch.
    pub queue_depth_max: usize,
    /// Prompt tokens of a step in which nobody decodes.
    pub prefill_chunk_tokens: usize,
    /// Prompt tokens of a step in which somebody decodes: what a running stream waits for.
    pub prefill_chunk_tokens_beside_decode: usize,
    /// A step with prompt tokens beside running streams may take this percentage of one without;
    /// learnt while it runs. 0 = always the whole chunk.
    pub decode_slowdown_percent_max: u32,
    /// Whose prompts may reuse the KV blocks of whose.
    pub prefix_cache: PrefixCache,
    /// Tokens that speculation proposes for a stream in a step at most; 0 = no speculation.
    pub draft_tokens_max: usize,
    /// How long a running sequence waits for its reader, milliseconds; then it is given up.
    pub reader_wait_ms_max: u64,
}

/// Who reuses the beginnings of whose prompts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PrefixCache {
    /// Nobody: every prompt is computed from its first token.
    Off,
    /// Each API key its own, so that no key can find out by the time of an answer what another
    /// asked.
    PerKey,
    /// Everybody everybody's.
    Shared,
}

/// Element of the KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KvType {
    /// Half precision.
    F16,
    /// Single precision.
    F32,
}

impl Default for LlmConfig {
    fn default() -> Self {
        Self {
            model: ModelSection::default(),
            engine: EngineSection::default(),
            socket: SocketConfig::of_service("llm"),
            log: LogConfig::default(),
            drain: DrainConfig::default(),
        }
    }
}

impl Default for ModelSection {
    fn default() -> Self {
        Self {
            path: "/models/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf".into(),
            name: "smollm2-135m-instruct".to_owned(),
            sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53".to_owned(),
            quantize: Quantize::None,
            license: String::new(),
            files: BTreeMap::new(),
        }
    }
}

impl Default for EngineSection {
    fn default() -> Self {
        Self {
            device: "auto".to_owned(),
            memory_bytes_max: 0,
            threads: 0,
            context_tokens_max: 8192,
            output_tokens_max: 8192,
            batch_rows_max: 16,
            kv_tokens_max: 32_768,
            kv_type: KvType::F16,
            queue_depth_max: 64,
            prefill_chunk_tokens: 512,
            prefill_chunk_tokens_beside_decode: 64,
            decode_slowdown_percent_max: 200,
            prefix_cache: PrefixCache::PerKey,
            draft_tokens_max: 5,
            reader_wait_ms_max: 10_000,
        }
    }
}

/// Key, value, smallest and largest.
type Range = (&'static str, u64, u64, u64);

impl ServiceConfig for LlmConfig {
    fn validate(&self) -> Result<(), InvalidConfig> {
        let engine = &self.engine;
        let ranges: [Range; 10] = [
            ("threads", engine.threads as u64, 0, 256),
            ("context_tokens_max", engine.context_tokens_max as u64, 16, 1 << 20),
            ("output_tokens_max", engine.output_tokens_max as u64, 1, 1 << 20),
            ("batch_rows_max", engine.batch_rows_max as u64, 1, 1024),
            ("kv_tokens_max", engine.kv_tokens_max as u64, 64, 1 << 26),
            ("queue_depth_max", engine.queue_depth_max as u64, 0, 65_536),
            ("prefill_chunk_tokens", engine.prefill_chunk_tokens as u64, 1, 8192),
            (
                "prefill_chunk_tokens_beside_decode",
                engine.prefill_chunk_tokens_beside_decode as u64,
                1,
                8192,
            ),
            ("draft_tokens_max", engine.draft_tokens_max as u64, 0, 16),
            ("reader_wait_ms_max", engine.reader_wait_ms_max, 1, 600_000),
        ];
        let slowdown = engine.decode_slowdown_percent_max;
        if slowdown != 0 && !(110..=10_000).contains(&slowdown) {
            let reason = format!("is {slowdown}; it must be 0, or between 110 and 10000");
            return Err(InvalidConfig::new("engine.decode_slowdown_percent_max", reason));
        }
        for (key, value, low, high) in ranges {
            if value < low || value > high {
                return Err(InvalidConfig::new(
                    format!("engine.{key}"),
                    format!("is {value}; it must be between {low} and {high}"),
                ));
            }
        }
        if engine.context_tokens_max > engine.kv_tokens_max {
            return Err(InvalidConfig::new(
                "engine.kv_tokens_max",
                format!(
                    "is {}, less than engine.context_tokens_max ({}): no full context would fit",
                    engine.kv_tokens_max, engine.context_tokens_max
                ),
            ));
        }
        if self.model.name.is_empty() || self.model.name.len() > 128 {
            return Err(InvalidConfig::new("model.name", "must have 1 to 128 bytes"));
        }
        let is_digest = |digest: &str| {
            digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        if !self.model.sha256.is_empty() && !is_digest(&self.model.sha256) {
            return Err(InvalidConfig::new(
                "model.sha256",
                "must be 64 hexadecimal digits, or empty to take any file",
            ));
        }
        for (file, digest) in &self.model.files {
            if file.is_empty() || file.contains(['/', '\\']) || !is_digest(digest) {
                return Err(InvalidConfig::new(
                    "model.files",
                    format!("{file:?} must be a plain name with 64 hexadecimal digits"),
                ));
            }
        }
        Ok(())
    }

    fn log(&self) -> &LogConfig {
        &self.log
    }

    fn drain(&self) -> &DrainConfig {
        &self.drain
    }

    fn health_socket(&self) -> Option<&SocketPath> {
        Some(&self.socket.path)
    }
}

impl GrpcConfig for LlmConfig {
    fn socket(&self) -> &SocketConfig {
        &self.socket
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: fn(&mut LlmConfig), key: &str, sentence: &str) {
        let mut config = LlmConfig::default();
        change(&mut config);
        let error = config.validate().unwrap_err();
        assert_eq!(error.key, key);
        assert!(error.reason.contains(sentence), "{}", error.reason);
    }

    #[test]
    fn the_defaults_are_valid_and_every_limit_is_kept() {
        assert_eq!(LlmConfig::default().validate(), Ok(()));
        check(|c| c.engine.batch_rows_max = 0, "engine.batch_rows_max", "between 1 and 1024");
        check(|c| c.engine.kv_tokens_max = 4096, "engine.kv_tokens_max", "no full context");
        check(|c| c.model.sha256 = "abc".to_owned(), "model.sha256", "64 hexadecimal digits");
        let file = |c: &mut LlmConfig| drop(c.model.files.insert("../x".into(), "0".repeat(64)));
        check(file, "model.files", "a plain name with 64");
        check(|c| c.model.name.clear(), "model.name", "1 to 128 bytes");
        check(|c| c.engine.threads = 1000, "engine.threads", "between 0 and 256");
    }

    #[test]
    fn the_commented_file_says_what_the_code_does() {
        let text = include_str!("../../../../configs/llm.toml");
        let file: LlmConfig = toml::from_str(text).unwrap();
        assert_eq!(file, LlmConfig::default());
        // Every key is there, so that nobody has to read the code to find one.
        let all = toml::Table::try_from(LlmConfig::default()).unwrap();
        let given: toml::Table = text.parse().unwrap();
        for (section, keys) in &all {
            for key in keys.as_table().unwrap().keys() {
                assert!(given[section].get(key).is_some(), "{section}.{key} is not in the file");
            }
        }
    }
}
