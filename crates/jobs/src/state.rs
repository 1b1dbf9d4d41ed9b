//! The job's states as one pure function. Every store asks it; nothing else moves a job.

use aisemble_protocol::JobState;

/// What can happen to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// The last job that it needs has succeeded, and its time has come.
    NeedsMet,
    /// The last job that it needs has succeeded, and its time is still to come.
    NeedsMetEarly,
    /// A job that it needs has ended otherwise.
    NeedFailed,
    /// Its time has come.
    Due,
    /// A worker took it under a new lease.
    Claimed,
    /// The attempt gave a result.
    Succeeded,
    /// The attempt failed and there is not to be another.
    Failed,
    /// The attempt failed and there is to be another, later.
    RetryLater,
    /// The worker stopped before the end through no fault of the job; the attempt does not count.
    Interrupted,
    /// The worker is gone; the attempt counts.
    LeaseLost,
    /// Somebody asked to cancel it.
    CancelRequested,
    /// The worker stopped it, or lost it, after somebody had asked to cancel it.
    CancelHonoured,
    /// Its deadline passed.
    DeadlinePassed,
}

impl Event {
    /// Every event.
    pub const ALL: [Self; 13] = [
        Self::NeedsMet,
        Self::NeedsMetEarly,
        Self::NeedFailed,
        Self::Due,
        Self::Claimed,
        Self::Succeeded,
        Self::Failed,
        Self::RetryLater,
        Self::Interrupted,
        Self::LeaseLost,
        Self::CancelRequested,
        Self::CancelHonoured,
        Self::DeadlinePassed,
    ];

    /// The event as the diagram in `docs/jobs.md` names it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NeedsMet => "needs met",
            Self::NeedsMetEarly => "needs met early",
            Self::NeedFailed => "need failed",
            Self::Due => "due",
            Self::Claimed => "claimed",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::RetryLater => "retry later",
            Self::Interrupted => "interrupted",
            Self::LeaseLost => "lease lost",
            Self::CancelRequested => "cancel requested",
            Self::CancelHonoured => "cancel honoured",
            Self::DeadlinePassed => "deadline passed",
        }
    }
}

/// The event does not happen to a job in that state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a job that is {} cannot take the event {}", state.as_str(), event.as_str())]
pub struct IllegalTransition {
    /// The state.
    pub state: JobState,
    /// The event.
    pub event: Event,
}

/// The state after `event`.
///
/// # Errors
/// When the event does not happen to a job in `state`: in a final state, none does.
pub fn next(state: JobState, event: Event) -> Result<JobState, IllegalTransition> {
    let illegal = Err(IllegalTransition { state, event });
    match state {
        JobState::Pending => match event {
            Event::NeedsMet => Ok(JobState::Queued),
            Event::NeedsMetEarly => Ok(JobState::Scheduled),
            Event::NeedFailed => Ok(JobState::Failed),
            Event::CancelRequested => Ok(JobState::Cancelled),
            Event::DeadlinePassed => Ok(JobState::Expired),
            Event::Due
            | Event::Claimed
            | Event::Succeeded
            | Event::Failed
            | Event::RetryLater
            | Event::Interrupted
            | Event::LeaseLost
            | Event::CancelHonoured => illegal,
        },
        JobState::Scheduled => match event {
            Event::Due => Ok(JobState::Queued),
            Event::CancelRequested => Ok(JobState::Cancelled),
            Event::DeadlinePassed => Ok(JobState::Expired),
            Event::NeedsMet
            | Event::NeedsMetEarly
            | Event::NeedFailed
            | Event::Claimed
            | Event::Succeeded
            | Event::Failed
            | Event::RetryLater
            | Event::Interrupted
            | Event::LeaseLost
            | Event::CancelHonoured => illegal,
        },
        JobState::Queued => match event {
            Event::Claimed => Ok(JobState::Running),
            Event::CancelRequested => Ok(JobState::Cancelled),
            Event::DeadlinePassed => Ok(JobState::Expired),
            Event::NeedsMet
            | Event::NeedsMetEarly
            | Event::NeedFailed
            | Event::Due
            | Event::Succeeded
            | Event::Failed
            | Event::RetryLater
            | Event::Interrupted
            | Event::LeaseLost
            | Event::CancelHonoured => illegal,
        },
        JobState::Running => running(event).ok_or(IllegalTransition { state, event }),
        JobState::Succeeded | JobState::Failed | JobState::Cancelled | JobState::Expired => illegal,
    }
}

fn running(event: Event) -> Option<JobState> {
    match event {
        Event::Succeeded => Some(JobState::Succeeded),
        Event::Failed => Some(JobState::Failed),
        Event::RetryLater => Some(JobState::Scheduled),
        Event::Interrupted | Event::LeaseLost => Some(JobState::Queued),
        // A request: the worker is told, and its answer decides.
        Event::CancelRequested => Some(JobState::Running),
        Event::CancelHonoured => Some(JobState::Cancelled),
        Event::DeadlinePassed => Some(JobState::Expired),
        Event::NeedsMet
        | Event::NeedsMetEarly
        | Event::NeedFailed
        | Event::Due
        | Event::Claimed => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every transition there is; what is not here must be refused.
    const TABLE: [(JobState, Event, JobState); 19] = {
        use Event as E;
        use JobState as S;
        [
            (S::Pending, E::NeedsMet, S::Queued),
            (S::Pending, E::NeedsMetEarly, S::Scheduled),
            (S::Pending, E::NeedFailed, S::Failed),
            (S::Pending, E::CancelRequested, S::Cancelled),
            (S::Pending, E::DeadlinePassed, S::Expired),
            (S::Scheduled, E::Due, S::Queued),
            (S::Scheduled, E::CancelRequested, S::Cancelled),
            (S::Scheduled, E::DeadlinePassed, S::Expired),
            (S::Queued, E::Claimed, S::Running),
            (S::Queued, E::CancelRequested, S::Cancelled),
            (S::Queued, E::DeadlinePassed, S::Expired),
            (S::Running, E::Succeeded, S::Succeeded),
            (S::Running, E::Failed, S::Failed),
            (S::Running, E::RetryLater, S::Scheduled),
            (S::Running, E::Interrupted, S::Queued),
            (S::Running, E::LeaseLost, S::Queued),
            (S::Running, E::CancelRequested, S::Running),
            (S::Running, E::CancelHonoured, S::Cancelled),
            (S::Running, E::DeadlinePassed, S::Expired),
        ]
    };

    #[test]
    fn every_state_takes_exactly_the_events_of_the_table() {
        for state in JobState::ALL {
            for event in Event::ALL {
                let row = TABLE.iter().find(|(from, what, _)| (*from, *what) == (state, event));
                let expect = row.map(|(_, _, to)| *to).ok_or(IllegalTransition { state, event });
                assert_eq!(next(state, event), expect, "{state:?} on {event:?}");
                assert!(!state.is_final() || expect.is_err(), "{state:?} is final");
            }
        }
    }
}
