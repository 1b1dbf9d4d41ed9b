//! Counters of one batcher, as plain numbers. It knows no metrics library.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A snapshot. Fields named `_total` only grow.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    /// Jobs that wait, by class, in the order of [`Priority::ALL`](crate::Priority::ALL).
    pub waiting: [usize; 3],
    /// How long the longest waiting one has waited.
    pub oldest_wait: Option<Duration>,
    /// Jobs in the model.
    pub running: usize,
    /// Places taken: at the door, waiting, running.
    pub inside: usize,
    /// Places there are.
    pub places: usize,
    /// Places that became free a second lately.
    pub drain_per_s: Option<f64>,
    /// Jobs let into the queue.
    pub submitted_total: u64,
    /// Jobs that the model took in.
    pub admitted_total: u64,
    /// Jobs whose answer is complete.
    pub finished_total: u64,
    /// Jobs that ended in another way: cancelled, expired, lost.
    pub unfinished_total: u64,
    /// Callers refused because every place was taken.
    pub refused_full_total: u64,
    /// Steps of the model.
    pub steps_total: u64,
    /// Rows of these steps: divided by `steps_total` the mean batch size.
    pub rows_total: u64,
    /// Time spent in steps.
    pub step_time_total: Duration,
    /// Time that admitted jobs had waited in the queue.
    pub queue_time_total: Duration,
    /// Panics of the model.
    pub panics_total: u64,
    /// False after too many panics in a row, and after a stop.
    pub healthy: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) submitted: AtomicU64,
    pub(crate) admitted: AtomicU64,
    pub(crate) steps: AtomicU64,
    pub(crate) rows: AtomicU64,
    pub(crate) step_ns: AtomicU64,
    pub(crate) queue_ns: AtomicU64,
    pub(crate) panics: AtomicU64,
}

impl Counters {
    pub(crate) fn step(&self, rows: usize, took: Duration) {
        self.steps.fetch_add(1, Ordering::Relaxed);
        self.rows.fetch_add(rows as u64, Ordering::Relaxed);
        self.step_ns.fetch_add(nanoseconds(took), Ordering::Relaxed);
    }

    pub(crate) fn admitted(&self, waited: Duration) {
        self.admitted.fetch_add(1, Ordering::Relaxed);
        self.queue_ns.fetch_add(nanoseconds(waited), Ordering::Relaxed);
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
