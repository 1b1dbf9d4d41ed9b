//! The sequences that run, and the plan of the next step: one row for each sequence that decodes,
//! and chunks of prompts beside them under a token budget.
//!
//! A sequence has `known` tokens (its prompt and what was sampled) of which `computed` are in the
//! KV cache; each step computes the next ones. When all are computed, the last row's logits give
//! the next token. So a decode step is nothing but a chunk of one row.

use std::collections::BTreeMap;

use super::blocks::{BlockPool, BlockTable};

/// Steps that a prompt may be passed over by shorter ones before it goes first.
const PASSED_OVER_MAX: u32 = 8;

/// Sizes that the scheduler keeps to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SchedulerLimits {
    /// Sequences that run at the same time.
    pub rows_max: usize,
    /// Blocks of the KV cache.
    pub blocks: usize,
    /// Tokens of a block.
    pub block_tokens: usize,
    /// Prompt tokens of a step in which nobody decodes.
    pub prefill_tokens_alone: usize,
    /// Prompt tokens of a step in which somebody decodes, and waits for it.
    pub prefill_tokens_beside_decode: usize,
}

/// Names a sequence that runs. Keys grow with admission and are never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceKey(u64);

/// What a sequence will need at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footprint {
    /// Tokens of the prompt, at least 1.
    pub prompt_tokens: usize,
    /// Tokens that will be sampled at most, at least 1.
    pub output_tokens_max: usize,
}

impl Footprint {
    /// Tokens that must lie in the KV cache. The last token sampled is never computed.
    #[must_use]
    pub fn kv_tokens(self) -> usize {
        self.prompt_tokens + self.output_tokens_max.saturating_sub(1)
    }
}

/// A sequence that the whole cache cannot hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the request needs {kv_tokens} tokens of KV cache; the whole cache holds {kv_tokens_max}")]
pub struct NeverFits {
    /// Needed.
    pub kv_tokens: usize,
    /// There are.
    pub kv_tokens_max: usize,
}

/// Rows of one sequence in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedRows {
    /// Whose.
    pub key: SequenceKey,
    /// Position of the first row's token.
    pub start: usize,
    /// How many rows, at least 1.
    pub rows: usize,
    /// Whether the last row's logits are wanted: it is the last known token.
    pub samples: bool,
}

/// The rows of a step. Empty when no sequence can move.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Decoding sequences first, each sequence at most once.
    pub parts: Vec<PlannedRows>,
}

impl Plan {
    /// Rows in all.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.parts.iter().map(|part| part.rows).sum()
    }
}

#[derive(Debug)]
struct Running {
    table: BlockTable,
    known: usize,
    computed: usize,
    kv_tokens_max: usize,
    passed_over: u32,
}

impl Running {
    fn missing(&self) -> usize {
        self.known - self.computed
    }

    fn decodes(&self) -> bool {
        self.computed > 0 && self.missing() == 1
    }
}

/// The sequences that run.
#[derive(Debug)]
pub struct Scheduler {
    limits: SchedulerLimits,
    pool: BlockPool,
    running: BTreeMap<SequenceKey, Running>,
    next_key: u64,
}

impl Scheduler {
    /// With nothing running.
    ///
    /// # Panics
    /// When a limit is zero; they come from checked config.
    #[must_use]
    pub fn new(limits: SchedulerLimits) -> Self {
        assert!(limits.rows_max > 0, "somebody must be able to run");
        assert!(
            limits.prefill_tokens_alone > 0 && limits.prefill_tokens_beside_decode > 0,
            "a prompt must be able to advance"
        );
        let pool = BlockPool::new(limits.blocks, limits.block_tokens);
        Self { limits, pool, running: BTreeMap::new(), next_key: 0 }
    }

    /// Whether a sequence could ever run here.
    ///
    /// # Errors
    /// When the whole cache is too small for it.
    pub fn check(limits: &SchedulerLimits, footprint: Footprint) -> Result<(), NeverFits> {
        let (kv_tokens, kv_tokens_max) =
            (footprint.kv_tokens(), limits.blocks * limits.block_tokens);
        if kv_tokens > kv_tokens_max {
            return Err(NeverFits { kv_tokens, kv_tokens_max });
        }
        Ok(())
    }

    /// Whether the sequence could start now.
    #[must_use]
    pub fn has_room(&self, footprint: Footprint) -> bool {
        self.running.len() < self.limits.rows_max
            && self.pool.blocks_for(footprint.kv_tokens()) <= self.pool.unpromised()
    }

