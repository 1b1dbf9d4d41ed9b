//! Configuration of a process: sections that all share, the layers they come from, the flags.
//!
//! It must not know what a service's own sections mean; a service brings its type as a
//! [`ServiceConfig`].

mod device;
mod error;
mod flags;
mod layers;
mod sections;
mod settings;
#[cfg(test)]
mod tests;

use serde::{Serialize, de::DeserializeOwned};

pub use device::{CpuOnly, NotTheCpu};
pub use error::{ConfigError, Origin};
pub(crate) use flags::{Flags, complain, print};
pub use layers::{Loaded, Sources, load};
pub use sections::{
    DEADLINE_MS_MAX, DeadlineMs, DrainConfig, LogConfig, LogLevel, PEER_UIDS_MAX, PeerUids,
    SOCKET_PATH_BYTES_MAX, SecretError, SecretFile, SocketConfig, SocketPath,
};

/// The exit code of a process whose configuration is wrong (`EX_CONFIG` of sysexits.h).
pub const EXIT_CONFIG: u8 = 78;
/// The exit code of a process that was called with unknown flags (`EX_USAGE` of sysexits.h).
pub const EXIT_USAGE: u8 = 64;

/// The configuration of one kind of process.
///
/// Every struct of it carries `#[serde(deny_unknown_fields, default)]` (a forgotten one is caught:
/// a key that does not come back out of the loaded value is refused too, which is why no field may
/// be skipped when it is set). Values that need a check are types whose `Deserialize` checks them.
pub trait ServiceConfig:
    Serialize + DeserializeOwned + Default + Clone + Send + Sync + 'static
{
    /// Checks what a single value's type cannot: rules between two keys.
    ///
    /// # Errors
    /// The key at fault and a sentence that says what is allowed.
    fn validate(&self) -> Result<(), InvalidConfig>;

    /// The section `[log]`.
    fn log(&self) -> &LogConfig;

    /// The section `[drain]`.
    fn drain(&self) -> &DrainConfig;

    /// The socket at which `--health` asks; none where the process speaks no gRPC.
    fn health_socket(&self) -> Option<&SocketPath> {
        None
    }

    /// The socket at which `--health` asks `GET /health`; none where the process speaks no HTTP
    /// there. It comes before [`Self::health_socket`].
    fn health_http_socket(&self) -> Option<&SocketPath> {
        None
    }
}

/// The configuration of a gRPC service on a Unix socket.
pub trait GrpcConfig: ServiceConfig {
    /// The section `[socket]`.
    fn socket(&self) -> &SocketConfig;
}

/// A rule of [`ServiceConfig::validate`] that is broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct InvalidConfig {
    /// The key at fault, dotted: `engine.kv_tokens_max`.
    pub key: String,
    /// What is wrong and what is allowed, lower-case, without a final period.
    pub reason: String,
}

impl InvalidConfig {
    /// `key` breaks a rule, and `reason` says which.
    pub fn new(key: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { key: key.into(), reason: reason.into() }
    }
}
