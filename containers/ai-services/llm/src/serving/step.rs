//! One step over all sequences: those nobody waits for are dropped first, then the plan is
//! computed, sampled and sent. Nothing in here waits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aisemble_batcher::{Model, Outlet, StepOutcome};
use aisemble_weights::Tokenizer;
use aisemble_weights::candle;

use super::meters::Meters;
use super::sequence::{Fate, Job, Piece, Sequence};
use crate::engine::{Plan, PlannedRows, Scheduler, SchedulerLimits, SequenceKey};
use crate::model::{CacheKind, Caches, Decoder, Logits, StepBatch};
use crate::sampling::Sampler;

/// Sizes of one engine.
#[derive(Debug, Clone, Copy)]
pub struct EngineLimits {
    /// What the scheduler keeps to.
    pub scheduler: SchedulerLimits,
    /// What the cache stores.
    pub cache: CacheKind,
    /// How long a sequence may wait for its reader.
    pub reader_wait_max: Duration,
}

/// The model as the batcher's thread sees it.
pub struct ServingModel {
    decoder: Arc<Decoder>,
    tokenizer: Arc<Tokenizer>,
    caches: Caches,
    scheduler: Scheduler,
    sampler: Sampler,
    sequences: BTreeMap<SequenceKey, Sequence>,
    meters: Arc<Meters>,
    reader_wait_max: Duration,
}

impl std::fmt::Debug for ServingModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServingModel").field("scheduler", &self.scheduler).finish_non_exhaustive()
    }
}

impl ServingModel {
    /// With empty caches and nothing running.
    ///
    /// # Errors
    /// When there is no memory for the caches.
    pub fn new(
        decoder: Arc<Decoder>,
        tokenizer: Arc<Tokenizer>,
        limits: EngineLimits,
        meters: Arc<Meters>,
    ) -> Result<Self, candle::Error> {
        let caches = decoder.caches(limits.scheduler.blocks, limits.cache)?;
        Ok(Self {
            decoder,
            tokenizer,
            caches,
            scheduler: Scheduler::new(limits.scheduler),
            sampler: Sampler::default(),
            sequences: BTreeMap::new(),
            meters,
            reader_wait_max: limits.reader_wait_max,
        })
    }

    /// Drops the sequences that nobody reads, before any work on them.
    fn drop_unwanted(&mut self) {
        let now = Instant::now();
        let mut unwanted = Vec::new();
        for (key, sequence) in &mut self.sequences {
            if sequence.is_gone() {
                unwanted.push(*key);
            } else if sequence.paused_for(now) > self.reader_wait_max {
                self.meters.slow_reader();
                unwanted.push(*key);
            }
        }
        for key in unwanted {
            self.remove(key);
        }
    }

    /// Takes a sequence out. Its blocks are free, and the figures say so, before its reader hears.
    fn remove(&mut self, key: SequenceKey) -> Option<Sequence> {
        self.scheduler.remove(key);
        self.meters.scheduled(self.scheduler.figures());
        self.sequences.remove(&key)
    }

    /// What the next step computes; who starts with it is told.
    fn plan(&mut self) -> Plan {
        let sequences = &self.sequences;
        let readable = |key| sequences.get(&key).map_or(0, Sequence::readable_tokens);
        let plan = self.scheduler.plan(readable);
        for key in &plan.started {
            if let Some(sequence) = self.sequences.get_mut(key) {
                sequence.start(self.scheduler.reused(*key));
            }
        }
        plan
    }

    fn compute(&mut self, plan: &Plan) -> Result<Logits, candle::Error> {
        let mut batch = StepBatch::default();
        for part in &plan.parts {
            let known = &self.scheduler.tokens(part.key)[part.start..part.start + part.rows];
            let blocks = self.scheduler.blocks(part.key);
            batch.push_drafted((known, &part.draft), part.start, blocks, part.samples);
        }
        self.decoder.forward(&batch, &mut self.caches)
    }

    fn sample(&mut self, plan: &Plan, logits: &Logits) {
        let mut rows = logits.rows();
        for part in plan.parts.iter().filter(|part| part.samples) {
            // Each row after the first counts only when the token before it was the proposed one.
            let mut goes_on = true;
            for at in 0..=part.draft.len() {
                let Some(row) = rows.next() else { return };
                goes_on = goes_on && self.sample_row(part, at, row);
            }
        }
    }

    /// Samples from the logits behind the known tokens and `at` proposed ones. Whether the next
    /// row's logits count too.
    fn sample_row(&mut self, part: &PlannedRows, at: usize, row: &[f32]) -> bool {
        let key = part.key;
        let Some(sequence) = self.sequences.get_mut(&key) else { return false };
        if let Some(prompt_tokens) = sequence.prompt_just_computed() {
            let cached = self.scheduler.reused(key);
            sequence.cached(cached);
            self.meters.prompt_done(prompt_tokens, cached);
        }
        let sampled = match self.sampler.sample(&mut sequence.sampler, row) {
            Ok(sampled) => sampled,
            Err(error) => {
                tracing::error!(%error, "a sequence is given up");
                if let Some(sequence) = self.remove(key) {
                    sequence.fail();
                }
                return false;
            }
        };
        self.meters.token_sampled();
        let token = sampled.token;
        match sequence.take(sampled, &self.tokenizer) {
            Fate::Runs => self.scheduler.sampled(key, token, part.draft.get(at).copied()),
            Fate::Ends(reason) => {
                if let Some(sequence) = self.remove(key) {
                    sequence.finish(reason);
                }
                false
            }
        }
    }

    /// The forward pass failed: its sequences have holes in their caches and cannot go on.
    fn give_up(&mut self, plan: &Plan, error: &candle::Error) {
        tracing::error!(%error, batch.rows = plan.rows(), "a step failed; its sequences are lost");
        for part in &plan.parts {
            if let Some(sequence) = self.remove(part.key) {
                sequence.fail();
            }
        }
    }
}

impl Model for ServingModel {
    type Job = Job;
    type Output = Piece;

    /// Always: whose turn it is, is the scheduler's choice, who knows the cache.
    fn has_room(&self, _: &Job) -> bool {
        true
    }

    fn admit(&mut self, job: Job, outlet: Outlet<Piece>) {
        let (request, sequence) = Sequence::new(job, outlet);
        let key = self.scheduler.submit(request);
        self.sequences.insert(key, sequence);
    }

    fn step(&mut self) -> StepOutcome {
        self.drop_unwanted();
        let begun = Instant::now();
        let plan = self.plan();
        if plan.parts.is_empty() {
            self.meters.scheduled(self.scheduler.figures());
            return StepOutcome::Blocked;
        }
        match self.compute(&plan) {
            Ok(logits) => {
                self.scheduler.computed(&plan, begun.elapsed());
                self.sample(&plan, &logits);
            }
            Err(error) => self.give_up(&plan, &error),
        }
        self.meters.step_done(plan.rows());
        self.meters.scheduled(self.scheduler.figures());
        StepOutcome::Worked { rows: plan.parts.len() }
    }

    fn is_idle(&self) -> bool {
        self.sequences.is_empty()
    }
}
