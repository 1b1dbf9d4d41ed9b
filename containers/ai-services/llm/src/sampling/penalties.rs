//! Which tokens a sequence has seen, and what that does to their logits. It knows counts, not text.

use std::collections::HashMap;

use super::parameters::SamplingParameters;

/// How often a token was seen.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    output: u32,
}

/// The tokens of one sequence.
#[derive(Debug, Clone, Default)]
pub(super) struct SeenTokens {
    tokens: HashMap<u32, Seen>,
}

impl SeenTokens {
    /// `prompt` counts for the repetition penalty only.
    pub(super) fn of_prompt(prompt: &[u32]) -> Self {
        Self { tokens: prompt.iter().map(|&token| (token, Seen::default())).collect() }
    }

    pub(super) fn push(&mut self, token: u32) {
        self.tokens.entry(token).or_default().output += 1;
    }

    /// Changes the logits of the tokens seen. Each token's change depends on nothing else, so the
    /// order in which the map gives them does not matter.
    pub(super) fn penalise(&self, parameters: &SamplingParameters, logits: &mut [f32]) {
        for (&token, seen) in &self.tokens {
            let Some(logit) = logits.get_mut(token as usize) else { continue };
            *logit = if *logit > 0.0 {
                *logit / parameters.repetition_penalty
            } else {
                *logit * parameters.repetition_penalty
            };
            if seen.output > 0 {
                *logit -= parameters.presence_penalty;
                *logit -= parameters.frequency_penalty * seen.output as f32;
            }
        }
    }
}
