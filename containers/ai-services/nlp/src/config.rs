//! The settings of the nlp service: `configs/nlp.toml` is the same with a comment on each key, and
//! a test compares them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use aisemble_service::config::{CpuOnly, LogConfig, SocketPath};
use aisemble_service::{DrainConfig, GrpcConfig, InvalidConfig, ServiceConfig, SocketConfig};
use serde::{Deserialize, Serialize};

/// Models of one instance.
const MODELS_MAX: usize = 16;
/// Files of one model.
const FILES_MAX: usize = 8;
/// What a model may be read from, so that a pin of another file is no silent nothing.
const FILES: [&str; 6] = [
    "model.safetensors",
    "head.safetensors",
    "tokenizer.json",
    "config.json",
    "pooling.json",
    "tag_vocab.json",
];

/// Settings of one instance: a fixed set of models.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NlpConfig {
    /// `[[model]]`.
    pub model: Vec<ModelSection>,
    /// `[engine]`.
    pub engine: EngineSection,
    /// `[socket]`.
    pub socket: SocketConfig,
    /// `[log]`.
    pub log: LogConfig,
    /// `[drain]`.
    pub drain: DrainConfig,
}

/// `[[model]]`: a folder, and who it is said to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelSection {
    /// What a request's `model` says.
    pub name: String,
    /// `bert`, `distilbert`, `roberta`, `xlm-roberta`, `modernbert`; `linear` = a head on another
    /// model's embeddings. Empty = as its `config.json` says.
    pub architecture: String,
    /// The folder of its files.
    pub path: PathBuf,
    /// Its licence, as Describe reports it.
    pub license: String,
    /// How token vectors become one: `mean`, `cls`, `last`. Empty = as the model's files say, else
    /// `mean`.
    pub pooling: String,
    /// What the weights are computed in.
    pub precision: Precision,
    /// SHA-256 of every file that is loaded, checked before anything of it is parsed.
    pub sha256: BTreeMap<String, String>,
}

/// What weights are computed in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Single precision.
    #[default]
    F32,
    /// Blocks of 32 weights of 8 bits with a scale; activations too.
    Q8,
}

/// `[engine]`: sizes and limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EngineSection {
    /// `auto` or `cpu`: this service has no GPU code.
    pub device: CpuOnly,
    /// Threads that compute; 0 = as many as the affinity mask and the CPU quota allow.
    pub threads: usize,
    /// Tokens of one forward pass, over all requests.
    pub batch_tokens_max: usize,
    /// Tokens of one window of a long text, special ones included; cut to what the model takes.
    pub window_tokens_max: usize,
    /// Tokens that neighbouring windows share.
    pub window_overlap_tokens: usize,
    /// Tokens of one request, windows' overlaps included.
    pub request_tokens_max: usize,
    /// Requests that the model works on at the same time.
    pub running_max: usize,
    /// Requests that wait.
    pub queue_depth_max: usize,
}

impl Default for NlpConfig {
    fn default() -> Self {
        Self {
            model: vec![ModelSection::default()],
            engine: EngineSection::default(),
            socket: SocketConfig::of_service("nlp"),
            log: LogConfig::default(),
            drain: DrainConfig::default(),
        }
    }
}

