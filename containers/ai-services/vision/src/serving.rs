//! The model thread's side: rows of all requests, taken together into batches of one model and one
//! input size.
//!
//! It knows networks and maps, no pictures and no requests.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aisemble_batcher::{Model, Outlet, SendRefused, StepOutcome};
use aisemble_weights::kernels::Pool;

use crate::catalog::Catalog;
use crate::compute::Map;

/// One input of one network.
#[derive(Debug)]
pub struct Row {
    /// Which model of the catalog.
    pub model: usize,
    /// Its input, `n` = 1.
    pub input: Map,
}

/// What a caller wants computed: inputs of any models and sizes.
#[derive(Debug)]
pub struct Job {
    /// The inputs.
    pub rows: Vec<Row>,
    /// When it was submitted.
    pub since: Instant,
}

/// What came out of one row.
#[derive(Debug)]
pub struct Done {
    /// Which row of the job.
    pub row: usize,
    /// The network's outputs, `n` = 1.
    pub outputs: Vec<Map>,
    /// From the job's submission to the step.
    pub queued: Duration,
    /// This row's share of the step.
    pub step: Duration,
}

/// Limits of a step.
#[derive(Debug, Clone, Copy)]
pub struct StepLimits {
    /// Rows.
    pub rows_max: usize,
    /// Pixels of all inputs; one row always goes.
    pub pixels_max: usize,
}

/// Figures that the model thread writes and anybody reads.
#[derive(Debug, Default)]
pub struct Meters {
    rows: AtomicU64,
}

impl Meters {
    /// Rows over all steps.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }
}

struct Waiting {
    row: usize,
    model: usize,
    input: Map,
}

struct Running {
    rows: VecDeque<Waiting>,
    /// Rows that are not done yet.
    left: usize,
    since: Instant,
    outlet: Outlet<Done>,
}

/// The networks on their thread.
pub struct ServingModel {
    catalog: Catalog,
    pool: Arc<Pool>,
    limits: StepLimits,
    meters: Arc<Meters>,
    jobs: VecDeque<Running>,
}

impl std::fmt::Debug for ServingModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServingModel").field("jobs", &self.jobs.len()).finish_non_exhaustive()
    }
}

impl ServingModel {
    /// Networks that compute on `pool`.
    #[must_use]
    pub fn new(catalog: Catalog, pool: Arc<Pool>, limits: StepLimits, meters: Arc<Meters>) -> Self {
        Self { catalog, pool, limits, meters, jobs: VecDeque::new() }
    }

    /// Takes rows of the model and size that the oldest waiting row has, the oldest jobs first.
    fn take_batch(&mut self) -> Vec<(usize, Waiting)> {
        let first = self.jobs.iter().find_map(|job| job.rows.front());
        let Some(key) = first.map(key) else { return Vec::new() };
        let mut room = (self.limits.pixels_max / (key.1 * key.2).max(1)).max(1);
        room = room.min(self.limits.rows_max);
        let mut batch = Vec::new();
        for (index, job) in self.jobs.iter_mut().enumerate() {
            let mut rest = VecDeque::with_capacity(job.rows.len());
            for row in job.rows.drain(..) {
                if room > 0 && self::key(&row) == key {
                    room -= 1;
                    batch.push((index, row));
                } else {
                    rest.push_back(row);
                }
            }
            job.rows = rest;
        }
        batch
    }
}

/// What rows of one batch have in common.
fn key(row: &Waiting) -> (usize, usize, usize) {
    (row.model, row.input.h, row.input.w)
}

impl Model for ServingModel {
    type Job = Job;
    type Output = Done;

    fn has_room(&self, _job: &Job) -> bool {
        // What may be inside is limited at the door: inputs are in memory already.
        true
    }

    fn admit(&mut self, job: Job, outlet: Outlet<Done>) {
        let left = job.rows.len();
        let row = |(row, of): (usize, Row)| Waiting { row, model: of.model, input: of.input };
        let rows = job.rows.into_iter().enumerate().map(row).collect();
        if left == 0 {
            outlet.finish();
        } else {
            self.jobs.push_back(Running { rows, left, since: job.since, outlet });
        }
    }

    fn step(&mut self) -> StepOutcome {
        self.jobs.retain(|job| job.outlet.gone().is_none());
        let batch = self.take_batch();
        let inputs: Vec<&Map> = batch.iter().map(|(_, row)| &row.input).collect();
        let Some(stacked) = Map::stack(&inputs) else {
            return StepOutcome::Worked { rows: 0 };
        };
        let begun = Instant::now();
        let model = &self.catalog.models()[batch[0].1.model];
        let outputs = model.network.forward(&self.pool, &stacked);
        let rows = batch.len();
        let step = begun.elapsed() / u32::try_from(rows).unwrap_or(u32::MAX);
        let mut apart: Vec<_> = outputs.into_iter().map(|map| map.unstack().into_iter()).collect();
        for (job, row) in batch {
            let job = &mut self.jobs[job];
            let outputs = apart.iter_mut().filter_map(Iterator::next).collect();
            let queued = begun.saturating_duration_since(job.since);
            match job.outlet.send(Done { row: row.row, outputs, queued, step }) {
                // The channel holds all rows of a job, so it is never full.
                Ok(()) | Err(SendRefused::Full(_) | SendRefused::Gone(_)) => job.left -= 1,
            }
        }
        self.meters.rows.fetch_add(rows as u64, Ordering::Relaxed);
        for _ in 0..self.jobs.len() {
            let Some(job) = self.jobs.pop_front() else { break };
            if job.left == 0 {
                job.outlet.finish();
            } else {
                self.jobs.push_back(job);
            }
        }
        StepOutcome::Worked { rows }
    }

    fn is_idle(&self) -> bool {
        self.jobs.is_empty()
    }
}
