//! What is read: jobs, pages, results, events and depth. Each runs in one snapshot.

use aisemble_protocol::JobId;
use aisemble_protocol::job::{JobEvent, JobPage, JobView};
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};

use super::failure::{int, uint};
use super::rows::{self, COLUMNS, columns};
use crate::error::{JobsError, StoreError};
use crate::job::{Depth, DepthEntry, Idempotency, Job, JobFilter};
use crate::limits;
use crate::store::record::Record;
use crate::store::{self, EventsPage};

fn needs(connection: &Connection, n: i64, record: &Record) -> Result<Vec<JobId>, JobsError> {
    if record.needs == 0 {
        return Ok(Vec::new());
    }
    let sql = "SELECT need FROM needs WHERE job = ?1 ORDER BY ord";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([n])?;
    let mut needs = Vec::with_capacity(record.needs as usize);
    while let Some(row) = rows.next()? {
        let bytes: Vec<u8> = row.get(0)?;
        needs.push(rows::id_of(&bytes)?);
    }
    Ok(needs)
}

/// The view from a row of [`columns!`] and `metadata`.
fn view_of(connection: &Connection, row: &Row<'_>) -> Result<(Record, JobView), JobsError> {
    let (n, record) = rows::read(row)?;
    let metadata: Option<String> = row.get(COLUMNS)?;
    let metadata = metadata.map(|text| serde_json::from_str(&text)).transpose();
    let metadata = metadata.map_err(|_| StoreError::BadRow { column: "metadata" })?;
    let needs = needs(connection, n, &record)?;
    let view = record.view(needs, metadata);
    Ok((record, view))
}

pub(super) fn view(connection: &Connection, id: JobId) -> Result<Option<JobView>, JobsError> {
    let mut statement = connection.prepare_cached(concat!(
        "SELECT ",
        columns!(),
        ", metadata FROM jobs JOIN bodies ON bodies.job = jobs.n WHERE id = ?1"
    ))?;
    let mut rows = statement.query([rows::bytes_of(&id)])?;
    rows.next()?.map(|row| view_of(connection, row).map(|(_, view)| view)).transpose()
}

/// The job that this owner's key made.
pub(super) fn replay(
    connection: &Connection,
    owner: &str,
    idempotency: &Idempotency,
    now_ms: u64,
) -> Result<Option<JobView>, JobsError> {
    let mut statement = connection.prepare_cached(
        "SELECT fingerprint, job_id FROM idempotency \
         WHERE owner = ?1 AND key = ?2 AND expires_at_ms > ?3",
    )?;
    let found = statement
        .query_row(params![owner, idempotency.key, int(now_ms)], |row| {
            Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, Vec<u8>>(1)?))
        })
        .optional()?;
    let Some((fingerprint, id)) = found else { return Ok(None) };
    let Some(view) = view(connection, rows::id_of(&id)?)? else { return Ok(None) };
    if fingerprint != idempotency.fingerprint {
        return Err(JobsError::IdempotencyMismatch);
    }
    Ok(Some(view))
}

pub(super) fn get(connection: &Connection, id: JobId) -> Result<Option<Job>, JobsError> {
    let mut statement = connection.prepare_cached(concat!(
        "SELECT ",
        columns!(),
        ", metadata, trace_parent, payload \
         FROM jobs JOIN bodies ON bodies.job = jobs.n WHERE id = ?1"
    ))?;
    let mut rows = statement.query([rows::bytes_of(&id)])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let (record, view) = view_of(connection, row)?;
    Ok(Some(Job {
        view,
        owner: record.owner,
        capability: record.capability,
        trace_parent: row.get(COLUMNS + 1)?,
        payload: row.get(COLUMNS + 2)?,
    }))
}

pub(super) fn result(connection: &Connection, id: JobId) -> Result<Option<Vec<u8>>, JobsError> {
    let sql = "SELECT result FROM jobs JOIN results ON results.job = jobs.n WHERE id = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    Ok(statement.query_row([rows::bytes_of(&id)], |row| row.get(0)).optional()?)
}

