//! What a store of jobs does: coarse operations, each atomic and durable when it has answered. Time
//! and randomness come from outside, so that two stores given the same operations say the same.
//!
//! A store knows the state machine; it must not know who runs jobs, or wake anybody but its
//! observer.

pub mod files;
pub mod memory;
mod record;
pub mod row_results;
pub mod schedules;
mod selection;
pub mod sqlite;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use aisemble_protocol::job::{JobError, JobEvent, JobPage, JobView};
use aisemble_protocol::limits::{JOBS_PAGE_DEFAULT, JOBS_PAGE_MAX};
use aisemble_protocol::{JobId, JobState};

use crate::error::JobsError;
use crate::executor::ClaimedJob;
use crate::job::{Depth, Idempotency, Job, JobFilter, NewJob, Submitted};
use crate::limits;
use crate::metrics::StoreMetrics;
use files::FileStore;
use row_results::RowStore;
use schedules::ScheduleStore;

/// The answer of an operation. The operation is done or not done as a whole; dropping the future
/// does not undo it.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, JobsError>> + Send + 'a>>;

/// A store of jobs. All times are milliseconds since 1970; `now_ms` never goes back.
pub trait Store: FileStore + RowStore + ScheduleStore + Send + Sync + fmt::Debug + 'static {
    /// Names who is told of changes, once; later calls have no effect.
    fn observe(&self, observer: Arc<dyn Observer>);

    /// Accepts a checked job under the fresh `id`, or gives the one that its key made before.
    fn submit(&self, id: JobId, new: NewJob, now_ms: u64) -> StoreFuture<'_, Submitted>;

    /// The job that this owner's key made, if it made one.
    fn replay(
        &self,
        owner: String,
        idempotency: Idempotency,
        now_ms: u64,
    ) -> StoreFuture<'_, Option<JobView>>;

    /// The job with its payload.
    fn get(&self, id: JobId) -> StoreFuture<'_, Option<Job>>;

    /// The job as its owner sees it.
    fn view(&self, id: JobId) -> StoreFuture<'_, Option<JobView>>;

    /// A page of jobs, newest first.
    fn list(&self, filter: JobFilter) -> StoreFuture<'_, JobPage>;

    /// The result of a succeeded job.
    fn result(&self, id: JobId) -> StoreFuture<'_, Option<Vec<u8>>>;

    /// Events numbered above `after_seq`, in order, bounded by [`limits::EVENTS_PAGE_MAX`].
    fn events(&self, id: JobId, after_seq: u64) -> StoreFuture<'_, EventsPage>;

    /// What waits and runs.
    fn depth(&self, now_ms: u64) -> StoreFuture<'_, Depth>;

    /// Cancels a job that does not run, notes the request for one that does, leaves an ended one.
    fn cancel(&self, id: JobId, now_ms: u64) -> StoreFuture<'_, JobView>;

    /// Cancels every job that `parent` made and that has not ended; gives how many that were.
    fn cancel_children(&self, parent: JobId, now_ms: u64) -> StoreFuture<'_, usize>;

    /// Keeps the queued jobs of a capability from being claimed, or lets them go again.
    fn pause(&self, capability: String, paused: bool) -> StoreFuture<'_, ()>;

    /// The capabilities that are paused.
    fn paused(&self) -> StoreFuture<'_, Vec<String>>;

    /// Takes queued jobs under new leases, after doing what is due by then.
    fn claim(&self, claim: Claim, now_ms: u64) -> StoreFuture<'_, Vec<ClaimedJob>>;

    /// Renews leases, and says of each whether it still holds.
    fn heartbeat(&self, held: Vec<Held>, lease_until_ms: u64) -> StoreFuture<'_, Vec<Beat>>;

    /// Records an event of a running job and gives its number.
    fn emit(&self, emission: Emission, now_ms: u64) -> StoreFuture<'_, u64>;

    /// Ends attempts. The answers are in the order of the settlements.
    fn settle(&self, settlements: Arc<[Settlement]>, now_ms: u64) -> StoreFuture<'_, Vec<Settled>>;

    /// Does what is due: starts scheduled jobs, expires, rescues; at most
    /// [`limits::TICK_JOBS_MAX`] jobs of each sort.
    fn tick(&self, now_ms: u64) -> StoreFuture<'_, Ticked>;

    /// Deletes up to `jobs_max` ended jobs past their retention, and expired keys; gives the number
    /// of deleted jobs.
    fn purge(&self, now_ms: u64, jobs_max: usize) -> StoreFuture<'_, usize>;

    /// Deletes an ended job at once; whether there was one. What it made goes with the next purge.
    fn remove(&self, id: JobId, now_ms: u64) -> StoreFuture<'_, bool>;

    /// When `tick` next has something to do; may lie in the past.
    fn next_due_ms(&self) -> StoreFuture<'_, Option<u64>>;

    /// Capabilities that have queued jobs.
    fn capabilities(&self) -> StoreFuture<'_, Vec<String>>;

    /// Counters since the store was opened.
    fn metrics(&self) -> StoreMetrics;
}

