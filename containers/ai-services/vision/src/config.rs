//! The settings of the vision service: `configs/vision.toml` is the same with a comment on each
//! key, and a test compares them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use aisemble_service::config::{CpuOnly, LogConfig, SocketPath};
use aisemble_service::{DrainConfig, GrpcConfig, InvalidConfig, ServiceConfig, SocketConfig};
use serde::{Deserialize, Serialize};

use crate::hub::{CONFIG, PREPROCESSOR, TOKENIZER};
use crate::models::Architecture;
use crate::picture::ImageLimits;

/// Models of one instance.
const MODELS_MAX: usize = 16;
/// The file of a model's weights.
pub const WEIGHTS: &str = "model.safetensors";
/// The file of a classifier's labels.
pub const LABELS: &str = "labels.json";

/// Settings of one instance: a fixed set of models.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VisionConfig {
    /// `[[model]]`.
    pub model: Vec<ModelSection>,
    /// `[engine]`.
    pub engine: EngineSection,
    /// `[images]`.
    pub images: ImagesSection,
    /// `[socket]`.
    pub socket: SocketConfig,
    /// `[log]`.
    pub log: LogConfig,
    /// `[drain]`.
    pub drain: DrainConfig,
}

/// `[[model]]`: a folder, and who it is said to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSection {
    /// What a request's `model` says.
    pub name: String,
    /// Which network it is.
    pub architecture: Architecture,
    /// The folder of its files.
    pub path: PathBuf,
    /// Its licence, as Describe reports it.
    #[serde(default)]
    pub license: String,
    /// SHA-256 of every file that is loaded, checked before anything of it is parsed.
    pub sha256: BTreeMap<String, String>,
}

/// `[engine]`: sizes and limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EngineSection {
    /// `auto` or `cpu`: this service has no GPU code.
    pub device: CpuOnly,
    /// Threads that compute; 0 = as many as the affinity mask and the CPU quota allow.
    pub threads: usize,
    /// Pictures (or lines of text) of one forward pass, over all requests.
    pub batch_rows_max: usize,
    /// Pixels of the inputs of one forward pass: large ones make smaller batches.
    pub batch_pixels_max: usize,
    /// Requests that are worked on or wait; one more is refused.
    pub requests_max: usize,
    /// Pictures that are decoded at the same time.
    pub decodes_max: usize,
    /// The longer side that text is looked for at, pixels: larger pictures are made smaller.
    pub text_side_max: usize,
    /// Tokens of a caption; a word has one or two.
    pub caption_tokens_max: usize,
}

/// `[images]`: what a picture may be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ImagesSection {
    /// Width and height, pixels.
    pub side_max: u32,
    /// Width times height.
    pub pixels_max: u64,
    /// Bytes of one decoded picture.
    pub decoded_bytes_max: u64,
    /// Decoded bytes for each byte of the file, above 16 MiB of them.
    pub ratio_max: u64,
    /// Bytes of all decoded pictures that are in memory at the same time.
    pub memory_bytes_max: u64,
}

impl ImagesSection {
    /// As the decoder takes them.
    #[must_use]
    pub fn limits(&self) -> ImageLimits {
        ImageLimits {
            side_max: self.side_max,
            pixels_max: self.pixels_max,
            decoded_bytes_max: self.decoded_bytes_max,
            ratio_max: self.ratio_max,
        }
    }
}

impl Default for VisionConfig {
    fn default() -> Self {
        let model = |name: &str, architecture, license: &str, files: &[(&str, &str)]| {
            let pin = |(file, digest): &(&str, &str)| ((*file).to_owned(), (*digest).to_owned());
            ModelSection {
                name: name.to_owned(),
                architecture,
                path: format!("/models/{name}").into(),
                license: license.to_owned(),
                sha256: files.iter().map(pin).collect(),
            }
        };
        Self {
            model: vec![model(
                "efficientnet-lite0",
                Architecture::EfficientNetLite0,
                "Apache-2.0",
                &[
                    (WEIGHTS, "b5682d400b918ab40e78e6e3997b957bcb528179b9bc323265713621b57e6175"),
                    (LABELS, "3e232637a09beeb733f409908cfc0ba256e83f06815684678abafd4c0990c757"),
                ],
            )],
            engine: EngineSection::default(),
            images: ImagesSection::default(),
            socket: SocketConfig::of_service("vision"),
            log: LogConfig::default(),
            drain: DrainConfig::default(),
        }
    }
}

impl Default for EngineSection {
    fn default() -> Self {
        Self {
            device: CpuOnly::Auto,
            threads: 0,
            batch_rows_max: 8,
            batch_pixels_max: 2_000_000,
            requests_max: 32,
            decodes_max: 2,
            text_side_max: 1280,
            caption_tokens_max: 32,
        }
    }
}

impl Default for ImagesSection {
    fn default() -> Self {
        Self {
            side_max: 16_384,
            pixels_max: 50_000_000,
            decoded_bytes_max: 256 * 1024 * 1024,
            ratio_max: 500,
            memory_bytes_max: 512 * 1024 * 1024,
        }
    }
}

