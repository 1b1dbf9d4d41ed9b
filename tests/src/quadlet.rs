//! Reads Quadlet units as the tests need them: keys and values by section, in order.

use std::fs;
use std::path::Path;

/// One unit file.
#[derive(Debug)]
pub struct Unit {
    entries: Vec<(String, String, String)>,
}

impl Unit {
    /// Reads the file.
    ///
    /// # Panics
    /// When it cannot be read, or a line is neither section, comment nor `Key=Value`.
    #[must_use]
    pub fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path);
        let text = text.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut section = String::new();
        let mut entries = Vec::new();
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                name.clone_into(&mut section);
            } else if let Some((key, value)) = line.split_once('=') {
                entries.push((section.clone(), key.to_owned(), value.to_owned()));
            } else {
                panic!("{}: not a unit's line: {line}", path.display());
            }
        }
        Self { entries }
    }

    /// All values of a key, in order.
    #[must_use]
    pub fn all(&self, section: &str, key: &str) -> Vec<&str> {
        let wanted = |entry: &&(String, String, String)| entry.0 == section && entry.1 == key;
        self.entries.iter().filter(wanted).map(|entry| entry.2.as_str()).collect()
    }

    /// The one value of a key.
    ///
    /// # Panics
    /// When the key is not there exactly once.
    #[must_use]
    pub fn one(&self, section: &str, key: &str) -> &str {
        match self.all(section, key)[..] {
            [value] => value,
            ref other => panic!("[{section}] {key}: {} values", other.len()),
        }
    }
}
