//! Percentiles of measured times.

use std::time::Duration;

use serde::Serialize;

/// Times of one thing, milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) count: usize,
    pub(super) p50_ms: f64,
    pub(super) p95_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) max_ms: f64,
}

impl Spread {
    pub(super) fn of(mut times: Vec<f64>) -> Self {
        times.sort_by(f64::total_cmp);
        Self {
            count: times.len(),
            p50_ms: rank(&times, 50),
            p95_ms: rank(&times, 95),
            p99_ms: rank(&times, 99),
            max_ms: times.last().copied().unwrap_or(0.0),
        }
    }

    pub(super) fn cells(&self) -> Vec<String> {
        [self.p50_ms, self.p95_ms, self.p99_ms, self.max_ms]
            .iter()
            .map(|ms| format!("{ms:.3}"))
            .collect()
    }
}

/// Nearest-rank percentile of sorted values.
fn rank(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(0.0)
}

pub(super) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let spread = Spread::of((1..=200).rev().map(f64::from).collect());
        assert_eq!((spread.p50_ms, spread.p99_ms, spread.max_ms), (100.0, 198.0, 200.0));
        assert_eq!(Spread::of(vec![3.0]).p99_ms, 3.0);
        assert_eq!(Spread::of(Vec::new()).count, 0);
    }
}
