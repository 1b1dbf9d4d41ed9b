//! The model itself: what each operation does to a map of jobs. It knows no locks, futures or
//! observers.

use std::collections::{BTreeMap, HashMap, VecDeque};

use aisemble_protocol::job::{JobEvent, JobPage, JobView, Priority};
use aisemble_protocol::{JobId, JobState};

use super::beside::Beside;
use crate::error::{JobsError, StoreError};
use crate::executor::ClaimedJob;
use crate::job::{Depth, DepthEntry, Idempotency, JobFilter, NewJob, Submitted};
use crate::limits;
use crate::metrics::Tally;
use crate::state::Event;
use crate::store::record::{Entry, Policy, Record, Step};
use crate::store::row_results::RowResult;
use crate::store::{
    self, Beat, Change, Claim, Emission, EventsPage, Held, Outcome, Settled, Settlement, Ticked,
    Want, selection,
};

pub(super) type Answer<T> = Result<T, JobsError>;

pub(super) struct Model {
    policy: Policy,
    pub(super) jobs: BTreeMap<i64, Kept>,
    keys: HashMap<(String, String), Key>,
    pub(super) beside: Beside,
    pub(super) changes: Vec<Change>,
    pub(super) tally: Tally,
}

pub(super) struct Kept {
    pub(super) record: Record,
    pub(super) new: NewJob,
    pub(super) needs: Vec<JobId>,
    pub(super) events: Vec<JobEvent>,
    pub(super) result: Option<Vec<u8>>,
    pub(super) rows: BTreeMap<u32, RowResult>,
}

struct Key {
    fingerprint: [u8; 32],
    job: JobId,
    expires_at_ms: u64,
}

impl Model {
    pub(super) fn new(policy: Policy) -> Self {
        Self {
            policy,
            jobs: BTreeMap::new(),
            keys: HashMap::new(),
            beside: Beside::default(),
            changes: Vec::new(),
            tally: Tally::default(),
        }
    }

    /// Takes back every running job.
    pub(super) fn recover(&mut self, now_ms: u64) -> Answer<()> {
        for n in self.numbers(|record| record.state == JobState::Running) {
            let step = self.record(n)?.rescue();
            self.tally.rescued += 1;
            self.step(n, step, now_ms)?;
        }
        Ok(())
    }

    pub(super) fn number(&self, id: JobId) -> Option<i64> {
        self.jobs.iter().find(|(_, kept)| kept.record.id == id).map(|(n, _)| *n)
    }

    fn numbers(&self, which: impl Fn(&Record) -> bool) -> Vec<i64> {
        self.jobs.iter().filter(|(_, kept)| which(&kept.record)).map(|(n, _)| *n).collect()
    }

    fn kept(&mut self, n: i64) -> Answer<&mut Kept> {
        self.jobs.get_mut(&n).ok_or(JobsError::Store(StoreError::BadRow { column: "n" }))
    }

    fn record(&mut self, n: i64) -> Answer<&mut Record> {
        self.kept(n).map(|kept| &mut kept.record)
    }

    fn append(&mut self, n: i64, entry: &Entry, now_ms: u64) -> Answer<()> {
        let kept = self.kept(n)?;
        let data =
            serde_json::from_str(&entry.data).map_err(|_| StoreError::BadRow { column: "data" })?;
        let (seq, kind) = (kept.record.event_seq, entry.kind.to_owned());
        kept.events.push(JobEvent { seq, at_ms: now_ms, kind, data });
        let change = kept.record.change();
        self.changes.push(change);
        Ok(())
    }

