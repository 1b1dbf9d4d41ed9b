//! Threads that compute: made once, parked while idle. It knows tasks and chunks, nothing of what
//! is computed.
//!
//! A worker that finds nothing to do looks for new work for at most [`SPIN_US_MAX`] and then parks
//! in the kernel, and so does the caller that waits for the last worker; an idle pool uses no CPU
//! time, and a busy one cannot burn a cgroup quota at barriers. Work is handed out in chunks from
//! a shared counter, so a thread that the scheduler takes away delays one chunk only.
#![expect(unsafe_code, reason = "lends a task that lives on the caller's stack to the workers")]

use std::any::Any;
use std::cell::Cell;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::null_mut;
use std::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize};
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
    /// Turns so far; a change tells the workers that `task` is new.
    turns: AtomicUsize,
    task: AtomicPtr<Task<'static>>,
    /// Workers that have not finished this turn.
    unfinished: AtomicUsize,
    stopping: AtomicBool,
    /// Which workers have to be woken.
    parked: Vec<AtomicBool>,
    caller: Mutex<Option<Thread>>,
    caller_parked: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
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
            turns: AtomicUsize::new(0),
            task: AtomicPtr::new(null_mut()),
            unfinished: AtomicUsize::new(0),
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

    /// Calls `work` once on every thread and waits for all of them.
    fn run(&self, work: &(dyn Fn() + Sync)) {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let task = Task { work };
        self.shared.begin(&task, &self.workers);
        INSIDE.set(true);
        let own = catch_unwind(AssertUnwindSafe(work));
        INSIDE.set(false);
        self.shared.wait_for_workers();
        let other = lock(&self.shared.panic).take();
        if let Some(payload) = own.err().or(other) {
            resume_unwind(payload);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stopping.store(true, SeqCst);
        self.shared.turns.fetch_add(1, SeqCst);
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
    /// Publishes the task and wakes who sleeps.
    fn begin(&self, task: &Task<'_>, workers: &[JoinHandle<()>]) {
        *lock(&self.caller) = Some(thread::current());
        self.unfinished.store(workers.len(), SeqCst);
        self.task.store(std::ptr::from_ref(task).cast_mut().cast(), SeqCst);
        self.turns.fetch_add(1, SeqCst);
        for (worker, parked) in workers.iter().zip(&self.parked) {
            if parked.swap(false, SeqCst) {
                worker.thread().unpark();
            }
        }
    }

    fn wait_for_workers(&self) {
        let done = || self.unfinished.load(Acquire) == 0;
        if !spin_until(done) {
            self.caller_parked.store(true, SeqCst);
            while self.unfinished.load(SeqCst) != 0 {
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
            let fresh = || self.turns.load(Acquire) != seen;
            if !spin_until(fresh) {
                // Said again before each sleep: the caller of the last turn may be so late that it
                // takes the flag back only now, with a wake-up that means nothing any more.
                loop {
                    self.parked[index].store(true, SeqCst);
                    if self.turns.load(SeqCst) != seen {
                        break;
                    }
                    thread::park();
                }
                self.parked[index].store(false, SeqCst);
            }
            seen = self.turns.load(SeqCst);
            if self.stopping.load(SeqCst) {
                return;
            }
            let task = self.task.load(SeqCst);
            // SAFETY: a turn began and this worker is still counted in `unfinished`, so the caller
            // is inside `run`, which keeps the task alive until that count is zero.
            let work = unsafe { (*task).work };
            if let Err(payload) = catch_unwind(AssertUnwindSafe(work)) {
                lock(&self.panic).get_or_insert(payload);
            }
            self.finish();
        }
    }

    /// Counts this worker out; the last one wakes the caller if it sleeps.
    fn finish(&self) {
        // The caller may return, and the next turn begin, as soon as the count is zero: whom to
        // wake is looked up before, and a wake-up too many is harmless.
        let last = self.unfinished.fetch_sub(1, SeqCst) == 1;
        if last
            && self.caller_parked.load(SeqCst)
            && let Some(caller) = lock(&self.caller).as_ref()
        {
            caller.unpark();
        }
    }
}

#[cfg(test)]
mod tests;
