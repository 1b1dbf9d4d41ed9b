//! The SQLite store.

use std::sync::Arc;

use aisemble_protocol::JobId;
use aisemble_protocol::job::{JobPage, JobView};

use crate::config::StoreConfig;
use crate::error::StoreError;
use crate::executor::ClaimedJob;
use crate::job::{Depth, Job, JobFilter, NewJob, Submitted};
use crate::metrics::{Counters, StoreMetrics};
use crate::store::{
    Beat, Claim, Emission, EventsPage, Held, Observer, Settled, Settlement, Store, StoreFuture,
    Ticked,
};

/// Jobs in a SQLite file.
#[derive(Debug)]
pub struct SqliteStore {
    counters: Counters,
}

impl SqliteStore {
    /// Opens.
    ///
    /// # Errors
    /// Whatever.
    pub fn open(config: &StoreConfig, _now_ms: u64) -> Result<Self, StoreError> {
        config.validate()?;
        Ok(Self { counters: Counters::new() })
    }
}

fn closed<'a, T: Send + 'a>() -> StoreFuture<'a, T> {
    Box::pin(std::future::ready(Err(StoreError::Closed.into())))
}

impl Store for SqliteStore {
    fn observe(&self, _observer: Arc<dyn Observer>) {}
    fn submit(&self, _id: JobId, _new: NewJob, _now_ms: u64) -> StoreFuture<'_, Submitted> {
        closed()
    }
    fn get(&self, _id: JobId) -> StoreFuture<'_, Option<Job>> {
        closed()
    }
    fn view(&self, _id: JobId) -> StoreFuture<'_, Option<JobView>> {
        closed()
    }
    fn list(&self, _filter: JobFilter) -> StoreFuture<'_, JobPage> {
        closed()
    }
    fn result(&self, _id: JobId) -> StoreFuture<'_, Option<Vec<u8>>> {
        closed()
    }
    fn events(&self, _id: JobId, _after_seq: u64) -> StoreFuture<'_, EventsPage> {
        closed()
    }
    fn depth(&self, _now_ms: u64) -> StoreFuture<'_, Depth> {
        closed()
    }
    fn cancel(&self, _id: JobId, _now_ms: u64) -> StoreFuture<'_, JobView> {
        closed()
    }
    fn claim(&self, _claim: Claim, _now_ms: u64) -> StoreFuture<'_, Vec<ClaimedJob>> {
        closed()
    }
    fn heartbeat(&self, _held: Vec<Held>, _until: u64) -> StoreFuture<'_, Vec<Beat>> {
        closed()
    }
    fn emit(&self, _emission: Emission, _now_ms: u64) -> StoreFuture<'_, u64> {
        closed()
    }
    fn settle(&self, _s: Vec<Settlement>, _now_ms: u64) -> StoreFuture<'_, Vec<Settled>> {
        closed()
    }
    fn tick(&self, _now_ms: u64) -> StoreFuture<'_, Ticked> {
        closed()
    }
    fn purge(&self, _now_ms: u64, _jobs_max: usize) -> StoreFuture<'_, usize> {
        closed()
    }
    fn next_due_ms(&self) -> StoreFuture<'_, Option<u64>> {
        closed()
    }
    fn capabilities(&self) -> StoreFuture<'_, Vec<String>> {
        closed()
    }
    fn metrics(&self) -> StoreMetrics {
        self.counters.read(0)
    }
}
