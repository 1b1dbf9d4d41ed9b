//! Claims jobs when the executor has room, runs them under a lease, and records what came of them.
//! It must not know what a job does, or how the store keeps it.
//!
//! Three tasks: one claims (`claims`), one records what ended (`settle`), one keeps time (`timers`:
//! heartbeats, due jobs, purges). Each attempt is a task of its own (`attempt`).

mod attempt;
mod claims;
mod settle;
mod timers;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::SchedulerConfig;
use crate::executor::Executor;
use crate::facade::Jobs;
use crate::store::Settlement;

/// How long a drain tries to record what is left when the store refuses.
const LAST_SETTLE_MAX: Duration = Duration::from_secs(5);

/// A running scheduler. Dropping it without [`Scheduler::drain`] stops it at once; its jobs then
/// wait for their leases to run out, or for the store to be opened again.
pub struct Scheduler {
    shared: Arc<Shared>,
    settlements: Option<mpsc::Sender<Settlement>>,
    claims: Option<JoinHandle<()>>,
    settle: Option<JoinHandle<()>>,
    timers: Option<JoinHandle<()>>,
}

/// How a drain went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Jobs that ended while draining.
    pub finished: usize,
    /// Jobs that were stopped and put back into the queue.
    pub given_back: usize,
    /// Whether all running jobs ended by themselves within the deadline.
    pub met: bool,
}

/// What the tasks share.
struct Shared {
    jobs: Jobs,
    executor: Arc<dyn Executor>,
    config: SchedulerConfig,
    /// Attempts that are not over.
    running: AtomicUsize,
    /// Attempts by capability that have not been polled yet: the executor does not count them.
    starting: Mutex<HashMap<String, usize>>,
    attempts: TaskTracker,
    finished: AtomicUsize,
    given_back: AtomicUsize,
    /// A drain gave up waiting: what fails now was interrupted.
    giving_back: AtomicBool,
    /// No more claims.
    stop_claims: CancellationToken,
    /// Attempts that go on are dropped.
    abort: CancellationToken,
    /// The store is not to be tried again and again.
    last_settle: CancellationToken,
    stop_timers: CancellationToken,
}

pub(crate) fn start(jobs: Jobs, executor: Arc<dyn Executor>, config: SchedulerConfig) -> Scheduler {
    let (sender, settlements) = mpsc::channel(config.running_max.max(1));
    let shared = Arc::new(Shared {
        jobs,
        executor,
        config,
        running: AtomicUsize::new(0),
        starting: Mutex::default(),
        attempts: TaskTracker::new(),
        finished: AtomicUsize::new(0),
        given_back: AtomicUsize::new(0),
        giving_back: AtomicBool::new(false),
        stop_claims: CancellationToken::new(),
        abort: CancellationToken::new(),
        last_settle: CancellationToken::new(),
        stop_timers: CancellationToken::new(),
    });
    Scheduler {
        claims: Some(tokio::spawn(claims::run(Arc::clone(&shared), sender.clone()))),
        settle: Some(tokio::spawn(settle::run(Arc::clone(&shared), settlements))),
        timers: Some(tokio::spawn(timers::run(Arc::clone(&shared)))),
        settlements: Some(sender),
        shared,
    }
}

impl Scheduler {
    /// Looks for work now: call it when an executor has room again that no ending job gave.
    pub fn wake(&self) {
        self.shared.jobs.hub.work.notify_one();
    }

    /// Jobs that run now.
    #[must_use]
    pub fn running(&self) -> usize {
        self.shared.running.load(Ordering::Relaxed)
    }

    /// Stops claiming, lets running jobs finish until `deadline` is over, then stops the rest and
    /// gives them back: queued again, the attempt not counted.
    pub async fn drain(mut self, deadline: Duration) -> Drained {
        let shared = Arc::clone(&self.shared);
        shared.stop_claims.cancel();
        join(self.claims.take()).await;
        let finished = shared.finished.load(Ordering::SeqCst);
        shared.attempts.close();
        let met = tokio::time::timeout(deadline, shared.attempts.wait()).await.is_ok();
        if !met {
            shared.giving_back.store(true, Ordering::SeqCst);
            shared.jobs.hub.cancel_all();
            let grace = Duration::from_millis(shared.config.cancel_grace_ms);
            if tokio::time::timeout(grace, shared.attempts.wait()).await.is_err() {
                shared.abort.cancel();
                shared.attempts.wait().await;
            }
        }
        // With the last sender gone the settling task ends when it has recorded everything.
        self.settlements = None;
        let settle = self.settle.take();
        let give_up = tokio::spawn({
            let shared = Arc::clone(&shared);
            async move {
                tokio::time::sleep(LAST_SETTLE_MAX).await;
                shared.last_settle.cancel();
            }
        });
        join(settle).await;
        give_up.abort();
        shared.stop_timers.cancel();
        join(self.timers.take()).await;
        Drained {
            finished: shared.finished.load(Ordering::SeqCst) - finished,
            given_back: shared.given_back.load(Ordering::SeqCst),
            met,
        }
    }
}

async fn join(task: Option<JoinHandle<()>>) {
    if let Some(task) = task
        && let Err(error) = task.await
    {
        tracing::error!(error = &error as &dyn std::error::Error, "a task of the scheduler failed");
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        self.shared.stop_claims.cancel();
        self.shared.abort.cancel();
        self.shared.last_settle.cancel();
        self.shared.stop_timers.cancel();
    }
}

impl fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scheduler").field("running", &self.running()).finish_non_exhaustive()
    }
}

impl Shared {
    /// How many more jobs of `capability` may be claimed.
    fn room(&self, capability: &str) -> usize {
        let starting = self.starting.lock().unwrap_or_else(PoisonError::into_inner);
        let starting = starting.get(capability).copied().unwrap_or(0);
        self.executor.free(capability).saturating_sub(starting)
    }

    fn starts(&self, capability: &str) {
        let mut starting = self.starting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = starting.get_mut(capability) {
            *count += 1;
        } else {
            starting.insert(capability.to_owned(), 1);
        }
    }

    fn has_started(&self, capability: &str) {
        let mut starting = self.starting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = starting.get_mut(capability) {
            *count -= 1;
            if *count == 0 {
                starting.remove(capability);
            }
        }
    }
}
