//! What is computed in the next step: the sequences that run, the KV blocks they own, and the rows
//! of each step. Pure data structures.
//!
//! It must not know tensors, tokens, sampling, channels, threads or clocks: who waits outside, and
//! in which order they come in, is the batcher's business.

mod blocks;
mod scheduler;
#[cfg(test)]
mod tests;

pub use blocks::{BlockPool, BlockTable};
pub use scheduler::{
    Footprint, NeverFits, Plan, PlannedRows, Scheduler, SchedulerLimits, SequenceKey,
};
