//! A model in the home: its files, and `model.json` beside them that says what they are.

use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::catalog::{Catalog, Entry, RECORD, check_file_name};
use crate::digest;
use crate::failure::{Exit, Failure, Outcome};
use crate::home::{Home, write_atomically};
use crate::terminal::Terminal;

const RECORD_BYTES_MAX: u64 = 64 * 1024;

/// An installed model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Record")]
pub struct Installed {
    /// What requests call it.
    pub name: String,
    /// The service that loads it.
    pub capability: String,
    /// What the service must know of it; empty = its files say.
    pub architecture: String,
    /// What it can do.
    pub tasks: Vec<String>,
    /// Its files, the weights first; never empty.
    pub files: Vec<InstalledFile>,
    /// SPDX name of its licence.
    pub license: String,
    /// The digests were known before the files came.
    pub pinned: bool,
}

/// One file of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstalledFile {
    /// Its name in the model's directory.
    pub file: String,
    /// Its length.
    pub bytes: u64,
    /// Its digest, lower-case hex.
    pub sha256: String,
}

/// A file that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// Where.
    pub path: PathBuf,
    /// The digest that it should have.
    pub expected: String,
    /// The digest that it has.
    pub found: String,
}

/// The record as it is on disk: of this version, or of the one before with its one file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    name: String,
    #[serde(default)]
    capability: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    tasks: Vec<String>,
    #[serde(default)]
    files: Vec<InstalledFile>,
    license: String,
    pinned: bool,
    file: Option<String>,
    bytes: Option<u64>,
    sha256: Option<String>,
}

impl From<Record> for Installed {
    fn from(record: Record) -> Self {
        let mut files = record.files;
        if let (Some(file), Some(bytes), Some(sha256)) = (record.file, record.bytes, record.sha256)
        {
            files.push(InstalledFile { file, bytes, sha256 });
        }
        let is_old = record.capability.is_empty();
        Self {
            name: record.name,
            capability: if is_old { "llm".to_owned() } else { record.capability },
            architecture: record.architecture,
            tasks: record.tasks,
            files,
            license: record.license,
            pinned: record.pinned,
        }
    }
}

impl Installed {
    /// What the catalogue's entry is, once it is installed.
    #[must_use]
    pub fn of_entry(entry: &Entry) -> Self {
        let file = |file: &crate::catalog::ModelFile| InstalledFile {
            file: file.to.clone(),
            bytes: file.bytes,
            sha256: file.sha256.clone(),
        };
        Self {
            name: entry.name.clone(),
            capability: entry.capability.clone(),
            architecture: entry.architecture.clone(),
            tasks: entry.tasks.clone(),
            files: entry.files.iter().map(file).collect(),
            license: entry.license.clone(),
            pinned: true,
        }
    }

