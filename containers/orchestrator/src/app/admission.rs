//! What is taken in: the bound on waiting jobs of a capability, and the checks of job options.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use aisemble_jobs::{Depth, JobState};
use aisemble_protocol::job::JobOptions;
use aisemble_protocol::{ApiError, ErrorCode, limits};

use super::App;
use crate::capability::Capability;

/// How long a count of the store is relied upon; jobs admitted meanwhile are added to it.
const COUNT_FRESH: Duration = Duration::from_millis(100);
/// The part of a full queue that must have drained before it is worth coming again.
const ROOM_PART: u64 = 16;

/// Bounds how many jobs wait, without asking the store at each submission.
#[derive(Debug)]
pub(crate) struct QueueGate {
    waiting_max: u64,
    /// In the order of [`Capability::ALL`].
    counts: Mutex<[Option<Count>; Capability::ALL.len()]>,
}

#[derive(Debug, Clone, Copy)]
struct Count {
    waiting: u64,
    at: Instant,
}

impl QueueGate {
    pub(crate) fn new(waiting_max: u64) -> Self {
        Self { waiting_max, counts: Mutex::new([None; Capability::ALL.len()]) }
    }

    /// Whether one more may wait, as far as is known; `None` when it must be counted again.
    fn enter(&self, capability: Capability, now: Instant) -> Option<bool> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let known = counts.get_mut(place(capability))?.as_mut();
        let known = known.filter(|known| now.duration_since(known.at) < COUNT_FRESH)?;
        let enters = known.waiting < self.waiting_max;
        known.waiting += u64::from(enters);
        Some(enters)
    }

    fn counted(&self, depth: &Depth, now: Instant) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        for (count, capability) in counts.iter_mut().zip(Capability::ALL) {
            *count = Some(Count { waiting: waiting(depth, capability), at: now });
        }
    }
}

fn place(capability: Capability) -> usize {
    Capability::ALL.iter().position(|one| *one == capability).unwrap_or_default()
}

impl App {
    /// Lets one more job of `capability` wait.
    ///
    /// # Errors
    /// `overloaded` when as many wait as may, with when to come again; the store's.
    pub(super) async fn admit(&self, capability: Capability) -> Result<(), ApiError> {
        let mut admitted = self.gate.enter(capability, Instant::now());
        if admitted.is_none() {
            let depth = self.jobs.depth().await.map_err(|error| super::store_error(&error))?;
            self.gate.counted(&depth, Instant::now());
            admitted = self.gate.enter(capability, Instant::now());
        }
        if admitted != Some(false) {
            return Ok(());
        }
        let max = self.gate.waiting_max;
        let name = capability.as_str();
        let message = format!("{max} {name} jobs wait, which is as many as may");
        let retry_ms = self.dispatch.retry_after_ms(capability, max.div_ceil(ROOM_PART));
        Err(ApiError::new(ErrorCode::Overloaded, message).with_retry_after_ms(retry_ms))
    }
}

fn waiting(depth: &Depth, capability: Capability) -> u64 {
    [JobState::Pending, JobState::Scheduled, JobState::Queued]
        .into_iter()
        .map(|state| depth.count(capability.as_str(), state))
        .sum()
}

/// Checks what the caller says of how the job is to be run.
///
/// # Errors
/// `invalid_request`, naming the field and its limit.
pub(super) fn check_options(options: &JobOptions) -> Result<(), ApiError> {
    let within = |param: &str, value: Option<u64>, max: u64| match value {
        Some(value) if value == 0 || value > max => Err(ApiError::invalid(
            param,
            format!("{param} is {value}; it must be between 1 and {max}"),
        )),
        Some(_) | None => Ok(()),
    };
    within("job.deadline_ms", options.deadline_ms, limits::JOB_DEADLINE_MS_MAX)?;
    let attempts = options.attempts_max.map(u64::from);
    within("job.attempts_max", attempts, limits::JOB_ATTEMPTS_MAX.into())
}

#[cfg(test)]
mod tests {
    use aisemble_jobs::DepthEntry;

    use super::*;

    #[test]
    fn the_gate_counts_what_it_let_in_since_the_store_was_asked() {
        let gate = QueueGate::new(3);
        let now = Instant::now();
        let enter = |capability| gate.enter(capability, now);
        assert_eq!(enter(Capability::Nlp), None, "not counted yet");
        let (capability, state) = ("nlp".to_owned(), JobState::Queued);
        let entry = DepthEntry { capability, state, count: 1, oldest_ms: 0 };
        gate.counted(&Depth { entries: vec![entry] }, now);
        assert_eq!(enter(Capability::Nlp), Some(true));
        assert_eq!(enter(Capability::Nlp), Some(true));
        assert_eq!(enter(Capability::Nlp), Some(false));
        assert_eq!(enter(Capability::Llm), Some(true), "each capability has its own queue");
        assert_eq!(gate.enter(Capability::Nlp, now + COUNT_FRESH), None, "counted too long ago");
    }

    #[test]
    fn job_options_have_limits() {
        let check = |options: JobOptions, param: &str| {
            assert_eq!(check_options(&options).unwrap_err().param.as_deref(), Some(param));
        };
        check_options(&JobOptions::default()).unwrap();
        let options = || JobOptions::default();
        check(JobOptions { deadline_ms: Some(0), ..options() }, "job.deadline_ms");
        check(JobOptions { deadline_ms: Some(u64::MAX), ..options() }, "job.deadline_ms");
        check(JobOptions { attempts_max: Some(21), ..options() }, "job.attempts_max");
    }
}
