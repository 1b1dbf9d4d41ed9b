//! Figures that the model thread writes and anybody reads without waiting for it.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters and gauges of one model. All relaxed: each figure stands for itself.
#[derive(Debug, Default)]
pub struct Meters {
    prompt_tokens: AtomicU64,
    output_tokens: AtomicU64,
    rows: AtomicU64,
    kv_tokens_used: AtomicU64,
    slow_readers: AtomicU64,
}

/// The figures of a moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MetersNow {
    /// Prompt tokens computed.
    pub prompt_tokens: u64,
    /// Tokens sampled.
    pub output_tokens: u64,
    /// Rows of all steps: prompt tokens and decode rows.
    pub rows: u64,
    /// Tokens that the taken KV blocks have room for.
    pub kv_tokens_used: u64,
    /// Sequences given up because their reader was too slow.
    pub slow_readers: u64,
}

impl Meters {
    /// The figures now.
    #[must_use]
    pub fn now(&self) -> MetersNow {
        let read = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        MetersNow {
            prompt_tokens: read(&self.prompt_tokens),
            output_tokens: read(&self.output_tokens),
            rows: read(&self.rows),
            kv_tokens_used: read(&self.kv_tokens_used),
            slow_readers: read(&self.slow_readers),
        }
    }

    pub(super) fn prompt_done(&self, tokens: usize) {
        self.prompt_tokens.fetch_add(tokens as u64, Ordering::Relaxed);
    }

    pub(super) fn token_sampled(&self) {
        self.output_tokens.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn step_done(&self, rows: usize) {
        self.rows.fetch_add(rows as u64, Ordering::Relaxed);
    }

    pub(super) fn kv_used(&self, tokens: usize) {
        self.kv_tokens_used.store(tokens as u64, Ordering::Relaxed);
    }

    pub(super) fn slow_reader(&self) {
        self.slow_readers.fetch_add(1, Ordering::Relaxed);
    }
}