    fn step(&mut self, n: i64, step: Step, now_ms: u64) -> Answer<()> {
        let mut ended = VecDeque::new();
        self.step_one(n, step, now_ms, &mut ended)?;
        while let Some((need, state)) = ended.pop_front() {
            let children = |r: &Record| r.state == JobState::Pending;
            for child in self.numbers(children) {
                if !self.kept(child)?.needs.contains(&need) {
                    continue;
                }
                let record = self.record(child)?;
                if state == JobState::Succeeded {
                    record.needs_open -= 1;
                    if record.needs_open == 0 {
                        let step = record.release(now_ms);
                        self.step_one(child, step, now_ms, &mut ended)?;
                    }
                } else {
                    let step = Step::need_failed(need, state);
                    self.step_one(child, step, now_ms, &mut ended)?;
                }
            }
        }
        Ok(())
    }

    fn step_one(
        &mut self,
        n: i64,
        step: Step,
        now_ms: u64,
        ended: &mut VecDeque<(JobId, JobState)>,
    ) -> Answer<()> {
        let known = |parent| self.number(parent).is_some();
        let orphan = self.jobs.get(&n).and_then(|kept| kept.record.parent);
        let orphan = orphan.is_some_and(|parent| !known(parent));
        let Self { jobs, policy, tally, .. } = self;
        let kept = jobs.get_mut(&n).ok_or(StoreError::BadRow { column: "n" })?;
        let entry = kept.record.step(step, now_ms, policy, tally)?;
        if kept.record.state.is_final() && orphan {
            kept.record.purge_at_ms = Some(now_ms);
        }
        if kept.record.state.is_final() {
            ended.push_back((kept.record.id, kept.record.state));
        }
        self.append(n, &entry, now_ms)
    }

    pub(super) fn view(&self, id: JobId) -> Option<JobView> {
        let kept = self.number(id).and_then(|n| self.jobs.get(&n))?;
        Some(kept.record.view(kept.needs.clone(), kept.new.metadata.clone()))
    }

    pub(super) fn submit(&mut self, id: JobId, new: NewJob, now_ms: u64) -> Answer<Submitted> {
        let key = new.idempotency.clone().map(|i| ((new.owner.clone(), i.key), i.fingerprint));
        if let Some(view) = self.view(id) {
            return Ok(Submitted::Existing(view));
        }
        if let Some(idempotency) = &new.idempotency
            && let Some(view) = self.replay(&new.owner, idempotency, now_ms)?
        {
            self.tally.replayed += 1;
            return Ok(Submitted::Existing(view));
        }
        if let Some(open_max) = new.open_jobs_max {
            let open = self.numbers(|r| r.owner == new.owner && !r.state.is_final()).len();
            if open >= open_max as usize {
                return Err(JobsError::OwnerFull { open_max });
            }
        }
        let (mut needs, mut open, mut failed) = (Vec::new(), Vec::new(), None);
        for need in &new.needs {
            if needs.contains(need) {
                continue;
            }
            needs.push(*need);
            let found = self.number(*need).and_then(|n| self.jobs.get(&n).map(|kept| (n, kept)));
            let Some((n, kept)) = found.filter(|(_, kept)| kept.record.owner == new.owner) else {
                return Err(JobsError::UnknownNeed { id: *need });
            };
            match kept.record.state {
                JobState::Succeeded => {}
                state @ (JobState::Failed | JobState::Cancelled | JobState::Expired) => {
                    failed = failed.or(Some((*need, state)));
                }
                JobState::Pending | JobState::Scheduled | JobState::Queued | JobState::Running => {
                    open.push(n);
                }
            }
        }
        for n in &open {
            store::room_for_dependant(self.record(*n)?)?;
        }
        let counts = (needs.len() as u32, open.len() as u32 + u32::from(failed.is_some()));
        let (record, entry) = Record::accept(id, &new, counts, now_ms);
        let n = self.jobs.last_key_value().map_or(1, |(n, _)| n + 1);
        if let Some((key, fingerprint)) = key {
            let expires_at_ms = record.keep_until_ms;
            self.keys.insert(key, Key { fingerprint, job: id, expires_at_ms });
        }
        self.jobs.insert(
            n,
            Kept { record, new, needs, events: Vec::new(), result: None, rows: BTreeMap::new() },
        );
        self.append(n, &entry, now_ms)?;
        for need in open {
            self.record(need)?.dependants += 1;
        }
        self.tally.submitted += 1;
        if let Some((need, state)) = failed {
            self.step(n, Step::need_failed(need, state), now_ms)?;
        }
        let view = self.view(id).ok_or(JobsError::NotFound { id })?;
        Ok(Submitted::Created(view))
    }

