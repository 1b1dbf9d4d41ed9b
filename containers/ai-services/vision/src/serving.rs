//! The model thread's side: rows of all requests, taken together into batches of one model and one
//! input size. A caption is a row for each of its tokens, so that others go in between.
//!
//! It knows networks and maps, no pictures and no requests.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aisemble_batcher::{Model, Outlet, SendRefused, StepOutcome};
use aisemble_weights::candle;
use aisemble_weights::kernels::Pool;

use crate::catalog::Catalog;
use crate::compute::Map;
use crate::hub::Caption;
use crate::models::Network;

/// Tokens of the texts of one forward pass; one text always goes.
const TEXT_TOKENS_MAX: usize = 2048;

/// One input of one network.
#[derive(Debug)]
pub struct Row {
    /// Which model of the catalog.
    pub model: usize,
    /// Its input.
    pub input: Input,
}

/// What a network is given.
#[derive(Debug)]
pub enum Input {
    /// A picture or a line of text, `n` = 1.
    Picture(Map),
    /// Tokens of a label.
    Tokens(Vec<u32>),
    /// A caption that wants its next token.
    Caption(Caption),
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
    /// The caption with one more token.
    pub caption: Option<Caption>,
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
    /// Tokens of a caption.
    pub caption_tokens_max: usize,
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
    input: Input,
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
        let mut room = self.room(key);
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

    /// Rows of a batch.
    fn room(&self, (_, size): Key) -> usize {
        match size {
            Size::Picture(h, w) => {
                (self.limits.pixels_max / (h * w).max(1)).clamp(1, self.limits.rows_max)
            }
            Size::Text(tokens) => (TEXT_TOKENS_MAX / tokens.max(1)).max(1),
            Size::Caption => 1,
        }
    }

    /// The jobs of a batch that cannot be computed end without an answer.
    fn give_up(&mut self, places: &[(usize, usize)], error: &candle::Error) -> StepOutcome {
        tracing::error!(%error, rows = places.len(), "a batch could not be computed");
        let mut index = 0;
        self.jobs.retain(|_| {
            index += 1;
            !places.iter().any(|(job, _)| *job + 1 == index)
        });
        StepOutcome::Worked { rows: 0 }
    }
}

/// What rows of one batch have in common: the model and the input's size.
type Key = (usize, Size);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Size {
    /// Rows and columns.
    Picture(usize, usize),
    /// Tokens.
    Text(usize),
    Caption,
}

fn key(row: &Waiting) -> Key {
    let size = match &row.input {
        Input::Picture(map) => Size::Picture(map.h, map.w),
        Input::Tokens(tokens) => Size::Text(tokens.len()),
        Input::Caption(_) => Size::Caption,
    };
    (row.model, size)
}

/// What comes of a batch, in its order.
type Outputs = (Vec<Vec<Map>>, Option<Caption>);

/// Computes a batch: inputs of one kind and size.
fn compute(
    network: &Network,
    pool: &Pool,
    inputs: Vec<Input>,
    caption_tokens_max: usize,
) -> candle::Result<Outputs> {
    let (mut maps, mut texts) = (Vec::new(), Vec::new());
    for input in inputs {
        match (input, network) {
            (Input::Picture(map), _) => maps.push(map),
            (Input::Tokens(tokens), _) => texts.push(tokens),
            // A batch of its own.
            (Input::Caption(mut caption), Network::Hub(network)) => {
                network.advance(&mut caption, caption_tokens_max)?;
                return Ok((vec![Vec::new()], Some(caption)));
            }
            (Input::Caption(_), _) => return Err(wrong_input()),
        }
    }
    if let Network::Hub(network) = network
        && !texts.is_empty()
    {
        let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
        let vectors = network.texts(&texts)?;
        return Ok((vectors.into_iter().map(|vector| vec![vector]).collect(), None));
    }
    let stacked = Map::stack(&maps.iter().collect::<Vec<_>>()).ok_or_else(wrong_input)?;
    let rows = stacked.n;
    let outputs = network.forward(pool, &stacked)?;
    let mut apart: Vec<_> = outputs.into_iter().map(|map| map.unstack().into_iter()).collect();
    let row = |_| apart.iter_mut().filter_map(Iterator::next).collect();
    Ok(((0..rows).map(row).collect(), None))
}

fn wrong_input() -> candle::Error {
    candle::Error::Msg("the model takes no such input".to_owned())
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
        let Some(model) = batch.first().map(|(_, row)| row.model) else {
            return StepOutcome::Worked { rows: 0 };
        };
        let begun = Instant::now();
        let (places, inputs): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|(job, row)| ((job, row.row), row.input)).unzip();
        let model = &self.catalog.models()[model];
        let most = self.limits.caption_tokens_max;
        let (outputs, mut caption) = match compute(&model.network, &self.pool, inputs, most) {
            Ok(outputs) => outputs,
            Err(error) => return self.give_up(&places, &error),
        };
        let rows = places.len();
        let step = begun.elapsed() / u32::try_from(rows).unwrap_or(u32::MAX);
        for ((job, row), outputs) in places.into_iter().zip(outputs) {
            let job = &mut self.jobs[job];
            let queued = begun.saturating_duration_since(job.since);
            let caption = caption.take();
            match job.outlet.send(Done { row, outputs, caption, queued, step }) {
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
