//! One job as a store keeps it, and what each happening does to it. Both stores use it, so that
//! they differ in how they keep and find jobs but not in what a job is. It must not know where it
//! is kept.

use aisemble_protocol::job::{JobError, JobView, Priority};
use aisemble_protocol::{ErrorCode, JobId, JobState};

use super::{Change, Outcome};
use crate::config::{Retention, StoreConfig};
use crate::error::JobsError;
use crate::job::NewJob;
use crate::limits;
use crate::metrics::Tally;
use crate::state::{self, Event};

/// What of the configuration bears on jobs.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    pub(crate) retention: Retention,
    pub(crate) ageing_step_ms: u64,
    pub(crate) events_per_job_max: u64,
    pub(crate) event_bytes_per_job_max: u64,
}

impl Policy {
    pub(crate) fn of(config: &StoreConfig) -> Self {
        Self {
            retention: config.retention.clone(),
            ageing_step_ms: config.ageing_step_ms,
            events_per_job_max: config.events_per_job_max,
            event_bytes_per_job_max: config.event_bytes_per_job_max,
        }
    }

    fn kept_ms(&self, state: JobState) -> u64 {
        match state {
            JobState::Succeeded => self.retention.succeeded_ms,
            JobState::Failed => self.retention.failed_ms,
            JobState::Cancelled => self.retention.cancelled_ms,
            JobState::Expired => self.retention.expired_ms,
            JobState::Pending | JobState::Scheduled | JobState::Queued | JobState::Running => {
                u64::MAX
            }
        }
    }
}

/// A job without its payload, metadata, needs, events and result.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Record {
    pub(crate) id: JobId,
    pub(crate) owner: String,
    pub(crate) kind: String,
    pub(crate) capability: String,
    pub(crate) priority: Priority,
    pub(crate) state: JobState,
    pub(crate) attempt: u32,
    pub(crate) attempts_max: u32,
    pub(crate) lease: u64,
    pub(crate) lease_until_ms: u64,
    pub(crate) created_at_ms: u64,
    pub(crate) started_at_ms: Option<u64>,
    pub(crate) finished_at_ms: Option<u64>,
    pub(crate) run_at_ms: Option<u64>,
    /// Its place in the queue: since when it could run.
    pub(crate) ready_at_ms: u64,
    pub(crate) deadline_at_ms: Option<u64>,
    pub(crate) cancel_requested: bool,
    pub(crate) error: Option<JobError>,
    /// How many jobs it needs, and how many of them have not ended.
    pub(crate) needs: u32,
    pub(crate) needs_open: u32,
    /// How many jobs named it in their needs before it ended.
    pub(crate) dependants: u32,
    pub(crate) event_seq: u64,
    pub(crate) emitted: u64,
    pub(crate) emitted_bytes: u64,
    /// Its idempotency key holds until then; 0 = it has none.
    pub(crate) keep_until_ms: u64,
    pub(crate) purge_at_ms: Option<u64>,
    /// The job that made it: it is kept as long as that one.
    pub(crate) parent: Option<JobId>,
    /// An attempt that was lost does not count: the next one goes on where it was.
    pub(crate) resumes: bool,
}

/// An event to append: its number is the record's `event_seq`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) kind: &'static str,
    pub(crate) data: String,
}

/// What happened, in the words of the state machine, and why.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) event: Event,
    pub(crate) error: Option<JobError>,
    pub(crate) retry_at_ms: Option<u64>,
}

impl Step {
    pub(crate) fn of(event: Event) -> Self {
        Self { event, error: None, retry_at_ms: None }
    }

    fn because(event: Event, code: ErrorCode, message: impl Into<String>) -> Self {
        let error = Some(JobError { code, message: message.into() });
        Self { event, error, retry_at_ms: None }
    }

    pub(crate) fn cancel(event: Event) -> Self {
        Self::because(event, ErrorCode::Cancelled, "cancelled on request")
    }

    pub(crate) fn expire() -> Self {
        Self::because(Event::DeadlinePassed, ErrorCode::Timeout, "the deadline passed")
    }

    pub(crate) fn need_failed(need: JobId, state: JobState) -> Self {
        let message = format!("job {need}, which this job needs, has {}", ended_word(state));
        Self::because(Event::NeedFailed, ErrorCode::Unprocessable, message)
    }
}

fn ended_word(state: JobState) -> &'static str {
    match state {
        JobState::Cancelled => "been cancelled",
        JobState::Pending
        | JobState::Scheduled
        | JobState::Queued
        | JobState::Running
        | JobState::Succeeded
        | JobState::Failed
        | JobState::Expired => state.as_str(),
    }
}