    /// The model of that name, if it is installed.
    ///
    /// # Errors
    /// When its record cannot be read.
    pub fn read(home: &Home, name: &str) -> Outcome<Option<Self>> {
        let path = home.models().join(name).join(RECORD);
        let data = match fs::metadata(&path) {
            Ok(data) => data,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::file("read", &path, error)),
        };
        let wrong = || {
            Failure::new(Exit::Failed, format!("{} is not readable", path.display()))
                .hint(format!("ai-semble models pull --force {name}"))
        };
        if data.len() > RECORD_BYTES_MAX {
            return Err(wrong());
        }
        let text = fs::read(&path).map_err(|error| Failure::file("read", &path, error))?;
        let model: Self = serde_json::from_slice(&text).map_err(|error| wrong().because(error))?;
        let is_plain = model.files.iter().all(|file| check_file_name(&file.file).is_ok());
        if model.name != name || !is_plain || model.files.is_empty() {
            return Err(wrong());
        }
        Ok(Some(model))
    }

    /// The model of that name: as the catalogue describes it where it lists it, else as recorded.
    /// None when one of its files is not there. Digests are not checked here.
    ///
    /// # Errors
    /// When its record cannot be read.
    pub fn find(home: &Home, catalog: &Catalog, name: &str) -> Outcome<Option<Self>> {
        // The catalogue of this version has the last word on what the model must be.
        let there = match catalog.get(name) {
            Some(entry) => Some(Self::of_entry(entry)),
            None => Self::read(home, name)?,
        };
        let is_there =
            |model: &Self| model.files.iter().all(|file| model.file(home, file).is_file());
        Ok(there.filter(is_there))
    }

    /// Every installed model, by name: those with a record, and those of the catalogue whose files
    /// lie there (put there by hand or by an image).
    ///
    /// # Errors
    /// When the directory or a record cannot be read.
    pub fn all(home: &Home, catalog: &Catalog) -> Outcome<Vec<Self>> {
        let folder = home.models();
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Failure::file("read", &folder, error)),
        };
        let mut names: Vec<_> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| !name.starts_with('.'))
            .collect();
        names.sort();
        let mut models = Vec::new();
        for name in names {
            models.extend(Self::find(home, catalog, &name)?);
        }
        Ok(models)
    }

    /// Writes the record.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn record(&self, home: &Home) -> Outcome<()> {
        let path = self.folder(home).join(RECORD);
        let text = serde_json::to_vec_pretty(self)
            .map_err(|error| Failure::new(Exit::Failed, "cannot encode JSON").because(error))?;
        write_atomically(&path, &text, 0o600)
    }

    /// Its directory.
    #[must_use]
    pub fn folder(&self, home: &Home) -> PathBuf {
        home.models().join(&self.name)
    }

    /// Where one of its files lies.
    #[must_use]
    pub fn file(&self, home: &Home, file: &InstalledFile) -> PathBuf {
        self.folder(home).join(&file.file)
    }

    /// Where its weights lie.
    #[must_use]
    pub fn path(&self, home: &Home) -> PathBuf {
        self.files.first().map_or_else(|| self.folder(home), |file| self.file(home, file))
    }

    /// Digest of its weights.
    #[must_use]
    pub fn sha256(&self) -> &str {
        self.files.first().map_or("", |file| &file.sha256)
    }

    /// Bytes of all its files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Computes the digests of all its files, with a progress bar. None when all are right.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn damage(&self, home: &Home, terminal: Terminal) -> Outcome<Option<Damage>> {
        let bar = terminal.bytes_bar(&format!("checking {}", self.name), self.bytes());
        let mut before = 0;
        for file in &self.files {
            let path = self.file(home, file);
            let found = digest::sha256_file(&path, |read| bar.set_position(before + read))?;
            if found != file.sha256 {
                bar.finish_and_clear();
                return Ok(Some(Damage { path, expected: file.sha256.clone(), found }));
            }
            before += file.bytes;
        }
        bar.finish_and_clear();
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_the_version_before_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path());
        fs::create_dir_all(home.models().join("own")).unwrap();
        let sha256 = "0".repeat(64);
        let write = |text: &str| fs::write(home.models().join("own/model.json"), text).unwrap();
        write(&format!(
            r#"{{"name":"own","file":"a.gguf","bytes":3,"sha256":"{sha256}","license":"MIT","pinned":false}}"#
        ));
        let read = Installed::read(&home, "own").unwrap().unwrap();
        assert_eq!((read.capability.as_str(), read.files.len(), read.bytes()), ("llm", 1, 3));
        assert_eq!(read.path(&home), home.models().join("own/a.gguf"));
        read.record(&home).unwrap();
        assert_eq!(Installed::read(&home, "own").unwrap().unwrap(), read);
        for wrong in ["{}", r#"{"name":"own","license":"x","pinned":true}"#, "["] {
            write(wrong);
            assert!(Installed::read(&home, "own").unwrap_err().message.contains("not readable"));
        }
        let outside =
            r#"{"name":"own","file":"../a","bytes":3,"sha256":"","license":"x","pinned":true}"#;
        write(outside);
        assert!(Installed::read(&home, "own").is_err());
    }
}
