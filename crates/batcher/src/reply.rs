//! The bounded channel between the model thread and one caller, and how each learns that the other
//! has gone. It knows nothing of queues and models.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Instant;

use tokio::sync::mpsc;

use crate::door::Permit;

/// Why an answer will not be completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// The model panicked in a step that this job was part of (or while it was admitted).
    #[error("the model failed while it worked on this job")]
    Panicked,
    /// The model gave the job up without finishing it.
    #[error("the model dropped this job")]
    Dropped,
    /// The deadline passed before the answer was complete.
    #[error("the deadline passed")]
    DeadlinePassed,
    /// An idle model has no room for the job.
    #[error("the job is larger than the model can ever take")]
    TooLarge,
    /// The batcher was stopped with the job unfinished, or its model cannot be rebuilt.
    #[error("the model was stopped")]
    Stopped,
}

/// Why the model should give a job up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// The caller dropped its [`Reply`].
    CallerLeft,
    /// The job's deadline has passed.
    DeadlinePassed,
}

/// A piece that was not sent; it is handed back.
#[derive(Debug, PartialEq, Eq)]
pub enum SendRefused<O> {
    /// The caller has not read `outputs_max` pieces yet: keep the job, try after the next step.
    Full(O),
    /// Nobody reads any more: give the job up.
    Gone(O),
}

const OPEN: u8 = 0;
const FINISHED: u8 = 1;

/// How the answer ended, readable once the channel is closed.
#[derive(Debug, Default)]
pub(crate) struct Ending(AtomicU8);

impl Ending {
    /// The first writer wins.
    pub(crate) fn set(&self, lost: Lost) {
        let code = match lost {
            Lost::Panicked => 2,
            Lost::Dropped => 3,
            Lost::DeadlinePassed => 4,
            Lost::TooLarge => 5,
            Lost::Stopped => 6,
        };
        self.set_code(code);
    }

    fn set_code(&self, code: u8) {
        // A lost race means that the ending is known already, which is what is wanted.
        let _known = self.0.compare_exchange(OPEN, code, Ordering::AcqRel, Ordering::Acquire);
    }

    pub(crate) fn is_open(&self) -> bool {
        self.0.load(Ordering::Acquire) == OPEN
    }

    fn get(&self) -> Result<(), Lost> {
        match self.0.load(Ordering::Acquire) {
            FINISHED => Ok(()),
            2 => Err(Lost::Panicked),
            4 => Err(Lost::DeadlinePassed),
            5 => Err(Lost::TooLarge),
            6 => Err(Lost::Stopped),
            _ => Err(Lost::Dropped),
        }
    }
}

/// The model's end: where the answer of one job goes. It also holds the job's permit, so the place
/// is free again as soon as the outlet is gone.
#[derive(Debug)]
pub struct Outlet<O> {
    /// The first field, so that it is dropped first: whoever has seen the end of an answer finds
    /// its place free.
    permit: Permit,
    sender: mpsc::Sender<O>,
    ending: Arc<Ending>,
    deadline: Option<Instant>,
}

impl<O> Outlet<O> {
    /// Sends a piece without waiting.
    pub fn send(&self, output: O) -> Result<(), SendRefused<O>> {
        self.sender.try_send(output).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(output) => SendRefused::Full(output),
            mpsc::error::TrySendError::Closed(output) => SendRefused::Gone(output),
        })
    }

    /// Pieces that [`send`](Self::send) takes before it answers `Full`.
    pub fn room(&self) -> usize {
        self.sender.capacity()
    }

    /// Whether the job is still wanted. A step asks this before it works on the job.
    pub fn gone(&self) -> Option<Gone> {
        if self.sender.is_closed() {
            return Some(Gone::CallerLeft);
        }
        if self.deadline.is_some_and(|at| at <= Instant::now()) {
            self.ending.set(Lost::DeadlinePassed);
            return Some(Gone::DeadlinePassed);
        }
        None
    }

    /// The answer is complete.
    pub fn finish(mut self) {
        self.permit.finished();
        self.ending.set_code(FINISHED);
    }

    pub(crate) fn runs(&mut self) {
        self.permit.runs();
    }

    pub(crate) fn ending(&self) -> Arc<Ending> {
        Arc::clone(&self.ending)
    }

    /// Ends the answer for `reason` instead of completing it.
    pub(crate) fn lose(self, reason: Lost) {
        self.ending.set(reason);
    }
}

impl<O> Drop for Outlet<O> {
    fn drop(&mut self) {
        // After `finish` or `lose` this changes nothing.
        self.ending.set(if std::thread::panicking() { Lost::Panicked } else { Lost::Dropped });
    }
}

/// The caller's end. Dropping it cancels the job: in the queue at once, in the model at the
/// beginning of its next step.
pub struct Reply<O> {
    receiver: mpsc::Receiver<O>,
    ending: Arc<Ending>,
    deadline: Option<Instant>,
    /// Takes the job out of the queue when it still waits there.
    leave: Option<Box<dyn FnOnce() + Send + Sync>>,
}

impl<O> std::fmt::Debug for Reply<O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reply").field("ending", &self.ending).finish_non_exhaustive()
    }
}

impl<O> Reply<O> {
    /// The next piece; `None` after the last one of a complete answer. Never waits beyond the job's
    /// deadline. Needs a tokio runtime with time when the job has a deadline. Cancel-safe.
    pub async fn recv(&mut self) -> Result<Option<O>, Lost> {
        let received = match self.deadline {
            None => self.receiver.recv().await,
            Some(at) => match tokio::time::timeout_at(at.into(), self.receiver.recv()).await {
                Ok(received) => received,
                Err(_elapsed) => return Err(Lost::DeadlinePassed),
            },
        };
        received.map_or_else(|| self.ending.get().map(|()| None), |output| Ok(Some(output)))
    }

    /// As [`recv`](Self::recv), from a thread that may block; the deadline is then seen by the
    /// model thread only.
    pub fn blocking_recv(&mut self) -> Result<Option<O>, Lost> {
        let received = self.receiver.blocking_recv();
        received.map_or_else(|| self.ending.get().map(|()| None), |output| Ok(Some(output)))
    }
}

impl<O> Drop for Reply<O> {
    fn drop(&mut self) {
        self.receiver.close();
        if let Some(leave) = self.leave.take() {
            leave();
        }
    }
}

/// Both ends of a new answer. `outputs_max`: pieces that may wait for the caller to read them.
pub(crate) fn channel<O>(
    permit: Permit,
    outputs_max: usize,
    deadline: Option<Instant>,
    leave: Box<dyn FnOnce() + Send + Sync>,
) -> (Outlet<O>, Reply<O>) {
    let (sender, receiver) = mpsc::channel(outputs_max.max(1));
    let ending = Arc::new(Ending::default());
    let outlet = Outlet { permit, sender, ending: Arc::clone(&ending), deadline };
    (outlet, Reply { receiver, ending, deadline, leave: Some(leave) })
}
