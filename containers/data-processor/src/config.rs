//! The settings of the data processor: `configs/data-processor.toml` is the same with a comment on
//! each key, and a test compares them.

use std::path::PathBuf;

use aisemble_service::config::{LogConfig, SocketPath};
use aisemble_service::{DrainConfig, GrpcConfig, InvalidConfig, ServiceConfig, SocketConfig};
use serde::{Deserialize, Serialize};

/// Settings of one instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataConfig {
    /// `[files]`.
    pub files: FilesSection,
    /// `[workers]`.
    pub workers: WorkersSection,
    /// `[limits]`.
    pub limits: LimitsSection,
    /// `[socket]`.
    pub socket: SocketConfig,
    /// `[log]`.
    pub log: LogConfig,
    /// `[drain]`.
    pub drain: DrainConfig,
}

/// `[files]`: where tables come from and go to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FilesSection {
    /// The uploaded files, stored under their digests; read only.
    pub blobs: PathBuf,
    /// Where outputs are made.
    pub exchange: PathBuf,
}

/// `[workers]`: how many queries at the same time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WorkersSection {
    /// Queries that run.
    pub running_max: usize,
    /// Queries that wait.
    pub queue_depth_max: usize,
    /// Threads of one query; 0 = as many as the affinity mask and the CPU quota allow.
    pub threads: usize,
}

/// `[limits]`: what a query may take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsSection {
    /// Time, milliseconds.
    pub wall_ms_max: u64,
    /// Memory, bytes.
    pub memory_bytes_max: u64,
    /// Processor time, seconds.
    pub cpu_s_max: u64,
    /// The output file, bytes.
    pub output_bytes_max: u64,
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            files: FilesSection::default(),
            workers: WorkersSection::default(),
            limits: LimitsSection::default(),
            socket: SocketConfig::of_service("data-processor"),
            log: LogConfig::default(),
            drain: DrainConfig::default(),
        }
    }
}

impl Default for FilesSection {
    fn default() -> Self {
        Self { blobs: "/files/blobs".into(), exchange: "/files/incoming/data".into() }
    }
}

impl Default for WorkersSection {
    fn default() -> Self {
        Self { running_max: 2, queue_depth_max: 64, threads: 0 }
    }
}

impl Default for LimitsSection {
    fn default() -> Self {
        Self {
            wall_ms_max: 600_000,
            memory_bytes_max: 2 << 30,
            cpu_s_max: 3600,
            output_bytes_max: 10 << 30,
        }
    }
}

/// Key, value, smallest and largest.
type Range = (&'static str, u64, u64, u64);

impl ServiceConfig for DataConfig {
    fn validate(&self) -> Result<(), InvalidConfig> {
        let (workers, limits) = (&self.workers, &self.limits);
        let ranges: [Range; 7] = [
            ("workers.running_max", workers.running_max as u64, 1, 256),
            ("workers.queue_depth_max", workers.queue_depth_max as u64, 0, 65_536),
            ("workers.threads", workers.threads as u64, 0, 256),
            ("limits.wall_ms_max", limits.wall_ms_max, 1, 24 * 3_600_000),
            ("limits.memory_bytes_max", limits.memory_bytes_max, 64 << 20, 1 << 44),
            ("limits.cpu_s_max", limits.cpu_s_max, 1, 30 * 24 * 3600),
            ("limits.output_bytes_max", limits.output_bytes_max, 1, 1 << 44),
        ];
        for (key, value, low, high) in ranges {
            if value < low || value > high {
                let reason = format!("is {value}; it must be between {low} and {high}");
                return Err(InvalidConfig::new(key, reason));
            }
        }
        for (key, path) in
            [("files.blobs", &self.files.blobs), ("files.exchange", &self.files.exchange)]
        {
            if !path.is_absolute() || path.to_str().is_none() {
                return Err(InvalidConfig::new(key, "must be an absolute path in UTF-8"));
            }
        }
        Ok(())
    }

    fn log(&self) -> &LogConfig {
        &self.log
    }

    fn drain(&self) -> &DrainConfig {
        &self.drain
    }

    fn health_socket(&self) -> Option<&SocketPath> {
        Some(&self.socket.path)
    }
}

impl GrpcConfig for DataConfig {
    fn socket(&self) -> &SocketConfig {
        &self.socket
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: fn(&mut DataConfig), key: &str, sentence: &str) {
        let mut config = DataConfig::default();
        change(&mut config);
        let error = config.validate().unwrap_err();
        assert_eq!(error.key, key);
        assert!(error.reason.contains(sentence), "{}", error.reason);
    }

    #[test]
    fn the_defaults_are_valid_and_every_limit_is_kept() {
        assert_eq!(DataConfig::default().validate(), Ok(()));
        check(|c| c.workers.running_max = 0, "workers.running_max", "between 1 and 256");
        check(|c| c.limits.memory_bytes_max = 1, "limits.memory_bytes_max", "between 67108864");
        check(|c| c.files.blobs = "blobs".into(), "files.blobs", "absolute");
    }

    #[test]
    fn the_commented_file_says_what_the_code_does() {
        let text = include_str!("../../../configs/data-processor.toml");
        let file: DataConfig = toml::from_str(text).unwrap();
        assert_eq!(file, DataConfig::default());
        // Every key is there, so that nobody has to read the code to find one.
        let all = toml::Table::try_from(DataConfig::default()).unwrap();
        let given: toml::Table = text.parse().unwrap();
        for (section, keys) in &all {
            for key in keys.as_table().unwrap().keys() {
                assert!(given[section].get(key).is_some(), "{section}.{key} is not in the file");
            }
        }
    }
}
