//! The handle that callers hold: permits, submission, drain, stop, numbers. It never touches the
//! model, which lives on its own thread.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::door::{Door, DoorState, Permit, Refused};
use crate::model::Model;
use crate::queue::{Priority, Queue, Waiting};
use crate::reply::{self, Lost, Outlet, Reply};
use crate::stats::{Counters, Stats};
use crate::thread;

/// Limits of one batcher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatcherConfig {
    /// Name of the model thread (the kernel shows 15 bytes of it).
    pub thread_name: String,
    /// Jobs that may wait.
    pub queue_depth_max: usize,
    /// Jobs that the model works on at once.
    pub running_max: usize,
    /// A job that has waited this long counts as one priority class higher.
    pub ageing: Duration,
    /// Panics of the model without a finished job between them; one more and the batcher is
    /// unhealthy for good.
    pub panics_in_a_row_max: u32,
}

impl Default for BatcherConfig {
    fn default() -> Self {
        Self {
            thread_name: "model".to_owned(),
            queue_depth_max: 64,
            running_max: 16,
            ageing: Duration::from_secs(5),
            panics_in_a_row_max: 3,
        }
    }
}

/// How a job is to be treated.
#[derive(Clone, Copy, Debug)]
pub struct SubmitOptions {
    /// Its class in the queue.
    pub priority: Priority,
    /// Nobody wants the answer after this instant.
    pub deadline: Option<Instant>,
    /// Pieces of the answer that may wait for the caller to read them; memory is taken as they
    /// come.
    pub outputs_max: usize,
}

impl Default for SubmitOptions {
    fn default() -> Self {
        Self { priority: Priority::Normal, deadline: None, outputs_max: 64 }
    }
}

/// Why a model could not be built.
pub type BuildError = Box<dyn std::error::Error + Send + Sync>;

/// Why a batcher did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The closure that builds the model failed.
    #[error("the model could not be built")]
    Build {
        /// What it said.
        #[source]
        source: BuildError,
    },
    /// The closure that builds the model panicked; the panic hook has the details.
    #[error("building the model panicked")]
    BuildPanicked,
    /// The operating system gave no thread.
    #[error("the model thread could not be started")]
    Thread {
        /// What it said.
        #[source]
        source: std::io::Error,
    },
    /// A limit is zero.
    #[error("`running_max` must be at least 1")]
    NoRows,
}

pub(crate) struct Entry<J, O> {
    pub(crate) job: J,
    pub(crate) outlet: Outlet<O>,
}

pub(crate) struct Inbox<J, O> {
    pub(crate) queue: Queue<Entry<J, O>>,
    pub(crate) stop: bool,
}

/// What callers and the model thread share.
pub(crate) struct Shared<J, O> {
    pub(crate) config: BatcherConfig,
    pub(crate) door: Arc<Door>,
    pub(crate) counters: Counters,
    inbox: Mutex<Inbox<J, O>>,
    /// Signalled when there is something new in the inbox.
    pub(crate) arrived: Condvar,
    tickets: AtomicU64,
}

impl<J, O> Shared<J, O> {
    /// No foreign code runs under this lock, so a poisoned one is whole.
    pub(crate) fn inbox(&self) -> MutexGuard<'_, Inbox<J, O>> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stop(&self) {
        self.door.set_state(DoorState::Closed);
        self.inbox().stop = true;
        self.arrived.notify_all();
    }

    /// Ends what can no longer be answered in time, so that its places are free.
    pub(crate) fn lose_expired(&self) {
        let expired = self.inbox().queue.take_expired(Instant::now());
        for waiting in expired {
            waiting.item.outlet.lose(Lost::DeadlinePassed);
        }
    }
}

/// Stops the model thread when the last handle is gone.
struct Owner<J: Send + 'static, O: Send + 'static> {
    shared: Arc<Shared<J, O>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl<J: Send + 'static, O: Send + 'static> Drop for Owner<J, O> {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

/// A running model thread with its queue. Clones are handles to the same one; when the last is
/// dropped the thread ends after its step.
///
/// A panic of the model is contained: the jobs inside it end with [`Lost::Panicked`], the model is
/// dropped and built anew on the same thread, waiting jobs go on waiting. After
/// `panics_in_a_row_max` panics without a finished job between them, or a failed rebuild, the
/// batcher is unhealthy: what waits ends with [`Lost::Stopped`], the door answers
/// [`Refused::Unhealthy`], and the process should be restarted.
pub struct Batcher<J: Send + 'static, O: Send + 'static> {
    owner: Arc<Owner<J, O>>,
}

impl<J: Send + 'static, O: Send + 'static> Clone for Batcher<J, O> {
    fn clone(&self) -> Self {
        Self { owner: Arc::clone(&self.owner) }
    }
}

impl<J: Send + 'static, O: Send + 'static> std::fmt::Debug for Batcher<J, O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batcher").field("stats", &self.stats()).finish()
    }
}

