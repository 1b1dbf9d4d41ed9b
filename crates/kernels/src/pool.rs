//! Threads that compute: made once, parked while idle. It knows tasks and chunks, nothing of what
//! is computed.
//!
//! A worker that finds nothing to do looks for new work for at most [`SPIN_US_MAX`] and then parks
//! in the kernel, and so does the caller that waits for the last worker; an idle pool uses no CPU
//! time, and a busy one cannot burn a cgroup quota at barriers. Work is handed out in chunks from
//! a shared counter, so a thread that the scheduler takes away delays one chunk only. A worker
//! takes part in a turn when it comes in time; the caller waits for those that did, never for one
//! that the scheduler has not yet let run.
#![expect(unsafe_code, reason = "lends a task that lives on the caller's stack to the workers")]

use std::any::Any;
use std::cell::Cell;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::null_mut;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use crate::cpu::Cpu;
use crate::error::KernelError;
use crate::scratch::Scratch;

/// How long a thread looks for work or for the end of it before it parks.
const SPIN_US_MAX: u64 = 40;
/// Looks between two readings of the clock.
const SPINS_PER_CLOCK: usize = 16;

/// A pool of computing threads, the caller being one of them.
///
/// Calls from several threads at once take turns. A call from inside a task runs on the calling
/// thread alone. A panic in a task is raised again in the caller after all threads have finished,
/// and the pool stays usable. Dropping the pool joins its threads.
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    turn: Mutex<()>,
    scratch: Mutex<Scratch>,
    cpu: Cpu,
}

/// What the workers do in one turn.
struct Task<'a> {
    work: &'a (dyn Fn() + Sync),
}

#[derive(Debug)]
struct Shared {
    /// The turn, whether a worker may still join it, and how many are in it: see [`Gate`].
    gate: AtomicU64,
    task: AtomicPtr<Task<'static>>,
    stopping: AtomicBool,
    /// Which workers have to be woken.
    parked: Vec<AtomicBool>,
    caller: Mutex<Option<Thread>>,
    caller_parked: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

/// The word that the threads meet at: workers inside (16 bits), open (1 bit), turn (the rest).
#[derive(Debug, Clone, Copy)]
struct Gate(u64);

impl Gate {
    const INSIDE: u64 = 0xffff;
    const OPEN: u64 = 1 << 16;
    const TURN: u64 = 1 << 17;

    const fn turn(self) -> u64 {
        self.0 / Self::TURN
    }

    const fn is_open(self) -> bool {
        self.0 & Self::OPEN != 0
    }

    const fn is_empty(self) -> bool {
        self.0 & Self::INSIDE == 0
    }

