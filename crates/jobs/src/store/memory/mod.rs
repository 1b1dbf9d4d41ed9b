//! The store as a plain model in memory: what the SQLite store is compared with, and a store for
//! tests of other crates. It is written to be obviously right, not fast, and keeps nothing on disk.

mod beside;
mod model;

use std::future::ready;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use aisemble_protocol::job::{JobPage, JobView};
use aisemble_protocol::{JobId, JobState};

use self::model::{Answer, Model};
use super::record::{Policy, Record};
use super::{
    Beat, Claim, Emission, EventsPage, Held, Observer, Settled, Settlement, Store, StoreFuture,
    Ticked,
};
use crate::config::StoreConfig;
use crate::error::JobsError;
use crate::executor::ClaimedJob;
use crate::job::{Depth, Idempotency, Job, JobFilter, NewJob, Submitted};
use crate::metrics::{Counters, StoreMetrics};

/// Jobs in memory.
pub struct MemoryStore {
    model: Mutex<Model>,
    counters: Counters,
    observer: OnceLock<Arc<dyn Observer>>,
}

impl MemoryStore {
    /// An empty store; of the settings, those of jobs apply.
    #[must_use]
    pub fn new(config: &StoreConfig) -> Self {
        let model = Model::new(Policy::of(config));
        Self { model: Mutex::new(model), counters: Counters::new(), observer: OnceLock::new() }
    }

    /// What opening the store after a crash does: running jobs go back into the queue.
    ///
    /// # Errors
    /// None that is known.
    pub fn recover(&self, now_ms: u64) -> Result<(), JobsError> {
        self.with(|model| model.recover(now_ms))
    }

    fn lock(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, operation: impl FnOnce(&mut Model) -> Answer<T>) -> Answer<T> {
        let (answer, changes) = {
            let mut model = self.lock();
            let answer = operation(&mut model);
            if matches!(answer, Err(JobsError::LeaseLost { .. })) {
                model.tally.stale += 1;
            }
            self.counters.add(&std::mem::take(&mut model.tally));
            (answer, std::mem::take(&mut model.changes))
        };
        if let Some(observer) = self.observer.get()
            && !changes.is_empty()
        {
            observer.changed(&changes);
        }
        answer
    }

    fn answer<'a, T: Send + 'a>(
        &self,
        operation: impl FnOnce(&mut Model) -> Answer<T>,
    ) -> StoreFuture<'a, T> {
        Box::pin(ready(self.with(operation)))
    }
}

impl std::fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryStore").field("jobs", &self.lock().jobs.len()).finish()
    }
}

impl Store for MemoryStore {
    fn observe(&self, observer: Arc<dyn Observer>) {
        let _ = self.observer.set(observer);
    }
    fn submit(&self, id: JobId, new: NewJob, now_ms: u64) -> StoreFuture<'_, Submitted> {
        self.answer(|model| model.submit(id, new, now_ms))
    }
    fn replay(
        &self,
        owner: String,
        idempotency: Idempotency,
        now_ms: u64,
    ) -> StoreFuture<'_, Option<JobView>> {
        self.answer(|model| model.replay(&owner, &idempotency, now_ms))
    }
    fn get(&self, id: JobId) -> StoreFuture<'_, Option<Job>> {
        self.answer(|model| {
            let kept = model.number(id).and_then(|n| model.jobs.get(&n));
            Ok(kept.map(|kept| Job {
                view: kept.record.view(kept.needs.clone(), kept.new.metadata.clone()),
                owner: kept.record.owner.clone(),
                capability: kept.record.capability.clone(),
                payload: kept.new.payload.clone(),
                trace_parent: kept.new.trace_parent.clone(),
            }))
        })
    }
    fn view(&self, id: JobId) -> StoreFuture<'_, Option<JobView>> {
        self.answer(|model| Ok(model.view(id)))
    }
    fn list(&self, filter: JobFilter) -> StoreFuture<'_, JobPage> {
        self.answer(|model| model.list(&filter))
    }
    fn result(&self, id: JobId) -> StoreFuture<'_, Option<Vec<u8>>> {
        self.answer(|model| {
            let kept = model.number(id).and_then(|n| model.jobs.get(&n));
            Ok(kept.and_then(|kept| kept.result.clone()))
        })
    }
    fn events(&self, id: JobId, after_seq: u64) -> StoreFuture<'_, EventsPage> {
        self.answer(|model| model.events(id, after_seq))
    }
    fn depth(&self, now_ms: u64) -> StoreFuture<'_, Depth> {
        self.answer(|model| Ok(model.depth(now_ms)))
    }
    fn cancel(&self, id: JobId, now_ms: u64) -> StoreFuture<'_, JobView> {
        self.answer(|model| model.cancel(id, now_ms))
    }
    fn cancel_children(&self, parent: JobId, now_ms: u64) -> StoreFuture<'_, usize> {
        self.answer(|model| model.cancel_children(parent, now_ms))
    }
    fn pause(&self, capability: String, paused: bool) -> StoreFuture<'_, ()> {
        self.answer(|model| {
            if paused {
                model.beside.paused.insert(capability);
            } else {
                model.beside.paused.remove(&capability);
            }
            Ok(())
        })
    }
    fn paused(&self) -> StoreFuture<'_, Vec<String>> {
        self.answer(|model| Ok(model.beside.paused.iter().cloned().collect()))
    }
    fn claim(&self, claim: Claim, now_ms: u64) -> StoreFuture<'_, Vec<ClaimedJob>> {
        self.answer(|model| model.claim(&claim, now_ms))
    }
    fn heartbeat(&self, held: Vec<Held>, lease_until_ms: u64) -> StoreFuture<'_, Vec<Beat>> {
        self.answer(|model| model.heartbeat(&held, lease_until_ms))
    }
    fn emit(&self, emission: Emission, now_ms: u64) -> StoreFuture<'_, u64> {
        self.answer(|model| model.emit(emission, now_ms))
    }
    fn settle(&self, settlements: Arc<[Settlement]>, now_ms: u64) -> StoreFuture<'_, Vec<Settled>> {
        self.answer(|model| model.settle(&settlements, now_ms))
    }
    fn tick(&self, now_ms: u64) -> StoreFuture<'_, Ticked> {
        self.answer(|model| model.tick(now_ms))
    }
    fn purge(&self, now_ms: u64, jobs_max: usize) -> StoreFuture<'_, usize> {
        self.answer(|model| Ok(model.purge(now_ms, jobs_max)))
    }
    fn remove(&self, id: JobId, now_ms: u64) -> StoreFuture<'_, bool> {
        self.answer(move |model| Ok(model.remove(id, now_ms)))
    }
    fn next_due_ms(&self) -> StoreFuture<'_, Option<u64>> {
        self.answer(|model| {
            let lease = |r: &Record| (r.state == JobState::Running).then_some(r.lease_until_ms);
            let times = model.jobs.values().flat_map(|k| [k.record.due_at_ms(), lease(&k.record)]);
            Ok(times.flatten().min())
        })
    }
    fn capabilities(&self) -> StoreFuture<'_, Vec<String>> {
        self.answer(|model| {
            let queued = model.jobs.values().filter(|k| k.record.state == JobState::Queued);
            let names: std::collections::BTreeSet<_> =
                queued.map(|kept| kept.record.capability.clone()).collect();
            Ok(names.into_iter().collect())
        })
    }
    fn metrics(&self) -> StoreMetrics {
        self.counters.read(0)
    }
}
