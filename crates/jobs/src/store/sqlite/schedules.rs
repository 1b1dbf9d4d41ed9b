//! Schedules as rows.

use rusqlite::{Connection, Row, params};
use uuid::Uuid;

use super::failure::{int, uint};
use super::writer::Writing;
use super::{SqliteStore, rows};
use crate::error::{JobsError, StoreError};
use crate::store::StoreFuture;
use crate::store::schedules::{
    Fired, SCHEDULES_PER_OWNER_MAX, ScheduleRecord, ScheduleStore, too_many,
};

const SELECT: &str = "SELECT id, owner, body, next_at_ms, last_at_ms, last_job, created_at_ms \
    FROM schedules";

fn read(row: &Row<'_>) -> Result<ScheduleRecord, JobsError> {
    let id: Vec<u8> = row.get(0)?;
    let job: Option<Vec<u8>> = row.get(5)?;
    Ok(ScheduleRecord {
        id: Uuid::from_slice(&id).map_err(|_| StoreError::BadRow { column: "id" })?,
        owner: row.get(1)?,
        body: row.get(2)?,
        next_at_ms: row.get::<_, Option<i64>>(3)?.map(uint),
        last_at_ms: row.get::<_, Option<i64>>(4)?.map(uint),
        last_job: job.map(|bytes| rows::id_of(&bytes)).transpose()?,
        created_at_ms: uint(row.get(6)?),
    })
}

fn all(
    connection: &Connection,
    rest: &str,
    values: impl rusqlite::Params,
) -> Result<Vec<ScheduleRecord>, JobsError> {
    let mut statement = connection.prepare_cached(&format!("{SELECT} {rest}"))?;
    let mut rows = statement.query(values)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(row)?);
    }
    Ok(found)
}

impl Writing<'_> {
    fn put_schedule(&self, record: &ScheduleRecord) -> Result<(), JobsError> {
        let id = record.id.as_bytes().as_slice();
        let sql = "UPDATE schedules SET body = ?3, next_at_ms = ?4 WHERE id = ?1 AND owner = ?2";
        let mut statement = self.connection.prepare_cached(sql)?;
        let next = record.next_at_ms.map(int);
        if statement.execute(params![id, record.owner, record.body, next])? > 0 {
            return Ok(());
        }
        let sql = "SELECT count(*) FROM schedules WHERE owner = ?1";
        let mut statement = self.connection.prepare_cached(sql)?;
        let count: i64 = statement.query_row([&record.owner], |row| row.get(0))?;
        if uint(count) >= SCHEDULES_PER_OWNER_MAX as u64 {
            return Err(too_many());
        }
        let mut statement = self.connection.prepare_cached(
            "INSERT INTO schedules (id, owner, body, next_at_ms, created_at_ms) \
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        let created = int(record.created_at_ms);
        statement.execute(params![id, record.owner, record.body, next, created])?;
        Ok(())
    }

    fn schedule_fired(&self, fired: Fired) -> Result<bool, JobsError> {
        let mut statement = self.connection.prepare_cached(
            "UPDATE schedules SET next_at_ms = ?3, last_at_ms = ?2, \
             last_job = coalesce(?4, last_job) WHERE id = ?1 AND next_at_ms = ?2",
        )?;
        let job = fired.job.map(|job| job.0.as_bytes().to_vec());
        let moved = statement.execute(params![
            fired.id.as_bytes().as_slice(),
            int(fired.due_at_ms),
            fired.next_at_ms.map(int),
            job
        ])?;
        Ok(moved > 0)
    }
}

impl ScheduleStore for SqliteStore {
    fn put_schedule(&self, record: ScheduleRecord) -> StoreFuture<'_, ()> {
        self.write(move |writing| writing.put_schedule(&record))
    }
    fn schedules(&self, owner: Option<String>) -> StoreFuture<'_, Vec<ScheduleRecord>> {
        self.read(move |connection| match owner {
            Some(owner) => all(connection, "WHERE owner = ?1 ORDER BY n", [owner]),
            None => all(connection, "ORDER BY n", []),
        })
    }
    fn drop_schedule(&self, id: Uuid) -> StoreFuture<'_, bool> {
        self.write(move |writing| {
            let sql = "DELETE FROM schedules WHERE id = ?1";
            let mut statement = writing.connection.prepare_cached(sql)?;
            Ok(statement.execute([id.as_bytes().as_slice()])? > 0)
        })
    }
    fn schedules_due(&self, now_ms: u64, max: usize) -> StoreFuture<'_, Vec<ScheduleRecord>> {
        self.read(move |connection| {
            let rest = "WHERE next_at_ms IS NOT NULL AND next_at_ms <= ?1 \
                ORDER BY next_at_ms, n LIMIT ?2";
            all(connection, rest, params![int(now_ms), max as i64])
        })
    }
    fn schedule_fired(&self, fired: Fired) -> StoreFuture<'_, bool> {
        self.write(move |writing| writing.schedule_fired(fired))
    }
}
