//! The model thread's work: sequences that run, one step after the other.
//!
//! It joins what knows nothing of each other: the scheduler's plan, the decoder's logits, sampling,
//! text, and the batcher's outlets. It must not know gRPC or files.

mod meters;
mod sequence;
mod step;

pub use meters::{Meters, MetersNow};
pub use sequence::{Ending, FinishReason, Job, Piece, TokenPiece};
pub use step::{EngineLimits, ServingModel};