    /// Starts a sequence; `None` when there is no room for it now.
    ///
    /// # Panics
    /// When the footprint is empty: callers check prompts.
    pub fn admit(&mut self, footprint: Footprint) -> Option<SequenceKey> {
        assert!(footprint.prompt_tokens > 0, "an empty prompt has nothing to compute");
        assert!(footprint.output_tokens_max > 0, "a sequence samples at least one token");
        if self.running.len() >= self.limits.rows_max {
            return None;
        }
        let kv_tokens_max = footprint.kv_tokens();
        let table = self.pool.reserve(self.pool.blocks_for(kv_tokens_max))?;
        let key = SequenceKey(self.next_key);
        self.next_key += 1;
        let known = footprint.prompt_tokens;
        let running = Running { table, known, computed: 0, kv_tokens_max, passed_over: 0 };
        self.running.insert(key, running);
        Some(key)
    }

    /// Plans the next step and gives the planned rows their blocks. A sequence for which `paused`
    /// answers true keeps its blocks and gets no rows: its reader is behind.
    pub fn plan(&mut self, paused: impl Fn(SequenceKey) -> bool) -> Plan {
        let mut plan = Plan::default();
        let mut prefilling = Vec::new();
        for (&key, running) in &self.running {
            if running.missing() == 0 || paused(key) {
                continue;
            }
            if running.decodes() {
                plan.parts.push(running.part(key, 1));
            } else {
                let first = running.passed_over >= PASSED_OVER_MAX;
                prefilling.push((!first, if first { 0 } else { running.missing() }, key));
            }
        }
        let mut budget = if plan.parts.is_empty() {
            self.limits.prefill_tokens_alone
        } else {
            self.limits.prefill_tokens_beside_decode
        };
        // Short prompts first, so that one long prompt does not hold all the others; a prompt that
        // was passed over too often goes before them, the oldest first.
        prefilling.sort_unstable();
        for (_, _, key) in prefilling {
            let Some(running) = self.running.get_mut(&key) else { continue };
            let rows = running.missing().min(budget);
            if rows == 0 {
                running.passed_over += 1;
                continue;
            }
            running.passed_over = 0;
            budget -= rows;
            plan.parts.push(running.part(key, rows));
        }
        for part in &plan.parts {
            if let Some(running) = self.running.get_mut(&part.key) {
                self.pool.grow(&mut running.table, part.start + part.rows);
            }
        }
        plan
    }

    /// The rows of `plan` are in the KV cache now.
    ///
    /// # Panics
    /// When a part does not continue where its sequence stands: a plan used twice.
    pub fn computed(&mut self, plan: &Plan) {
        for part in &plan.parts {
            if let Some(running) = self.running.get_mut(&part.key) {
                assert_eq!(running.computed, part.start, "a plan is carried out once, in order");
                running.computed += part.rows;
                assert!(running.computed <= running.known, "only known tokens are computed");
            }
        }
    }

    /// A token was sampled for the sequence; it will be computed in the next step.
    ///
    /// # Panics
    /// When the sequence is not there, or is at its end: both defects of the caller.
    pub fn sampled(&mut self, key: SequenceKey) {
        let running = self.running.get_mut(&key);
        assert!(running.is_some(), "only a sequence that runs samples");
        if let Some(running) = running {
            assert_eq!(running.missing(), 0, "a token is sampled when all before it are computed");
            assert!(running.known < running.kv_tokens_max, "a sequence ends at its last token");
            running.known += 1;
        }
    }

    /// The blocks of a sequence.
    #[must_use]
    pub fn blocks(&self, key: SequenceKey) -> &[u32] {
        self.running.get(&key).map_or(&[], |running| running.table.blocks())
    }

    /// Ends a sequence and takes its blocks back. Ending it twice does nothing.
    pub fn remove(&mut self, key: SequenceKey) {
        if let Some(running) = self.running.remove(&key) {
            self.pool.release(running.table);
        }
    }

    /// Sequences that run.
    #[must_use]
    pub fn len(&self) -> usize {
        self.running.len()
    }

    /// Whether nothing runs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Tokens that the taken blocks have room for.
    #[must_use]
    pub fn kv_tokens_used(&self) -> usize {
        self.pool.used() * self.pool.block_tokens()
    }

    /// Tokens that the whole cache has room for.
    #[must_use]
    pub fn kv_tokens_max(&self) -> usize {
        self.pool.total() * self.pool.block_tokens()
    }
}

impl Running {
    fn part(&self, key: SequenceKey, rows: usize) -> PlannedRows {
        PlannedRows { key, start: self.computed, rows, samples: rows == self.missing() }
    }
}
