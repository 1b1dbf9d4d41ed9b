//! The threads that read, each with its own connection, so that no read blocks the runtime or the
//! writer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use crate::error::{JobsError, StoreError};

/// Reads that may wait for a thread.
const QUEUE_MAX: usize = 1_024;

type Read = Box<dyn FnOnce(&Connection) + Send>;

/// The door to the reading threads.
#[derive(Clone)]
pub(super) struct Readers {
    queue: mpsc::Sender<Read>,
}

/// The queue as the threads share it.
pub(super) type Queue = Arc<Mutex<mpsc::Receiver<Read>>>;

impl Readers {
    pub(super) fn new() -> (Self, Queue) {
        let (queue, receiver) = mpsc::channel(QUEUE_MAX);
        (Self { queue }, Arc::new(Mutex::new(receiver)))
    }

    /// Runs `work` in one read transaction: it sees one state of the database.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, JobsError> + Send + 'static,
    ) -> Result<T, JobsError> {
        let (reply, answer) = oneshot::channel();
        let read: Read = Box::new(move |connection| {
            let result = catch_unwind(AssertUnwindSafe(|| snapshot(connection, work)));
            let _ = reply.send(result.unwrap_or(Err(StoreError::Panicked.into())));
        });
        self.queue.send(read).await.map_err(|_| StoreError::Closed)?;
        answer.await.unwrap_or(Err(StoreError::Closed.into()))
    }
}

fn snapshot<T>(
    connection: &Connection,
    work: impl FnOnce(&Connection) -> Result<T, JobsError>,
) -> Result<T, JobsError> {
    // Rolls back when dropped, also by a panic: a read has nothing to commit.
    let _transaction = connection.unchecked_transaction()?;
    work(connection)
}

/// Works until every [`Readers`] is gone.
pub(super) fn run(connection: &Connection, queue: &Queue) {
    loop {
        let read = {
            let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
            queue.blocking_recv()
        };
        match read {
            Some(read) => read(connection),
            None => return,
        }
    }
}