pub(super) fn list(connection: &Connection, filter: &JobFilter) -> Result<JobPage, JobsError> {
    let limit = store::page_limit(filter);
    let mut sql = concat!(
        "SELECT ",
        columns!(),
        ", metadata FROM jobs JOIN bodies ON bodies.job = jobs.n WHERE jobs.n < ?"
    )
    .to_owned();
    let mut values = vec![Value::from(store::cursor(filter)?)];
    if let Some(owner) = &filter.owner {
        sql.push_str(" AND owner = ?");
        values.push(Value::from(owner.clone()));
    }
    if let Some(kind) = &filter.kind {
        sql.push_str(" AND kind = ?");
        values.push(Value::from(kind.clone()));
    }
    if let Some(parent) = &filter.parent {
        sql.push_str(" AND parent = ?");
        values.push(Value::from(rows::bytes_of(parent).to_vec()));
    }
    if !filter.states.is_empty() {
        let mut numbers: Vec<_> = filter.states.iter().map(|s| rows::state_number(*s)).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let numbers: Vec<_> = numbers.iter().map(ToString::to_string).collect();
        // '+' keeps the planner from the index of active jobs, which is not in this order.
        sql.push_str(&format!(" AND +state IN ({})", numbers.join(",")));
    }
    sql.push_str(" ORDER BY jobs.n DESC LIMIT ?");
    values.push(Value::from(limit as i64 + 1));
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let (mut jobs, mut next_cursor, mut last) = (Vec::new(), None, 0_i64);
    while let Some(row) = rows.next()? {
        if jobs.len() == limit {
            next_cursor = Some(last.to_string());
            break;
        }
        last = row.get(0)?;
        jobs.push(view_of(connection, row)?.1);
    }
    Ok(JobPage { jobs, next_cursor })
}

pub(super) fn events(
    connection: &Connection,
    id: JobId,
    after_seq: u64,
) -> Result<EventsPage, JobsError> {
    let (n, record) = rows::find(connection, id)?.ok_or(JobsError::NotFound { id })?;
    let mut statement = connection.prepare_cached(
        "SELECT seq, at_ms, kind, data FROM events \
         WHERE job = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3",
    )?;
    let limit = limits::EVENTS_PAGE_MAX as i64;
    let mut rows = statement.query(params![n, int(after_seq), limit])?;
    let (mut events, mut bytes) = (Vec::new(), 0);
    while bytes < limits::EVENTS_PAGE_BYTES_MAX {
        let Some(row) = rows.next()? else { break };
        let text: String = row.get(3)?;
        bytes += text.len();
        let data =
            serde_json::from_str(&text).map_err(|_| StoreError::BadRow { column: "data" })?;
        let (seq, at_ms) = (uint(row.get(0)?), uint(row.get(1)?));
        events.push(JobEvent { seq, at_ms, kind: row.get(2)?, data });
    }
    let last_seq = events.last().map_or(after_seq, |event| event.seq);
    let ended = record.state.is_final() && last_seq >= record.event_seq;
    Ok(EventsPage { events, ended })
}

pub(super) fn depth(connection: &Connection, now_ms: u64) -> Result<Depth, JobsError> {
    let mut statement = connection.prepare_cached(
        "SELECT capability, state, count(*), min(ready_at_ms) FROM jobs INDEXED BY jobs_active \
         WHERE state < 4 GROUP BY state, capability ORDER BY capability, state",
    )?;
    let mut rows = statement.query([])?;
    let mut entries = Vec::new();
    while let Some(row) = rows.next()? {
        entries.push(DepthEntry {
            capability: row.get(0)?,
            state: rows::state_of(row.get(1)?)?,
            count: uint(row.get(2)?),
            oldest_ms: now_ms.saturating_sub(uint(row.get(3)?)),
        });
    }
    Ok(Depth { entries })
}

pub(super) fn next_due_ms(connection: &Connection) -> Result<Option<u64>, JobsError> {
    let mut statement = connection.prepare_cached(
        "SELECT min(due_at_ms) FROM jobs INDEXED BY jobs_due WHERE due_at_ms IS NOT NULL",
    )?;
    let due: Option<i64> = statement.query_row([], |row| row.get(0))?;
    let mut statement = connection.prepare_cached(
        "SELECT min(lease_until_ms) FROM jobs INDEXED BY jobs_active WHERE state = 3 AND state < 4",
    )?;
    let lease: Option<i64> = statement.query_row([], |row| row.get(0))?;
    Ok(due.into_iter().chain(lease).min().map(uint))
}

pub(super) fn paused(connection: &Connection) -> Result<Vec<String>, JobsError> {
    let sql = "SELECT capability FROM paused ORDER BY capability";
    let mut statement = connection.prepare_cached(sql)?;
    let names = statement.query_map([], |row| row.get(0))?;
    Ok(names.collect::<Result<_, _>>()?)
}

pub(super) fn capabilities(connection: &Connection) -> Result<Vec<String>, JobsError> {
    // From one to the next by the index, not over every queued job.
    let mut statement = connection.prepare_cached(
        "SELECT capability FROM jobs INDEXED BY jobs_active \
         WHERE state = 2 AND state < 4 AND capability > ?1 ORDER BY capability LIMIT 1",
    )?;
    let mut names: Vec<String> = Vec::new();
    loop {
        let after = names.last().map_or("", String::as_str);
        let Some(name) = statement.query_row([after], |row| row.get(0)).optional()? else {
            return Ok(names);
        };
        names.push(name);
    }
}
