//! One output that follows its form: which tokens may come next, and what came. It must not know
//! how forms are compiled.

use llguidance::Matcher;

/// The form cannot be followed any further: its next mask takes more than the limits of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the form is too complex to be followed further")]
pub struct ConstraintLost;

/// The state of one sequence.
#[derive(Clone)]
pub struct Constraint {
    matcher: Matcher,
}

impl std::fmt::Debug for Constraint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Constraint").field("lost", &self.is_lost()).finish_non_exhaustive()
    }
}

impl Constraint {
    pub(super) fn new(matcher: Matcher) -> Self {
        Self { matcher }
    }

    /// Makes every token impossible (minus infinity) that does not fit; `logits` has one value for
    /// each token.
    ///
    /// # Errors
    /// [`ConstraintLost`]; the state is lost for good.
    pub fn mask(&mut self, logits: &mut [f32]) -> Result<(), ConstraintLost> {
        let mask = self.matcher.compute_mask_or_eos().map_err(|_complaint| ConstraintLost)?;
        let words = mask.as_slice();
        for (chunk, logits) in logits.chunks_mut(32).enumerate() {
            let word = words.get(chunk).copied().unwrap_or(0);
            if word == u32::MAX {
                continue;
            }
            for (bit, logit) in logits.iter_mut().enumerate() {
                if word >> bit & 1 == 0 {
                    *logit = f32::NEG_INFINITY;
                }
            }
        }
        Ok(())
    }

    /// `token`, which the last mask allowed, is the next one.
    ///
    /// # Errors
    /// [`ConstraintLost`]; the state is lost for good.
    pub fn accept(&mut self, token: u32) -> Result<(), ConstraintLost> {
        self.matcher.consume_token(token).map_err(|_complaint| ConstraintLost)
    }

    /// Whether the output is whole and nothing can follow.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.matcher.is_stopped() && !self.matcher.is_error()
    }

    /// Whether it could not be followed.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.matcher.is_error()
    }
}
