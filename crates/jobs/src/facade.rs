//! What the rest of the program uses: a store, those who listen to it, and a clock.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aisemble_protocol::JobId;
use aisemble_protocol::job::{JobEvent, JobPage, JobView};
use futures_util::Stream;

use crate::clock::Clock;
use crate::config::{SchedulerConfig, StoreConfig};
use crate::error::{JobsError, StoreError};
use crate::events;
use crate::executor::Executor;
use crate::hub::Hub;
use crate::job::{Depth, Idempotency, Job, JobFilter, NewJob, Submitted};
use crate::metrics::StoreMetrics;
use crate::scheduler::{self, Scheduler};
use crate::store::Store;
use crate::store::sqlite::SqliteStore;

/// Durable jobs. Clones are the same jobs; the store closes when the last clone and the scheduler
/// are gone.
#[derive(Clone)]
pub struct Jobs {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) clock: Clock,
}

impl Jobs {
    /// Opens the store, making it when it is not there, and puts the jobs of a process that died
    /// back into the queue. Needs no runtime; blocks for as long as the check of the file takes.
    ///
    /// # Errors
    /// When a setting is wrong, the directory cannot be used, another process has it open, the
    /// database is newer than this program, or damaged.
    pub fn open(config: &StoreConfig) -> Result<Self, StoreError> {
        let clock = Clock::default();
        let store = SqliteStore::open(config, clock.now_ms())?;
        Ok(Self::assemble(Arc::new(store), clock))
    }

    /// Jobs in another store.
    #[must_use]
    pub fn with_store(store: Arc<dyn Store>) -> Self {
        Self::assemble(store, Clock::default())
    }

    fn assemble(store: Arc<dyn Store>, clock: Clock) -> Self {
        let hub = Arc::new(Hub::default());
        store.observe(Arc::clone(&hub) as _);
        Self { store, hub, clock }
    }

    /// Accepts a job. It is durable when this returns.
    ///
    /// # Errors
    /// [`JobsError::Invalid`], [`JobsError::TooLarge`], [`JobsError::UnknownNeed`],
    /// [`JobsError::IdempotencyMismatch`], or the store's error; then no job was made.
    pub async fn submit(&self, new: NewJob) -> Result<Submitted, JobsError> {
        new.validate()?;
        self.store.submit(JobId::generate(), new, self.clock.now_ms()).await
    }

    /// Accepts a job under an id of the caller's making ([`JobId::child`]), or gives the one that
    /// has it: submitting is repeatable.
    ///
    /// # Errors
    /// As [`Self::submit`].
    pub async fn submit_as(&self, id: JobId, new: NewJob) -> Result<Submitted, JobsError> {
        new.validate()?;
        self.store.submit(id, new, self.clock.now_ms()).await
    }

    /// The job that this owner's key made before, if it made one: what a repeated submission would
    /// give, without making a job.
    ///
    /// # Errors
    /// [`JobsError::IdempotencyMismatch`] when it was used for another request, or the store's.
    pub async fn replay(
        &self,
        owner: &str,
        idempotency: &Idempotency,
    ) -> Result<Option<JobView>, JobsError> {
        let (owner, idempotency) = (owner.to_owned(), idempotency.clone());
        self.store.replay(owner, idempotency, self.clock.now_ms()).await
    }

    /// The job, or `None` when there is none of that id (any more).
    ///
    /// # Errors
    /// The store's.
    pub async fn get(&self, id: JobId) -> Result<Option<Job>, JobsError> {
        self.store.get(id).await
    }

    /// A page of jobs, newest first.
    ///
    /// # Errors
    /// [`JobsError::Invalid`] for a cursor that is none of ours, or the store's.
    pub async fn list(&self, filter: JobFilter) -> Result<JobPage, JobsError> {
        self.store.list(filter).await
    }

    /// Cancels a job that does not run; asks the worker of one that does; leaves an ended one as it
    /// is. The state of the view says which it was.
    ///
    /// # Errors
    /// [`JobsError::NotFound`], or the store's.
    pub async fn cancel(&self, id: JobId) -> Result<JobView, JobsError> {
        self.store.cancel(id, self.clock.now_ms()).await
    }

    /// Cancels every job that `parent` made and that has not ended; gives how many that were.
    ///
    /// # Errors
    /// The store's.
    pub async fn cancel_children(&self, parent: JobId) -> Result<usize, JobsError> {
        self.store.cancel_children(parent, self.clock.now_ms()).await
    }

    /// Every job that `parent` made, oldest first.
    ///
    /// # Errors
    /// The store's.
    pub async fn children(&self, parent: JobId) -> Result<Vec<JobView>, JobsError> {
        let mut all = Vec::new();
        let mut filter = JobFilter { parent: Some(parent), limit: 500, ..JobFilter::default() };
        loop {
            let page = self.store.list(filter.clone()).await?;
            all.extend(page.jobs);
            filter.cursor = page.next_cursor;
            if filter.cursor.is_none() {
                all.reverse();
                return Ok(all);
            }
        }
    }

    /// What lies beside the jobs: files, rows, schedules, paused queues.
    #[must_use]
    pub fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// The result of a succeeded job; `None` when it has not succeeded or there is no such job.
    ///
    /// # Errors
    /// The store's.
    pub async fn result(&self, id: JobId) -> Result<Option<Vec<u8>>, JobsError> {
        self.store.result(id).await
    }

    /// Deletes an ended job and all that is kept of it; whether there was one.
    ///
    /// # Errors
    /// The store's.
    pub async fn remove(&self, id: JobId) -> Result<bool, JobsError> {
        self.store.remove(id, self.clock.now_ms()).await
    }

    /// Waits until the job has ended, or `timeout` is over; then the view says that it has not.
    ///
    /// # Errors
    /// [`JobsError::NotFound`], or the store's.
    pub async fn wait(&self, id: JobId, timeout: Duration) -> Result<JobView, JobsError> {
        let mut ear = self.hub.listen(id);
        let deadline = tokio::time::sleep(timeout);
        tokio::pin!(deadline);
        loop {
            let view = self.store.view(id).await?.ok_or(JobsError::NotFound { id })?;
            if view.state.is_final() {
                return Ok(view);
            }
            tokio::select! {
                biased;
                () = ear.news() => {}
                () = &mut deadline => return Ok(view),
            }
        }
    }

    /// The job's events numbered above `after_seq`: those there are, then each new one as it comes;
    /// ends after the event of the final state. [`JobsError::NotFound`] comes as the first item.
    pub fn events(
        &self,
        id: JobId,
        after_seq: u64,
    ) -> impl Stream<Item = Result<JobEvent, JobsError>> + Send + 'static {
        events::stream(Arc::clone(&self.store), &self.hub, id, after_seq)
    }

    /// What waits and runs, by capability and state.
    ///
    /// # Errors
    /// The store's.
    pub async fn depth(&self) -> Result<Depth, JobsError> {
        self.store.depth(self.clock.now_ms()).await
    }

    /// Starts a scheduler in the current runtime. One at a time.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn run(&self, executor: Arc<dyn Executor>, config: SchedulerConfig) -> Scheduler {
        scheduler::start(self.clone(), executor, config)
    }

    /// Counters of the store.
    #[must_use]
    pub fn metrics(&self) -> StoreMetrics {
        self.store.metrics()
    }
}

impl fmt::Debug for Jobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jobs").field("store", &self.store).finish_non_exhaustive()
    }
}
