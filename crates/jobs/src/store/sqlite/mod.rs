//! Jobs in a SQLite file: write-ahead log, `synchronous=FULL`, one writer thread with group commit,
//! reading threads. A process owns its file alone.

mod accept;
mod attempts;
mod backup;
mod failure;
mod files;
mod open;
mod query;
mod readers;
mod row_results;
mod rows;
mod schedules;
mod schema;
mod steps;
mod writer;

use std::fmt;
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use aisemble_protocol::JobId;
use aisemble_protocol::job::{JobPage, JobView};
use rusqlite::Connection;

pub use self::backup::{backup, forget};
use self::readers::Readers;
use self::writer::{Loop, Writer, Writing};
use super::record::Policy;
use super::{
    Beat, Claim, Emission, EventsPage, Held, Observer, Settled, Settlement, Store, StoreFuture,
    Ticked,
};
use crate::config::StoreConfig;
use crate::error::{JobsError, StoreError};
use crate::executor::ClaimedJob;
use crate::job::{Depth, Idempotency, Job, JobFilter, NewJob, Submitted};
use crate::metrics::{Counters, StoreMetrics, Tally};

/// Jobs in a SQLite file. Dropping it writes what is queued, then closes the file.
pub struct SqliteStore {
    path: PathBuf,
    counters: Arc<Counters>,
    observer: Arc<OnceLock<Arc<dyn Observer>>>,
    /// `None` only while being dropped.
    writer: Option<Writer>,
    /// `None` only while being dropped.
    readers: Option<Readers>,
    reading: Vec<JoinHandle<()>>,
    writing: Option<JoinHandle<()>>,
    _lock: File,
}

impl SqliteStore {
    /// Opens the store, making it when it is not there, and takes back the jobs that were running
    /// when its last process died.
    ///
    /// # Errors
    /// When a setting is wrong, the directory cannot be used, another process has it open, the
    /// database is newer than this program, or damaged.
    pub fn open(config: &StoreConfig, now_ms: u64) -> Result<Self, StoreError> {
        let open::Opened { mut writer, readers: connections, lock, path } = open::open(config)?;
        let policy = Policy::of(config);
        let counters = Arc::new(Counters::new());
        recover(&mut writer, &policy, &counters, now_ms)?;
        let observer = Arc::new(OnceLock::new());
        let shared = (Arc::clone(&counters), Arc::clone(&observer));
        let (writer, writing) = Loop::new(writer, policy, shared, config);
        let (readers, queue) = Readers::new();
        let mut store = Self {
            path,
            counters,
            observer,
            writer: Some(writer),
            readers: Some(readers),
            reading: Vec::new(),
            writing: None,
            _lock: lock,
        };
        for (index, connection) in connections.into_iter().enumerate() {
            let (name, queue) = (format!("jobs-read-{index}"), Arc::clone(&queue));
            let thread = store.spawn(name, move || readers::run(&connection, &queue))?;
            store.reading.push(thread);
        }
        store.writing = Some(store.spawn("jobs-write".to_owned(), move || writing.run())?);
        Ok(store)
    }

    fn spawn(
        &self,
        name: String,
        work: impl FnOnce() + Send + 'static,
    ) -> Result<JoinHandle<()>, StoreError> {
        let thread = std::thread::Builder::new().name(name).spawn(work);
        thread.map_err(|source| StoreError::Path { path: self.path.clone(), source })
    }

    fn write<T: Send + 'static>(
        &self,
        work: impl FnMut(&mut Writing<'_>) -> Result<T, JobsError> + Send + 'static,
    ) -> StoreFuture<'_, T> {
        Box::pin(async move {
            let writer = self.writer.as_ref().ok_or(StoreError::Closed)?;
            writer.write(work).await
        })
    }

    fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, JobsError> + Send + 'static,
    ) -> StoreFuture<'_, T> {
        Box::pin(async move {
            let readers = self.readers.as_ref().ok_or(StoreError::Closed)?;
            readers.read(work).await
        })
    }
}

