//! Submitting, cancelling and deleting jobs.

use aisemble_protocol::job::JobView;
use aisemble_protocol::{JobId, JobState};
use rusqlite::params;

use super::failure::int;
use super::writer::Writing;
use super::{query, rows};
use crate::error::{JobsError, StoreError};
use crate::job::{Idempotency, NewJob, Submitted};
use crate::state::Event;
use crate::store::record::{Record, Step};

/// What the needs of a new job are.
#[derive(Default)]
struct Needs {
    all: Vec<JobId>,
    /// Numbers of those that have not ended.
    open: Vec<i64>,
    /// The first that has ended without success.
    failed: Option<(JobId, JobState)>,
}

impl Writing<'_> {
    pub(super) fn submit(
        &mut self,
        id: JobId,
        new: &NewJob,
        now_ms: u64,
    ) -> Result<Submitted, JobsError> {
        if let Some(view) = query::view(self.connection, id)? {
            // Its maker submits it again, not knowing that it had.
            return Ok(Submitted::Existing(view));
        }
        if let Some(idempotency) = &new.idempotency
            && let Some(view) = query::replay(self.connection, &new.owner, idempotency, now_ms)?
        {
            self.tally.replayed += 1;
            return Ok(Submitted::Existing(view));
        }
        if let Some(open_max) = new.open_jobs_max {
            self.room_for_owner(&new.owner, open_max)?;
        }
        let needs = self.needs(new)?;
        let open = needs.open.len() + usize::from(needs.failed.is_some());
        let counts = (needs.all.len() as u32, open as u32);
        let (mut record, entry) = Record::accept(id, new, counts, now_ms);
        let n = rows::insert(self.connection, &record)?;
        rows::append(self.connection, n, &record, &entry, now_ms)?;
        self.changes.push(record.change());
        self.body(n, new)?;
        self.edges(n, &needs)?;
        if let Some(idempotency) = &new.idempotency {
            self.remember(&record, idempotency)?;
        }
        self.tally.submitted += 1;
        if let Some((need, state)) = needs.failed {
            self.step(n, &mut record, Step::need_failed(need, state), now_ms)?;
        }
        Ok(Submitted::Created(record.view(needs.all, new.metadata.clone())))
    }

    fn room_for_owner(&self, owner: &str, open_max: u32) -> Result<(), JobsError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT count(*) FROM (SELECT 1 FROM jobs INDEXED BY jobs_active \
             WHERE state < 4 AND owner = ?1 LIMIT ?2)",
        )?;
        let open: u32 = statement.query_row(params![owner, open_max], |row| row.get(0))?;
        if open >= open_max { Err(JobsError::OwnerFull { open_max }) } else { Ok(()) }
    }

    fn remember(&self, record: &Record, idempotency: &Idempotency) -> Result<(), JobsError> {
        let mut statement = self.connection.prepare_cached(
            "INSERT OR REPLACE INTO idempotency (owner, key, fingerprint, job_id, expires_at_ms) \
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        statement.execute(params![
            record.owner,
            idempotency.key,
            idempotency.fingerprint,
            rows::bytes_of(&record.id),
            int(record.keep_until_ms),
        ])?;
        Ok(())
    }

    fn needs(&self, new: &NewJob) -> Result<Needs, JobsError> {
        let mut needs = Needs::default();
        for need in &new.needs {
            if needs.all.contains(need) {
                continue;
            }
            needs.all.push(*need);
            let found = rows::find(self.connection, *need)?;
            // Another owner's job is not shown to exist.
            let Some((n, record)) = found.filter(|(_, record)| record.owner == new.owner) else {
                return Err(JobsError::UnknownNeed { id: *need });
            };
            match record.state {
                JobState::Succeeded => {}
                JobState::Failed | JobState::Cancelled | JobState::Expired => {
                    needs.failed = needs.failed.or(Some((*need, record.state)));
                }
                JobState::Pending | JobState::Scheduled | JobState::Queued | JobState::Running => {
                    crate::store::room_for_dependant(&record)?;
                    needs.open.push(n);
                }
            }
        }
        Ok(needs)
    }

    fn edges(&self, n: i64, needs: &Needs) -> Result<(), JobsError> {
        for (ord, need) in needs.all.iter().enumerate() {
            let sql = "INSERT INTO needs (job, ord, need) VALUES (?1, ?2, ?3)";
            let mut statement = self.connection.prepare_cached(sql)?;
            statement.execute(params![n, ord as i64, rows::bytes_of(need)])?;
        }
        for need in &needs.open {
            let sql = "UPDATE jobs SET dependants = dependants + 1 WHERE n = ?1";
            self.connection.prepare_cached(sql)?.execute([need])?;
        }
        Ok(())
    }

    fn body(&self, n: i64, new: &NewJob) -> Result<(), JobsError> {
        let metadata = new.metadata.as_ref().map(serde_json::to_string).transpose();
        let metadata = metadata.map_err(|_| StoreError::BadRow { column: "metadata" })?;
        let sql = "INSERT INTO bodies (job, metadata, trace_parent, payload) VALUES (?1,?2,?3,?4)";
        let mut statement = self.connection.prepare_cached(sql)?;
        statement.execute(params![n, metadata, new.trace_parent, new.payload])?;
        Ok(())
    }

    pub(super) fn cancel(&mut self, id: JobId, now_ms: u64) -> Result<JobView, JobsError> {
        let found = rows::find(self.connection, id)?;
        let (n, mut record) = found.ok_or(JobsError::NotFound { id })?;
        if !record.state.is_final() && !record.cancel_requested {
            self.step(n, &mut record, Step::cancel(Event::CancelRequested), now_ms)?;
        }
        query::view(self.connection, id)?.ok_or(JobsError::NotFound { id })
    }

    /// Cancels every child of `parent` that has not ended.
    pub(super) fn cancel_children(
        &mut self,
        parent: JobId,
        now_ms: u64,
    ) -> Result<usize, JobsError> {
        let sql = "SELECT n FROM jobs WHERE parent = ?1 AND +state < 4 ORDER BY n";
        let mut statement = self.connection.prepare_cached(sql)?;
        let children = statement.query_map([rows::bytes_of(&parent)], |row| row.get(0))?;
        let children: Vec<i64> = children.collect::<Result<_, _>>()?;
        drop(statement);
        let mut cancelled = 0;
        for n in children {
            let mut record = rows::load(self.connection, n)?;
            if !record.state.is_final() && !record.cancel_requested {
                self.step(n, &mut record, Step::cancel(Event::CancelRequested), now_ms)?;
                cancelled += 1;
            }
        }
        Ok(cancelled)
    }

    pub(super) fn purge(&mut self, now_ms: u64, jobs_max: usize) -> Result<usize, JobsError> {
        let sql = "DELETE FROM idempotency WHERE expires_at_ms <= ?1";
        self.connection.prepare_cached(sql)?.execute([int(now_ms)])?;
        let numbers = self.numbers(
            "SELECT n FROM jobs INDEXED BY jobs_purge \
             WHERE purge_at_ms IS NOT NULL AND purge_at_ms <= ?1 ORDER BY purge_at_ms, n LIMIT ?2",
            now_ms,
            jobs_max,
        )?;
        for n in &numbers {
            // What it made goes next.
            let sql = "UPDATE jobs SET purge_at_ms = ?2 WHERE state >= 4 \
                AND parent = (SELECT id FROM jobs WHERE n = ?1)";
            self.connection.prepare_cached(sql)?.execute(params![n, int(now_ms)])?;
            for sql in [
                "DELETE FROM events WHERE job = ?1",
                "DELETE FROM results WHERE job = ?1",
                "DELETE FROM row_results WHERE job = ?1",
                "DELETE FROM bodies WHERE job = ?1",
                "DELETE FROM needs WHERE job = ?1",
                "DELETE FROM jobs WHERE n = ?1",
            ] {
                self.connection.prepare_cached(sql)?.execute([n])?;
            }
        }
        self.tally.purged += numbers.len() as u64;
        Ok(numbers.len())
    }

    pub(super) fn remove(&mut self, id: JobId, now_ms: u64) -> Result<bool, JobsError> {
        // Before all that are due.
        let sql = "UPDATE jobs SET purge_at_ms = 0 WHERE id = ?1 AND state >= 4";
        let ended = self.connection.prepare_cached(sql)?.execute([rows::bytes_of(&id)])?;
        Ok(ended > 0 && self.purge(now_ms, 1)? == 1)
    }
}
