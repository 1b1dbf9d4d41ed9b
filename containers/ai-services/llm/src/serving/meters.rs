//! Figures that the model thread writes and anybody reads without waiting for it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::engine::SchedulerFigures;

/// Counters and gauges of one model. Each figure stands for itself.
#[derive(Debug, Default)]
pub struct Meters {
    prompt_tokens: AtomicU64,
    output_tokens: AtomicU64,
    rows: AtomicU64,
    slow_readers: AtomicU64,
    prompt_tokens_cached: AtomicU64,
    /// Held for a copy, never longer.
    scheduler: Mutex<SchedulerFigures>,
}

/// The figures of a moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MetersNow {
    /// Tokens of the prompts that were begun to be answered.
    pub prompt_tokens: u64,
    /// Those of them that were not computed but reused.
    pub prompt_tokens_cached: u64,
    /// Tokens sampled.
    pub output_tokens: u64,
    /// Rows of all steps: prompt tokens and decode rows.
    pub rows: u64,
    /// Sequences given up because their reader was too slow.
    pub slow_readers: u64,
    /// Who waits and runs, the KV blocks, preemptions, speculation.
    pub scheduler: SchedulerFigures,
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
            prompt_tokens_cached: read(&self.prompt_tokens_cached),
            slow_readers: read(&self.slow_readers),
            scheduler: *self.scheduler.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }

    pub(super) fn prompt_done(&self, tokens: usize, cached: usize) {
        self.prompt_tokens.fetch_add(tokens as u64, Ordering::Relaxed);
        self.prompt_tokens_cached.fetch_add(cached as u64, Ordering::Relaxed);
    }

    pub(super) fn token_sampled(&self) {
        self.output_tokens.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn step_done(&self, rows: usize) {
        self.rows.fetch_add(rows as u64, Ordering::Relaxed);
    }

    pub(super) fn scheduled(&self, figures: SchedulerFigures) {
        *self.scheduler.lock().unwrap_or_else(PoisonError::into_inner) = figures;
    }

    pub(super) fn slow_reader(&self) {
        self.slow_readers.fetch_add(1, Ordering::Relaxed);
    }
}
