//! What the model thread asks of a model. The trait is all that this crate knows about models.

use crate::reply::Outlet;

/// A model that works on several jobs at once, one step (iteration) at a time.
///
/// It is built on the model thread and never leaves it, so it need not be `Send`. Between two steps
/// the thread admits new jobs, so a job never waits for another one to end, only for room.
pub trait Model: 'static {
    /// A request, parsed and checked by the caller.
    type Job: Send + 'static;
    /// One piece of an answer: a token, a chunk, or the whole of it.
    type Output: Send + 'static;

    /// Whether `job` could be admitted now. When it says no, the thread admits nothing behind that
    /// job either (so a large job is not starved by small ones) and asks again after the next step.
    /// An idle model that has no room for a job never will: the caller then gets
    /// [`Lost::TooLarge`](crate::Lost::TooLarge).
    fn has_room(&self, job: &Self::Job) -> bool;

    /// Takes a job in. `outlet` is where its answer goes; the job is over when the outlet is
    /// finished or dropped.
    fn admit(&mut self, job: Self::Job, outlet: Outlet<Self::Output>);

    /// One iteration over all the admitted jobs. A job whose [`Outlet::gone`] answers `Some` is to
    /// be given up at the beginning of the step, before any work on it.
    fn step(&mut self) -> StepOutcome;

    /// True when no admitted job is left.
    fn is_idle(&self) -> bool;
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepOutcome {
    /// Work was done on `rows` rows (sequences, texts, images: the batch size of the step).
    Worked {
        /// Rows of the batch.
        rows: usize,
    },
    /// No job could move: all of them wait for their callers to read. The thread rests a moment
    /// before the next step.
    Blocked,
}
