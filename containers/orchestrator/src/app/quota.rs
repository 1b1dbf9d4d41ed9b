//! How often each key may ask for work: a bucket a key, filled at the key's own rate.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use aisemble_protocol::{ApiError, ErrorCode};

use super::{App, Caller};

/// What a bucket holds, as the time in which it is filled.
const BURST: Duration = Duration::from_secs(60);

/// The buckets of the keys that have a limit. There are no more than keys in the file.
#[derive(Debug, Default)]
pub(crate) struct Quotas {
    buckets: Mutex<HashMap<String, Bucket>>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    per_minute: u32,
    requests: f64,
    at: Instant,
}

impl Quotas {
    /// Takes one request of a key that may make `per_minute`; else says when there is one.
    fn take(&self, key_id: &str, per_minute: u32, now: Instant) -> Result<(), Duration> {
        let (rate, full) = (f64::from(per_minute) / BURST.as_secs_f64(), f64::from(per_minute));
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || Bucket { per_minute, requests: full, at: now };
        let bucket = buckets.entry(key_id.to_owned()).or_insert_with(fresh);
        if bucket.per_minute != per_minute {
            *bucket = fresh();
        }
        let passed_s = now.saturating_duration_since(bucket.at).as_secs_f64();
        bucket.requests = (bucket.requests + passed_s * rate).min(full);
        bucket.at = now;
        if bucket.requests < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - bucket.requests) / rate.max(1e-3)));
        }
        bucket.requests -= 1.0;
        Ok(())
    }
}

impl App {
    /// Counts a request for work against the key's own limit.
    ///
    /// # Errors
    /// `overloaded` when the key has made as many as it may, with when the next one is free.
    pub fn count_request(&self, caller: &Caller) -> Result<(), ApiError> {
        let Some(per_minute) = caller.limits.requests_per_minute else { return Ok(()) };
        self.quotas.take(&caller.key_id, per_minute, Instant::now()).map_err(|wait| {
            let message = format!("this key may make {per_minute} requests a minute");
            let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            ApiError::new(ErrorCode::Overloaded, message).with_retry_after_ms(wait_ms.max(1))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_a_minute_and_says_when_there_is_more() {
        let quotas = Quotas::default();
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        for _ in 0..30 {
            quotas.take("a", 30, start).unwrap();
        }
        let wait = quotas.take("a", 30, at(500)).unwrap_err();
        assert_eq!(wait.as_millis(), 1_500, "one every two seconds");
        quotas.take("b", 30, at(500)).unwrap();
        quotas.take("a", 30, at(2_000)).unwrap();
        assert!(quotas.take("a", 30, at(2_000)).is_err());
        quotas.take("a", 60, at(2_000)).unwrap();
        for _ in 0..30 {
            quotas.take("b", 30, at(10_000_000)).unwrap();
        }
        assert!(quotas.take("b", 30, at(10_000_000)).is_err(), "never more than a minute's");
    }
}
