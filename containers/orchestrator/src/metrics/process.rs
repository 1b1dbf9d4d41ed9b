//! Figures of this process, read from files that are opened before the sandbox closes `/proc`.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::time::{SystemTime, UNIX_EPOCH};

use aisemble_service::memory::Memory;

use super::page::as_f64;

/// Open handles on `/proc/self`.
#[derive(Debug)]
pub struct ProcessFigures {
    memory: Memory,
    fds: Option<File>,
    started_s: f64,
}

impl ProcessFigures {
    /// Opens what `memory` does not: call it before the process is confined.
    #[must_use]
    pub fn open(memory: Memory) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let fds = File::open("/proc/self/fd").ok();
        Self { memory, fds, started_s: now.as_secs_f64() }
    }

    /// When the process started, seconds since 1970.
    pub(crate) fn started_s(&self) -> f64 {
        self.started_s
    }

    /// Resident memory, bytes.
    pub(crate) fn resident_bytes(&self) -> f64 {
        as_f64(self.memory.resident_bytes())
    }

    /// Open file descriptors: since Linux 6.2 the size of the directory that lists them.
    pub(crate) fn open_fds(&self) -> Option<f64> {
        let size = self.fds.as_ref()?.metadata().ok()?.size();
        (size > 0).then(|| as_f64(size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_files() {
        let figures = ProcessFigures::open(Memory::open().unwrap());
        assert!(figures.resident_bytes() > 1_000_000.0);
        assert!(figures.open_fds().unwrap() > 2.0);
    }
}
