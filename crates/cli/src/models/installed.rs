//! A model in the home: its file, and `model.json` beside it that says what it is.

use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::catalog::Catalog;
use crate::digest;
use crate::failure::{Exit, Failure, Outcome};
use crate::home::{Home, write_atomically};
use crate::terminal::Terminal;

const RECORD: &str = "model.json";
const RECORD_BYTES_MAX: u64 = 64 * 1024;

/// An installed model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Installed {
    /// What requests call it.
    pub name: String,
    /// Its file in its directory.
    pub file: String,
    /// The file's length.
    pub bytes: u64,
    /// The file's digest, lower-case hex.
    pub sha256: String,
    /// SPDX name of its licence.
    pub license: String,
    /// The digest was known before the file came.
    pub pinned: bool,
}

impl Installed {
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
        let is_plain = !model.file.contains('/') && !model.file.starts_with('.');
        if model.name != name || !is_plain {
            return Err(wrong());
        }
        Ok(Some(model))
    }

    /// The model of that name: as recorded, or as the catalogue describes the file that lies there
    /// (put there by hand or by an image). Its digest is not checked here.
    ///
    /// # Errors
    /// When its record cannot be read.
    pub fn find(home: &Home, catalog: &Catalog, name: &str) -> Outcome<Option<Self>> {
        let entry = catalog.get(name);
        if let Some(mut there) = Self::read(home, name)? {
            if let Some(entry) = entry {
                // The catalogue of this version has the last word on what the model must be.
                there.sha256.clone_from(&entry.sha256);
            }
            return Ok(Some(there).filter(|there| there.path(home).is_file()));
        }
        let Some(entry) = entry else { return Ok(None) };
        let there = Self {
            name: entry.name.clone(),
            file: entry.file.clone(),
            bytes: entry.bytes,
            sha256: entry.sha256.clone(),
            license: entry.license.clone(),
            pinned: true,
        };
        Ok(Some(there).filter(|there| there.path(home).is_file()))
    }

    /// Every installed model, by name.
    ///
    /// # Errors
    /// When the directory or a record cannot be read.
    pub fn all(home: &Home) -> Outcome<Vec<Self>> {
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
            models.extend(Self::read(home, &name)?);
        }
        Ok(models)
    }

    /// Writes the record.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn record(&self, home: &Home) -> Outcome<()> {
        let path = home.models().join(&self.name).join(RECORD);
        let text = serde_json::to_vec_pretty(self)
            .map_err(|error| Failure::new(Exit::Failed, "cannot encode JSON").because(error))?;
        write_atomically(&path, &text, 0o600)
    }

    /// Where the file lies.
    #[must_use]
    pub fn path(&self, home: &Home) -> PathBuf {
        home.models().join(&self.name).join(&self.file)
    }

    /// Computes the file's digest, with a progress bar.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn digest(&self, home: &Home, terminal: Terminal) -> Outcome<String> {
        let bar = terminal.bytes_bar(&format!("checking {}", self.name), self.bytes);
        let found = digest::sha256_file(&self.path(home), |read| bar.set_position(read));
        bar.finish_and_clear();
        found
    }
}
