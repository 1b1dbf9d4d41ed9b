//! Who wants to hear of a job: readers of its events, the scheduler that runs it, and the scheduler
//! that waits for work. It only says that something is new; what, they read from the store.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aisemble_protocol::{JobId, JobState};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::store::{Change, Held, Observer};

/// Stops that came before the attempt was known here; a heartbeat finds those that fall out.
const EARLY_STOPS_MAX: usize = 64;

/// The hub of one store.
#[derive(Debug)]
pub(crate) struct Hub {
    readers: Mutex<HashMap<JobId, watch::Sender<u64>>>,
    running: Mutex<Running>,
    /// Fires when there may be jobs to claim, or room for them.
    pub(crate) work: Notify,
    /// Fires when something is due earlier than `armed_ms`.
    pub(crate) timers: Notify,
    armed_ms: AtomicU64,
}

#[derive(Debug, Default)]
struct Running {
    attempts: HashMap<JobId, Attempt>,
    early_stops: VecDeque<(JobId, u64)>,
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

impl Default for Hub {
    fn default() -> Self {
        Self {
            readers: Mutex::default(),
            running: Mutex::default(),
            work: Notify::new(),
            timers: Notify::new(),
            armed_ms: AtomicU64::new(u64::MAX),
        }
    }
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
        let mut running = lock(&self.running);
        if running.early_stops.contains(&(id, lease)) {
            cancel.cancel();
        }
        running.attempts.insert(id, Attempt { lease, cancel });
    }

    /// The attempt runs here no more.
    pub(crate) fn stopped(&self, id: JobId, lease: u64) {
        let attempts = &mut lock(&self.running).attempts;
        if attempts.get(&id).is_some_and(|attempt| attempt.lease == lease) {
            attempts.remove(&id);
        }
    }

    /// Stops the attempt if it still runs here.
    pub(crate) fn cancel(&self, id: JobId, lease: u64) {
        if let Some(attempt) = lock(&self.running).attempts.get(&id)
            && attempt.lease == lease
        {
            attempt.cancel.cancel();
        }
    }

    /// Stops every attempt that runs here.
    pub(crate) fn cancel_all(&self) {
        for attempt in lock(&self.running).attempts.values() {
            attempt.cancel.cancel();
        }
    }

    /// The attempts that run here.
    pub(crate) fn held(&self) -> Vec<crate::store::Held> {
        let running = lock(&self.running);
        let held = |(id, attempt): (&JobId, &Attempt)| Held { id: *id, lease: attempt.lease };
        running.attempts.iter().map(held).collect()
    }

    /// Forgets when something is due; what comes in from now on counts again.
    pub(crate) fn disarm(&self) {
        self.armed_ms.store(u64::MAX, Ordering::SeqCst);
    }

    /// When something is due: `due_ms`, or earlier if a change has said so.
    pub(crate) fn arm(&self, due_ms: u64) -> u64 {
        self.armed_ms.fetch_min(due_ms, Ordering::SeqCst).min(due_ms)
    }
}

impl Observer for Hub {
    fn changed(&self, changes: &[Change]) {
        let (mut work, mut due_ms) = (false, u64::MAX);
        {
            let readers = lock(&self.readers);
            for change in changes {
                if let Some(sender) = readers.get(&change.id) {
                    sender.send_replace(change.event_seq);
                }
            }
        }
        let mut running = lock(&self.running);
        for change in changes {
            if change.cancel_requested || change.state != JobState::Running {
                running.stop(change);
            }
            work |= change.state == JobState::Queued;
            due_ms = due_ms.min(change.due_at_ms.unwrap_or(u64::MAX));
        }
        drop(running);
        if work {
            self.work.notify_one();
        }
        if self.armed_ms.fetch_min(due_ms, Ordering::SeqCst) > due_ms {
            self.timers.notify_one();
        }
    }
}

impl Running {
    /// The job's claim, if it has one, is over or to end.
    fn stop(&mut self, change: &Change) {
        match self.attempts.get(&change.id) {
            Some(attempt) if attempt.lease <= change.lease => attempt.cancel.cancel(),
            Some(_) => {}
            None if change.lease > 0 => {
                if self.early_stops.len() >= EARLY_STOPS_MAX {
                    self.early_stops.pop_front();
                }
                self.early_stops.push_back((change.id, change.lease));
            }
            None => {}
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
