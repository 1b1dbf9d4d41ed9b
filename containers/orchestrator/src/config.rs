//! The orchestrator's settings: `configs/orchestrator.toml` is their commented default.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use aisemble_jobs::{SchedulerConfig, StoreConfig};
use aisemble_service::config::SocketPath;
use aisemble_service::{DrainConfig, InvalidConfig, LogConfig, SecretFile, ServiceConfig};
use serde::{Deserialize, Serialize};

use crate::capability::Capability;

mod files;

pub use files::FilesConfig;

/// Instances of one service.
pub const INSTANCES_MAX: usize = 64;

/// All settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where it listens when no socket is handed over.
    pub listen: ListenConfig,
    /// Who may call.
    pub keys: KeysConfig,
    /// The job store.
    pub store: StoreConfig,
    /// The job scheduler.
    pub jobs: SchedulerConfig,
    /// The files of callers.
    pub files: FilesConfig,
    /// Bounds of what is taken in.
    pub limits: LimitsConfig,
    /// The services.
    pub services: ServicesConfig,
    /// Logs.
    pub log: LogConfig,
    /// The end.
    pub drain: DrainConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: ListenConfig::default(),
            keys: KeysConfig::default(),
            store: StoreConfig::at("/var/lib/ai-semble"),
            jobs: SchedulerConfig::default(),
            files: FilesConfig::default(),
            limits: LimitsConfig::default(),
            services: ServicesConfig::default(),
            log: LogConfig::default(),
            drain: DrainConfig::default(),
        }
    }
}

/// `[listen]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListenConfig {
    /// Address and port, on the loopback interface. Not used when a socket is handed over
    /// (`LISTEN_FDS`): whoever hands it over chose the address.
    pub address: SocketAddr,
    /// A Unix socket (0660) on which HTTP is served too, and at which `--health` asks. With it, and
    /// no socket handed over, no port is opened at all.
    pub socket: Option<SocketPath>,
}

impl Default for ListenConfig {
    fn default() -> Self {
        Self { address: SocketAddr::from(([127, 0, 0, 1], 8080)), socket: None }
    }
}

/// `[keys]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeysConfig {
    /// The key file that `ai-semble keys` writes; read again when it changes.
    pub file: SecretFile,
}

impl Default for KeysConfig {
    fn default() -> Self {
        Self { file: SecretFile::new("/etc/ai-semble/keys.json") }
    }
}

/// `[limits]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// Open connections; one more is answered 503 and closed.
    pub connections_max: usize,
    /// From a connection's first byte (or the end of the answer before) to a request's whole head,
    /// milliseconds; also how long an idle connection is kept.
    pub head_ms_max: u64,
    /// From a request's head to the end of its body, milliseconds.
    pub body_ms_max: u64,
    /// Jobs of one capability that may wait; one more is answered 429.
    pub queued_jobs_max: u64,
    /// A call that keeps no job, or one attempt of a job without a deadline, milliseconds.
    pub generation_ms_max: u64,
    /// Completions of one `/v1` request: prompts times `n`.
    pub choices_max: usize,
    /// Time between two comments that keep an event stream open, milliseconds.
    pub keep_alive_ms: u64,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            connections_max: 1_024,
            head_ms_max: 10_000,
            body_ms_max: 15_000,
            queued_jobs_max: 10_000,
            generation_ms_max: 900_000,
            choices_max: 16,
            keep_alive_ms: 15_000,
        }
    }
}

impl LimitsConfig {
    /// `head_ms_max` as a duration.
    pub(crate) fn head_max(&self) -> Duration {
        Duration::from_millis(self.head_ms_max)
    }

    /// `body_ms_max` as a duration.
    pub(crate) fn body_max(&self) -> Duration {
        Duration::from_millis(self.body_ms_max)
    }

    /// `generation_ms_max` as a duration.
    pub(crate) fn generation_max(&self) -> Duration {
        Duration::from_millis(self.generation_ms_max)
    }

    /// `keep_alive_ms` as a duration.
    pub(crate) fn keep_alive(&self) -> Duration {
        Duration::from_millis(self.keep_alive_ms)
    }
}

/// `[services]`: the sockets of each service's instances. A capability without one is not offered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServicesConfig {
    /// Language models.
    pub llm: Vec<SocketPath>,
    /// Encoders: embeddings, ranks, labels, entities.
    pub nlp: Vec<SocketPath>,
    /// Images.
    pub vision: Vec<SocketPath>,
    /// Tables.
    pub data: Vec<SocketPath>,
}