    pub(super) fn replay(
        &self,
        owner: &str,
        idempotency: &Idempotency,
        now_ms: u64,
    ) -> Answer<Option<JobView>> {
        let key = (owner.to_owned(), idempotency.key.clone());
        let known = self.keys.get(&key).filter(|known| known.expires_at_ms > now_ms);
        let Some(known) = known else { return Ok(None) };
        let Some(view) = self.view(known.job) else { return Ok(None) };
        if known.fingerprint != idempotency.fingerprint {
            return Err(JobsError::IdempotencyMismatch);
        }
        Ok(Some(view))
    }

    pub(super) fn list(&self, filter: &JobFilter) -> Answer<JobPage> {
        let (before, limit) = (store::cursor(filter)?, store::page_limit(filter));
        let shown = |r: &Record| {
            filter.owner.as_ref().is_none_or(|owner| r.owner == *owner)
                && filter.kind.as_ref().is_none_or(|kind| r.kind == *kind)
                && filter.parent.is_none_or(|parent| r.parent == Some(parent))
                && (filter.states.is_empty() || filter.states.contains(&r.state))
        };
        let mut numbers = self.numbers(shown);
        numbers.retain(|n| *n < before);
        numbers.reverse();
        let more = numbers.len() > limit;
        numbers.truncate(limit);
        let next_cursor = numbers.last().filter(|_| more).map(ToString::to_string);
        let kept = numbers.iter().filter_map(|n| self.jobs.get(n));
        let jobs = kept.map(|k| k.record.view(k.needs.clone(), k.new.metadata.clone())).collect();
        Ok(JobPage { jobs, next_cursor })
    }

    pub(super) fn cancel(&mut self, id: JobId, now_ms: u64) -> Answer<JobView> {
        let n = self.number(id).ok_or(JobsError::NotFound { id })?;
        let record = self.record(n)?;
        if !record.state.is_final() && !record.cancel_requested {
            self.step(n, Step::cancel(Event::CancelRequested), now_ms)?;
        }
        self.view(id).ok_or(JobsError::NotFound { id })
    }

    pub(super) fn cancel_children(&mut self, parent: JobId, now_ms: u64) -> Answer<usize> {
        let mut cancelled = 0;
        for n in self.numbers(|r| r.parent == Some(parent) && !r.state.is_final()) {
            let record = self.record(n)?;
            if !record.state.is_final() && !record.cancel_requested {
                self.step(n, Step::cancel(Event::CancelRequested), now_ms)?;
                cancelled += 1;
            }
        }
        Ok(cancelled)
    }

    fn due(&mut self, now_ms: u64) -> Answer<Ticked> {
        let mut due: Vec<_> = self.jobs.iter().map(|(n, k)| (k.record.due_at_ms(), *n)).collect();
        due.retain(|(at_ms, _)| at_ms.is_some_and(|at_ms| at_ms <= now_ms));
        due.sort_unstable();
        let more = due.len() >= limits::TICK_JOBS_MAX;
        due.truncate(limits::TICK_JOBS_MAX);
        let mut ticked = Ticked { more, ..Ticked::default() };
        for (_, n) in due {
            if let Some(step) = self.record(n)?.due(now_ms) {
                let due = step.event == Event::Due;
                *(if due { &mut ticked.started } else { &mut ticked.expired }) += 1;
                self.step(n, step, now_ms)?;
            }
        }
        Ok(ticked)
    }