/// Is told of every change after it is durable, from the store's own thread: it must be quick.
pub trait Observer: Send + Sync + 'static {
    /// These jobs have new events; a job may be named more than once, in order.
    fn changed(&self, changes: &[Change]);
}

/// A job has a new event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// The job.
    pub id: JobId,
    /// The number of its newest event.
    pub event_seq: u64,
    /// The state it is in now.
    pub state: JobState,
    /// Its lease, 0 before the first claim.
    pub lease: u64,
    /// Somebody asked to cancel it.
    pub cancel_requested: bool,
    /// When `tick` next has something to do for it, leases apart.
    pub due_at_ms: Option<u64>,
}

/// Which jobs to take.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claim {
    /// How many of which capability, in this order.
    pub wants: Vec<Want>,
    /// The new leases hold until then without a heartbeat.
    pub lease_until_ms: u64,
}

/// How many jobs of a capability to take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// Who can do them.
    pub capability: String,
    /// At most so many.
    pub jobs_max: usize,
    /// None of an owner who has so many running already.
    pub per_owner_max: Option<u64>,
}

/// A claim that a worker believes to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Held {
    /// The job.
    pub id: JobId,
    /// The lease of the claim.
    pub lease: u64,
}

/// What a heartbeat found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beat {
    /// The lease holds and was renewed.
    Renewed,
    /// It holds, was renewed, and somebody asked to cancel the job.
    CancelRequested,
    /// It is gone: the worker must stop.
    Lost,
}

/// An event to record, its data encoded and within the limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Emission {
    /// The job under its lease.
    pub held: Held,
    /// The event's kind.
    pub kind: String,
    /// Its data as JSON text.
    pub data: String,
}

impl Emission {
    /// Encodes and checks an event.
    ///
    /// # Errors
    /// When the kind is empty, too long or the store's own, or the data is too large.
    pub fn new(
        id: JobId,
        lease: u64,
        kind: &str,
        data: &serde_json::Value,
    ) -> Result<Self, JobsError> {
        let invalid =
            |reason: &str| JobsError::Invalid { field: "kind", reason: reason.to_owned() };
        if kind.is_empty() || kind.len() > limits::EVENT_KIND_BYTES_MAX {
            return Err(invalid("of an event must have 1 to 32 bytes"));
        }
        if kind == STATE_KIND || kind == CANCEL_KIND {
            return Err(invalid("of an event is one that the store itself records"));
        }
        let data = data.to_string();
        let (bytes, bytes_max) = (data.len(), limits::EVENT_DATA_BYTES_MAX);
        if bytes > bytes_max {
            return Err(JobsError::TooLarge { field: "data", bytes, bytes_max });
        }
        Ok(Self { held: Held { id, lease }, kind: kind.to_owned(), data })
    }
}

