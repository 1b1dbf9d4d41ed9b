//! A model as Hugging Face has it: `config.json`, one or several safetensors files with an index,
//! `tokenizer.json` and what belongs to it. Files are mapped read-only, every header is checked
//! before it is used, and names become those of GGUF. It knows the files, not the layers.
//!
//! Format: <https://huggingface.co/docs/safetensors>

mod error;
pub mod limits;
mod names;
mod shard;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read as _;

use serde::Deserialize;

pub use error::SafetensorsError;

use crate::config::{ConfigError, ModelConfig};
use crate::error::LoadError;
use crate::family::Family;
use crate::gguf::TensorView;
use crate::source::{ModelSource, Quantise};
use crate::tokenizer::{HuggingFaceFiles, Tokenizer, TokenizerError};
use names::Meaning;
use shard::Shard;

/// The file of a model that is not spread.
const WEIGHTS: &str = "model.safetensors";
/// Which file has which tensor.
const INDEX: &str = "model.safetensors.index.json";
/// The shape.
const CONFIG: &str = "config.json";

/// An open model. Dropping it unmaps the weights: what was packed from them stays.
#[derive(Debug)]
pub struct SafetensorsModel {
    shards: Vec<Shard>,
    /// By GGUF name: the shard, and the name there.
    tensors: BTreeMap<String, (usize, String)>,
    config: ModelConfig,
    files: HuggingFaceFiles,
    quantise: Quantise,
}

/// Opens a file of the model's folder by its name, checked by whoever knows its digest; `None` when
/// there is none.
pub type OpenFile<'a> = dyn FnMut(&str) -> Result<Option<File>, std::io::Error> + 'a;

impl SafetensorsModel {
    /// Opens the files that `open` gives and reads their headers.
    ///
    /// # Errors
    /// [`SafetensorsError`] names the file or the tensor.
    pub fn open(open: &mut OpenFile<'_>, quantise: Quantise) -> Result<Self, SafetensorsError> {
        let config = read(open, CONFIG, limits::CONFIG_BYTES_MAX)?
            .ok_or_else(|| SafetensorsError::MissingFile { file: CONFIG.to_owned() })?;
        let family = family(&config)?;
        let (names, placed) = shard_names(open)?;
        let mut shards = Vec::with_capacity(names.len());
        let mut tensors = BTreeMap::new();
        for (index, file) in names.into_iter().enumerate() {
            let handle = open_file(open, &file)?
                .ok_or_else(|| SafetensorsError::MissingFile { file: file.clone() })?;
            let shard = Shard::open(&handle, &file)?;
            for name in shard.names() {
                let is_elsewhere =
                    placed.as_ref().is_some_and(|placed| placed.get(name) != Some(&file));
                if is_elsewhere {
                    let reason = "is not in the file that the index says";
                    return Err(SafetensorsError::Misplaced { name: name.to_owned(), reason });
                }
                let Some(known) = known(name, family)? else { continue };
                if tensors.insert(known, (index, name.to_owned())).is_some() {
                    let reason = "is there twice";
                    return Err(SafetensorsError::Misplaced { name: name.to_owned(), reason });
                }
            }
            if tensors.len() > limits::TENSORS_MAX {
                let (found, limit) = (tensors.len() as u64, limits::TENSORS_MAX as u64);
                return Err(SafetensorsError::Limit {
                    what: "number of tensors",
                    file,
                    found,
                    limit,
                });
            }
            shards.push(shard);
        }
        check_placed(placed.as_ref(), &shards)?;
        let files = tokenizer_files(open, &config)?;
        let has_output = tensors.contains_key("output.weight");
        let config = ModelConfig::from_huggingface(&config, has_output)
            .map_err(|source| SafetensorsError::Config { source })?;
        Ok(Self { shards, tensors, config, files, quantise })
    }
}

impl ModelSource for SafetensorsModel {
    fn config(&self) -> Result<ModelConfig, ConfigError> {
        Ok(self.config.clone())
    }

    fn tokenizer(&self) -> Result<Tokenizer, TokenizerError> {
        Tokenizer::from_huggingface(&self.files)
    }

    fn tensor(&self, name: &str) -> Result<TensorView<'_>, LoadError> {
        self.tensors
            .get(name)
            .and_then(|(shard, theirs)| self.shards.get(*shard)?.tensor(theirs))
            .ok_or_else(|| LoadError::Missing { name: name.to_owned() })
    }

    fn has_tensor(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    fn tensor_names(&self) -> Vec<&str> {
        self.tensors.keys().map(String::as_str).collect()
    }

    fn quantise(&self) -> Quantise {
        self.quantise
    }

    fn file_bytes(&self) -> u64 {
        self.shards.iter().map(Shard::file_bytes).sum()
    }

    fn format(&self) -> &'static str {
        "safetensors"
    }
}

