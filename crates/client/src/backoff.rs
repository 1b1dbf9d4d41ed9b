//! When to try again: exponential backoff with full jitter, the server's `Retry-After` first.

use std::time::Duration;

/// How often and how long a call is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts in all, the first included.
    pub attempts_max: u32,
    /// Upper end of the first pause.
    pub base: Duration,
    /// Upper end of any pause.
    pub cap: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { attempts_max: 4, base: Duration::from_millis(200), cap: Duration::from_secs(10) }
    }
}

impl RetryPolicy {
    /// One attempt and no more.
    pub const NEVER: Self =
        Self { attempts_max: 1, base: Duration::from_millis(1), cap: Duration::from_millis(1) };

    /// The pause after the failed attempt number `attempt` (from 1). The server's wish is met, with
    /// up to a tenth on top so that callers that were refused together do not return together.
    #[must_use]
    pub fn pause(&self, attempt: u32, retry_after: Option<Duration>) -> Duration {
        match retry_after {
            Some(wish) => wish + wish.mul_f64(0.1 * random_share()),
            None => self.ceiling(attempt).mul_f64(random_share()),
        }
    }

    /// Upper end of the pause after attempt number `attempt`.
    #[must_use]
    pub fn ceiling(&self, attempt: u32) -> Duration {
        let doublings = attempt.saturating_sub(1).min(31);
        self.base.saturating_mul(1_u32 << doublings).min(self.cap)
    }
}

/// Reads `Retry-After` as seconds. A date is not understood: our server sends none.
pub(crate) fn parse_retry_after(value: &str) -> Option<Duration> {
    value.trim().parse::<u32>().ok().map(|seconds| Duration::from_secs(u64::from(seconds)))
}

/// A number in [0, 1). Without randomness the pause is the longest one, which is safe.
fn random_share() -> f64 {
    match getrandom::u32() {
        Ok(number) => f64::from(number) / (f64::from(u32::MAX) + 1.0),
        Err(_) => 1.0,
    }
}

/// A fresh `Idempotency-Key`: 128 random bits.
pub(crate) fn idempotency_key() -> Option<String> {
    let (high, low) = (getrandom::u64().ok()?, getrandom::u64().ok()?);
    Some(format!("{high:016x}{low:016x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_cap_and_follow_the_server() {
        let policy = RetryPolicy::default();
        let ceilings: Vec<_> = (1..=8).map(|attempt| policy.ceiling(attempt).as_millis()).collect();
        assert_eq!(ceilings, [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert_eq!(policy.ceiling(u32::MAX), policy.cap);
        for attempt in 1..50 {
            assert!(policy.pause(attempt, None) <= policy.ceiling(attempt));
            let asked = policy.pause(attempt, Some(Duration::from_secs(3)));
            assert!(asked >= Duration::from_secs(3) && asked < Duration::from_millis(3301));
        }
        assert_eq!(parse_retry_after(" 7 "), Some(Duration::from_secs(7)));
        assert_eq!(parse_retry_after("Wed, 21 Oct 2015 07:28:00 GMT"), None);
    }
}
