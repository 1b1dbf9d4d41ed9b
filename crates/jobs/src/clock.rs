//! The wall clock that never goes back within a process: leases and backoffs compare its times.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// A clock; clones share what they have shown.
#[derive(Debug, Clone, Default)]
pub(crate) struct Clock {
    shown_ms: Arc<AtomicU64>,
}

impl Clock {
    /// Milliseconds since 1970; not less than any value shown before.
    pub(crate) fn now_ms(&self) -> u64 {
        let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        self.shown_ms.fetch_max(now_ms, Ordering::Relaxed).max(now_ms)
    }
}
