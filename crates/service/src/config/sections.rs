//! The sections that every process has, as checked types: a value that exists is a value that
//! works.

use std::fmt;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Bytes of a Unix socket's path: `sun_path` without its closing zero.
pub const SOCKET_PATH_BYTES_MAX: usize = 107;
/// Users besides our own that may connect.
pub const PEER_UIDS_MAX: usize = 64;
/// The longest drain, milliseconds (10 minutes).
pub const DEADLINE_MS_MAX: u64 = 600_000;
/// Bytes of a secret file.
const SECRET_BYTES_MAX: u64 = 1024 * 1024;

/// `[socket]`: where a service listens, and to whom it talks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SocketConfig {
    /// Path of the Unix socket.
    pub path: SocketPath,
    /// Users that may connect besides the one that the service runs as.
    #[serde(default)]
    pub peer_uids: PeerUids,
}

impl SocketConfig {
    /// The default of a service: `/run/ai-semble/NAME/NAME.sock`, no other users.
    ///
    /// # Panics
    /// When `name` is so long that the path would not fit; it is a constant of the service.
    #[must_use]
    pub fn of_service(name: &str) -> Self {
        let path = PathBuf::from(format!("/run/ai-semble/{name}/{name}.sock"));
        let path = SocketPath::try_from(path);
        #[expect(clippy::expect_used, reason = "the name is a constant of the service's own code")]
        let path = path.expect("a service's name leaves room for its socket's path");
        Self { path, peer_uids: PeerUids::default() }
    }
}

/// An absolute path that fits into a socket address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "PathBuf", into = "PathBuf")]
pub struct SocketPath(PathBuf);

impl SocketPath {
    /// The path.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        &self.0
    }

    /// The directory that the socket lies in.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.0.parent().unwrap_or(Path::new("/"))
    }
}

impl TryFrom<PathBuf> for SocketPath {
    type Error = String;

    fn try_from(path: PathBuf) -> Result<Self, String> {
        let bytes = path.as_os_str().len();
        if bytes > SOCKET_PATH_BYTES_MAX {
            return Err(format!(
                "the socket's path has {bytes} bytes, Linux takes at most {SOCKET_PATH_BYTES_MAX}; \
                 choose a shorter directory"
            ));
        }
        let plain = path.components().all(|part| !matches!(part, std::path::Component::ParentDir));
        if !path.is_absolute() || path.file_name().is_none() || !plain {
            return Err(format!(
                "the socket's path must be absolute, without `..`, and name a file, not {}",
                path.display()
            ));
        }
        if path.as_os_str().as_encoded_bytes().contains(&0) {
            return Err("the socket's path holds a zero byte".to_owned());
        }
        Ok(Self(path))
    }
}

impl From<SocketPath> for PathBuf {
    fn from(path: SocketPath) -> Self {
        path.0
    }
}

/// User ids, at most [`PEER_UIDS_MAX`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<u32>", into = "Vec<u32>")]
pub struct PeerUids(Vec<u32>);

impl PeerUids {
    /// The ids.
    #[must_use]
    pub fn as_slice(&self) -> &[u32] {
        &self.0
    }
}

impl TryFrom<Vec<u32>> for PeerUids {
    type Error = String;

    fn try_from(uids: Vec<u32>) -> Result<Self, String> {
        if uids.len() > PEER_UIDS_MAX {
            return Err(format!("{} user ids, at most {PEER_UIDS_MAX} are allowed", uids.len()));
        }
        Ok(Self(uids))
    }
}

impl From<PeerUids> for Vec<u32> {
    fn from(uids: PeerUids) -> Self {
        uids.0
    }
}

/// `[log]`: what is logged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// The least important lines that are still written.
    pub level: LogLevel,
}

/// Importance of a log line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Only what needs somebody.
    Error,
    /// And what may need somebody.
    Warn,
    /// And what happened.
    #[default]
    Info,
    /// And what a developer wants to know.
    Debug,
    /// Everything.
    Trace,
}

/// `[drain]`: how long running work may take after a stop was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DrainConfig {
    /// Milliseconds from the signal until the process ends whether work is done or not.
    pub deadline_ms: DeadlineMs,
}

/// Milliseconds, at most [`DEADLINE_MS_MAX`]; 0 waits for nothing. The default is 30 s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct DeadlineMs(u64);

impl DeadlineMs {
    /// As a duration.
    #[must_use]
    pub fn duration(self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0)
    }
}

impl Default for DeadlineMs {
    fn default() -> Self {
        Self(30_000)
    }
}

impl TryFrom<u64> for DeadlineMs {
    type Error = String;

    fn try_from(ms: u64) -> Result<Self, String> {
        if ms > DEADLINE_MS_MAX {
            return Err(format!("{ms} ms, at most {DEADLINE_MS_MAX} ms are allowed"));
        }
        Ok(Self(ms))
    }
}

impl From<DeadlineMs> for u64 {
    fn from(ms: DeadlineMs) -> Self {
        ms.0
    }
}

/// Path of a file that holds a secret: the only form in which configuration takes one. Keys of this
/// type are named `*_file` (or `file` in a section of their own).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretFile(PathBuf);

impl SecretFile {
    /// The secret of the file at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Reads the secret. The file must be a plain one that only its owner can read (0400 or 0600).
    ///
    /// # Errors
    /// When it cannot be read, others may read it, or it is over 1 MiB.
    pub fn read(&self) -> Result<Vec<u8>, SecretError> {
        let path = || self.0.clone();
        let read = |source| SecretError::Read { path: path(), source };
        // Without O_NONBLOCK a pipe laid in the file's place would hold the start for ever.
        let file = std::fs::OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&self.0)
            .map_err(read)?;
        let metadata = file.metadata().map_err(read)?;
        if !metadata.is_file() {
            return Err(SecretError::NotAFile { path: path() });
        }
        let mode = metadata.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(SecretError::Exposed { path: path(), mode });
        }
        let mut bytes = Vec::new();
        file.take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(read)?;
        if bytes.len() as u64 > SECRET_BYTES_MAX {
            return Err(SecretError::TooLarge { path: path(), bytes_max: SECRET_BYTES_MAX });
        }
        Ok(bytes)
    }
}

/// A secret file is not usable.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// It cannot be opened or read.
    #[error("the secret file {} cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is a directory, a pipe or a device.
    #[error("the secret {} is not a plain file", path.display())]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// Others than its owner may use it.
    #[error(
        "the secret file {} has mode {mode:04o}, others may read it; chmod 0400",
        path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is too large to be a secret.
    #[error("the secret file {} is over {bytes_max} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit, bytes.
        bytes_max: u64,
    },
}

impl fmt::Display for SocketPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        })
    }
}