impl Default for ModelSection {
    fn default() -> Self {
        let pin = |(file, digest): (&str, &str)| (file.to_owned(), digest.to_owned());
        Self {
            name: "all-minilm-l6-v2".to_owned(),
            architecture: "bert".to_owned(),
            path: "/models/all-minilm-l6-v2".into(),
            license: "Apache-2.0".to_owned(),
            pooling: String::new(),
            precision: Precision::F32,
            sha256: [
                (
                    "model.safetensors",
                    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
                ),
                (
                    "tokenizer.json",
                    "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
                ),
                ("config.json", "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
            ]
            .map(pin)
            .into(),
        }
    }
}

impl Default for EngineSection {
    fn default() -> Self {
        Self {
            device: CpuOnly::Auto,
            threads: 0,
            batch_tokens_max: 1024,
            window_tokens_max: 512,
            window_overlap_tokens: 64,
            request_tokens_max: 1_000_000,
            running_max: 32,
            queue_depth_max: 64,
        }
    }
}

impl ModelSection {
    fn validate(&self, index: usize) -> Result<(), InvalidConfig> {
        let invalid = |key: &str, reason: String| {
            Err(InvalidConfig::new(format!("model.{index}.{key}"), reason))
        };
        if self.name.is_empty() || self.name.len() > 128 {
            return invalid("name", "must have 1 to 128 bytes".to_owned());
        }
        const ARCHITECTURES: [&str; 7] =
            ["", "bert", "distilbert", "roberta", "xlm-roberta", "modernbert", "linear"];
        if !ARCHITECTURES.contains(&self.architecture.as_str()) {
            let known = ARCHITECTURES[1..].join(", ");
            return invalid("architecture", format!("must be empty or one of {known}"));
        }
        if !["", "mean", "cls", "last"].contains(&self.pooling.as_str()) {
            return invalid("pooling", "must be empty, mean, cls or last".to_owned());
        }
        if self.sha256.is_empty() || self.sha256.len() > FILES_MAX {
            return invalid("sha256", "must pin every file of the model".to_owned());
        }
        for (file, digest) in &self.sha256 {
            if !FILES.contains(&file.as_str()) {
                let known = FILES.join(", ");
                return invalid("sha256", format!("pins {file:?}; files are {known}"));
            }
            let digits = digest.bytes().all(|byte| byte.is_ascii_hexdigit());
            if digest.len() != 64 || !digits {
                return invalid("sha256", format!("of {file} must be 64 hexadecimal digits"));
            }
        }
        Ok(())
    }
}

/// Key, value, smallest and largest.
type Range = (&'static str, usize, usize, usize);

impl ServiceConfig for NlpConfig {
    fn validate(&self) -> Result<(), InvalidConfig> {
        let engine = &self.engine;
        let ranges: [Range; 7] = [
            ("threads", engine.threads, 0, 256),
            ("batch_tokens_max", engine.batch_tokens_max, 16, 1 << 20),
            ("window_tokens_max", engine.window_tokens_max, 16, 65_536),
            ("window_overlap_tokens", engine.window_overlap_tokens, 0, 16_384),
            ("request_tokens_max", engine.request_tokens_max, 16, 1 << 26),
            ("running_max", engine.running_max, 1, 1024),
            ("queue_depth_max", engine.queue_depth_max, 0, 65_536),
        ];
        for (key, value, low, high) in ranges {
            if value < low || value > high {
                return Err(InvalidConfig::new(
                    format!("engine.{key}"),
                    format!("is {value}; it must be between {low} and {high}"),
                ));
            }
        }
        if engine.window_overlap_tokens * 2 >= engine.window_tokens_max {
            return Err(InvalidConfig::new(
                "engine.window_overlap_tokens",
                "must be less than half of engine.window_tokens_max",
            ));
        }
        if engine.batch_tokens_max < engine.window_tokens_max {
            return Err(InvalidConfig::new(
                "engine.batch_tokens_max",
                "is less than engine.window_tokens_max: no full window would fit",
            ));
        }
        if self.model.is_empty() || self.model.len() > MODELS_MAX {
            let reason = format!("1 to {MODELS_MAX} models can be given");
            return Err(InvalidConfig::new("model", reason));
        }
        for (index, model) in self.model.iter().enumerate() {
            model.validate(index)?;
            if self.model[..index].iter().any(|other| other.name == model.name) {
                let reason = format!("{:?} is given twice", model.name);
                return Err(InvalidConfig::new(format!("model.{index}.name"), reason));
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

impl GrpcConfig for NlpConfig {
    fn socket(&self) -> &SocketConfig {
        &self.socket
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: fn(&mut NlpConfig), key: &str, sentence: &str) {
        let mut config = NlpConfig::default();
        change(&mut config);
        let error = config.validate().unwrap_err();
        assert_eq!(error.key, key);
        assert!(error.reason.contains(sentence), "{}", error.reason);
    }

    #[test]
    fn the_defaults_are_valid_and_every_limit_is_kept() {
        assert_eq!(NlpConfig::default().validate(), Ok(()));
        check(|c| c.engine.running_max = 0, "engine.running_max", "between 1 and 1024");
        check(|c| c.engine.window_overlap_tokens = 256, "engine.window_overlap_tokens", "half");
        check(|c| c.engine.batch_tokens_max = 100, "engine.batch_tokens_max", "no full window");
        check(|c| c.model.clear(), "model", "1 to 16 models");
        check(|c| c.model.push(c.model[0].clone()), "model.1.name", "twice");
        check(|c| c.model[0].architecture = "gpt".to_owned(), "model.0.architecture", "bert");
        check(|c| c.model[0].pooling = "max".to_owned(), "model.0.pooling", "mean, cls");
        check(|c| c.model[0].sha256.clear(), "model.0.sha256", "pin every file");
        let pickle = |c: &mut NlpConfig| {
            c.model[0].sha256.insert("pytorch_model.bin".to_owned(), "0".repeat(64));
        };
        check(pickle, "model.0.sha256", "pytorch_model.bin");
        let short = |c: &mut NlpConfig| {
            c.model[0].sha256.insert("config.json".to_owned(), "abc".to_owned());
        };
        check(short, "model.0.sha256", "64 hexadecimal digits");
    }

    #[test]
    fn the_commented_file_says_what_the_code_does() {
        let text = include_str!("../../../../configs/nlp.toml");
        let file: NlpConfig = toml::from_str(text).unwrap();
        assert_eq!(file, NlpConfig::default());
        // Every key is there, so that nobody has to read the code to find one.
        let all = toml::Table::try_from(NlpConfig::default()).unwrap();
        let given: toml::Table = text.parse().unwrap();
        for (section, keys) in &all {
            let first = |value: &toml::Value| {
                let tables = value.as_array().and_then(|tables| tables.first());
                tables.unwrap_or(value).as_table().unwrap().clone()
            };
            for key in first(keys).keys() {
                assert!(first(&given[section]).contains_key(key), "{section}.{key} is missing");
            }
        }
    }
}
