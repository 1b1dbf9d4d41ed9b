//! Threads that compute.

use std::num::NonZeroUsize;

use crate::cpu::Cpu;
use crate::error::KernelError;

/// A pool of computing threads, the caller being one of them.
#[derive(Debug)]
pub struct Pool {
    threads: usize,
    cpu: Cpu,
}

impl Pool {
    /// Threads of a pool at most.
    pub const THREADS_MAX: usize = 256;

    /// A pool with the machine's best instruction set. `threads` counts the caller; `None` takes
    /// what the affinity mask and the cgroup's CPU quota allow. Makes the threads; nothing later
    /// does.
    ///
    /// # Errors
    /// [`KernelError`] for a count out of range or when a thread is refused.
    pub fn new(threads: Option<usize>) -> Result<Self, KernelError> {
        Self::with_cpu(threads, Cpu::best())
    }

    /// [`Pool::new`] with a given instruction set.
    ///
    /// # Errors
    /// As [`Pool::new`].
    pub fn with_cpu(threads: Option<usize>, cpu: Cpu) -> Result<Self, KernelError> {
        let default = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let threads = threads.unwrap_or_else(default);
        if threads == 0 || threads > Self::THREADS_MAX {
            return Err(KernelError::Threads { threads, max: Self::THREADS_MAX });
        }
        Ok(Self { threads, cpu })
    }

    /// Threads that compute, the caller included.
    #[must_use]
    pub const fn threads(&self) -> usize {
        self.threads
    }

    /// The instruction set in use.
    #[must_use]
    pub const fn cpu(&self) -> Cpu {
        self.cpu
    }
}
