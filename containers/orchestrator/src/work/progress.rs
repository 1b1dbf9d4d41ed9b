//! How far a job is, recorded as events `progress`: few enough that a job of any length stays
//! within what it may record.

use std::time::{Duration, Instant};

use aisemble_jobs::{EventSink, JobFailure, JobsError};
use serde_json::Value;

use super::attempt::cancelled;

/// Shortest time between two events, and before the first: what is done sooner needs none.
const PAUSE_MIN: Duration = Duration::from_millis(500);
/// Each event lengthens the time to the next by this part, so that a job of days records hundreds.
const STRETCH: u32 = 32;

/// Records progress.
#[derive(Debug)]
pub(super) struct Progress {
    events: EventSink,
    last: Instant,
    pause: Duration,
}

impl Progress {
    pub(super) fn new(events: EventSink) -> Self {
        Self { events, last: Instant::now(), pause: PAUSE_MIN }
    }

    /// Records `data` unless the last event is too fresh.
    ///
    /// # Errors
    /// `cancelled` when the lease is lost: nobody wants the result any more.
    pub(super) async fn note(&mut self, data: impl FnOnce() -> Value) -> Result<(), JobFailure> {
        if self.last.elapsed() < self.pause {
            return Ok(());
        }
        self.last = Instant::now();
        self.pause += self.pause / STRETCH;
        match self.events.emit("progress", data()).await {
            Ok(_) => Ok(()),
            Err(JobsError::LeaseLost { .. }) => Err(cancelled()),
            Err(error) => {
                tracing::debug!("progress of a job was not recorded: {error}");
                Ok(())
            }
        }
    }
}
