//! The one OS thread that owns the model: admission between steps, steps, and what happens when the
//! model panics. It knows no callers but their outlets.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::batcher::{BuildError, Entry, Shared, StartError};
use crate::door::DoorState;
use crate::model::{Model, StepOutcome};
use crate::queue::Waiting;
use crate::reply::{Ending, Lost};

/// How long the thread rests when no job could move because no caller reads.
const BLOCKED_REST: Duration = Duration::from_millis(2);

type SharedOf<M> = Shared<<M as Model>::Job, <M as Model>::Output>;

/// Starts the thread and waits until the model is built.
pub(crate) fn start<M, B>(shared: Arc<SharedOf<M>>, build: B) -> Result<JoinHandle<()>, StartError>
where
    M: Model,
    B: FnMut() -> Result<M, BuildError> + Send + 'static,
{
    let (report, reported) = sync_channel(1);
    let name = shared.config.thread_name.clone();
    let handle = std::thread::Builder::new()
        .name(name)
        .spawn(move || {
            ModelThread { shared, build, inside: Vec::new(), panics_in_a_row: 0 }.run(&report);
        })
        .map_err(|source| StartError::Thread { source })?;
    match reported.recv() {
        Ok(Ok(())) => Ok(handle),
        Ok(Err(error)) => Err(error),
        Err(_closed) => Err(StartError::BuildPanicked),
    }
}

/// What is to be done after a round.
enum Round {
    Again,
    Rest,
    Wait,
    Stop,
}

struct ModelThread<M: Model, B> {
    shared: Arc<SharedOf<M>>,
    build: B,
    /// Endings of the jobs in the model, to mark when it panics or is stopped.
    inside: Vec<Arc<Ending>>,
    panics_in_a_row: u32,
}

impl<M, B> ModelThread<M, B>
where
    M: Model,
    B: FnMut() -> Result<M, BuildError>,
{
    fn run(mut self, report: &SyncSender<Result<(), StartError>>) {
        let mut model = match self.build_model() {
            Ok(model) => model,
            Err(error) => {
                // Whoever starts the batcher waits for this; it cannot have gone.
                let _told = report.send(Err(error));
                return;
            }
        };
        let _told = report.send(Ok(()));
        loop {
            let round = catch_unwind(AssertUnwindSafe(|| self.round(&mut model)));
            match round {
                Ok(Round::Again) => {}
                Ok(Round::Rest) => self.rest(),
                Ok(Round::Wait) => self.wait(),
                Ok(Round::Stop) => break,
                Err(_panic) => match self.after_panic(model) {
                    Some(rebuilt) => model = rebuilt,
                    None => return self.close(),
                },
            }
        }
        self.mark_inside(Lost::Stopped);
        drop_contained(model);
        self.close();
    }

    /// Admission and one step. Everything that runs the model's code runs in here.
    fn round(&mut self, model: &mut M) -> Round {
        if self.shared.inbox().stop {
            return Round::Stop;
        }
        self.shared.lose_expired();
        self.admit(model);
        if model.is_idle() {
            // A model may keep the outlets of jobs that it calls done; the places count until then.
            let full = self.shared.door.running() >= self.shared.config.running_max;
            return if full { Round::Rest } else { Round::Wait };
        }
        let finished_before = self.shared.door.finished_total.load(Ordering::Relaxed);
        let begun = Instant::now();
        let outcome = model.step();
        if self.shared.door.finished_total.load(Ordering::Relaxed) > finished_before {
            self.panics_in_a_row = 0;
        }
        self.inside.retain(|ending| ending.is_open());
        match outcome {
            StepOutcome::Worked { rows } if rows > 0 => {
                self.shared.counters.step(rows, begun.elapsed());
                Round::Again
            }
            // The step may have given up the last jobs: then there is nothing to rest for.
            StepOutcome::Worked { .. } | StepOutcome::Blocked if model.is_idle() => Round::Again,
            StepOutcome::Worked { .. } | StepOutcome::Blocked => Round::Rest,
        }
    }

    fn admit(&mut self, model: &mut M) {
        while self.shared.door.running() < self.shared.config.running_max {
            let now = Instant::now();
            let Some(waiting) = self.shared.inbox().queue.pop(now) else { return };
            if waiting.item.outlet.gone().is_some() {
                continue;
            }
            if model.has_room(&waiting.item.job) {
                self.shared.counters.admitted(now.saturating_duration_since(waiting.since));
                let Entry { job, mut outlet } = waiting.item;
                outlet.runs();
                self.inside.push(outlet.ending());
                model.admit(job, outlet);
            } else if model.is_idle() {
                waiting.item.outlet.lose(Lost::TooLarge);
            } else {
                self.shared.inbox().queue.put_back(waiting);
                return;
            }
        }
    }

    /// Until something arrives. Waiting jobs have deadlines too, but with an idle model none waits.
    fn wait(&self) {
        let mut inbox = self.shared.inbox();
        while inbox.queue.len() == 0 && !inbox.stop {
            inbox = match self.shared.arrived.wait(inbox) {
                Ok(inbox) => inbox,
                Err(poisoned) => poisoned.into_inner(),
            };
        }
    }

    fn rest(&self) {
        let inbox = self.shared.inbox();
        if !inbox.stop {
            // Woken early or late makes no difference: the next round looks at everything anew.
            let _woken = self.shared.arrived.wait_timeout(inbox, BLOCKED_REST);
        }
    }

    fn after_panic(&mut self, model: M) -> Option<M> {
        self.shared.counters.panics.fetch_add(1, Ordering::Relaxed);
        let jobs = self.inside.len();
        self.mark_inside(Lost::Panicked);
        drop_contained(model);
        self.panics_in_a_row += 1;
        if self.panics_in_a_row > self.shared.config.panics_in_a_row_max {
            tracing::error!(panics = self.panics_in_a_row, "the model panics again and again");
            return None;
        }
        tracing::error!(jobs, "the model panicked; its jobs are lost, it is built anew");
        match self.build_model() {
            Ok(model) => Some(model),
            Err(error) => {
                let source = std::error::Error::source(&error).map(ToString::to_string);
                tracing::error!(%error, source, "the model could not be built anew");
                None
            }
        }
    }

    fn build_model(&mut self) -> Result<M, StartError> {
        match catch_unwind(AssertUnwindSafe(|| (self.build)())) {
            Ok(built) => built.map_err(|source| StartError::Build { source }),
            Err(_panic) => Err(StartError::BuildPanicked),
        }
    }

    fn mark_inside(&mut self, lost: Lost) {
        for ending in self.inside.drain(..) {
            ending.set(lost);
        }
    }

    /// Nothing will be answered any more: close the door, and tell those who wait.
    fn close(&self) {
        self.shared.door.set_state(DoorState::Closed);
        let left: Vec<Waiting<_>> = {
            let mut inbox = self.shared.inbox();
            inbox.stop = true;
            inbox.queue.take_all()
        };
        for waiting in left {
            waiting.item.outlet.lose(Lost::Stopped);
        }
    }
}

/// A model that panicked may panic again when it is dropped.
fn drop_contained<M>(model: M) {
    if catch_unwind(AssertUnwindSafe(|| drop(model))).is_err() {
        tracing::error!("the model panicked while it was dropped");
    }
}
