//! The one thread that writes, with group commit: what was queued while a transaction became
//! durable shares the next one. A caller is answered after its commit; an operation that fails is
//! rolled back alone. It must not know what the operations do.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::failure::failed;
use crate::error::{JobsError, StoreError};
use crate::metrics::{Counters, Tally};
use crate::store::record::Policy;
use crate::store::{Change, Observer};

/// What an operation works in.
pub(super) struct Writing<'c> {
    pub(super) connection: &'c Connection,
    pub(super) policy: &'c Policy,
    pub(super) changes: Vec<Change>,
    pub(super) tally: Tally,
}

/// A queued operation. It may be run more than once: when a shared transaction fails as a whole,
/// each is tried again alone.
trait Operation: Send {
    fn run(&mut self, writing: &mut Writing<'_>) -> Outcome;
    /// Records that the operation did not happen, though `run` may have gone well.
    fn fail(&mut self, error: StoreError);
    fn answer(self: Box<Self>);
}

/// Whether an operation did its work.
enum Outcome {
    Done,
    Refused,
    Stale,
}

struct Request<F, T> {
    work: F,
    result: Option<Result<T, JobsError>>,
    reply: oneshot::Sender<Result<T, JobsError>>,
}

impl<F, T> Operation for Request<F, T>
where
    F: FnMut(&mut Writing<'_>) -> Result<T, JobsError> + Send,
    T: Send,
{
    fn run(&mut self, writing: &mut Writing<'_>) -> Outcome {
        let result = catch_unwind(AssertUnwindSafe(|| (self.work)(writing)))
            .unwrap_or_else(|_| Err(StoreError::Panicked.into()));
        let outcome = match &result {
            Ok(_) => Outcome::Done,
            Err(JobsError::LeaseLost { .. }) => Outcome::Stale,
            Err(_) => Outcome::Refused,
        };
        self.result = Some(result);
        outcome
    }

    fn fail(&mut self, error: StoreError) {
        if !matches!(self.result, Some(Err(_))) {
            self.result = Some(Err(error.into()));
        }
    }

    fn answer(self: Box<Self>) {
        let Self { result, reply, .. } = *self;
        // The caller may have gone; its operation stands.
        let _ = reply.send(result.unwrap_or(Err(StoreError::Closed.into())));
    }
}

/// The door to the writer thread.
#[derive(Clone)]
pub(super) struct Writer {
    queue: mpsc::Sender<Box<dyn Operation>>,
    wait_max: Duration,
}

impl Writer {
    /// Queues an operation and gives its answer once it is durable.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        work: impl FnMut(&mut Writing<'_>) -> Result<T, JobsError> + Send + 'static,
    ) -> Result<T, JobsError> {
        let (reply, answer) = oneshot::channel();
        let request: Box<dyn Operation> = Box::new(Request { work, result: None, reply });
        match self.queue.try_send(request) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(StoreError::Closed.into()),
            Err(mpsc::error::TrySendError::Full(request)) => {
                let sent = tokio::time::timeout(self.wait_max, self.queue.send(request)).await;
                sent.map_err(|_| StoreError::Busy)?.map_err(|_| StoreError::Closed)?;
            }
        }
        answer.await.unwrap_or(Err(StoreError::Closed.into()))
    }

    /// Operations that wait.
    pub(super) fn waiting(&self) -> u64 {
        (self.queue.max_capacity() - self.queue.capacity()) as u64
    }
}

/// The writer thread's own.
pub(super) struct Loop {
    connection: Connection,
    policy: Policy,
    counters: Arc<Counters>,
    observer: Arc<OnceLock<Arc<dyn Observer>>>,
    queue: mpsc::Receiver<Box<dyn Operation>>,
    batch_max: usize,
}

impl Loop {
    /// The two ends of a writer whose queue holds `queue_max` operations.
    pub(super) fn new(
        connection: Connection,
        policy: Policy,
        shared: (Arc<Counters>, Arc<OnceLock<Arc<dyn Observer>>>),
        config: &crate::config::StoreConfig,
    ) -> (Writer, Self) {
        let (sender, queue) = mpsc::channel(config.write_queue_max);
        let wait_max = Duration::from_millis(config.write_wait_ms_max);
        let batch_max = config.write_batch_max;
        let (counters, observer) = shared;
        let own = Self { connection, policy, counters, observer, queue, batch_max };
        (Writer { queue: sender, wait_max }, own)
    }

    /// Works until every [`Writer`] is gone and the queue is empty.
    pub(super) fn run(mut self) {
        let mut batch = Vec::with_capacity(self.batch_max);
        while self.queue.blocking_recv_many(&mut batch, self.batch_max) > 0 {
            if let Err(error) = self.commit(&mut batch) {
                self.counters.commit_failed();
                tracing::warn!(error = &error as &dyn std::error::Error, "a commit failed");
                self.one_by_one(&mut batch, error);
            }
            for operation in batch.drain(..) {
                operation.answer();
            }
        }
        if let Err((_, error)) = self.connection.close() {
            tracing::warn!(error = &error as &dyn std::error::Error, "closing the store failed");
        }
    }

    fn one_by_one(&mut self, batch: &mut [Box<dyn Operation>], error: StoreError) {
        if let [single] = batch {
            single.fail(error);
            return;
        }
        for operation in batch {
            if let Err(error) = self.commit(std::slice::from_mut(operation)) {
                operation.fail(error);
            }
        }
    }

    /// Runs the operations in one transaction. On an error none of them happened.
    fn commit(&mut self, batch: &mut [Box<dyn Operation>]) -> Result<(), StoreError> {
        let begun = Instant::now();
        let done = self.transaction(batch);
        if done.is_err() && !self.connection.is_autocommit() {
            self.connection.execute_batch("ROLLBACK").map_err(failed)?;
        }
        let (changes, tally) = done?;
        let us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.counters.committed(batch.len() as u64, us);
        self.counters.add(&tally);
        if let Some(observer) = self.observer.get()
            && !changes.is_empty()
        {
            observer.changed(&changes);
        }
        Ok(())
    }

    fn transaction(
        &mut self,
        batch: &mut [Box<dyn Operation>],
    ) -> Result<(Vec<Change>, Tally), StoreError> {
        let connection = &self.connection;
        let sql = |text: &str| -> Result<(), StoreError> {
            connection.prepare_cached(text).and_then(|mut s| s.execute([])).map_err(failed)?;
            Ok(())
        };
        sql("BEGIN IMMEDIATE")?;
        let (changes, tally) = (Vec::new(), Tally::default());
        let mut writing = Writing { connection, policy: &self.policy, changes, tally };
        let mut stale = 0;
        for operation in batch {
            sql("SAVEPOINT operation")?;
            let (changes, tally) = (writing.changes.len(), writing.tally);
            let outcome = operation.run(&mut writing);
            if connection.is_autocommit() {
                // SQLite rolled everything back by itself, as it does when a disk is full.
                return Err(StoreError::StorageFull);
            }
            match outcome {
                Outcome::Done => {}
                Outcome::Refused | Outcome::Stale => {
                    sql("ROLLBACK TO operation")?;
                    writing.changes.truncate(changes);
                    writing.tally = tally;
                    stale += u64::from(matches!(outcome, Outcome::Stale));
                }
            }
            sql("RELEASE operation")?;
        }
        sql("COMMIT")?;
        writing.tally.stale += stale;
        Ok((writing.changes, writing.tally))
    }
}
