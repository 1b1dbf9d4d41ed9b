//! Who wants to hear of a job: readers of its events, the scheduler that runs it, and the scheduler
//! that waits for work. It only says that something is new; what, they read from the store.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aisemble_protocol::{JobId, JobState};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::store::{Change, Observer};

/// The hub of one store.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    readers: Mutex<HashMap<JobId, watch::Sender<u64>>>,
    running: Mutex<HashMap<JobId, Attempt>>,
    /// Fires when jobs may be claimed or a timer may have moved.
    pub(crate) work: Notify,
}

#[derive(Debug)]
struct Attempt {
    lease: u64,
    cancel: CancellationToken,
}

/// A reader's ear; it is forgotten when dropped.
#[derive(Debug)]
pub(crate) struct Ear {
    hub: Arc<Hub>,
    id: JobId,
    heard: watch::Receiver<u64>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing in here panics while it holds a lock; a poisoned map would still be whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hub {
    /// Listens for events of `id` from now on.
    pub(crate) fn listen(self: &Arc<Self>, id: JobId) -> Ear {
        let mut readers = lock(&self.readers);
        let sender = readers.entry(id).or_insert_with(|| watch::Sender::new(0));
        Ear { hub: Arc::clone(self), id, heard: sender.subscribe() }
    }

    /// The attempt runs here: `cancel` fires when it is to stop.
    pub(crate) fn started(&self, id: JobId, lease: u64, cancel: CancellationToken) {
        lock(&self.running).insert(id, Attempt { lease, cancel });
    }

    /// The attempt runs here no more.
    pub(crate) fn stopped(&self, id: JobId, lease: u64) {
        let mut running = lock(&self.running);
        if running.get(&id).is_some_and(|attempt| attempt.lease == lease) {
            running.remove(&id);
        }
    }

    /// Stops the attempt if it still runs here.
    pub(crate) fn cancel(&self, id: JobId, lease: u64) {
        if let Some(attempt) = lock(&self.running).get(&id)
            && attempt.lease == lease
        {
            attempt.cancel.cancel();
        }
    }

    /// Stops every attempt that runs here.
    pub(crate) fn cancel_all(&self) {
        for attempt in lock(&self.running).values() {
            attempt.cancel.cancel();
        }
    }

    /// The attempts that run here.
    pub(crate) fn held(&self) -> Vec<crate::store::Held> {
        let running = lock(&self.running);
        running
            .iter()
            .map(|(id, attempt)| crate::store::Held { id: *id, lease: attempt.lease })
            .collect()
    }
}

impl Observer for Hub {
    fn changed(&self, changes: &[Change]) {
        let mut work = false;
        {
            let readers = lock(&self.readers);
            let running = lock(&self.running);
            for change in changes {
                if let Some(sender) = readers.get(&change.id) {
                    sender.send_replace(change.event_seq);
                }
                let over = change.cancel_requested || change.state != JobState::Running;
                if over
                    && let Some(attempt) = running.get(&change.id)
                    && attempt.lease <= change.lease
                {
                    attempt.cancel.cancel();
                }
                work |= match change.state {
                    JobState::Pending | JobState::Scheduled | JobState::Queued => true,
                    JobState::Running
                    | JobState::Succeeded
                    | JobState::Failed
                    | JobState::Cancelled
                    | JobState::Expired => false,
                };
            }
        }
        if work {
            self.work.notify_one();
        }
    }
}

impl Ear {
    /// Waits until something is new since the last call, or since listening began.
    pub(crate) async fn news(&mut self) {
        // The sender lives in the hub for as long as this ear does.
        let _ = self.heard.changed().await;
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        let mut readers = lock(&self.hub.readers);
        // This ear's own receiver is still counted.
        if readers.get(&self.id).is_some_and(|sender| sender.receiver_count() <= 1) {
            readers.remove(&self.id);
        }
    }
}
