//! From the logits of one row to the next token: penalties, truncation, the draw,
//! log-probabilities.
//!
//! The order (docs/llm.md has the sources): logit bias, repetition penalty over the prompt and the
//! output, presence and frequency penalties over the output, the mask of a constraint, then greedy
//! choice at temperature 0, or temperature, top-k, top-p, min-p and the draw. It must not know
//! sequences, text or channels.

mod logprobs;
mod parameters;
mod penalties;
mod sampler;
#[cfg(test)]
mod tests;
mod truncation;

pub use logprobs::{TokenLogprob, top_logprobs};
pub use parameters::{LogprobsWanted, SamplingParameters};
pub use sampler::{SampleError, Sampled, Sampler, SamplerState};
