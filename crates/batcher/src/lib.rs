//! From a caller to the model and back: permits at the door, a bounded queue with priorities and
//! ageing, and the one OS thread that owns a model and steps it.
//!
//! The way of a job: [`Batcher::permit`] (refused at once when full, with the measured drain rate)
//! -> [`Batcher::submit`] -> queue -> [`Model::admit`] between two steps -> [`Model::step`] until
//! the model finishes the job's [`Outlet`] -> the caller reads its [`Reply`].
//!
//! Architecture invariants: nothing here knows candle, tokens, HTTP or gRPC; a queue, a permit
//! count and every reply channel have a limit; nobody but the model thread ever touches the model.

mod batcher;
mod door;
mod model;
mod queue;
mod reply;
mod stats;
mod thread;

pub use batcher::{Batcher, BatcherConfig, BuildError, StartError, SubmitOptions};
pub use door::{Permit, Refused};
pub use model::{Model, StepOutcome};
pub use queue::Priority;
pub use reply::{Gone, Lost, Outlet, Reply, SendRefused};
pub use stats::Stats;

#[cfg(test)]
mod tests;