impl Record {
    /// A job as it is accepted, with the first event. `needs_open` of its needs have not ended.
    pub(crate) fn accept(id: JobId, new: &NewJob, needs: (u32, u32), now_ms: u64) -> (Self, Entry) {
        let (needs, needs_open) = needs;
        let early = new.run_at_ms.is_some_and(|at_ms| at_ms > now_ms);
        let state = match (needs_open > 0, early) {
            (true, _) => JobState::Pending,
            (false, true) => JobState::Scheduled,
            (false, false) => JobState::Queued,
        };
        let keyed = new.idempotency.is_some();
        let record = Self {
            id,
            owner: new.owner.clone(),
            kind: new.kind.clone(),
            capability: new.capability.clone(),
            priority: new.priority,
            state,
            attempt: 0,
            attempts_max: new.attempts_max,
            lease: 0,
            lease_until_ms: 0,
            created_at_ms: now_ms,
            started_at_ms: None,
            finished_at_ms: None,
            run_at_ms: new.run_at_ms,
            ready_at_ms: new.run_at_ms.unwrap_or(now_ms).max(now_ms),
            deadline_at_ms: new.deadline_at_ms,
            cancel_requested: false,
            error: None,
            needs,
            needs_open,
            dependants: 0,
            event_seq: 1,
            emitted: 0,
            emitted_bytes: 0,
            keep_until_ms: if keyed { now_ms + limits::IDEMPOTENCY_KEPT_MS } else { 0 },
            purge_at_ms: None,
            parent: new.parent,
            resumes: new.resumes,
        };
        let entry = record.state_entry();
        (record, entry)
    }

    /// Moves the job. The event that tells of it has the number `event_seq`.
    pub(crate) fn step(
        &mut self,
        step: Step,
        now_ms: u64,
        policy: &Policy,
        tally: &mut Tally,
    ) -> Result<Entry, JobsError> {
        let from = self.state;
        self.state =
            state::next(from, step.event).map_err(|_| JobsError::IllegalTransition { from })?;
        self.event_seq += 1;
        match step.event {
            Event::CancelRequested if from == JobState::Running => {
                self.cancel_requested = true;
                let data = "{\"requested\":true}".to_owned();
                return Ok(Entry { kind: super::CANCEL_KIND, data });
            }
            Event::NeedsMet => self.ready_at_ms = now_ms,
            Event::Claimed => {
                self.attempt += 1;
                self.lease += 1;
                self.started_at_ms = Some(now_ms);
                tally.claimed += 1;
            }
            Event::RetryLater => {
                let at_ms = step.retry_at_ms.unwrap_or(now_ms);
                (self.run_at_ms, self.ready_at_ms) = (Some(at_ms), at_ms);
                tally.retried += 1;
            }
            Event::Interrupted => {
                self.attempt = self.attempt.saturating_sub(1);
                tally.interrupted += 1;
            }
            Event::LeaseLost if self.resumes => self.attempt = self.attempt.saturating_sub(1),
            Event::NeedsMetEarly
            | Event::NeedFailed
            | Event::Due
            | Event::Succeeded
            | Event::Failed
            | Event::LeaseLost
            | Event::CancelRequested
            | Event::CancelHonoured
            | Event::DeadlinePassed => {}
        }
        if step.error.is_some() || self.state == JobState::Succeeded {
            self.error = step.error.map(super::bounded);
        }
        if self.state.is_final() {
            self.finish(now_ms, policy, tally);
        }
        Ok(self.state_entry())
    }

    fn finish(&mut self, now_ms: u64, policy: &Policy, tally: &mut Tally) {
        self.finished_at_ms = Some(now_ms);
        let keep_until_ms = now_ms.saturating_add(policy.kept_ms(self.state));
        // A child goes with its parent.
        let own = self.parent.is_none();
        self.purge_at_ms = own.then_some(keep_until_ms.max(self.keep_until_ms));
        match self.state {
            JobState::Succeeded => tally.succeeded += 1,
            JobState::Failed => tally.failed += 1,
            JobState::Cancelled => tally.cancelled += 1,
            JobState::Expired => tally.expired += 1,
            JobState::Pending | JobState::Scheduled | JobState::Queued | JobState::Running => {}
        }
    }

    /// What ending an attempt with `outcome` does to a running job.
    pub(crate) fn settlement(&self, outcome: &Outcome) -> Step {
        let claims_left = self.lease < limits::CLAIMS_PER_JOB_MAX;
        match outcome {
            Outcome::Succeeded { result } if result.len() > limits::RESULT_BYTES_MAX => {
                let (bytes, max) = (result.len(), limits::RESULT_BYTES_MAX);
                let message = format!("the result has {bytes} bytes; the limit is {max}");
                Step::because(Event::Failed, ErrorCode::PayloadTooLarge, message)
            }
            Outcome::Succeeded { .. } => Step::of(Event::Succeeded),
            Outcome::Failed { .. } | Outcome::Interrupted if self.cancel_requested => {
                Step::cancel(Event::CancelHonoured)
            }
            Outcome::Failed { error, retry_at_ms } => {
                let again = self.attempt < self.attempts_max && claims_left;
                let retry_at_ms = retry_at_ms.filter(|_| again);
                let event = if retry_at_ms.is_some() { Event::RetryLater } else { Event::Failed };
                Step { event, error: Some(error.clone()), retry_at_ms }
            }
            Outcome::Interrupted if claims_left => Step::of(Event::Interrupted),
            Outcome::Interrupted => {
                let message = format!("the job was interrupted {} times", self.lease);
                Step::because(Event::Failed, ErrorCode::Unavailable, message)
            }
        }
    }

