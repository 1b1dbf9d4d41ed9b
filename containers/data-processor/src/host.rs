//! Places for queries: how many run, how many wait, and one query from its order to its outcome,
//! whatever becomes of its process. It must not know gRPC's streams.

mod ending;
mod query;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use aisemble_protocol::{ApiError, ErrorCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::config::DataConfig;
use crate::fork::Forks;

pub use query::{Event, Query, Reporter};

/// A query's time when none has been measured yet, for saying when to come again.
const TYPICAL_MS: u64 = 500;
/// The shortest and longest time to come again, milliseconds.
const RETRY_MS: std::ops::RangeInclusive<u64> = 100..=60_000;

/// The processor as handlers see it.
#[derive(Debug)]
pub struct Host {
    config: DataConfig,
    forks: Arc<Forks>,
    places: Arc<Semaphore>,
    inside: watch::Sender<usize>,
    counts: Counts,
    threads: usize,
}

#[derive(Debug, Default)]
struct Counts {
    running: AtomicUsize,
    total: AtomicU64,
    cancelled: AtomicU64,
    /// Milliseconds that a query takes, smoothed.
    typical_ms: AtomicU64,
}

/// Figures of now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    /// Queries that run.
    pub running: usize,
    /// Queries that wait.
    pub waiting: usize,
    /// Queries that were taken.
    pub total: u64,
    /// Queries that were given up by their callers.
    pub cancelled: u64,
}

/// A query that is inside; counted until dropped.
#[derive(Debug)]
pub struct Inside {
    host: Arc<Host>,
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.host.inside.send_modify(|inside| *inside -= 1);
    }
}

/// A query that runs.
struct Running {
    host: Arc<Host>,
    _place: OwnedSemaphorePermit,
    since: std::time::Instant,
}

impl Drop for Running {
    fn drop(&mut self) {
        let counts = &self.host.counts;
        counts.running.fetch_sub(1, Ordering::Relaxed);
        let took = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        let before = counts.typical_ms.load(Ordering::Relaxed);
        let now = if before == 0 { took } else { (before * 7 + took) / 8 };
        counts.typical_ms.store(now, Ordering::Relaxed);
    }
}

impl Host {
    /// Places as the configuration says.
    #[must_use]
    pub fn new(config: DataConfig, forks: Arc<Forks>) -> Arc<Self> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = if config.workers.threads == 0 { cores } else { config.workers.threads };
        let places = Arc::new(Semaphore::new(config.workers.running_max));
        let (inside, counts) = (watch::Sender::new(0), Counts::default());
        Arc::new(Self { config, forks, places, inside, counts, threads })
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &DataConfig {
        &self.config
    }

    /// Figures of now.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let running = self.counts.running.load(Ordering::Relaxed);
        Figures {
            running,
            waiting: self.inside.borrow().saturating_sub(running),
            total: self.counts.total.load(Ordering::Relaxed),
            cancelled: self.counts.cancelled.load(Ordering::Relaxed),
        }
    }

    /// Takes a query in, to run or to wait.
    ///
    /// # Errors
    /// `overloaded` with when to come again.
    pub fn enter(self: &Arc<Self>) -> Result<Inside, ApiError> {
        let workers = &self.config.workers;
        let mut entered = false;
        self.inside.send_if_modified(|inside| {
            entered = *inside < workers.running_max + workers.queue_depth_max;
            *inside += usize::from(entered);
            entered
        });
        if entered {
            self.counts.total.fetch_add(1, Ordering::Relaxed);
            return Ok(Inside { host: Arc::clone(self) });
        }
        let inside = *self.inside.borrow();
        let message =
            format!("the data processor is busy: {inside} queries are running or waiting");
        Err(ApiError::new(ErrorCode::Overloaded, message).with_retry_after_ms(self.retry_ms()))
    }

    /// When a place is likely to be free: one is after a query's time, over all places.
    fn retry_ms(&self) -> u64 {
        let typical = match self.counts.typical_ms.load(Ordering::Relaxed) {
            0 => TYPICAL_MS,
            measured => measured,
        };
        let workers = &self.config.workers;
        let ahead = workers.queue_depth_max.max(1) as u64;
        let ms = typical.saturating_mul(ahead) / workers.running_max as u64;
        ms.clamp(*RETRY_MS.start(), *RETRY_MS.end())
    }

    /// Resolves when no query is inside.
    pub async fn idle(&self) {
        let mut inside = self.inside.subscribe();
        // The sender lives in `self`, so waiting ends only when none is inside.
        let _ = inside.wait_for(|inside| *inside == 0).await;
    }

    /// The file of a digest; names never become paths.
    fn blob(&self, sha256: &str) -> Option<PathBuf> {
        let plain = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if sha256.len() != 64 || !sha256.bytes().all(plain) {
            return None;
        }
        Some(self.config.files.blobs.join(&sha256[..2]).join(sha256))
    }

    /// Waits for a place to run.
    async fn place(self: &Arc<Self>) -> io::Result<Running> {
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(io::Error::other)?;
        self.counts.running.fetch_add(1, Ordering::Relaxed);
        let since = std::time::Instant::now();
        Ok(Running { host: Arc::clone(self), _place: place, since })
    }

    fn cancelled(&self) {
        self.counts.cancelled.fetch_add(1, Ordering::Relaxed);
    }

    /// The time that a query may take, of what it asks for.
    fn wall(&self, asked_ms: u64) -> Duration {
        let limit = self.config.limits.wall_ms_max;
        Duration::from_millis(if asked_ms == 0 { limit } else { asked_ms.min(limit) })
    }
}