    pub(super) fn tick(&mut self, now_ms: u64) -> Answer<Ticked> {
        let mut ticked = self.due(now_ms)?;
        let mut lost = self.numbers(|r| r.state == JobState::Running && r.lease_until_ms <= now_ms);
        ticked.more |= lost.len() >= limits::TICK_JOBS_MAX;
        lost.truncate(limits::TICK_JOBS_MAX);
        for n in lost {
            let step = self.record(n)?.rescue();
            self.tally.rescued += 1;
            self.step(n, step, now_ms)?;
            ticked.rescued += 1;
        }
        Ok(ticked)
    }

    /// The best job by comparing every queued one: the rule of `selection` without its lanes.
    fn best(&self, want: &Want, now_ms: u64) -> Option<i64> {
        let capability = want.capability.as_str();
        let load = |owner: &str| {
            let runs = |r: &Record| {
                r.state == JobState::Running && r.capability == capability && r.owner == owner
            };
            self.numbers(runs).len()
        };
        let queued = self.jobs.iter().filter(|(_, kept)| {
            kept.record.state == JobState::Queued && kept.record.capability == capability
        });
        let room = |kept: &Kept| {
            want.per_owner_max.is_none_or(|max| (load(&kept.record.owner) as u64) < max)
        };
        let keyed = queued.filter(|(_, kept)| room(kept)).map(|(n, kept)| {
            let r = &kept.record;
            let priority = match r.priority {
                Priority::Interactive => 0,
                Priority::Normal => 1,
                Priority::Batch => 2,
            };
            let waited_ms = now_ms.saturating_sub(r.ready_at_ms);
            let class = selection::class(priority, waited_ms, self.policy.ageing_step_ms);
            (class, load(&r.owner), r.ready_at_ms, *n)
        });
        keyed.min().map(|(_, _, _, n)| n)
    }

    pub(super) fn claim(&mut self, claim: &Claim, now_ms: u64) -> Answer<Vec<ClaimedJob>> {
        self.due(now_ms)?;
        let mut claimed = Vec::new();
        for want in &claim.wants {
            if self.beside.paused.contains(&want.capability) {
                continue;
            }
            for _ in 0..want.jobs_max {
                let Some(n) = self.best(want, now_ms) else { break };
                self.step(n, Step::of(Event::Claimed), now_ms)?;
                self.record(n)?.lease_until_ms = claim.lease_until_ms;
                let kept = self.kept(n)?;
                let trace = kept.new.trace_parent.clone();
                claimed.push(store::claimed(&kept.record, kept.new.payload.clone(), trace));
            }
        }
        Ok(claimed)
    }

    pub(super) fn heartbeat(&mut self, held: &[Held], lease_until_ms: u64) -> Answer<Vec<Beat>> {
        let mut beats = Vec::with_capacity(held.len());
        for held in held {
            let n = self.number(held.id);
            let record = n.and_then(|n| self.jobs.get_mut(&n)).map(|kept| &mut kept.record);
            let Some(record) = record.filter(|record| record.held_under(held.lease)) else {
                self.tally.stale += 1;
                beats.push(Beat::Lost);
                continue;
            };
            record.lease_until_ms = lease_until_ms;
            let asked = record.cancel_requested;
            beats.push(if asked { Beat::CancelRequested } else { Beat::Renewed });
        }
        Ok(beats)
    }

    pub(super) fn emit(&mut self, emission: Emission, now_ms: u64) -> Answer<u64> {
        let Held { id, lease } = emission.held;
        let lost = JobsError::LeaseLost { id, lease };
        let n = self.number(id).ok_or(lost)?;
        let Self { jobs, policy, .. } = self;
        let kept = jobs.get_mut(&n).ok_or(JobsError::NotFound { id })?;
        if !kept.record.held_under(lease) {
            return Err(JobsError::LeaseLost { id, lease });
        }
        kept.record.emit(emission.data.len(), policy)?;
        let data = serde_json::from_str(&emission.data)
            .map_err(|_| StoreError::BadRow { column: "data" })?;
        let seq = kept.record.event_seq;
        kept.events.push(JobEvent { seq, at_ms: now_ms, kind: emission.kind, data });
        let change = kept.record.change();
        self.changes.push(change);
        self.tally.emitted += 1;
        Ok(seq)
    }

