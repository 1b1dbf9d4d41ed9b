//! Moving jobs: one step with its event, and what the end of a job does to those that need it.

use std::collections::VecDeque;

use aisemble_protocol::{JobId, JobState};

use super::rows;
use super::writer::Writing;
use crate::error::JobsError;
use crate::limits;
use crate::state::Event;
use crate::store::Ticked;
use crate::store::record::{Record, Step};

type Ended = VecDeque<(JobId, JobState)>;

impl Writing<'_> {
    /// Moves the job, writes it with its event, and carries its end to those that need it.
    pub(super) fn step(
        &mut self,
        n: i64,
        record: &mut Record,
        step: Step,
        now_ms: u64,
    ) -> Result<(), JobsError> {
        let mut ended = Ended::new();
        self.step_one((n, record), step, now_ms, &mut ended)?;
        while let Some((need, state)) = ended.pop_front() {
            for child in self.waiting_for(need)? {
                self.need_ended(child, (need, state), now_ms, &mut ended)?;
            }
        }
        Ok(())
    }

    fn step_one(
        &mut self,
        (n, record): (i64, &mut Record),
        step: Step,
        now_ms: u64,
        ended: &mut Ended,
    ) -> Result<(), JobsError> {
        let entry = record.step(step, now_ms, self.policy, &mut self.tally)?;
        if record.state.is_final()
            && let Some(parent) = record.parent
            && rows::find(self.connection, parent)?.is_none()
        {
            record.purge_at_ms = Some(now_ms);
        }
        rows::save(self.connection, n, record)?;
        rows::append(self.connection, n, record, &entry, now_ms)?;
        self.changes.push(record.change());
        if record.state.is_final() && record.dependants > 0 {
            ended.push_back((record.id, record.state));
        }
        Ok(())
    }

    fn waiting_for(&self, need: JobId) -> Result<Vec<i64>, JobsError> {
        let sql = "SELECT job FROM needs WHERE need = ?1 ORDER BY job";
        let mut statement = self.connection.prepare_cached(sql)?;
        let children = statement.query_map([rows::bytes_of(&need)], |row| row.get(0))?;
        Ok(children.collect::<Result<_, _>>()?)
    }

    fn need_ended(
        &mut self,
        child: i64,
        (need, state): (JobId, JobState),
        now_ms: u64,
        ended: &mut Ended,
    ) -> Result<(), JobsError> {
        let mut record = rows::load(self.connection, child)?;
        if record.state != JobState::Pending {
            return Ok(());
        }
        if state != JobState::Succeeded {
            let step = Step::need_failed(need, state);
            return self.step_one((child, &mut record), step, now_ms, ended);
        }
        record.needs_open = record.needs_open.saturating_sub(1);
        if record.needs_open == 0 {
            let step = record.release(now_ms);
            return self.step_one((child, &mut record), step, now_ms, ended);
        }
        rows::save(self.connection, child, &record)
    }

    /// Starts what is scheduled and expires what is over by `now_ms`.
    pub(super) fn due(&mut self, now_ms: u64) -> Result<Ticked, JobsError> {
        let numbers = self.numbers(
            "SELECT n FROM jobs INDEXED BY jobs_due \
             WHERE due_at_ms IS NOT NULL AND due_at_ms <= ?1 ORDER BY due_at_ms, n LIMIT ?2",
            now_ms,
            limits::TICK_JOBS_MAX,
        )?;
        let more = numbers.len() >= limits::TICK_JOBS_MAX;
        let mut ticked = Ticked { more, ..Ticked::default() };
        for n in numbers {
            let mut record = rows::load(self.connection, n)?;
            // The end of a job before it may have ended this one.
            if let Some(step) = record.due(now_ms) {
                let due = step.event == Event::Due;
                *(if due { &mut ticked.started } else { &mut ticked.expired }) += 1;
                self.step(n, &mut record, step, now_ms)?;
            }
        }
        Ok(ticked)
    }

    /// `due`, and takes jobs back whose lease has run out.
    pub(super) fn tick(&mut self, now_ms: u64) -> Result<Ticked, JobsError> {
        let mut ticked = self.due(now_ms)?;
        let lost = self.numbers(
            "SELECT n FROM jobs INDEXED BY jobs_active \
             WHERE state = 3 AND state < 4 AND lease_until_ms <= ?1 ORDER BY n LIMIT ?2",
            now_ms,
            limits::TICK_JOBS_MAX,
        )?;
        ticked.more |= lost.len() >= limits::TICK_JOBS_MAX;
        ticked.rescued = self.rescue(lost, now_ms)?;
        Ok(ticked)
    }

    /// Takes back every running job: those of a process that is gone.
    pub(super) fn rescue_all(&mut self, now_ms: u64) -> Result<usize, JobsError> {
        let lost = self.numbers(
            "SELECT n FROM jobs INDEXED BY jobs_active \
             WHERE state = 3 AND state < 4 AND ?1 >= 0 ORDER BY n LIMIT ?2",
            now_ms,
            usize::MAX >> 1,
        )?;
        self.rescue(lost, now_ms)
    }

    fn rescue(&mut self, lost: Vec<i64>, now_ms: u64) -> Result<usize, JobsError> {
        let mut rescued = 0;
        for n in lost {
            let mut record = rows::load(self.connection, n)?;
            if record.state == JobState::Running {
                let step = record.rescue();
                self.step(n, &mut record, step, now_ms)?;
                rescued += 1;
            }
        }
        self.tally.rescued += rescued as u64;
        Ok(rescued)
    }

    pub(super) fn numbers(
        &self,
        sql: &str,
        now_ms: u64,
        limit: usize,
    ) -> Result<Vec<i64>, JobsError> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let numbers = statement.query_map([super::failure::int(now_ms), limit], |r| r.get(0))?;
        Ok(numbers.collect::<Result<_, _>>()?)
    }
}
