//! When the next attempt may start.

use rand::Rng;

use crate::config::Backoff;

/// Milliseconds to wait after the failure of `attempt` (from 1): half of the exponential step is
/// fixed and half drawn, so that jobs that failed together do not come back together. Never earlier
/// than `retry_after_ms`, which is respected beyond the cap.
pub(crate) fn wait_ms(
    backoff: &Backoff,
    attempt: u32,
    retry_after_ms: Option<u64>,
    random: &mut impl Rng,
) -> u64 {
    let doublings = attempt.saturating_sub(1).min(32);
    let step_ms = backoff.base_ms.saturating_mul(1 << doublings).min(backoff.cap_ms);
    let jittered_ms = step_ms / 2 + random.random_range(0..=step_ms - step_ms / 2);
    match retry_after_ms {
        // A day is enough for any service to say; more would be a defect of it.
        Some(after_ms) => {
            let after_ms = after_ms.min(24 * 3_600_000);
            after_ms + random.random_range(0..=step_ms / 4) + jittered_ms.saturating_sub(after_ms)
        }
        None => jittered_ms,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    proptest! {
        #[test]
        fn the_wait_grows_to_the_cap_and_respects_the_service(
            attempt in 1_u32..=u32::MAX, after in proptest::option::of(0_u64..100_000), seed: u64,
        ) {
            let backoff = Backoff::default();
            let waited = wait_ms(&backoff, attempt, after, &mut SmallRng::seed_from_u64(seed));
            let step = 500_u64.saturating_mul(1 << (attempt - 1).min(32)).min(60_000);
            prop_assert!(waited >= after.unwrap_or(0));
            prop_assert!(waited >= step / 2, "{waited} < {step} / 2");
            prop_assert!(waited <= step + after.unwrap_or(0) + step / 4);
        }
    }
}
