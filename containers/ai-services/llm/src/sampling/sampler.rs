//! One token from one row of logits. The draw for the n-th token of a sequence depends on the seed
//! and on n alone, so neither the batch nor a recomputation changes what is drawn.

use aisemble_weights::kernels::Cpu;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{RngCore as _, SeedableRng as _};

use super::logprobs::{TokenLogprob, top_logprobs};
use super::parameters::{LogprobsWanted, SamplingParameters};
use super::penalties::SeenTokens;
use super::truncation::{self, Candidate};
use crate::constraint::{Constraint, ConstraintLost};

/// Words of the generator's stream that one draw uses (a `u64` is two of them).
const WORDS_PER_DRAW: u128 = 2;

/// A row of logits from which no token can be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SampleError {
    /// Every logit is NaN or infinite.
    #[error("the model gave no finite logit")]
    NoFiniteLogit,
    /// What the output must fit cannot be followed further: the form is too complex here.
    #[error(transparent)]
    Constraint(#[from] ConstraintLost),
}

/// A chosen token.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampled {
    /// The token.
    pub token: u32,
    /// Its log-probability and the likeliest alternatives, if wanted.
    pub logprobs: Option<(TokenLogprob, Vec<TokenLogprob>)>,
}

/// What sampling keeps of one sequence.
#[derive(Debug, Clone)]
pub struct SamplerState {
    parameters: SamplingParameters,
    wanted: LogprobsWanted,
    seen: SeenTokens,
    random: ChaCha12Rng,
    drawn: u64,
    constraint: Option<Constraint>,
}

impl SamplerState {
    /// At the end of `prompt`, with nothing generated.
    #[must_use]
    pub fn new(parameters: SamplingParameters, wanted: LogprobsWanted, prompt: &[u32]) -> Self {
        let seen = if parameters.penalises() {
            SeenTokens::of_prompt(prompt)
        } else {
            SeenTokens::default()
        };
        // The key is the seed itself, so no library's way of stretching seeds can change the
        // stream.
        let mut key = [0; 32];
        key[..8].copy_from_slice(&parameters.seed.to_le_bytes());
        let random = ChaCha12Rng::from_seed(key);
        Self { parameters, wanted, seen, random, drawn: 0, constraint: None }
    }

    /// Held to `constraint`, which is at its beginning.
    #[must_use]
    pub fn constrained(self, constraint: Option<Constraint>) -> Self {
        Self { constraint, ..self }
    }

    /// What the output is held to.
    #[must_use]
    pub fn constraint(&self) -> Option<&Constraint> {
        self.constraint.as_ref()
    }

    fn uniform(&mut self) -> f64 {
        self.random.set_word_pos(u128::from(self.drawn) * WORDS_PER_DRAW);
        // 53 bits: every double in [0, 1) of that grid is equally likely.
        (self.random.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Working memory for sampling, one for the model thread.
#[derive(Debug, Default)]
pub struct Sampler {
    changed: Vec<f32>,
    candidates: Vec<Candidate>,
}

impl Sampler {
    /// Chooses the next token of the sequence from `logits`, one for each token of the vocabulary.
    ///
    /// # Errors
    /// When there is no finite logit: the model is broken, not the request. When the constraint is
    /// too complex to be followed further.
    pub fn sample(
        &mut self,
        state: &mut SamplerState,
        logits: &[f32],
    ) -> Result<Sampled, SampleError> {
        let constrained = state.constraint.is_some();
        let token = if state.parameters.changes_logits() || constrained {
            let mut changed = std::mem::take(&mut self.changed);
            changed.clear();
            changed.extend_from_slice(logits);
            for &(token, bias) in &state.parameters.logit_bias {
                if let Some(logit) = changed.get_mut(token as usize) {
                    *logit += bias;
                }
            }
            if state.parameters.penalises() {
                state.seen.penalise(&state.parameters, &mut changed);
            }
            // After bias and penalties: nothing they do can let a wrong token in.
            let masked = state.constraint.as_mut().map_or(Ok(()), |one| one.mask(&mut changed));
            let token = masked.map(|()| self.choose(state, &changed));
            self.changed = changed;
            token?
        } else {
            self.choose(state, logits)
        };
        let token = token.ok_or(SampleError::NoFiniteLogit)?;
        if let Some(constraint) = &mut state.constraint {
            constraint.accept(token)?;
        }
        state.drawn += 1;
        if state.parameters.penalises() {
            state.seen.push(token);
        }
        let logprobs = match state.wanted {
            LogprobsWanted::No => None,
            LogprobsWanted::Top(top) => Some(top_logprobs(logits, token, top)),
        };
        Ok(Sampled { token, logprobs })
    }

    fn choose(&mut self, state: &mut SamplerState, logits: &[f32]) -> Option<u32> {
        if state.parameters.temperature == 0.0 || state.parameters.top_k == 1 {
            return likeliest(logits);
        }
        truncation::truncate(&state.parameters, logits, &mut self.candidates);
        let uniform = state.uniform();
        truncation::draw(&self.candidates, uniform)
    }
}

/// The token with the largest finite logit, the lowest of equals.
fn likeliest(logits: &[f32]) -> Option<u32> {
    // The kernel does not know that plus infinity is no choice; that is a broken model's.
    match Cpu::best().argmax(logits) {
        Some(at) if logits[at].is_finite() => Some(at as u32),
        Some(_) | None => likeliest_finite(logits),
    }
}

fn likeliest_finite(logits: &[f32]) -> Option<u32> {
    let mut best = None;
    let mut largest = f32::NEG_INFINITY;
    for (token, &logit) in logits.iter().enumerate() {
        if logit > largest && logit < f32::INFINITY {
            largest = logit;
            best = Some(token as u32);
        }
    }
    best
}