    /// What losing its worker does to a running job.
    pub(crate) fn rescue(&self) -> Step {
        if self.cancel_requested {
            return Step::cancel(Event::CancelHonoured);
        }
        let again = (self.resumes || self.attempt < self.attempts_max)
            && self.lease < limits::CLAIMS_PER_JOB_MAX;
        let event = if again { Event::LeaseLost } else { Event::Failed };
        let message = format!("the worker of attempt {} was lost", self.attempt);
        Step::because(event, ErrorCode::Unavailable, message)
    }

    /// What the end of its last open need does to a pending job.
    pub(crate) fn release(&self, now_ms: u64) -> Step {
        let early = self.run_at_ms.is_some_and(|at_ms| at_ms > now_ms);
        Step::of(if early { Event::NeedsMetEarly } else { Event::NeedsMet })
    }

    /// What is due by `now_ms`, if anything.
    pub(crate) fn due(&self, now_ms: u64) -> Option<Step> {
        if self.state.is_final() {
            None
        } else if self.deadline_at_ms.is_some_and(|at_ms| at_ms <= now_ms) {
            Some(Step::expire())
        } else if self.state == JobState::Scheduled && self.ready_at_ms <= now_ms {
            Some(Step::of(Event::Due))
        } else {
            None
        }
    }

    /// When something is next due, leases apart.
    pub(crate) fn due_at_ms(&self) -> Option<u64> {
        match self.state {
            JobState::Pending | JobState::Queued | JobState::Running => self.deadline_at_ms,
            JobState::Scheduled => {
                Some(self.deadline_at_ms.map_or(self.ready_at_ms, |at| at.min(self.ready_at_ms)))
            }
            JobState::Succeeded | JobState::Failed | JobState::Cancelled | JobState::Expired => {
                None
            }
        }
    }

    /// Whether the claim of that lease holds.
    pub(crate) fn held_under(&self, lease: u64) -> bool {
        self.state == JobState::Running && self.lease == lease
    }

    /// Counts an executor's event of so many bytes, if there is room for it.
    pub(crate) fn emit(&mut self, bytes: usize, policy: &Policy) -> Result<(), JobsError> {
        let bytes = self.emitted_bytes.saturating_add(bytes as u64);
        if self.emitted >= policy.events_per_job_max || bytes > policy.event_bytes_per_job_max {
            return Err(JobsError::EventsFull { id: self.id });
        }
        self.event_seq += 1;
        self.emitted += 1;
        self.emitted_bytes = bytes;
        Ok(())
    }

    /// The change that observers are told.
    pub(crate) fn change(&self) -> Change {
        Change {
            id: self.id,
            event_seq: self.event_seq,
            state: self.state,
            lease: self.lease,
            cancel_requested: self.cancel_requested,
            due_at_ms: self.due_at_ms(),
        }
    }

    /// The event of the state that the job is in.
    fn state_entry(&self) -> Entry {
        let (state, attempt) = (self.state.as_str(), self.attempt);
        let mut data = format!("{{\"state\":\"{state}\",\"attempt\":{attempt}");
        if self.state == JobState::Scheduled {
            data.push_str(&format!(",\"run_at_ms\":{}", self.ready_at_ms));
        }
        if let Some(error) = &self.error {
            let message = serde_json::Value::from(error.message.as_str());
            let code = error.code.as_str();
            data.push_str(&format!(",\"error\":{{\"code\":\"{code}\",\"message\":{message}}}"));
        }
        data.push('}');
        Entry { kind: super::STATE_KIND, data }
    }

    /// The job as its owner sees it.
    pub(crate) fn view(
        &self,
        needs: Vec<JobId>,
        metadata: Option<serde_json::Map<String, serde_json::Value>>,
    ) -> JobView {
        let waits = matches!(self.state, JobState::Pending | JobState::Scheduled);
        JobView {
            id: self.id,
            kind: self.kind.clone(),
            state: self.state,
            priority: self.priority,
            attempt: self.attempt,
            attempts_max: self.attempts_max,
            created_at_ms: self.created_at_ms,
            started_at_ms: self.started_at_ms,
            finished_at_ms: self.finished_at_ms,
            run_at_ms: self.run_at_ms.filter(|_| waits),
            deadline_at_ms: self.deadline_at_ms,
            cancel_requested: self.cancel_requested && !self.state.is_final(),
            error: self.error.clone(),
            needs,
            parent: self.parent,
            metadata,
            event_seq: self.event_seq,
        }
    }
}
