//! The model thread's work: windows of several requests in one forward pass, without padding.
//!
//! Requests take turns, window by window, so a short one is not behind a long one. It must not know
//! texts, tasks or gRPC.

mod meters;
mod step;

use std::time::{Duration, Instant};

pub use meters::{Meters, MetersNow};
pub use step::ServingModel;

use crate::heads::Output;

/// A sequence to compute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// Token ids, special ones included; at least one, each in the model's vocabulary, no more than
    /// the model takes.
    pub ids: Vec<u32>,
    /// Where the second text begins, if there are two.
    pub second_from: Option<usize>,
}

/// A request, checked and turned into windows.
#[derive(Debug)]
pub struct Job {
    /// Which of the instance's models.
    pub model: usize,
    /// At least one.
    pub windows: Vec<Input>,
    /// When the request came.
    pub since: Instant,
}

/// What a reader gets, in this order: `Started`, windows (each once), `Finished`.
#[derive(Debug, Clone, PartialEq)]
pub enum Piece {
    /// The first batch with a window of the request begins.
    Started {
        /// How long it waited.
        queued: Duration,
    },
    /// Windows that are done: their numbers and outputs.
    Windows(Vec<(usize, Output)>),
    /// All windows are done.
    Finished {
        /// Since `Started`.
        compute: Duration,
        /// Forward passes that had a window of the request.
        batches: u32,
    },
}
