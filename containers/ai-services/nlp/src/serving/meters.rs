//! Figures of the model thread, readable from any other.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters; they only grow.
#[derive(Debug, Default)]
pub struct Meters {
    windows: AtomicU64,
    tokens: AtomicU64,
}

/// A reading of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MetersNow {
    /// Windows computed.
    pub windows: u64,
    /// Tokens computed.
    pub tokens: u64,
}

impl Meters {
    /// The figures of this moment.
    #[must_use]
    pub fn now(&self) -> MetersNow {
        MetersNow {
            windows: self.windows.load(Ordering::Relaxed),
            tokens: self.tokens.load(Ordering::Relaxed),
        }
    }

    pub(super) fn step_done(&self, windows: usize, tokens: usize) {
        self.windows.fetch_add(windows as u64, Ordering::Relaxed);
        self.tokens.fetch_add(tokens as u64, Ordering::Relaxed);
    }
}