/// Kind of the event that every change of state records.
pub(crate) const STATE_KIND: &str = "state";
/// Kind of the event that a request to cancel a running job records.
pub(crate) const CANCEL_KIND: &str = "cancel";

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Settlement {
    /// The job under its lease.
    pub held: Held,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of an attempt.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// A result, at most [`limits::RESULT_BYTES_MAX`].
    Succeeded {
        /// Its bytes.
        result: Vec<u8>,
    },
    /// An error.
    Failed {
        /// Which.
        error: JobError,
        /// When the next attempt may start, if the error allows one; the job fails when its
        /// attempts are used up.
        retry_at_ms: Option<u64>,
    },
    /// Stopped through no fault of the job: back into the queue, the attempt does not count.
    Interrupted,
}

/// What became of a settlement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// Recorded; the job is now in this state.
    Recorded {
        /// The state.
        state: JobState,
    },
    /// The lease was gone: nothing was recorded.
    Stale,
}

/// Events of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct EventsPage {
    /// In order, without gaps.
    pub events: Vec<JobEvent>,
    /// The job has ended and nothing comes after these.
    pub ended: bool,
}

/// What a tick did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ticked {
    /// Scheduled jobs whose time had come.
    pub started: usize,
    /// Jobs whose deadline had passed.
    pub expired: usize,
    /// Running jobs whose lease had run out.
    pub rescued: usize,
    /// A limit was reached: call again.
    pub more: bool,
}

/// Cuts an error's message to the limit, at a character's end.
pub(crate) fn bounded(mut error: JobError) -> JobError {
    if error.message.len() > limits::ERROR_MESSAGE_BYTES_MAX {
        let cut = error.message.floor_char_boundary(limits::ERROR_MESSAGE_BYTES_MAX);
        error.message.truncate(cut);
    }
    error
}

/// Number below which the jobs of the page are, from the cursor.
fn cursor(filter: &JobFilter) -> Result<i64, JobsError> {
    let Some(text) = &filter.cursor else { return Ok(i64::MAX) };
    let reason = || "is not one that a page of jobs gave".to_owned();
    text.parse().map_err(|_| JobsError::Invalid { field: "cursor", reason: reason() })
}

fn page_limit(filter: &JobFilter) -> usize {
    let asked = if filter.limit == 0 { JOBS_PAGE_DEFAULT } else { filter.limit };
    asked.min(JOBS_PAGE_MAX) as usize
}

/// Takes events, each with the bytes of its data, until the page is full.
fn page_of(events: impl Iterator<Item = (usize, JobEvent)>) -> Vec<JobEvent> {
    let mut page = Vec::new();
    let mut bytes = 0;
    for (size, event) in events.take(limits::EVENTS_PAGE_MAX) {
        bytes += size;
        page.push(event);
        if bytes >= limits::EVENTS_PAGE_BYTES_MAX {
            break;
        }
    }
    page
}

fn room_for_dependant(need: &record::Record) -> Result<(), JobsError> {
    if need.dependants < limits::DEPENDANTS_MAX {
        return Ok(());
    }
    let (id, max) = (need.id, limits::DEPENDANTS_MAX);
    let reason = format!("names job {id}, which {max} jobs wait for already; that is the limit");
    Err(JobsError::Invalid { field: "needs", reason })
}

fn claimed(record: &record::Record, payload: Vec<u8>, trace_parent: Option<String>) -> ClaimedJob {
    ClaimedJob {
        id: record.id,
        kind: record.kind.clone(),
        capability: record.capability.clone(),
        owner: record.owner.clone(),
        payload,
        attempt: record.attempt,
        attempts_max: record.attempts_max,
        lease: record.lease,
        priority: record.priority,
        trace_parent,
        deadline_at_ms: record.deadline_at_ms,
    }
}
