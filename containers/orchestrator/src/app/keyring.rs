//! The key file in memory, read again when it changes. A file that others may read, or that is
//! malformed, lets nobody in.

use std::os::unix::fs::MetadataExt as _;
use std::sync::{Mutex, PoisonError};

use aisemble_protocol::keys::{KeyFile, KeyFileError, KeyRecord};
use aisemble_service::SecretFile;
use aisemble_service::config::SecretError;

/// Keys of one file.
const KEYS_MAX: usize = 10_000;

/// The keys there are.
#[derive(Debug)]
pub struct Keyring {
    file: SecretFile,
    loaded: Mutex<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    stamp: Option<Stamp>,
    keys: KeyFile,
}

/// What changes when the file does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// The key file is not usable.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// It cannot be read, or others may read it.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// It is not a key file.
    #[error("the key file {path} is malformed: {reason}")]
    Malformed {
        /// The file.
        path: String,
        /// What is wrong; never a part of the file.
        reason: String,
    },
    /// Its pepper is malformed.
    #[error("the key file cannot be used")]
    Keys(#[from] KeyFileError),
}

impl Keyring {
    /// Reads the file.
    ///
    /// # Errors
    /// When it is not there, others may read it, or it is malformed.
    pub fn open(file: SecretFile) -> Result<Self, KeyringError> {
        let stamp = stamp(&file);
        let keys = read(&file)?;
        Ok(Self { file, loaded: Mutex::new(Loaded { stamp, keys }) })
    }

    /// The live record of the key of that id: for what it has left to be done in its absence.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub fn live(&self, id: &str, now_ms: u64) -> Result<Option<KeyRecord>, KeyringError> {
        // Reads the file again when it has changed.
        self.find("", now_ms)?;
        let loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let mut keys = loaded.keys.keys.iter();
        Ok(keys.find(|key| key.id == id && key.is_live(now_ms)).cloned())
    }

    /// The live record of the key, if there is one. Looks whether the file has changed: a
    /// microsecond.
    ///
    /// # Errors
    /// When the file has changed and is no longer usable: then nobody is let in.
    pub fn find(&self, key: &str, now_ms: u64) -> Result<Option<KeyRecord>, KeyringError> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = stamp(&self.file);
        if stamp.is_none() || loaded.stamp != stamp {
            loaded.stamp = None;
            loaded.keys = read(&self.file)?;
            loaded.stamp = stamp;
            tracing::info!(keys.count = loaded.keys.keys.len(), "the key file was read again");
        }
        Ok(loaded.keys.find(key, now_ms)?.cloned())
    }
}

fn stamp(file: &SecretFile) -> Option<Stamp> {
    let metadata = std::fs::metadata(file.path()).ok()?;
    Some(Stamp {
        inode: metadata.ino(),
        size: metadata.size(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    })
}

fn read(file: &SecretFile) -> Result<KeyFile, KeyringError> {
    let path = || file.path().display().to_string();
    let malformed = |reason: String| KeyringError::Malformed { path: path(), reason };
    let keys: KeyFile = serde_json::from_slice(&file.read()?).map_err(|error| {
        // serde_json's own text may quote the file.
        malformed(format!("not as expected at line {} column {}", error.line(), error.column()))
    })?;
    if keys.keys.len() > KEYS_MAX {
        let count = keys.keys.len();
        return Err(malformed(format!("it holds {count} keys; the limit is {KEYS_MAX}")));
    }
    keys.find("", 0)?;
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    use aisemble_protocol::keys::Scope;

    use super::*;

    fn write(path: &Path, keys: &KeyFile, mode: u32) {
        let beside = path.with_extension("new");
        fs::write(&beside, serde_json::to_vec(keys).unwrap()).unwrap();
        fs::set_permissions(&beside, fs::Permissions::from_mode(mode)).unwrap();
        fs::rename(&beside, path).unwrap();
    }

    #[test]
    fn a_changed_file_counts_at_once_and_a_bad_one_lets_nobody_in() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.json");
        let mut keys = KeyFile::generate().unwrap();
        let first = keys.create("first", &[Scope::Llm], 1, None).unwrap();
        write(&path, &keys, 0o600);
        let ring = Keyring::open(SecretFile::new(&path)).unwrap();
        assert_eq!(ring.find(first.reveal(), 5).unwrap().unwrap().name, "first");

        let second = keys.create("second", &[Scope::Jobs], 2, None).unwrap();
        keys.keys[0].revoked_at_ms = Some(3);
        write(&path, &keys, 0o600);
        assert!(ring.find(first.reveal(), 5).unwrap().is_none(), "revoked");
        assert_eq!(ring.find(second.reveal(), 5).unwrap().unwrap().name, "second");

        write(&path, &keys, 0o640);
        assert!(ring.find(second.reveal(), 5).is_err(), "others may read it");
        fs::write(&path, "{").unwrap();
        assert!(ring.find(second.reveal(), 5).is_err(), "malformed");
        fs::remove_file(&path).unwrap();
        assert!(ring.find(second.reveal(), 5).is_err(), "gone");
        write(&path, &keys, 0o600);
        assert!(ring.find(second.reveal(), 5).unwrap().is_some(), "and back");
    }

    #[test]
    fn a_file_that_others_may_read_stops_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.json");
        write(&path, &KeyFile::generate().unwrap(), 0o644);
        let error = Keyring::open(SecretFile::new(&path)).unwrap_err();
        assert!(error.to_string().contains("others may read it"), "{error}");
    }
}