/// The family, which says what names mean.
fn family(config: &[u8]) -> Result<Family, SafetensorsError> {
    // Everything else of the file is checked when it is known whether there is an output layer.
    let config = ModelConfig::from_huggingface(config, true);
    config.map(|config| config.family).map_err(|source| SafetensorsError::Config { source })
}

/// The GGUF name; `None` for what is not needed.
fn known(name: &str, family: Family) -> Result<Option<String>, SafetensorsError> {
    match names::meaning(name, family) {
        Meaning::Tensor(name) => Ok(Some(name)),
        Meaning::Derived => Ok(None),
        Meaning::Unknown => Err(SafetensorsError::UnknownTensor {
            name: name.to_owned(),
            architecture: family.huggingface_name().to_owned(),
        }),
    }
}

type Placed = BTreeMap<String, String>;

/// The files with tensors, and which tensor is where when an index says it.
fn shard_names(
    open: &mut OpenFile<'_>,
) -> Result<(BTreeSet<String>, Option<Placed>), SafetensorsError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: Placed,
    }
    let Some(index) = read(open, INDEX, limits::INDEX_BYTES_MAX)? else {
        return Ok((BTreeSet::from([WEIGHTS.to_owned()]), None));
    };
    let Index { weight_map } = serde_json::from_slice(&index)
        .map_err(|source| SafetensorsError::Json { file: INDEX.to_owned(), source })?;
    let names: BTreeSet<String> = weight_map.values().cloned().collect();
    if names.len() > limits::SHARDS_MAX || names.is_empty() {
        return Err(SafetensorsError::Limit {
            what: "number of files",
            file: INDEX.to_owned(),
            found: names.len() as u64,
            limit: limits::SHARDS_MAX as u64,
        });
    }
    let plain = |name: &String| {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        name.ends_with(".safetensors") && !name.starts_with('.') && name.chars().all(is_plain)
    };
    if let Some(found) = names.iter().find(|name| !plain(name)) {
        return Err(SafetensorsError::FileName { found: found.chars().take(256).collect() });
    }
    Ok((names, Some(weight_map)))
}

/// Every tensor that the index names is there. (That none is elsewhere was checked before.)
fn check_placed(placed: Option<&Placed>, shards: &[Shard]) -> Result<(), SafetensorsError> {
    let found: BTreeSet<&str> = shards.iter().flat_map(Shard::names).collect();
    let mut names = placed.into_iter().flat_map(BTreeMap::keys);
    match names.find(|name| !found.contains(name.as_str())) {
        None => Ok(()),
        Some(name) => Err(SafetensorsError::Misplaced {
            name: name.clone(),
            reason: "is not in the file that the index says",
        }),
    }
}

fn tokenizer_files(
    open: &mut OpenFile<'_>,
    config: &[u8],
) -> Result<HuggingFaceFiles, SafetensorsError> {
    const TOKENIZER: &str = "tokenizer.json";
    let tokenizer = read(open, TOKENIZER, limits::TOKENIZER_BYTES_MAX)?
        .ok_or_else(|| SafetensorsError::MissingFile { file: TOKENIZER.to_owned() })?;
    let tokenizer_bytes = limits::TOKENIZER_CONFIG_BYTES_MAX;
    Ok(HuggingFaceFiles {
        tokenizer,
        config: config.to_vec(),
        tokenizer_config: read(open, "tokenizer_config.json", tokenizer_bytes)?,
        generation_config: read(open, "generation_config.json", limits::CONFIG_BYTES_MAX)?,
        chat_template: read(open, "chat_template.jinja", limits::TEMPLATE_BYTES_MAX)?,
    })
}

fn open_file(open: &mut OpenFile<'_>, file: &str) -> Result<Option<File>, SafetensorsError> {
    open(file).map_err(|source| SafetensorsError::Read { file: file.to_owned(), source })
}

/// A small file as a whole; `None` when there is none.
fn read(
    open: &mut OpenFile<'_>,
    file: &str,
    limit: u64,
) -> Result<Option<Vec<u8>>, SafetensorsError> {
    let Some(handle) = open_file(open, file)? else { return Ok(None) };
    let mut bytes = Vec::new();
    let read = |source| SafetensorsError::Read { file: file.to_owned(), source };
    handle.take(limit + 1).read_to_end(&mut bytes).map_err(read)?;
    if bytes.len() as u64 > limit {
        let (file, found) = (file.to_owned(), bytes.len() as u64);
        return Err(SafetensorsError::Limit { what: "size in bytes", file, found, limit });
    }
    Ok(Some(bytes))
}
