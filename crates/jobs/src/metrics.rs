//! Counters of a store, as plain numbers that whoever serves metrics can turn into its own form.

use std::sync::atomic::{AtomicU64, Ordering};

/// Upper bounds of the commit latency buckets, microseconds; one more bucket has no bound.
pub const COMMIT_US_BOUNDS: [u64; 14] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000,
];
/// Upper bounds of the batch size buckets, operations; one more bucket has no bound.
pub const BATCH_OPS_BOUNDS: [u64; 10] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512];

/// Counters since the store was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreMetrics {
    /// From the start of a transaction until it was durable, microseconds.
    pub commit_us: Histogram,
    /// Operations that shared a transaction.
    pub batch_ops: Histogram,
    /// Writes that wait for the writer now.
    pub write_queue: u64,
    /// Transactions that failed as a whole; their operations were then tried one by one.
    pub commit_failures: u64,
    /// What happened to jobs.
    pub tally: Tally,
}

/// A histogram with fixed bounds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histogram {
    /// Upper bounds, inclusive, ascending.
    pub bounds: Vec<u64>,
    /// Observations in each bucket (not cumulative); one more than bounds.
    pub counts: Vec<u64>,
    /// Sum of all observations.
    pub sum: u64,
}

impl Histogram {
    /// Number of observations.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

macro_rules! tally {
    ($($(#[$doc:meta])* $field:ident,)*) => {
        /// What happened to jobs, each counted once it was durable.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Tally { $($(#[$doc])* pub $field: u64,)* }

        #[derive(Debug, Default)]
        struct AtomicTally { $($field: AtomicU64,)* }

        impl AtomicTally {
            fn add(&self, tally: &Tally) {
                $(if tally.$field > 0 { self.$field.fetch_add(tally.$field, Ordering::Relaxed); })*
            }
            fn read(&self) -> Tally {
                Tally { $($field: self.$field.load(Ordering::Relaxed),)* }
            }
        }
    };
}

tally! {
    /// Jobs accepted.
    submitted,
    /// Submissions that gave the job of an earlier one.
    replayed,
    /// Claims.
    claimed,
    /// Jobs that ended with a result.
    succeeded,
    /// Jobs that ended with an error.
    failed,
    /// Jobs that were cancelled.
    cancelled,
    /// Jobs whose deadline passed.
    expired,
    /// Attempts after which another was scheduled.
    retried,
    /// Attempts given back.
    interrupted,
    /// Jobs taken back from a worker that was gone.
    rescued,
    /// Writes under a lease that was gone, dropped.
    stale,
    /// Events that executors recorded.
    emitted,
    /// Ended jobs deleted.
    purged,
}

/// The counters as a store keeps them.
#[derive(Debug)]
pub(crate) struct Counters {
    tally: AtomicTally,
    commit_us: AtomicHistogram<14>,
    batch_ops: AtomicHistogram<10>,
    commit_failures: AtomicU64,
}

impl Counters {
    pub(crate) fn new() -> Self {
        Self {
            tally: AtomicTally::default(),
            commit_us: AtomicHistogram::new(COMMIT_US_BOUNDS),
            batch_ops: AtomicHistogram::new(BATCH_OPS_BOUNDS),
            commit_failures: AtomicU64::new(0),
        }
    }

    pub(crate) fn add(&self, tally: &Tally) {
        self.tally.add(tally);
    }

    pub(crate) fn committed(&self, ops: u64, us: u64) {
        self.batch_ops.observe(ops);
        self.commit_us.observe(us);
    }

    pub(crate) fn commit_failed(&self) {
        self.commit_failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn read(&self, write_queue: u64) -> StoreMetrics {
        StoreMetrics {
            commit_us: self.commit_us.read(),
            batch_ops: self.batch_ops.read(),
            write_queue,
            commit_failures: self.commit_failures.load(Ordering::Relaxed),
            tally: self.tally.read(),
        }
    }
}

#[derive(Debug)]
struct AtomicHistogram<const N: usize> {
    bounds: [u64; N],
    counts: [AtomicU64; N],
    over: AtomicU64,
    sum: AtomicU64,
}

impl<const N: usize> AtomicHistogram<N> {
    fn new(bounds: [u64; N]) -> Self {
        let counts = std::array::from_fn(|_| AtomicU64::new(0));
        Self { bounds, counts, over: AtomicU64::new(0), sum: AtomicU64::new(0) }
    }

    fn observe(&self, value: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts.get(bucket).unwrap_or(&self.over).fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    fn read(&self) -> Histogram {
        let counts = self.counts.iter().chain(std::iter::once(&self.over));
        Histogram {
            bounds: self.bounds.to_vec(),
            counts: counts.map(|count| count.load(Ordering::Relaxed)).collect(),
            sum: self.sum.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_falls_into_the_first_bucket_that_holds_it() {
        let histogram = AtomicHistogram::new([1, 10]);
        for value in [0, 1, 2, 10, 11] {
            histogram.observe(value);
        }
        let read = histogram.read();
        assert_eq!((read.counts.clone(), read.sum, read.count()), (vec![2, 2, 1], 24, 5));
    }
}
