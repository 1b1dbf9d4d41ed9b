//! Records as rows: one place that knows the columns.

use aisemble_protocol::job::{JobError, Priority};
use aisemble_protocol::{ErrorCode, JobId, JobState};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::failure::{int, uint};
use crate::error::{JobsError, StoreError};
use crate::store::record::{Entry, Record};

macro_rules! columns {
    () => {
        "jobs.n, id, owner, kind, capability, priority, state, attempt, attempts_max, lease, \
         lease_until_ms, created_at_ms, started_at_ms, finished_at_ms, run_at_ms, ready_at_ms, \
         deadline_at_ms, cancel_requested, error_code, error_message, needs, needs_open, \
         dependants, event_seq, emitted, emitted_bytes, keep_until_ms, purge_at_ms, \
         parent, resumes"
    };
}
pub(super) use columns;

/// How many columns [`columns!`] names: what a query selects besides comes after them.
pub(super) const COLUMNS: usize = 30;

/// The number of a state in `jobs.state`. Active states come before final ones.
pub(super) fn state_number(state: JobState) -> i64 {
    match state {
        JobState::Pending => 0,
        JobState::Scheduled => 1,
        JobState::Queued => 2,
        JobState::Running => 3,
        JobState::Succeeded => 4,
        JobState::Failed => 5,
        JobState::Cancelled => 6,
        JobState::Expired => 7,
    }
}

pub(super) fn state_of(number: i64) -> Result<JobState, StoreError> {
    let states = JobState::ALL.into_iter();
    let mut found = states.filter(|state| state_number(*state) == number);
    found.next().ok_or(StoreError::BadRow { column: "state" })
}

pub(super) fn priority_number(priority: Priority) -> i64 {
    match priority {
        Priority::Interactive => 0,
        Priority::Normal => 1,
        Priority::Batch => 2,
    }
}

fn priority_of(number: i64) -> Result<Priority, StoreError> {
    let all = [Priority::Interactive, Priority::Normal, Priority::Batch];
    let mut found = all.into_iter().filter(|priority| priority_number(*priority) == number);
    found.next().ok_or(StoreError::BadRow { column: "priority" })
}

pub(super) fn id_of(bytes: &[u8]) -> Result<JobId, StoreError> {
    let id = uuid::Uuid::from_slice(bytes).map_err(|_| StoreError::BadRow { column: "id" })?;
    Ok(JobId(id))
}

pub(super) fn bytes_of(id: &JobId) -> &[u8] {
    id.0.as_bytes()
}

fn error_of(code: Option<String>, message: Option<String>) -> Result<Option<JobError>, StoreError> {
    let Some(code) = code else { return Ok(None) };
    let found = ErrorCode::ALL.into_iter().find(|known| known.as_str() == code);
    let code = found.ok_or(StoreError::BadRow { column: "error_code" })?;
    Ok(Some(JobError { code, message: message.unwrap_or_default() }))
}

/// A record and its number from a row that begins with [`columns!`].
pub(super) fn read(row: &Row<'_>) -> Result<(i64, Record), JobsError> {
    let number = |index| row.get::<_, i64>(index);
    let count = |index| number(index).map(uint);
    let small = |index| number(index).map(|value| u32::try_from(value).unwrap_or(u32::MAX));
    let time = |index| row.get::<_, Option<i64>>(index).map(|value| value.map(uint));
    let id = row.get_ref(1)?.as_blob().map_err(|_| StoreError::BadRow { column: "id" })?;
    let parent: Option<Vec<u8>> = row.get(28)?;
    let record = Record {
        id: id_of(id)?,
        owner: row.get(2)?,
        kind: row.get(3)?,
        capability: row.get(4)?,
        priority: priority_of(number(5)?)?,
        state: state_of(number(6)?)?,
        attempt: small(7)?,
        attempts_max: small(8)?,
        lease: count(9)?,
        lease_until_ms: count(10)?,
        created_at_ms: count(11)?,
        started_at_ms: time(12)?,
        finished_at_ms: time(13)?,
        run_at_ms: time(14)?,
        ready_at_ms: count(15)?,
        deadline_at_ms: time(16)?,
        cancel_requested: row.get(17)?,
        error: error_of(row.get(18)?, row.get(19)?)?,
        needs: small(20)?,
        needs_open: small(21)?,
        dependants: small(22)?,
        event_seq: count(23)?,
        emitted: count(24)?,
        emitted_bytes: count(25)?,
        keep_until_ms: count(26)?,
        purge_at_ms: time(27)?,
        parent: parent.map(|bytes| id_of(&bytes)).transpose()?,
        resumes: row.get(29)?,
    };
    Ok((number(0)?, record))
}

