//! Builds the tokio runtime of a process, after the sandbox is in force.

use tokio::runtime::{Builder, Runtime};

use crate::StartError;

/// Worker threads at most, whatever is configured.
pub const WORKER_THREADS_MAX: usize = 256;
/// Bytes of a thread's name that Linux keeps.
const THREAD_NAME_BYTES_MAX: usize = 15;

/// How many threads a runtime has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RuntimeConfig {
    /// Threads that run futures; 0 = as many as the process has cores (its cgroup's quota counted).
    pub worker_threads: usize,
    /// Threads for blocking calls at most; they are made when needed.
    pub blocking_threads_max: usize,
}

impl RuntimeConfig {
    /// For a process whose work is done by threads of its own: two workers carry the calls.
    pub const CARRIER: Self = Self { worker_threads: 2, blocking_threads_max: 8 };
}

/// Builds a runtime whose threads are called `NAME-io`.
///
/// # Errors
/// When a thread cannot be made.
pub fn build(name: &str, config: RuntimeConfig) -> Result<Runtime, StartError> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let workers = if config.worker_threads == 0 { cores } else { config.worker_threads };
    let stem: String =
        name.chars().filter(char::is_ascii).take(THREAD_NAME_BYTES_MAX - 3).collect();
    Builder::new_multi_thread()
        .worker_threads(workers.clamp(1, WORKER_THREADS_MAX))
        .max_blocking_threads(config.blocking_threads_max.max(1))
        .thread_name(format!("{stem}-io"))
        .enable_all()
        .build()
        .map_err(|source| {
            StartError::failed("the runtime cannot be built")
                .with_source(source)
                .with_hint("the limit on processes (pids, RLIMIT_NPROC) may be too low")
        })
}
