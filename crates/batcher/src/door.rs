//! Permits at the door: how many jobs may be inside (waiting and running), refusal that says when
//! to come back, and the measured rate at which places become free. It knows no queue and no model.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

/// Releases that the drain rate is measured over.
const RELEASES_MEASURED: usize = 64;
/// A rate older than this says nothing about now.
const MEASURE_AGE_MAX: Duration = Duration::from_secs(120);
/// Bounds of the advice when to come back. SDKs obey at most 60 s.
const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// Why nobody is let in.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refused {
    /// Every place is taken.
    #[error("the queue is full: {inside} jobs are waiting or running")]
    Full {
        /// Jobs inside, waiting and running.
        inside: usize,
        /// Places that became free a second lately; `None` before two of them did.
        drain_per_s: Option<f64>,
        /// When a newcomer could expect to have been served, 1 s to 60 s.
        retry_after: Duration,
    },
    /// The process is going down; what is inside is finished.
    #[error("the service is draining")]
    Draining,
    /// The model panicked too often in a row, or was stopped; only a restart of the process helps.
    #[error("the model is not running")]
    Unhealthy,
}

/// Whether the door is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DoorState {
    Open,
    Draining,
    Closed,
}

#[derive(Debug)]
pub(crate) struct Door {
    places: usize,
    free: AtomicUsize,
    running: AtomicUsize,
    state: watch::Sender<DoorState>,
    /// Signalled at each release, for those who wait until nobody is inside.
    released: Notify,
    drainage: Mutex<VecDeque<Instant>>,
    pub(crate) refused_full_total: AtomicU64,
    pub(crate) finished_total: AtomicU64,
    pub(crate) unfinished_total: AtomicU64,
}

impl Door {
    pub(crate) fn new(places: usize) -> Self {
        Self {
            places,
            free: AtomicUsize::new(places),
            running: AtomicUsize::new(0),
            state: watch::Sender::new(DoorState::Open),
            released: Notify::new(),
            drainage: Mutex::new(VecDeque::with_capacity(RELEASES_MEASURED)),
            refused_full_total: AtomicU64::new(0),
            finished_total: AtomicU64::new(0),
            unfinished_total: AtomicU64::new(0),
        }
    }

    /// A place, or `None` when all are taken.
    pub(crate) fn take(self: &Arc<Self>) -> Result<Option<Permit>, Refused> {
        match *self.state.borrow() {
            DoorState::Open => {}
            DoorState::Draining => return Err(Refused::Draining),
            DoorState::Closed => return Err(Refused::Unhealthy),
        }
        let taken =
            self.free.fetch_update(Ordering::AcqRel, Ordering::Acquire, |free| free.checked_sub(1));
        Ok(taken.ok().map(|_| Permit { door: Arc::clone(self), phase: Phase::AtTheDoor }))
    }

    pub(crate) fn full(&self) -> Refused {
        self.refused_full_total.fetch_add(1, Ordering::Relaxed);
        let inside = self.inside();
        let drain_per_s = self.drain_per_s(Instant::now());
        Refused::Full { inside, drain_per_s, retry_after: retry_after(inside, drain_per_s) }
    }

    /// Places that became free a second, over the last releases.
    pub(crate) fn drain_per_s(&self, now: Instant) -> Option<f64> {
        let drainage = self.drainage.lock().unwrap_or_else(PoisonError::into_inner);
        let (first, last) = (*drainage.front()?, *drainage.back()?);
        let gaps = drainage.len() - 1;
        if gaps == 0 || now.saturating_duration_since(last) > MEASURE_AGE_MAX {
            return None;
        }
        // Up to now, not to the last release: a stall lowers the rate while it lasts.
        let seconds = now.saturating_duration_since(first).as_secs_f64().max(1e-6);
        Some(gaps as f64 / seconds)
    }

    pub(crate) fn inside(&self) -> usize {
        self.places.saturating_sub(self.free.load(Ordering::Acquire))
    }

    pub(crate) fn running(&self) -> usize {
        self.running.load(Ordering::Acquire)
    }

    pub(crate) fn places(&self) -> usize {
        self.places
    }

    pub(crate) fn state(&self) -> DoorState {
        *self.state.borrow()
    }

    /// `Closed` is final.
    pub(crate) fn set_state(&self, to: DoorState) {
        self.state.send_if_modified(|state| {
            let changes = *state != DoorState::Closed && *state != to;
            if changes {
                *state = to;
            }
            changes
        });
    }

    pub(crate) async fn wait_closed(&self) {
        let mut state = self.state.subscribe();
        // The sender lives in `self`, so the wait cannot fail.
        let _closed = state.wait_for(|state| *state == DoorState::Closed).await;
    }

    pub(crate) async fn wait_empty(&self) {
        loop {
            let released = self.released.notified();
            tokio::pin!(released);
            released.as_mut().enable();
            if self.inside() == 0 {
                return;
            }
            released.await;
        }
    }

    fn measure_release(&self) {
        let mut drainage = self.drainage.lock().unwrap_or_else(PoisonError::into_inner);
        if drainage.len() == RELEASES_MEASURED {
            drainage.pop_front();
        }
        drainage.push_back(Instant::now());
    }
}

/// When the last of `inside` jobs will have been served at the measured rate.
fn retry_after(inside: usize, drain_per_s: Option<f64>) -> Duration {
    let Some(rate) = drain_per_s else { return RETRY_AFTER_MIN };
    let seconds = (inside as f64 / rate.max(1e-3)).ceil();
    Duration::from_secs_f64(
        seconds.clamp(RETRY_AFTER_MIN.as_secs_f64(), RETRY_AFTER_MAX.as_secs_f64()),
    )
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    AtTheDoor,
    Waiting,
    Running,
    Finished,
}

/// A place inside, from the door until the answer is complete (or nobody wants it any more). Take
/// it before costly checks of a request; dropping it gives the place back.
#[derive(Debug)]
pub struct Permit {
    door: Arc<Door>,
    phase: Phase,
}

impl Permit {
    pub(crate) fn is_of(&self, door: &Arc<Door>) -> bool {
        Arc::ptr_eq(&self.door, door)
    }

    pub(crate) fn waits(&mut self) {
        assert!(self.phase == Phase::AtTheDoor, "a permit is submitted once");
        self.phase = Phase::Waiting;
    }

    pub(crate) fn runs(&mut self) {
        assert!(self.phase == Phase::Waiting, "a job starts once");
        self.phase = Phase::Running;
        self.door.running.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn finished(&mut self) {
        if self.phase == Phase::Running {
            self.phase = Phase::Finished;
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let door = &self.door;
        match self.phase {
            Phase::AtTheDoor => {}
            Phase::Waiting => {
                door.unfinished_total.fetch_add(1, Ordering::Relaxed);
            }
            Phase::Running => {
                door.unfinished_total.fetch_add(1, Ordering::Relaxed);
                door.running.fetch_sub(1, Ordering::AcqRel);
            }
            Phase::Finished => {
                door.finished_total.fetch_add(1, Ordering::Relaxed);
                door.running.fetch_sub(1, Ordering::AcqRel);
            }
        }
        if self.phase != Phase::AtTheDoor {
            door.measure_release();
        }
        let before = door.free.fetch_add(1, Ordering::AcqRel);
        assert!(before < door.places, "more places were given back than taken");
        door.released.notify_waiters();
    }
}
