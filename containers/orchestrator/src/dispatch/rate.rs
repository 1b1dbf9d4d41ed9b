//! How fast work goes out: the measured drain rate behind `Retry-After`.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Completions that are remembered.
const REMEMBERED_MAX: usize = 64;
/// How far back they count.
const WINDOW: Duration = Duration::from_secs(60);
/// Longest wait that is named: clients obey `Retry-After` up to a minute.
const RETRY_MS_MAX: u64 = 60_000;
/// Shortest.
const RETRY_MS_MIN: u64 = 1_000;
/// When nothing has been measured.
const RETRY_MS_UNKNOWN: u64 = 5_000;

/// Remembers when the last pieces of work ended.
#[derive(Debug, Default)]
pub(super) struct Rate {
    ends: Mutex<VecDeque<Instant>>,
}

impl Rate {
    /// A piece of work ended.
    pub(super) fn ended(&self, now: Instant) {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        if ends.len() == REMEMBERED_MAX {
            ends.pop_front();
        }
        ends.push_back(now);
    }

    /// When `count` more pieces will have ended, at the rate of the last minute: milliseconds, 1 s
    /// to 60 s.
    pub(super) fn ms_until(&self, count: u64, now: Instant) -> u64 {
        let ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = || ends.iter().filter(|end| now.saturating_duration_since(**end) < WINDOW);
        let (measured, Some(oldest)) = (recent().count(), recent().next()) else {
            return RETRY_MS_UNKNOWN;
        };
        let span_ms = now.saturating_duration_since(*oldest).as_millis().max(1);
        let wait_ms = span_ms.saturating_mul(count.max(1).into()) / measured.max(1) as u128;
        u64::try_from(wait_ms).unwrap_or(RETRY_MS_MAX).clamp(RETRY_MS_MIN, RETRY_MS_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_follows_the_measured_rate_within_a_second_and_a_minute() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let rate = Rate::default();
        assert_eq!(rate.ms_until(1, at(0)), RETRY_MS_UNKNOWN);
        for second in 0..10 {
            rate.ended(at(second));
        }
        assert_eq!(rate.ms_until(5, at(10)), 5_000, "one a second");
        assert_eq!(rate.ms_until(0, at(10)), 1_000);
        assert_eq!(rate.ms_until(10_000, at(10)), 60_000);
        assert_eq!(rate.ms_until(1, at(1_000)), RETRY_MS_UNKNOWN, "too long ago");
    }
}
