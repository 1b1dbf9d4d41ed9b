//! The door's settings.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::Path;

use aisemble_service::config::{DrainConfig, InvalidConfig, LogConfig, ServiceConfig, SocketPath};
use serde::{Deserialize, Serialize};

/// Connections at once, whatever is configured.
const CONNECTIONS_MAX: usize = 65_536;

/// All settings.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where it listens.
    pub listen: ListenConfig,
    /// Whom it stands before.
    pub to: ToConfig,
    /// What it takes at most.
    pub limits: LimitsConfig,
    /// `[log]`.
    pub log: LogConfig,
    /// `[drain]`.
    pub drain: DrainConfig,
}

/// `[listen]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ListenConfig {
    /// Address and port. Any address: being reachable is what this process is for.
    pub address: SocketAddr,
}

impl Default for ListenConfig {
    fn default() -> Self {
        Self { address: ([0, 0, 0, 0], 8080).into() }
    }
}

/// `[to]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ToConfig {
    /// The orchestrator's socket (its `listen.socket`).
    pub socket: SocketPath,
}

impl Default for ToConfig {
    fn default() -> Self {
        Self { socket: aisemble_service::config::SocketConfig::of_service("http").path }
    }
}

/// `[limits]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Connections at once; one more is told to come again.
    pub connections_max: NonZeroUsize,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self { connections_max: const { NonZeroUsize::new(1_024).unwrap() } }
    }
}

impl Config {
    /// The socket behind the door.
    #[must_use]
    pub fn behind(&self) -> &Path {
        self.to.socket.as_path()
    }
}

impl ServiceConfig for Config {
    fn validate(&self) -> Result<(), InvalidConfig> {
        if self.limits.connections_max.get() > CONNECTIONS_MAX {
            let reason = format!("at most {CONNECTIONS_MAX}");
            return Err(InvalidConfig::new("limits.connections_max", reason));
        }
        Ok(())
    }

    fn log(&self) -> &LogConfig {
        &self.log
    }

    fn drain(&self) -> &DrainConfig {
        &self.drain
    }
}

#[cfg(test)]
mod tests {
    use super::Config;

    #[test]
    fn the_commented_file_is_the_default() {
        let text = include_str!("../../../configs/door.toml");
        assert_eq!(toml::from_str::<Config>(text).unwrap(), Config::default());
    }
}