/// The job of that id.
pub(super) fn find(connection: &Connection, id: JobId) -> Result<Option<(i64, Record)>, JobsError> {
    let sql = concat!("SELECT ", columns!(), " FROM jobs WHERE id = ?1");
    let mut statement = connection.prepare_cached(sql)?;
    let found = statement.query_row([bytes_of(&id)], |row| Ok(read(row))).optional()?;
    found.transpose()
}

/// The job of that number.
pub(super) fn load(connection: &Connection, n: i64) -> Result<Record, JobsError> {
    let sql = concat!("SELECT ", columns!(), " FROM jobs WHERE n = ?1");
    let mut statement = connection.prepare_cached(sql)?;
    let (_, record) = statement.query_row([n], |row| Ok(read(row)))??;
    Ok(record)
}

/// Adds a job and gives its number.
pub(super) fn insert(connection: &Connection, r: &Record) -> Result<i64, JobsError> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO jobs (id, owner, kind, capability, priority, state, attempt, attempts_max, \
         lease, lease_until_ms, created_at_ms, run_at_ms, ready_at_ms, deadline_at_ms, \
         cancel_requested, needs, needs_open, dependants, event_seq, emitted, emitted_bytes, \
         keep_until_ms, due_at_ms, parent, resumes) \
         VALUES (?1,?2,?3,?4,?5,?6,0,?7,0,0,?8,?9,?10,?11,0,?12,?13,0,?14,0,0,?15,?16,?17,?18)",
    )?;
    Ok(statement.insert(params![
        bytes_of(&r.id),
        r.owner,
        r.kind,
        r.capability,
        priority_number(r.priority),
        state_number(r.state),
        r.attempts_max,
        int(r.created_at_ms),
        r.run_at_ms.map(int),
        int(r.ready_at_ms),
        r.deadline_at_ms.map(int),
        r.needs,
        r.needs_open,
        int(r.event_seq),
        int(r.keep_until_ms),
        r.due_at_ms().map(int),
        r.parent.as_ref().map(bytes_of),
        r.resumes,
    ])?)
}

/// Writes what a step may have changed.
pub(super) fn save(connection: &Connection, n: i64, r: &Record) -> Result<(), JobsError> {
    let mut statement = connection.prepare_cached(
        "UPDATE jobs SET state = ?2, attempt = ?3, lease = ?4, lease_until_ms = ?5, \
         started_at_ms = ?6, finished_at_ms = ?7, run_at_ms = ?8, ready_at_ms = ?9, \
         due_at_ms = ?10, cancel_requested = ?11, error_code = ?12, error_message = ?13, \
         needs_open = ?14, event_seq = ?15, purge_at_ms = ?16 WHERE n = ?1",
    )?;
    statement.execute(params![
        n,
        state_number(r.state),
        r.attempt,
        int(r.lease),
        int(r.lease_until_ms),
        r.started_at_ms.map(int),
        r.finished_at_ms.map(int),
        r.run_at_ms.map(int),
        int(r.ready_at_ms),
        r.due_at_ms().map(int),
        r.cancel_requested,
        r.error.as_ref().map(|error| error.code.as_str()),
        r.error.as_ref().map(|error| &error.message),
        r.needs_open,
        int(r.event_seq),
        r.purge_at_ms.map(int),
    ])?;
    Ok(())
}

/// Appends the event whose number the record has reached.
pub(super) fn append(
    connection: &Connection,
    n: i64,
    record: &Record,
    entry: &Entry,
    now_ms: u64,
) -> Result<(), JobsError> {
    let sql = "INSERT INTO events (job, seq, at_ms, kind, data) VALUES (?1, ?2, ?3, ?4, ?5)";
    let mut statement = connection.prepare_cached(sql)?;
    statement.execute(params![n, int(record.event_seq), int(now_ms), entry.kind, entry.data])?;
    Ok(())
}
