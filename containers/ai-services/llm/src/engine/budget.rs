//! How many prompt tokens a step may have beside sequences that decode, so that those who read
//! along notice little: learnt from how long steps took. It knows rows and durations, no clock.

use std::time::Duration;

/// Weight of the newest observation in a mean.
const NEWEST: f64 = 0.15;
/// Prompt tokens beside decoding ones at least: a prompt must come to its end.
const TOKENS_MIN: usize = 8;
/// Rows that the kernels take together: a step is filled up to whole groups of them.
const GROUP_ROWS: usize = 8;

/// A mean that follows.
#[derive(Debug, Clone, Copy, Default)]
struct Mean(Option<f64>);

impl Mean {
    fn take(&mut self, value: f64) {
        self.0 = Some(self.0.map_or(value, |mean| mean + (value - mean) * NEWEST));
    }
}

/// What steps cost on this machine.
#[derive(Debug)]
pub(super) struct PrefillBudget {
    tokens_max: usize,
    /// How much longer a step may take than one that only decodes: 0.5 is half as long again.
    /// `None`: as long as `tokens_max` takes.
    extra_max: Option<f64>,
    /// Seconds of a step that only decodes, by its rows.
    decode: Vec<Mean>,
    /// Seconds that a prompt token adds.
    token: Mean,
}

impl PrefillBudget {
    /// `slowdown_percent_max`: a step with prompt tokens may take this percentage of one without;
    /// 0 = no matter how long.
    pub(super) fn new(tokens_max: usize, slowdown_percent_max: u32, rows_max: usize) -> Self {
        let extra = f64::from(slowdown_percent_max.saturating_sub(100)) / 100.0;
        Self {
            tokens_max,
            extra_max: (slowdown_percent_max > 0).then_some(extra),
            decode: vec![Mean::default(); rows_max + 1],
            token: Mean::default(),
        }
    }

    /// A step with `decoding` rows and `prompt` tokens took `took`.
    pub(super) fn observe(&mut self, decoding: usize, prompt: usize, took: Duration) {
        if decoding == 0 || self.extra_max.is_none() {
            return;
        }
        let seconds = took.as_secs_f64();
        if prompt == 0 {
            if let Some(mean) = self.decode.get_mut(decoding) {
                mean.take(seconds);
            }
        } else if let Some(alone) = self.alone(decoding) {
            self.token.take((seconds - alone).max(0.0) / prompt as f64);
        }
    }

    /// Prompt tokens beside `decoding` rows.
    pub(super) fn tokens(&self, decoding: usize) -> usize {
        let Some(extra) = self.extra_max else { return self.tokens_max };
        let (Some(alone), Some(token)) = (self.alone(decoding), self.token.0) else {
            return self.tokens_max.min(TOKENS_MIN * 2);
        };
        let affordable = (alone * extra / token.max(1e-9)) as usize;
        let rows = (decoding + affordable) / GROUP_ROWS * GROUP_ROWS;
        rows.saturating_sub(decoding).max(TOKENS_MIN).min(self.tokens_max)
    }

    /// What a step of `decoding` rows takes without prompts: measured, or that of fewer rows, or
    /// of more.
    fn alone(&self, decoding: usize) -> Option<f64> {
        let at = decoding.min(self.decode.len() - 1);
        let below = self.decode[..=at].iter().rev().find_map(|mean| mean.0);
        below.or_else(|| self.decode[at..].iter().find_map(|mean| mean.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: f64) -> Duration {
        Duration::from_secs_f64(ms / 1e3)
    }

    #[test]
    fn the_budget_is_what_the_slowdown_allows() {
        let mut budget = PrefillBudget::new(64, 200, 16);
        assert_eq!(budget.tokens(1), 16, "nothing is known yet");
        for _ in 0..50 {
            budget.observe(1, 0, ms(4.0));
            budget.observe(1, 16, ms(4.0 + 16.0 * 0.25));
        }
        // 4 ms more are 16 tokens; with the decoding row, whole groups of 8 are 15 and one.
        assert_eq!(budget.tokens(1), 15);
        assert_eq!(budget.tokens(16), 16, "as for the fewer rows that were measured");
        for _ in 0..50 {
            budget.observe(16, 0, ms(20.0));
        }
        assert_eq!(budget.tokens(16), 64, "80 are affordable, 64 allowed");
        assert_eq!(budget.tokens(1), 15);
    }

    #[test]
    fn without_a_limit_the_largest_chunk_is_taken_whatever_it_costs() {
        let mut budget = PrefillBudget::new(48, 0, 4);
        budget.observe(1, 0, ms(1.0));
        budget.observe(1, 8, ms(100.0));
        assert_eq!(budget.tokens(1), 48);
    }

    #[test]
    fn a_prompt_gets_on_even_when_it_costs_too_much() {
        let mut budget = PrefillBudget::new(64, 150, 4);
        budget.observe(2, 0, ms(1.0));
        budget.observe(2, 8, ms(900.0));
        assert_eq!(budget.tokens(2), TOKENS_MIN);
        // A step that was quicker than expected does not make prompts free of charge.
        budget.observe(2, 8, ms(0.1));
        assert!(budget.tokens(2) <= 64);
    }
}