fn recover(
    connection: &mut Connection,
    policy: &Policy,
    counters: &Counters,
    now_ms: u64,
) -> Result<(), StoreError> {
    let transaction = connection.transaction().map_err(failure::failed)?;
    let mut writing =
        Writing { connection: &transaction, policy, changes: Vec::new(), tally: Tally::default() };
    let rescued = match writing.rescue_all(now_ms) {
        Ok(rescued) => rescued,
        Err(JobsError::Store(error)) => return Err(error),
        // The others are answers to callers, and there is none here.
        Err(error) => return Err(StoreError::Corrupt { detail: error.to_string() }),
    };
    let tally = writing.tally;
    transaction.commit().map_err(failure::failed)?;
    counters.add(&tally);
    if rescued > 0 {
        tracing::info!(jobs.rescued = rescued, "took back the jobs of a process that died");
    }
    Ok(())
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        // Readers first: the writer closes last, so that it can fold its log into the database.
        // A thread that panicked has said so.
        self.readers = None;
        for thread in self.reading.drain(..) {
            let _ = thread.join();
        }
        self.writer = None;
        if let Some(thread) = self.writing.take() {
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Store for SqliteStore {
    fn observe(&self, observer: Arc<dyn Observer>) {
        let _ = self.observer.set(observer);
    }
    fn submit(&self, id: JobId, new: NewJob, now_ms: u64) -> StoreFuture<'_, Submitted> {
        self.write(move |writing| writing.submit(id, &new, now_ms))
    }
    fn replay(
        &self,
        owner: String,
        idempotency: Idempotency,
        now_ms: u64,
    ) -> StoreFuture<'_, Option<JobView>> {
        self.read(move |connection| query::replay(connection, &owner, &idempotency, now_ms))
    }
    fn get(&self, id: JobId) -> StoreFuture<'_, Option<Job>> {
        self.read(move |connection| query::get(connection, id))
    }
    fn view(&self, id: JobId) -> StoreFuture<'_, Option<JobView>> {
        self.read(move |connection| query::view(connection, id))
    }
    fn list(&self, filter: JobFilter) -> StoreFuture<'_, JobPage> {
        self.read(move |connection| query::list(connection, &filter))
    }
    fn result(&self, id: JobId) -> StoreFuture<'_, Option<Vec<u8>>> {
        self.read(move |connection| query::result(connection, id))
    }
    fn events(&self, id: JobId, after_seq: u64) -> StoreFuture<'_, EventsPage> {
        self.read(move |connection| query::events(connection, id, after_seq))
    }
    fn depth(&self, now_ms: u64) -> StoreFuture<'_, Depth> {
        self.read(move |connection| query::depth(connection, now_ms))
    }
    fn cancel(&self, id: JobId, now_ms: u64) -> StoreFuture<'_, JobView> {
        self.write(move |writing| writing.cancel(id, now_ms))
    }
    fn cancel_children(&self, parent: JobId, now_ms: u64) -> StoreFuture<'_, usize> {
        self.write(move |writing| writing.cancel_children(parent, now_ms))
    }
    fn pause(&self, capability: String, paused: bool) -> StoreFuture<'_, ()> {
        self.write(move |writing| writing.pause(&capability, paused))
    }
    fn paused(&self) -> StoreFuture<'_, Vec<String>> {
        self.read(query::paused)
    }
    fn claim(&self, claim: Claim, now_ms: u64) -> StoreFuture<'_, Vec<ClaimedJob>> {
        self.write(move |writing| writing.claim(&claim, now_ms))
    }
    fn heartbeat(&self, held: Vec<Held>, lease_until_ms: u64) -> StoreFuture<'_, Vec<Beat>> {
        self.write(move |writing| writing.heartbeat(&held, lease_until_ms))
    }
    fn emit(&self, emission: Emission, now_ms: u64) -> StoreFuture<'_, u64> {
        self.write(move |writing| writing.emit(&emission, now_ms))
    }
    fn settle(&self, settlements: Arc<[Settlement]>, now_ms: u64) -> StoreFuture<'_, Vec<Settled>> {
        self.write(move |writing| writing.settle(&settlements, now_ms))
    }
    fn tick(&self, now_ms: u64) -> StoreFuture<'_, Ticked> {
        self.write(move |writing| writing.tick(now_ms))
    }
    fn purge(&self, now_ms: u64, jobs_max: usize) -> StoreFuture<'_, usize> {
        self.write(move |writing| writing.purge(now_ms, jobs_max))
    }
    fn remove(&self, id: JobId, now_ms: u64) -> StoreFuture<'_, bool> {
        self.write(move |writing| writing.remove(id, now_ms))
    }
    fn next_due_ms(&self) -> StoreFuture<'_, Option<u64>> {
        self.read(query::next_due_ms)
    }
    fn capabilities(&self) -> StoreFuture<'_, Vec<String>> {
        self.read(query::capabilities)
    }
    fn metrics(&self) -> StoreMetrics {
        self.counters.read(self.writer.as_ref().map_or(0, Writer::waiting))
    }
}