impl<J: Send + 'static, O: Send + 'static> Batcher<J, O> {
    /// Starts the thread, builds the model on it, and returns when it is built. `build` is called
    /// again after a panic of the model, so it should share weights, not load them anew.
    pub fn start<M, B>(config: BatcherConfig, build: B) -> Result<Self, StartError>
    where
        M: Model<Job = J, Output = O>,
        B: FnMut() -> Result<M, BuildError> + Send + 'static,
    {
        if config.running_max == 0 {
            return Err(StartError::NoRows);
        }
        let places = config.queue_depth_max.saturating_add(config.running_max);
        let shared = Arc::new(Shared {
            door: Arc::new(Door::new(places)),
            counters: Counters::default(),
            inbox: Mutex::new(Inbox { queue: Queue::new(config.ageing), stop: false }),
            arrived: Condvar::new(),
            tickets: AtomicU64::new(0),
            config,
        });
        let handle = thread::start(Arc::clone(&shared), build)?;
        Ok(Self { owner: Arc::new(Owner { shared, thread: Mutex::new(Some(handle)) }) })
    }

    /// A place inside, or an immediate refusal.
    pub fn permit(&self) -> Result<Permit, Refused> {
        let shared = &self.owner.shared;
        if let Some(permit) = shared.door.take()? {
            return Ok(permit);
        }
        shared.lose_expired();
        shared.door.take()?.ok_or_else(|| shared.door.full())
    }

    /// Queues `job` on a place taken before with [`permit`](Self::permit) of the same batcher.
    pub fn submit(&self, mut permit: Permit, job: J, options: SubmitOptions) -> Reply<O> {
        let shared = &self.owner.shared;
        assert!(permit.is_of(&shared.door), "the permit is of another batcher");
        permit.waits();
        let ticket = shared.tickets.fetch_add(1, Ordering::Relaxed);
        let priority = options.priority;
        let weak = Arc::downgrade(shared);
        let leave = Box::new(move || leave(&weak, priority, ticket));
        let (outlet, reply) = reply::channel(permit, options.outputs_max, options.deadline, leave);
        let entry = Entry { job, outlet };
        let waiting = Waiting {
            ticket,
            priority,
            since: Instant::now(),
            deadline: options.deadline,
            item: entry,
        };
        shared.counters.submitted.fetch_add(1, Ordering::Relaxed);
        let refused = {
            let mut inbox = shared.inbox();
            if inbox.stop {
                Some(waiting)
            } else {
                inbox.queue.push(waiting);
                None
            }
        };
        match refused {
            Some(waiting) => waiting.item.outlet.lose(Lost::Stopped),
            None => shared.arrived.notify_all(),
        }
        reply
    }

    /// [`permit`](Self::permit) and [`submit`](Self::submit) in one.
    pub fn try_submit(&self, job: J, options: SubmitOptions) -> Result<Reply<O>, Refused> {
        Ok(self.submit(self.permit()?, job, options))
    }

    /// Lets nobody in any more, and resolves when everybody inside has been served or has left.
    /// Dropping the future does not open the door again.
    pub fn drain(&self) -> impl Future<Output = ()> + Send + 'static {
        let door = Arc::clone(&self.owner.shared.door);
        door.set_state(DoorState::Draining);
        async move { door.wait_empty().await }
    }

    /// Stops after the step that runs now; what is inside ends with [`Lost::Stopped`]. Blocks until
    /// the model is dropped.
    pub fn stop(&self) {
        self.owner.shared.stop();
        let thread = self.owner.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A panic outside the model would be a defect of this crate; it has been logged by the
        // hook.
        let _ended = thread.map(JoinHandle::join);
    }

    /// False after too many panics in a row, and after [`stop`](Self::stop).
    pub fn healthy(&self) -> bool {
        self.owner.shared.door.state() != DoorState::Closed
    }

    /// Resolves when the batcher has become unhealthy or was stopped.
    pub fn unhealthy(&self) -> impl Future<Output = ()> + Send + 'static {
        let door = Arc::clone(&self.owner.shared.door);
        async move { door.wait_closed().await }
    }

    /// The numbers of this moment. Never waits for the model.
    pub fn stats(&self) -> Stats {
        let shared = &self.owner.shared;
        let (door, counters) = (&shared.door, &shared.counters);
        let now = Instant::now();
        let (waiting, oldest) = {
            let inbox = shared.inbox();
            (inbox.queue.depths(), inbox.queue.oldest())
        };
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            waiting,
            oldest_wait: oldest.map(|since| now.saturating_duration_since(since)),
            running: door.running(),
            inside: door.inside(),
            places: door.places(),
            drain_per_s: door.drain_per_s(now),
            submitted_total: read(&counters.submitted),
            admitted_total: read(&counters.admitted),
            finished_total: read(&door.finished_total),
            unfinished_total: read(&door.unfinished_total),
            refused_full_total: read(&door.refused_full_total),
            steps_total: read(&counters.steps),
            rows_total: read(&counters.rows),
            step_time_total: Duration::from_nanos(read(&counters.step_ns)),
            queue_time_total: Duration::from_nanos(read(&counters.queue_ns)),
            panics_total: read(&counters.panics),
            healthy: door.state() != DoorState::Closed,
        }
    }
}

/// The caller of `ticket` has dropped its reply: a job that still waits is taken out.
fn leave<J, O>(shared: &Weak<Shared<J, O>>, priority: Priority, ticket: u64) {
    let Some(shared) = shared.upgrade() else { return };
    let taken = shared.inbox().queue.remove(priority, ticket);
    // Dropped here, outside the lock: a job may be large.
    drop(taken);
}
