//! What is computed in the next step: the sequences that wait and run, the KV blocks they own and
//! share, and the rows of each step. Pure data structures.
//!
//! It must not know tensors, text, sampling, channels, threads or clocks: tokens are numbers that
//! are compared, and durations come from outside.

mod blocks;
mod budget;
mod draft;
mod line;
mod plan;
mod scheduler;
#[cfg(test)]
mod tests;

pub use blocks::{BlockPool, BlockTable, PrefixRoot};
pub use line::Class;
pub(crate) use plan::DRAFTED_ROWS_MAX;
pub use plan::{Plan, PlannedRows};
pub use scheduler::{
    Footprint, NeverFits, OwnerKey, PrefixSharing, Request, Scheduler, SchedulerFigures,
    SchedulerLimits, SequenceKey,
};
