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
use crate::engine::{Plan, Scheduler, SchedulerLimits, SequenceKey};
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
        meters.kv_used(0);
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
        self.meters.kv_used(self.scheduler.kv_tokens_used());
        self.sequences.remove(&key)
    }

    fn compute(&mut self, plan: &Plan) -> Result<Logits, candle::Error> {
        let mut batch = StepBatch::default();
        for part in &plan.parts {
            let Some(sequence) = self.sequences.get(&part.key) else { continue };
            let tokens = &sequence.tokens[part.start..part.start + part.rows];
            batch.push(tokens, part.start, self.scheduler.blocks(part.key), part.samples);
        }
        self.decoder.forward(&batch, &mut self.caches)
    }

    fn sample(&mut self, plan: &Plan, logits: &Logits) {
        let sampling = plan.parts.iter().filter(|part| part.samples);
        for (key, row) in sampling.map(|part| part.key).zip(logits.rows()) {
            let Some(sequence) = self.sequences.get_mut(&key) else { continue };
            if let Some(prompt_tokens) = sequence.prompt_just_computed() {
                self.meters.prompt_done(prompt_tokens);
            }
            let sampled = match self.sampler.sample(&mut sequence.sampler, row) {
                Ok(sampled) => sampled,
                Err(error) => {
                    tracing::error!(%error, "a sequence is given up");
                    if let Some(sequence) = self.remove(key) {
                        sequence.fail();
                    }
                    continue;
                }
            };
            self.meters.token_sampled();
            match sequence.take(sampled, &self.tokenizer) {
                Fate::Runs => self.scheduler.sampled(key),
                Fate::Ends(reason) => {
                    if let Some(sequence) = self.remove(key) {
                        sequence.finish(reason);
                    }
                }
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

    fn has_room(&self, job: &Job) -> bool {
        self.scheduler.has_room(job.footprint())
    }

    fn admit(&mut self, job: Job, outlet: Outlet<Piece>) {
        // `has_room` was asked just before; if it could not be true any more, dropping the outlet
        // tells the caller.
        if let Some(key) = self.scheduler.admit(job.footprint()) {
            self.sequences.insert(key, Sequence::start(job, outlet));
        }
    }

    fn step(&mut self) -> StepOutcome {
        self.drop_unwanted();
        let plan = {
            let sequences = &self.sequences;
            self.scheduler.plan(|key| sequences.get(&key).is_none_or(Sequence::is_paused))
        };
        if plan.parts.is_empty() {
            self.meters.kv_used(self.scheduler.kv_tokens_used());
            return StepOutcome::Blocked;
        }
        match self.compute(&plan) {
            Ok(logits) => {
                self.scheduler.computed(&plan);
                self.sample(&plan, &logits);
            }
            Err(error) => self.give_up(&plan, &error),
        }
        self.meters.step_done(plan.rows());
        self.meters.kv_used(self.scheduler.kv_tokens_used());
        StepOutcome::Worked { rows: plan.parts.len() }
    }

    fn is_idle(&self) -> bool {
        self.sequences.is_empty()
    }
}
