//! One step: requests that nobody waits for are dropped first, then as many windows as the budget
//! allows are computed and sent. Nothing in here waits.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aisemble_batcher::{Model, Outlet, StepOutcome};

use super::meters::Meters;
use super::{Job, Piece};
use crate::encoder::Sequences;
use crate::heads::Output;
use crate::model::LoadedModel;

/// Pieces that a step may send to one reader: windows and the end.
const PIECES_PER_STEP: usize = 2;

/// A request that is being computed.
struct Running {
    job: Job,
    outlet: Outlet<Piece>,
    /// The next window to compute.
    next: usize,
    queued: Duration,
    started: Option<Instant>,
    batches: u32,
    /// Outputs of the step that runs.
    outputs: Vec<(usize, Output)>,
}

impl Running {
    fn is_ready(&self) -> bool {
        // `Started` takes a place as well.
        let pieces = PIECES_PER_STEP + usize::from(self.started.is_none());
        self.outlet.room() >= pieces && self.next < self.job.windows.len()
    }

    /// Tells the reader what the step did; `None` when that was all.
    fn tell(mut self, batch: bool) -> Option<Self> {
        if !batch {
            return Some(self);
        }
        let started = *self.started.get_or_insert_with(Instant::now);
        self.batches += 1;
        // There is room unless the caller has left, which the next step sees.
        let _unread = self.outlet.send(Piece::Windows(std::mem::take(&mut self.outputs)));
        if self.next < self.job.windows.len() {
            return Some(self);
        }
        let (compute, batches) = (started.elapsed(), self.batches);
        let _unread = self.outlet.send(Piece::Finished { compute, batches });
        self.outlet.finish();
        None
    }
}

/// The models as the batcher's thread sees them.
pub struct ServingModel {
    models: Arc<Vec<LoadedModel>>,
    running: VecDeque<Running>,
    batch_tokens_max: usize,
    meters: Arc<Meters>,
}

impl std::fmt::Debug for ServingModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServingModel").field("running", &self.running.len()).finish_non_exhaustive()
    }
}

impl ServingModel {
    /// With nothing running.
    #[must_use]
    pub fn new(
        models: Arc<Vec<LoadedModel>>,
        batch_tokens_max: usize,
        meters: Arc<Meters>,
    ) -> Self {
        Self { models, running: VecDeque::new(), batch_tokens_max, meters }
    }

    /// Windows for one forward pass: of each request as `(its place, window)`, in turns, all of
    /// one model.
    fn plan(&self) -> (usize, Vec<(usize, usize)>) {
        let Some(lead) = self.running.iter().find(|running| running.is_ready()) else {
            return (0, Vec::new());
        };
        let model = lead.job.model;
        let mut next: Vec<Option<usize>> = self
            .running
            .iter()
            .map(|running| {
                (running.is_ready() && running.job.model == model).then_some(running.next)
            })
            .collect();
        let (mut plan, mut tokens) = (Vec::new(), 0);
        loop {
            let before = plan.len();
            for (place, running) in self.running.iter().enumerate() {
                let Some(at) = next[place] else { continue };
                let Some(window) = running.job.windows.get(at) else { continue };
                if plan.is_empty() || tokens + window.ids.len() <= self.batch_tokens_max {
                    plan.push((place, at));
                    tokens += window.ids.len();
                    next[place] = Some(at + 1);
                } else {
                    // Its order is kept: nothing behind it overtakes.
                    next[place] = None;
                }
            }
            if plan.len() == before {
                return (model, plan);
            }
        }
    }
}

impl Model for ServingModel {
    type Job = Job;
    type Output = Piece;

    fn has_room(&self, _job: &Job) -> bool {
        // Windows lie in the request until they are computed: a running one takes no more memory
        // than a waiting one, and the batcher bounds how many there are.
        true
    }

    fn admit(&mut self, job: Job, outlet: Outlet<Piece>) {
        let queued = job.since.elapsed();
        let running = Running {
            job,
            outlet,
            next: 0,
            queued,
            started: None,
            batches: 0,
            outputs: Vec::new(),
        };
        self.running.push_back(running);
    }

    fn step(&mut self) -> StepOutcome {
        self.running.retain(|running| running.outlet.gone().is_none());
        let (model, plan) = self.plan();
        if plan.is_empty() {
            return StepOutcome::Blocked;
        }
        let Some(model) = self.models.get(model) else { return StepOutcome::Blocked };
        let mut sequences = Sequences::default();
        let mut batch = vec![false; self.running.len()];
        for (place, window) in &plan {
            let Some(running) = self.running.get_mut(*place) else { continue };
            let input = &running.job.windows[*window];
            sequences.push(&input.ids, input.second_from);
            running.next = window + 1;
            batch[*place] = true;
            if running.started.is_none() {
                running.started = Some(Instant::now());
                let _unread = running.outlet.send(Piece::Started { queued: running.queued });
            }
        }
        let hidden = model.encoder.forward(&sequences);
        let outputs = model.head.outputs(&model.encoder, &hidden, &sequences);
        self.meters.step_done(plan.len(), sequences.tokens());
        let rows = plan.len();
        for ((place, window), output) in plan.into_iter().zip(outputs) {
            if let Some(running) = self.running.get_mut(place) {
                running.outputs.push((window, output));
            }
        }
        let told = self.running.drain(..).zip(batch);
        self.running = told.filter_map(|(running, batch)| running.tell(batch)).collect();
        // Another request leads the next step.
        if !self.running.is_empty() {
            self.running.rotate_left(1);
        }
        StepOutcome::Worked { rows }
    }

    fn is_idle(&self) -> bool {
        self.running.is_empty()
    }
}
