//! The decoder: weights, apart from the state of sequences, and one forward pass over the rows of
//! many sequences at once.
//!
//! It knows tensors and block numbers. It must not know text, sampling, channels or who owns a
//! sequence; which rows come together is the scheduler's choice.

mod batch;
mod decoder;
mod load;
mod served;

pub use batch::{CacheKind, Caches, Logits, StepBatch};
pub use decoder::{BLOCK_TOKENS, Decoder};
pub use load::ModelError;
pub use served::quantization;
