//! Submitting, cancelling and deleting jobs.

use aisemble_protocol::job::JobView;
use aisemble_protocol::{JobId, JobState};
use rusqlite::{OptionalExtension, params};

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
        if let Some(idempotency) = &new.idempotency
            && let Some(view) = self.replay(&new.owner, idempotency, now_ms)?
        {
            self.tally.replayed += 1;
            return Ok(Submitted::Existing(view));
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

    fn replay(
        &self,
        owner: &str,
        idempotency: &Idempotency,
        now_ms: u64,
    ) -> Result<Option<JobView>, JobsError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT fingerprint, job_id FROM idempotency \
             WHERE owner = ?1 AND key = ?2 AND expires_at_ms > ?3",
        )?;
        let found = statement
            .query_row(params![owner, idempotency.key, int(now_ms)], |row| {
                Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, Vec<u8>>(1)?))
            })
            .optional()?;
        let Some((fingerprint, id)) = found else { return Ok(None) };
        let Some(view) = query::view(self.connection, rows::id_of(&id)?)? else { return Ok(None) };
        if fingerprint != idempotency.fingerprint {
            return Err(JobsError::IdempotencyMismatch);
        }
        Ok(Some(view))
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
            for sql in [
                "DELETE FROM events WHERE job = ?1",
                "DELETE FROM results WHERE job = ?1",
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
}
