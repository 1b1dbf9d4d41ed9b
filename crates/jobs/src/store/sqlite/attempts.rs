//! Claims, and what workers write under their leases.

use rusqlite::{OptionalExtension, params};

use super::failure::{int, uint};
use super::rows;
use super::writer::Writing;
use crate::error::JobsError;
use crate::executor::ClaimedJob;
use crate::state::Event;
use crate::store::record::Step;
use crate::store::selection::{self, Lane};
use crate::store::{Beat, Claim, Emission, Held, Outcome, Settled, Settlement, Want};

/// Lanes that one claim looks at; with more owners than that, those that come first by name go
/// first until they have nothing left.
const LANES_MAX: usize = 1_024;

impl Writing<'_> {
    pub(super) fn claim(
        &mut self,
        claim: &Claim,
        now_ms: u64,
    ) -> Result<Vec<ClaimedJob>, JobsError> {
        self.due(now_ms)?;
        let mut claimed = Vec::new();
        for want in &claim.wants {
            if self.is_paused(&want.capability)? {
                continue;
            }
            for n in self.select(want, now_ms)? {
                claimed.push(self.take(n, claim.lease_until_ms, now_ms)?);
            }
        }
        Ok(claimed)
    }

    fn is_paused(&self, capability: &str) -> Result<bool, JobsError> {
        let sql = "SELECT 1 FROM paused WHERE capability = ?1";
        Ok(self.connection.prepare_cached(sql)?.exists([capability])?)
    }

    /// Keeps the jobs of a capability from being claimed, or no longer.
    pub(super) fn pause(&mut self, capability: &str, paused: bool) -> Result<(), JobsError> {
        let sql = if paused {
            "INSERT OR IGNORE INTO paused (capability) VALUES (?1)"
        } else {
            "DELETE FROM paused WHERE capability = ?1"
        };
        self.connection.prepare_cached(sql)?.execute([capability])?;
        Ok(())
    }

    fn take(&mut self, n: i64, lease_until_ms: u64, now_ms: u64) -> Result<ClaimedJob, JobsError> {
        let mut record = rows::load(self.connection, n)?;
        record.lease_until_ms = lease_until_ms;
        self.step(n, &mut record, Step::of(Event::Claimed), now_ms)?;
        let sql = "SELECT payload, trace_parent FROM bodies WHERE job = ?1";
        let mut statement = self.connection.prepare_cached(sql)?;
        let (payload, trace) = statement.query_row([n], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(crate::store::claimed(&record, payload, trace))
    }

    /// The jobs that go first.
    fn select(&self, want: &Want, now_ms: u64) -> Result<Vec<i64>, JobsError> {
        let capability = want.capability.as_str();
        let (owners, mut lanes) = self.lanes(capability)?;
        let mut loads = vec![0; owners.len()];
        if owners.len() > 1 || want.per_owner_max.is_some() {
            self.loads(capability, &owners, &mut loads)?;
        }
        let bounds = selection::Bounds {
            jobs_max: want.jobs_max,
            per_owner_max: want.per_owner_max,
            now_ms,
            ageing_step_ms: self.policy.ageing_step_ms,
        };
        selection::pick(&mut lanes, &mut loads, bounds, |lane, jobs_max| {
            self.fetch(capability, &owners[lane.owner], lane, jobs_max)
        })
    }

    /// The owners that have queued jobs, and the lanes with their heads.
    fn lanes(&self, capability: &str) -> Result<(Vec<String>, Vec<Lane>), JobsError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT owner, priority, ready_at_ms, n FROM jobs INDEXED BY jobs_active \
             WHERE state = 2 AND state < 4 AND capability = ?1 AND (owner, priority) > (?2, ?3) \
             ORDER BY owner, priority, ready_at_ms, n LIMIT 1",
        )?;
        let (mut owners, mut lanes) = (Vec::<String>::new(), Vec::new());
        let (mut owner, mut priority) = (String::new(), -1_i64);
        while lanes.len() < LANES_MAX {
            let head = statement.query_row(params![capability, owner, priority], |row| {
                Ok((row.get::<_, String>(0)?, row.get(1)?, row.get::<_, i64>(2)?, row.get(3)?))
            });
            let Some((found, at, ready_at_ms, n)) = head.optional()? else { break };
            (owner, priority) = (found, at);
            if owners.last() != Some(&owner) {
                owners.push(owner.clone());
            }
            let head = (uint(ready_at_ms), n);
            lanes.push(Lane {
                owner: owners.len() - 1,
                priority: uint(priority),
                waiting: [head].into(),
                last: head,
                more: true,
            });
        }
        Ok((owners, lanes))
    }

    fn loads(
        &self,
        capability: &str,
        owners: &[String],
        loads: &mut [u64],
    ) -> Result<(), JobsError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT owner, count(*) FROM jobs INDEXED BY jobs_active \
             WHERE state = 3 AND state < 4 AND capability = ?1 GROUP BY owner",
        )?;
        let mut rows = statement.query([capability])?;
        while let Some(row) = rows.next()? {
            let owner: String = row.get(0)?;
            if let Ok(index) = owners.binary_search(&owner) {
                loads[index] = uint(row.get(1)?);
            }
        }
        Ok(())
    }

    fn fetch(
        &self,
        capability: &str,
        owner: &str,
        lane: &mut Lane,
        jobs_max: usize,
    ) -> Result<(), JobsError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT ready_at_ms, n FROM jobs INDEXED BY jobs_active \
             WHERE state = 2 AND state < 4 AND capability = ?1 AND owner = ?2 AND priority = ?3 \
             AND (ready_at_ms, n) > (?4, ?5) ORDER BY ready_at_ms, n LIMIT ?6",
        )?;
        let (ready_at_ms, n) = lane.last;
        let limit = jobs_max as i64;
        let of = params![capability, owner, int(lane.priority), int(ready_at_ms), n, limit];
        let mut rows = statement.query(of)?;
        while let Some(row) = rows.next()? {
            lane.last = (uint(row.get(0)?), row.get(1)?);
            lane.waiting.push_back(lane.last);
        }
        lane.more = lane.waiting.len() >= jobs_max;
        Ok(())
    }

    pub(super) fn heartbeat(
        &mut self,
        held: &[Held],
        lease_until_ms: u64,
    ) -> Result<Vec<Beat>, JobsError> {
        let mut statement = self.connection.prepare_cached(
            "UPDATE jobs SET lease_until_ms = ?3 WHERE id = ?1 AND state = 3 AND lease = ?2 \
             RETURNING cancel_requested",
        )?;
        let mut beats = Vec::with_capacity(held.len());
        for Held { id, lease } in held {
            let of = params![rows::bytes_of(id), int(*lease), int(lease_until_ms)];
            let asked: Option<bool> = statement.query_row(of, |row| row.get(0)).optional()?;
            self.tally.stale += u64::from(asked.is_none());
            beats.push(match asked {
                Some(true) => Beat::CancelRequested,
                Some(false) => Beat::Renewed,
                None => Beat::Lost,
            });
        }
        Ok(beats)
    }

    pub(super) fn emit(&mut self, emission: &Emission, now_ms: u64) -> Result<u64, JobsError> {
        let Held { id, lease } = emission.held;
        let found = rows::find(self.connection, id)?;
        let held = found.filter(|(_, record)| record.held_under(lease));
        let (n, mut record) = held.ok_or(JobsError::LeaseLost { id, lease })?;
        record.emit(emission.data.len(), self.policy)?;
        let mut statement = self.connection.prepare_cached(
            "UPDATE jobs SET event_seq = ?2, emitted = ?3, emitted_bytes = ?4 WHERE n = ?1",
        )?;
        let (seq, bytes) = (int(record.event_seq), int(record.emitted_bytes));
        statement.execute(params![n, seq, int(record.emitted), bytes])?;
        let sql = "INSERT INTO events (job, seq, at_ms, kind, data) VALUES (?1, ?2, ?3, ?4, ?5)";
        let mut statement = self.connection.prepare_cached(sql)?;
        statement.execute(params![n, seq, int(now_ms), emission.kind, emission.data])?;
        self.changes.push(record.change());
        self.tally.emitted += 1;
        Ok(record.event_seq)
    }

    pub(super) fn settle(
        &mut self,
        settlements: &[Settlement],
        now_ms: u64,
    ) -> Result<Vec<Settled>, JobsError> {
        let mut settled = Vec::with_capacity(settlements.len());
        for Settlement { held, outcome } in settlements {
            let found = rows::find(self.connection, held.id)?;
            let Some((n, mut record)) = found.filter(|(_, r)| r.held_under(held.lease)) else {
                self.tally.stale += 1;
                settled.push(Settled::Stale);
                continue;
            };
            let step = record.settlement(outcome);
            if let (Event::Succeeded, Outcome::Succeeded { result }) = (step.event, outcome) {
                let sql = "INSERT INTO results (job, result) VALUES (?1, ?2)";
                self.connection.prepare_cached(sql)?.execute(params![n, result])?;
            }
            self.step(n, &mut record, step, now_ms)?;
            settled.push(Settled::Recorded { state: record.state });
        }
        Ok(settled)
    }
}