    pub(super) fn settle(
        &mut self,
        settlements: &[Settlement],
        now_ms: u64,
    ) -> Answer<Vec<Settled>> {
        let mut settled = Vec::with_capacity(settlements.len());
        for Settlement { held, outcome } in settlements {
            let n = self.number(held.id);
            let record = n.and_then(|n| self.jobs.get(&n)).map(|kept| &kept.record);
            let (Some(n), Some(record)) = (n, record.filter(|r| r.held_under(held.lease))) else {
                self.tally.stale += 1;
                settled.push(Settled::Stale);
                continue;
            };
            let step = record.settlement(outcome);
            if let (Event::Succeeded, Outcome::Succeeded { result }) = (step.event, outcome) {
                self.kept(n)?.result = Some(result.clone());
            }
            self.step(n, step, now_ms)?;
            settled.push(Settled::Recorded { state: self.record(n)?.state });
        }
        Ok(settled)
    }

    pub(super) fn purge(&mut self, now_ms: u64, jobs_max: usize) -> usize {
        self.keys.retain(|_, key| key.expires_at_ms > now_ms);
        let mut due: Vec<_> = self.jobs.iter().map(|(n, k)| (k.record.purge_at_ms, *n)).collect();
        due.retain(|(at_ms, _)| at_ms.is_some_and(|at_ms| at_ms <= now_ms));
        due.sort_unstable();
        due.truncate(jobs_max);
        for (_, n) in &due {
            let Some(gone) = self.jobs.remove(n) else { continue };
            let children = self.jobs.values_mut().filter(|kept| {
                kept.record.parent == Some(gone.record.id) && kept.record.state.is_final()
            });
            children.for_each(|kept| kept.record.purge_at_ms = Some(now_ms));
        }
        self.tally.purged += due.len() as u64;
        due.len()
    }

    pub(super) fn remove(&mut self, id: JobId, now_ms: u64) -> bool {
        let kept = self.number(id).and_then(|n| self.jobs.get_mut(&n));
        let Some(kept) = kept.filter(|kept| kept.record.state.is_final()) else { return false };
        // Before all that are due.
        kept.record.purge_at_ms = Some(0);
        self.purge(now_ms, 1) == 1
    }

    pub(super) fn depth(&self, now_ms: u64) -> Depth {
        let mut entries: BTreeMap<(String, usize), (JobState, u64, u64)> = BTreeMap::new();
        for record in self.jobs.values().map(|kept| &kept.record) {
            if record.state.is_final() {
                continue;
            }
            let order = JobState::ALL.iter().position(|s| *s == record.state).unwrap_or(0);
            let entry = entries.entry((record.capability.clone(), order)).or_insert((
                record.state,
                0,
                u64::MAX,
            ));
            entry.1 += 1;
            entry.2 = entry.2.min(record.ready_at_ms);
        }
        let entries = entries.into_iter().map(|((capability, _), (state, count, ready_at_ms))| {
            DepthEntry { capability, state, count, oldest_ms: now_ms.saturating_sub(ready_at_ms) }
        });
        Depth { entries: entries.collect() }
    }

    pub(super) fn events(&self, id: JobId, after_seq: u64) -> Answer<EventsPage> {
        let n = self.number(id).ok_or(JobsError::NotFound { id })?;
        let kept = self.jobs.get(&n).ok_or(JobsError::NotFound { id })?;
        let after = kept.events.iter().filter(|event| event.seq > after_seq);
        let events = store::page_of(after.cloned().map(|e| (e.data.to_string().len(), e)));
        let last_seq = events.last().map_or(after_seq, |event| event.seq);
        let ended = kept.record.state.is_final() && last_seq >= kept.record.event_seq;
        Ok(EventsPage { events, ended })
    }
}
