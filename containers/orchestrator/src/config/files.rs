//! `[files]`: where the files of callers lie, and how much of them is kept.

use std::path::PathBuf;

use aisemble_service::InvalidConfig;
use serde::{Deserialize, Serialize};

/// `[files]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FilesConfig {
    /// The folder of contents; made when it is not there.
    pub dir: PathBuf,
    /// One file, bytes.
    pub file_bytes_max: u64,
    /// Files of one key.
    pub files_per_key_max: u64,
    /// Bytes of all files of one key.
    pub bytes_per_key_max: u64,
    /// The longest pause within an upload, milliseconds.
    pub idle_ms_max: u64,
    /// How often files whose time is over are deleted, milliseconds.
    pub purge_ms: u64,
}

impl Default for FilesConfig {
    fn default() -> Self {
        Self {
            dir: PathBuf::from("/files"),
            file_bytes_max: 1024 * 1024 * 1024,
            files_per_key_max: 10_000,
            bytes_per_key_max: 20 * 1024 * 1024 * 1024,
            idle_ms_max: 30_000,
            purge_ms: 60_000,
        }
    }
}

impl FilesConfig {
    pub(super) fn validate(&self) -> Result<(), InvalidConfig> {
        let above_zero = |key: &str, value: u64| {
            if value > 0 && i64::try_from(value).is_ok() {
                return Ok(());
            }
            Err(InvalidConfig::new(format!("files.{key}"), "must be more than 0"))
        };
        if self.dir.as_os_str().is_empty() {
            return Err(InvalidConfig::new("files.dir", "must not be empty"));
        }
        above_zero("file_bytes_max", self.file_bytes_max)?;
        above_zero("files_per_key_max", self.files_per_key_max)?;
        above_zero("bytes_per_key_max", self.bytes_per_key_max)?;
        above_zero("idle_ms_max", self.idle_ms_max)?;
        above_zero("purge_ms", self.purge_ms)
    }
}