impl Default for ServicesConfig {
    fn default() -> Self {
        let path = aisemble_service::SocketConfig::of_service("llm").path;
        Self { llm: vec![path], nlp: Vec::new(), vision: Vec::new(), data: Vec::new() }
    }
}

impl ServicesConfig {
    /// The sockets of a capability's instances.
    #[must_use]
    pub fn of(&self, capability: Capability) -> &[SocketPath] {
        match capability {
            Capability::Llm => &self.llm,
            Capability::Nlp => &self.nlp,
            Capability::Vision => &self.vision,
            Capability::Data => &self.data,
        }
    }

    /// The directories of all sockets, each once.
    #[must_use]
    pub fn directories(&self) -> Vec<PathBuf> {
        let all = Capability::ALL.into_iter().flat_map(|capability| self.of(capability));
        let mut all: Vec<_> = all.map(|path| path.directory().to_owned()).collect();
        all.sort();
        all.dedup();
        all
    }

    fn validate(&self) -> Result<(), InvalidConfig> {
        for capability in Capability::ALL {
            if self.of(capability).len() > INSTANCES_MAX {
                let key = format!("services.{}", capability.as_str());
                let reason = format!("must name at most {INSTANCES_MAX} sockets");
                return Err(InvalidConfig::new(key, reason));
            }
        }
        if Capability::ALL.into_iter().all(|capability| self.of(capability).is_empty()) {
            let reason = "must name at least one socket of one service";
            return Err(InvalidConfig::new("services", reason));
        }
        Ok(())
    }
}

impl ServiceConfig for Config {
    fn validate(&self) -> Result<(), InvalidConfig> {
        if !self.listen.address.ip().is_loopback() {
            let reason = "must be a loopback address; to be reachable from elsewhere, let systemd \
                          own the socket and hand it over";
            return Err(InvalidConfig::new("listen.address", reason));
        }
        self.services.validate()?;
        let section = |name: &str, error: aisemble_jobs::config::ConfigError| {
            InvalidConfig::new(format!("{name}.{}", error.key), error.reason)
        };
        self.store.validate().map_err(|error| section("store", error))?;
        self.jobs.validate().map_err(|error| section("jobs", error))?;
        self.files.validate()?;
        self.limits.validate()
    }

    fn health_http_socket(&self) -> Option<&SocketPath> {
        self.listen.socket.as_ref()
    }

    fn log(&self) -> &LogConfig {
        &self.log
    }

    fn drain(&self) -> &DrainConfig {
        &self.drain
    }
}

impl LimitsConfig {
    fn validate(&self) -> Result<(), InvalidConfig> {
        const DAY_MS: u64 = 24 * 3_600_000;
        let within = |key: &str, value: u64, low: u64, high: u64| {
            if (low..=high).contains(&value) {
                return Ok(());
            }
            Err(InvalidConfig::new(format!("limits.{key}"), format!("must be {low} to {high}")))
        };
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        within("connections_max", count(self.connections_max), 1, 65_536)?;
        within("head_ms_max", self.head_ms_max, 100, 600_000)?;
        within("body_ms_max", self.body_ms_max, 100, 600_000)?;
        within("queued_jobs_max", self.queued_jobs_max, 1, 10_000_000)?;
        within("generation_ms_max", self.generation_ms_max, 1_000, DAY_MS)?;
        within("choices_max", count(self.choices_max), 1, 256)?;
        within("keep_alive_ms", self.keep_alive_ms, 100, 600_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_in_configs_says_the_defaults() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../configs/orchestrator.toml");
        let text = std::fs::read_to_string(path).unwrap();
        let config: Config = toml::from_str(&text).unwrap();
        assert_eq!(config, Config::default());
        let written: toml::Table = text.parse().unwrap();
        let all = toml::Table::try_from(Config::default()).unwrap();
        for (section, keys) in &all {
            for key in keys.as_table().unwrap().keys() {
                assert!(written[section].get(key).is_some(), "{section}.{key} is not in the file");
            }
        }
    }

    #[test]
    fn a_wrong_value_is_named() {
        let check = |change: fn(&mut Config), key: &str| {
            let mut config = Config::default();
            change(&mut config);
            assert_eq!(config.validate().unwrap_err().key, key);
        };
        assert_eq!(Config::default().validate(), Ok(()));
        check(|c| c.listen.address = ([0, 0, 0, 0], 80).into(), "listen.address");
        check(|c| c.services.llm.clear(), "services");
        check(|c| c.services.nlp = vec![c.services.llm[0].clone(); 65], "services.nlp");
        check(|c| c.limits.connections_max = 0, "limits.connections_max");
        check(|c| c.jobs.poll_ms = 1, "jobs.poll_ms");
        check(|c| c.store.readers = 0, "store.readers");
    }
}