/// Key, value, smallest and largest.
type Range = (&'static str, u64, u64, u64);

impl VisionConfig {
    fn ranges(&self) -> [Range; 12] {
        let (engine, images) = (&self.engine, &self.images);
        [
            ("engine.threads", engine.threads as u64, 0, 256),
            ("engine.batch_rows_max", engine.batch_rows_max as u64, 1, 256),
            ("engine.batch_pixels_max", engine.batch_pixels_max as u64, 1, 1 << 30),
            ("engine.requests_max", engine.requests_max as u64, 1, 4096),
            ("engine.decodes_max", engine.decodes_max as u64, 1, 256),
            ("engine.text_side_max", engine.text_side_max as u64, 64, 4096),
            ("engine.caption_tokens_max", engine.caption_tokens_max as u64, 1, 512),
            ("images.side_max", u64::from(images.side_max), 1, 65_535),
            ("images.pixels_max", images.pixels_max, 1, 1 << 30),
            ("images.decoded_bytes_max", images.decoded_bytes_max, 1024, 1 << 34),
            ("images.ratio_max", images.ratio_max, 1, 1 << 20),
            ("images.memory_bytes_max", images.memory_bytes_max, 1024, 1 << 40),
        ]
    }
}

impl ServiceConfig for VisionConfig {
    fn validate(&self) -> Result<(), InvalidConfig> {
        for (key, value, low, high) in self.ranges() {
            if value < low || value > high {
                let reason = format!("is {value}; it must be between {low} and {high}");
                return Err(InvalidConfig::new(key, reason));
            }
        }
        if self.images.memory_bytes_max < self.images.decoded_bytes_max {
            let reason = "is less than images.decoded_bytes_max: no full picture would fit";
            return Err(InvalidConfig::new("images.memory_bytes_max", reason));
        }
        let models = self.model.len();
        if models == 0 || models > MODELS_MAX {
            let reason = format!("{models} models are given; between 1 and {MODELS_MAX} are taken");
            return Err(InvalidConfig::new("model", reason));
        }
        for (index, model) in self.model.iter().enumerate() {
            let invalid = |key: &str, reason: &str| {
                Err(InvalidConfig::new(format!("model[{index}].{key}"), reason.to_owned()))
            };
            if model.name.is_empty() || model.name.len() > 128 {
                return invalid("name", "must have 1 to 128 bytes");
            }
            if self.model[..index].iter().any(|before| before.name == model.name) {
                return invalid("name", "is the name of another model, too");
            }
            if !model.sha256.contains_key(WEIGHTS) {
                return invalid("sha256", "must pin model.safetensors");
            }
            for (file, digest) in &model.sha256 {
                let hub = model.architecture.family().is_some()
                    && [CONFIG, PREPROCESSOR, TOKENIZER].contains(&&**file);
                if file != WEIGHTS && file != LABELS && !hub {
                    return invalid("sha256", "pins a file that is never loaded");
                }
                if digest.len() != 64 || !digest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                    return invalid("sha256", "a digest must be 64 hexadecimal digits");
                }
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

impl GrpcConfig for VisionConfig {
    fn socket(&self) -> &SocketConfig {
        &self.socket
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: fn(&mut VisionConfig), key: &str, sentence: &str) {
        let mut config = VisionConfig::default();
        change(&mut config);
        let error = config.validate().unwrap_err();
        assert_eq!(error.key, key);
        assert!(error.reason.contains(sentence), "{}", error.reason);
    }

    #[test]
    fn the_defaults_are_valid_and_every_limit_is_kept() {
        assert_eq!(VisionConfig::default().validate(), Ok(()));
        check(|c| c.engine.batch_rows_max = 0, "engine.batch_rows_max", "between 1 and 256");
        check(|c| c.images.side_max = 0, "images.side_max", "between 1 and 65535");
        check(|c| c.images.memory_bytes_max = 2048, "images.memory_bytes_max", "no full picture");
        check(|c| c.model.clear(), "model", "between 1 and 16");
        check(|c| c.model[0].name.clear(), "model[0].name", "1 to 128 bytes");
        check(|c| c.model.push(c.model[0].clone()), "model[1].name", "another model");
        check(|c| c.model[0].sha256.clear(), "model[0].sha256", "must pin");
        check(
            |c| drop(c.model[0].sha256.insert("x.pth".to_owned(), "0".repeat(64))),
            "model[0].sha256",
            "never loaded",
        );
        check(
            |c| drop(c.model[0].sha256.insert(CONFIG.to_owned(), "0".repeat(64))),
            "model[0].sha256",
            "never loaded",
        );
        let mut hub = VisionConfig::default();
        hub.model[0].architecture = Architecture::Clip;
        hub.model[0].sha256.insert(TOKENIZER.to_owned(), "0".repeat(64));
        assert_eq!(hub.validate(), Ok(()));
        check(
            |c| drop(c.model[0].sha256.insert(LABELS.to_owned(), "abc".to_owned())),
            "model[0].sha256",
            "64 hexadecimal digits",
        );
    }

    #[test]
    fn the_commented_file_says_what_the_code_does() {
        let text = include_str!("../../../../configs/vision.toml");
        let file: VisionConfig = toml::from_str(text).unwrap();
        assert_eq!(file, VisionConfig::default());
        // Every key is there, so that nobody has to read the code to find one.
        let all = toml::Table::try_from(VisionConfig::default()).unwrap();
        let given: toml::Table = text.parse().unwrap();
        for (section, keys) in all.iter().filter(|(_, keys)| keys.is_table()) {
            for key in keys.as_table().unwrap().keys() {
                assert!(given[section].get(key).is_some(), "{section}.{key} is not in the file");
            }
        }
    }
}
