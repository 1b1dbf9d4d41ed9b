//! What an operator may set: where the store lies, what it keeps and for how long, how the
//! scheduler runs. Every field has a default; `validate` names the field that is wrong.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// Directory of the database; made with mode 0700 when it is not there.
    pub dir: PathBuf,
    /// Threads that read, each with its own connection.
    pub readers: usize,
    /// Writes that may wait for the writer thread; more wait in their callers.
    pub write_queue_max: usize,
    /// Writes that one transaction takes at most.
    pub write_batch_max: usize,
    /// How long a caller waits for room in the write queue before it is refused, milliseconds.
    pub write_wait_ms_max: u64,
    /// How long ended jobs are kept.
    pub retention: Retention,
    /// Waiting this long lifts a job by one priority class, milliseconds.
    pub ageing_step_ms: u64,
    /// Events that a job may emit; its changes of state are always recorded.
    pub events_per_job_max: u64,
    /// Bytes of event data that a job may emit.
    pub event_bytes_per_job_max: u64,
    /// The database file may grow to this size, bytes; 0 = as far as the disk goes. Beyond it the
    /// store answers as for a full disk.
    pub bytes_max: u64,
    /// A database up to this size is checked when it is opened, bytes; a larger one is not.
    pub check_bytes_max: u64,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            dir: PathBuf::from("data"),
            readers: 2,
            write_queue_max: 1_024,
            write_batch_max: 512,
            write_wait_ms_max: 10_000,
            retention: Retention::default(),
            ageing_step_ms: 300_000,
            events_per_job_max: 10_000,
            event_bytes_per_job_max: 16 * 1024 * 1024,
            bytes_max: 0,
            check_bytes_max: 1024 * 1024 * 1024,
        }
    }
}

/// How long jobs are kept after they ended, milliseconds, by outcome. A job with an idempotency key
/// is kept at least as long as the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// Succeeded jobs and their results.
    pub succeeded_ms: u64,
    /// Failed jobs.
    pub failed_ms: u64,
    /// Cancelled jobs.
    pub cancelled_ms: u64,
    /// Expired jobs.
    pub expired_ms: u64,
}

impl Default for Retention {
    fn default() -> Self {
        const DAY_MS: u64 = 24 * 3_600_000;
        Self {
            succeeded_ms: DAY_MS,
            failed_ms: 7 * DAY_MS,
            cancelled_ms: DAY_MS,
            expired_ms: 7 * DAY_MS,
        }
    }
}

/// The scheduler.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SchedulerConfig {
    /// Jobs that run at the same time, all capabilities together.
    pub running_max: usize,
    /// Jobs that one claim takes.
    pub claim_max: usize,
    /// How long a claim holds without a heartbeat, milliseconds.
    pub lease_ms: u64,
    /// How often claims are renewed, milliseconds; at most a third of `lease_ms`.
    pub heartbeat_ms: u64,
    /// How often the store is looked at when nothing wakes the scheduler, milliseconds.
    pub poll_ms: u64,
    /// How often ended jobs past their retention are deleted, milliseconds.
    pub purge_ms: u64,
    /// How long an attempt may go on after it was told to stop, milliseconds; then it is dropped.
    pub cancel_grace_ms: u64,
    /// Wait before a retry.
    pub backoff: Backoff,
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        Self {
            running_max: 1_024,
            claim_max: 256,
            lease_ms: 90_000,
            heartbeat_ms: 30_000,
            poll_ms: 1_000,
            purge_ms: 60_000,
            cancel_grace_ms: 10_000,
            backoff: Backoff::default(),
        }
    }
}

/// Exponential backoff with jitter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Backoff {
    /// After the first failure, milliseconds; doubles with each more.
    pub base_ms: u64,
    /// The longest wait, milliseconds; a service's own `retry_after_ms` may be longer.
    pub cap_ms: u64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { base_ms: 500, cap_ms: 60_000 }
    }
}

/// A setting has an impossible value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {reason}")]
pub struct ConfigError {
    /// The field.
    pub key: &'static str,
    /// What is wrong with it.
    pub reason: &'static str,
}

fn require(holds: bool, key: &'static str, reason: &'static str) -> Result<(), ConfigError> {
    if holds { Ok(()) } else { Err(ConfigError { key, reason }) }
}

impl StoreConfig {
    /// The default settings with the store in `dir`.
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), ..Self::default() }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// Names the first field with an impossible value.
    pub fn validate(&self) -> Result<(), ConfigError> {
        require((1..=64).contains(&self.readers), "readers", "must be 1 to 64")?;
        let queue = (1..=1_000_000).contains(&self.write_queue_max);
        require(queue, "write_queue_max", "must be 1 to 1000000")?;
        let batch = (1..=100_000).contains(&self.write_batch_max);
        require(batch, "write_batch_max", "must be 1 to 100000")?;
        require(self.ageing_step_ms > 0, "ageing_step_ms", "must be more than 0")?;
        require(!self.dir.as_os_str().is_empty(), "dir", "must not be empty")
    }
}

impl SchedulerConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// Names the first field with an impossible value.
    pub fn validate(&self) -> Result<(), ConfigError> {
        require((1..=100_000).contains(&self.running_max), "running_max", "must be 1 to 100000")?;
        require((1..=10_000).contains(&self.claim_max), "claim_max", "must be 1 to 10000")?;
        require(self.heartbeat_ms > 0, "heartbeat_ms", "must be more than 0")?;
        let beats = self.heartbeat_ms.saturating_mul(3) <= self.lease_ms;
        require(beats, "heartbeat_ms", "must be at most a third of lease_ms")?;
        require((10..=60_000).contains(&self.poll_ms), "poll_ms", "must be 10 to 60000")?;
        require(self.purge_ms > 0, "purge_ms", "must be more than 0")?;
        require(self.backoff.base_ms > 0, "backoff.base_ms", "must be more than 0")?;
        let ordered = self.backoff.base_ms <= self.backoff.cap_ms;
        require(ordered, "backoff.cap_ms", "must be at least backoff.base_ms")
    }
}