    /// The next turn, nobody inside.
    const fn next(self, open: bool) -> Self {
        let closed = (self.turn() + 1) * Self::TURN;
        Self(if open { closed | Self::OPEN } else { closed })
    }
}

thread_local! {
    /// Whether this thread is inside a task, so that a nested call does not wait for itself.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

impl Pool {
    /// Threads of a pool at most.
    pub const THREADS_MAX: usize = 256;

    /// A pool with the machine's best instruction set. `threads` counts the caller; `None` takes
    /// what the affinity mask and the cgroup's CPU quota allow. Makes the threads; nothing later
    /// does.
    ///
    /// # Errors
    /// [`KernelError`] for a count out of range or when a thread is refused.
    pub fn new(threads: Option<usize>) -> Result<Self, KernelError> {
        Self::with_cpu(threads, Cpu::best())
    }

    /// [`Pool::new`] with a given instruction set.
    ///
    /// # Errors
    /// As [`Pool::new`].
    pub fn with_cpu(threads: Option<usize>, cpu: Cpu) -> Result<Self, KernelError> {
        let default = || thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let threads = threads.unwrap_or_else(|| default().min(Self::THREADS_MAX));
        if threads == 0 || threads > Self::THREADS_MAX {
            return Err(KernelError::Threads { threads, max: Self::THREADS_MAX });
        }
        let shared = Arc::new(Shared {
            gate: AtomicU64::new(0),
            task: AtomicPtr::new(null_mut()),
            stopping: AtomicBool::new(false),
            parked: (1..threads).map(|_| AtomicBool::new(false)).collect(),
            caller: Mutex::new(None),
            caller_parked: AtomicBool::new(false),
            panic: Mutex::new(None),
        });
        let (turn, scratch) = (Mutex::new(()), Mutex::new(Scratch::default()));
        let mut pool = Self { shared, workers: Vec::new(), turn, scratch, cpu };
        for index in 0..threads - 1 {
            let shared = Arc::clone(&pool.shared);
            let thread = thread::Builder::new().name(format!("kernels-{}", index + 1));
            let worker = thread
                .spawn(move || shared.work(index))
                .map_err(|_| KernelError::Spawn { index: index + 1 })?;
            pool.workers.push(worker);
        }
        Ok(pool)
    }

    /// Threads that compute, the caller included.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// The instruction set in use.
    #[must_use]
    pub const fn cpu(&self) -> Cpu {
        self.cpu
    }

    /// Calls `work` with ranges that cover `0..count` once, of `chunk` indices at most, from all
    /// threads, and returns when all is done. Which thread gets which range is not determined.
    ///
    /// # Panics
    /// When `chunk` is zero, or with the payload of a task that panicked.
    pub fn for_chunks(&self, count: usize, chunk: usize, work: &(dyn Fn(Range<usize>) + Sync)) {
        assert!(chunk > 0, "a chunk has at least one index");
        if count <= chunk || self.workers.is_empty() || INSIDE.get() {
            let starts = (0..count).step_by(chunk);
            starts.for_each(|start| work(start..(start + chunk).min(count)));
            return;
        }
        let next = AtomicUsize::new(0);
        self.run(&|| {
            loop {
                let start = next.fetch_add(chunk, Relaxed);
                if start >= count {
                    break;
                }
                work(start..(start + chunk).min(count));
            }
        });
    }

    /// Scratch memory that calls reuse; held while it is in use.
    pub(crate) const fn scratch(&self) -> &Mutex<Scratch> {
        &self.scratch
    }

    /// Calls `work` on this thread and on every worker that comes before it returns here, and
    /// waits for those.
    fn run(&self, work: &(dyn Fn() + Sync)) {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let task = Task { work };
        self.shared.begin(&task, &self.workers);
        INSIDE.set(true);
        let own = catch_unwind(AssertUnwindSafe(work));
        INSIDE.set(false);
        self.shared.end();
        let other = lock(&self.shared.panic).take();
        if let Some(payload) = own.err().or(other) {
            resume_unwind(payload);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stopping.store(true, SeqCst);
        self.shared.gate.store(self.shared.gate().next(false).0, SeqCst);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker never panics: tasks are caught.
            let _ = worker.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Looks for `done` for a short while; whether it came.
fn spin_until(done: impl Fn() -> bool) -> bool {
    let mut until = None;
    loop {
        for _ in 0..SPINS_PER_CLOCK {
            if done() {
                return true;
            }
            std::hint::spin_loop();
        }
        let now = Instant::now();
        if now > *until.get_or_insert(now + Duration::from_micros(SPIN_US_MAX)) {
            return false;
        }
    }
}

impl Shared {
    fn gate(&self) -> Gate {
        Gate(self.gate.load(SeqCst))
    }

    /// Publishes the task and wakes who sleeps. Nobody is inside the last turn, and it is closed.
    fn begin(&self, task: &Task<'_>, workers: &[JoinHandle<()>]) {
        *lock(&self.caller) = Some(thread::current());
        self.task.store(std::ptr::from_ref(task).cast_mut().cast(), SeqCst);
        self.gate.store(self.gate().next(true).0, SeqCst);
        for (worker, parked) in workers.iter().zip(&self.parked) {
            if parked.swap(false, SeqCst) {
                worker.thread().unpark();
            }
        }
    }

    /// Lets no more workers in and waits for those inside. After it nobody uses the task.
    fn end(&self) {
        self.gate.fetch_and(!Gate::OPEN, SeqCst);
        let done = || self.gate().is_empty();
        if !spin_until(done) {
            self.caller_parked.store(true, SeqCst);
            while !done() {
                thread::park();
            }
            self.caller_parked.store(false, SeqCst);
        }
        self.task.store(null_mut(), SeqCst);
    }

    /// A worker's life.
    fn work(&self, index: usize) {
        INSIDE.set(true);
        let mut seen = 0;
        loop {
            let fresh = || self.gate().turn() != seen;
            if !spin_until(fresh) {
                self.sleep_until(index, fresh);
            }
            if self.stopping.load(SeqCst) {
                return;
            }
            seen = self.gate().turn();
            if self.join(seen) {
                let task = self.task.load(SeqCst);
                // SAFETY: this worker is inside the turn, so the caller is inside `run`, which
                // keeps the task alive until nobody is inside.
                let work = unsafe { (*task).work };
                if let Err(payload) = catch_unwind(AssertUnwindSafe(work)) {
                    lock(&self.panic).get_or_insert(payload);
                }
                self.leave();
            }
        }
    }

    fn sleep_until(&self, index: usize, fresh: impl Fn() -> bool) {
        // The flag is set again before each sleep: the caller of the last turn may be so late that
        // it takes the flag back only now, with a wake-up that means nothing any more.
        loop {
            self.parked[index].store(true, SeqCst);
            if fresh() {
                break;
            }
            thread::park();
        }
        self.parked[index].store(false, SeqCst);
    }

    /// Enters the turn, unless it is closed or another one has begun.
    fn join(&self, turn: u64) -> bool {
        let enter = |gate| {
            let gate = Gate(gate);
            (gate.is_open() && gate.turn() == turn).then_some(gate.0 + 1)
        };
        self.gate.fetch_update(SeqCst, SeqCst, enter).is_ok()
    }

    /// Leaves the turn; the last one wakes the caller if it sleeps.
    fn leave(&self) {
        let after = Gate(self.gate.fetch_sub(1, SeqCst) - 1);
        // The next turn may begin as soon as nobody is inside: a wake-up may then reach the wrong
        // caller, which looks again and sleeps on.
        if after.is_empty()
            && !after.is_open()
            && self.caller_parked.load(SeqCst)
            && let Some(caller) = lock(&self.caller).as_ref()
        {
            caller.unpark();
        }
    }
}

#[cfg(test)]
mod tests;
