//! How much memory the process holds, asked of the kernel.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// Bytes of `/proc/self/statm`: seven numbers.
const STATM_BYTES_MAX: usize = 256;

/// `/proc/self/statm`, opened before the sandbox closes `/proc`.
#[derive(Debug)]
pub struct Memory {
    statm: File,
    page_bytes: u64,
}

impl Memory {
    /// Opens it.
    ///
    /// # Errors
    /// When `/proc` is not mounted, or closed to the process already.
    pub fn open() -> io::Result<Self> {
        let statm = File::open("/proc/self/statm")?;
        Ok(Self { statm, page_bytes: rustix::param::page_size() as u64 })
    }

    /// Memory in use and resident, bytes; 0 should the kernel not say.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        let mut text = [0_u8; STATM_BYTES_MAX];
        let read = self.statm.read_at(&mut text, 0).unwrap_or(0);
        let text = std::str::from_utf8(&text[..read]).unwrap_or("");
        let pages: u64 = text.split(' ').nth(1).and_then(|number| number.parse().ok()).unwrap_or(0);
        pages.saturating_mul(self.page_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_taken_shows() {
        let memory = Memory::open().unwrap();
        let before = memory.resident_bytes();
        let taken = vec![1_u8; 64 << 20];
        let after = memory.resident_bytes();
        assert!(before > 0 && after >= before + (32 << 20), "{before} -> {after}");
        drop(taken);
    }
}
