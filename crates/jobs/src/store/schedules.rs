//! Schedules: what is to be submitted again and again, and when next. When "next" is, whoever reads
//! the clock says; that each time is used once, the store says.

use aisemble_protocol::JobId;
use uuid::Uuid;

use super::StoreFuture;
use crate::error::JobsError;

/// Schedules of one owner.
pub const SCHEDULES_PER_OWNER_MAX: usize = 1_000;

/// A schedule as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleRecord {
    /// Identity.
    pub id: Uuid,
    /// Whose it is: what it submits is theirs.
    pub owner: String,
    /// What is due when, and what then; JSON of the caller's.
    pub body: Vec<u8>,
    /// The next time, milliseconds since 1970; none while it rests.
    pub next_at_ms: Option<u64>,
    /// The last time that was used.
    pub last_at_ms: Option<u64>,
    /// The job that it made.
    pub last_job: Option<JobId>,
    /// When it was made, milliseconds since 1970.
    pub created_at_ms: u64,
}

/// One time of a schedule has been used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fired {
    /// Which schedule.
    pub id: Uuid,
    /// The time that it was due: the schedule moves on only if it still is.
    pub due_at_ms: u64,
    /// Its next time.
    pub next_at_ms: Option<u64>,
    /// The job that was made, if one was.
    pub job: Option<JobId>,
}

/// Schedules.
pub trait ScheduleStore {
    /// Adds a schedule, or replaces the body and the next time of the one of the same id and owner.
    fn put_schedule(&self, record: ScheduleRecord) -> StoreFuture<'_, ()>;

    /// The schedules of an owner, or everybody's, oldest first.
    fn schedules(&self, owner: Option<String>) -> StoreFuture<'_, Vec<ScheduleRecord>>;

    /// Deletes a schedule; says whether there was one.
    fn drop_schedule(&self, id: Uuid) -> StoreFuture<'_, bool>;

    /// Schedules whose time has come, those that waited longest first.
    fn schedules_due(&self, now_ms: u64, max: usize) -> StoreFuture<'_, Vec<ScheduleRecord>>;

    /// Moves a schedule on; says whether it was still due at that time.
    fn schedule_fired(&self, fired: Fired) -> StoreFuture<'_, bool>;
}

pub(super) fn too_many() -> JobsError {
    let max = SCHEDULES_PER_OWNER_MAX;
    let reason = format!("cannot be added: {max} of one key is the limit");
    JobsError::Invalid { field: "schedule", reason }
}
