//! The sequences: who waits, who runs, what they hold. `plan` decides what the next step computes.
//!
//! A sequence has known `tokens` (its prompt and what was sampled) of which `computed` are in the
//! KV cache; each step computes the next ones. When all are computed, the last row's logits give
//! the next token. So a decode step is nothing but a chunk of one row.
//!
//! A sequence starts when there is room for what is known of it, not for all that it may become.
//! When blocks run out later, who is less urgent or came later gives its own up, waits again, and
//! is computed anew from its tokens, which is bit for bit the same.

use std::collections::BTreeMap;
use std::time::Duration;

use super::blocks::{BlockPool, BlockTable, PrefixRoot};
use super::budget::PrefillBudget;
use super::draft::Drafter;
use super::line::{Class, Line};
use super::plan::Plan;

/// What a decoding row costs its owner's share; a prompt token costs 1.
const DECODE_COST: u64 = 2;
/// Times that a sequence gives way to more urgent ones; then it counts as urgent itself.
const PREEMPTED_MAX: u32 = 3;

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
    /// Prompt tokens of a step in which somebody decodes, and waits for it; at most.
    pub prefill_tokens_beside_decode: usize,
    /// A step with prompt tokens beside decoding sequences may take this percentage of one without;
    /// 0 = no matter how long.
    pub slowdown_percent_max: u32,
    /// Who may reuse whose prefixes.
    pub sharing: PrefixSharing,
    /// Tokens that are proposed for a sequence in a step at most; 0 = no speculation.
    pub draft_tokens_max: usize,
}

/// Who may reuse the KV blocks of whose prompts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrefixSharing {
    /// Nothing is kept.
    Off,
    /// An owner its own. How long an answer takes then says nothing about what others asked.
    PerOwner,
    /// Everybody everybody's.
    All,
}

/// Names a sequence. Keys grow with arrival and are never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceKey(u64);

impl SequenceKey {
    #[cfg(test)]
    pub(super) fn of(number: u64) -> Self {
        Self(number)
    }
}

/// Names whoever a sequence is computed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnerKey(pub u64);

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

/// A sequence to be.
#[derive(Debug, Clone)]
pub struct Request {
    /// At least one token.
    pub prompt: Vec<u32>,
    /// Tokens to sample at most, at least 1.
    pub output_tokens_max: usize,
    /// How urgent.
    pub class: Class,
    /// For whom.
    pub owner: OwnerKey,
}

/// What happened so far, and how things stand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SchedulerFigures {
    /// Sequences that run.
    pub running: usize,
    /// Sequences that wait, preempted ones included.
    pub waiting: usize,
    /// Tokens that the blocks of running sequences have room for.
    pub kv_tokens_used: usize,
    /// Tokens in blocks that nobody holds and that are kept.
    pub kv_tokens_kept: usize,
    /// Kept blocks that made room.
    pub evictions: u64,
    /// Times that a sequence gave its place or its blocks up.
    pub preemptions: u64,
    /// Tokens proposed.
    pub drafted: u64,
    /// Proposed tokens that were right.
    pub accepted: u64,
}

#[derive(Debug)]
pub(super) struct Sequence {
    pub(super) class: Class,
    pub(super) owner: OwnerKey,
    pub(super) tokens: Vec<u32>,
    pub(super) kv_tokens_max: usize,
    pub(super) drafter: Drafter,
    /// Times that it gave its place or its blocks up.
    pub(super) preempted: u32,
    /// Prompt tokens that were not computed but reused.
    pub(super) reused: usize,
    pub(super) has_run: bool,
    pub(super) place: Option<Running>,
}

/// What a sequence has while it runs.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) table: BlockTable,
    pub(super) computed: usize,
    pub(super) passed_over: u32,
    /// Tokens that the last plan proposed and that have not been judged yet, and how many were
    /// right.
    pub(super) proposed: usize,
    pub(super) accepted: usize,
}

impl Sequence {
    /// How urgent it is by now: who had to give way too often is older than all who come.
    pub(super) fn urgency(&self) -> Class {
        if self.preempted >= PREEMPTED_MAX { Class::Interactive } else { self.class }
    }

    /// Known tokens that are not in the cache.
    pub(super) fn missing(&self) -> usize {
        self.tokens.len() - self.place.as_ref().map_or(0, |running| running.computed)
    }

    pub(super) fn decodes(&self) -> bool {
        self.missing() == 1 && self.place.as_ref().is_some_and(|running| running.computed > 0)
    }

    /// What may be reused: the last token is always computed, for its logits.
    pub(super) fn reusable(&self) -> &[u32] {
        &self.tokens[..self.tokens.len() - 1]
    }
}

/// All sequences.
#[derive(Debug)]
pub struct Scheduler {
    pub(super) limits: SchedulerLimits,
    pub(super) pool: BlockPool,
    pub(super) sequences: BTreeMap<SequenceKey, Sequence>,
    pub(super) line: Line,
    pub(super) budget: PrefillBudget,
    pub(super) running: usize,
    pub(super) preemptions: u64,
    pub(super) drafted: u64,
    accepted: u64,
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
        let keeps = limits.sharing != PrefixSharing::Off;
        let beside = limits.prefill_tokens_beside_decode;
        Self {
            limits,
            pool: BlockPool::new(limits.blocks, limits.block_tokens, keeps),
            sequences: BTreeMap::new(),
            line: Line::default(),
            budget: PrefillBudget::new(beside, limits.slowdown_percent_max, limits.rows_max),
            running: 0,
            preemptions: 0,
            drafted: 0,
            accepted: 0,
            next_key: 0,
        }
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

    /// Takes a sequence in; it waits until a plan says that it has started.
    ///
    /// # Panics
    /// When the request is empty or can never fit: callers check both.
    pub fn submit(&mut self, request: Request) -> SequenceKey {
        let (prompt_tokens, output_tokens_max) = (request.prompt.len(), request.output_tokens_max);
        assert!(prompt_tokens > 0, "an empty prompt has nothing to compute");
        assert!(output_tokens_max > 0, "a sequence samples at least one token");
        let footprint = Footprint { prompt_tokens, output_tokens_max };
        assert!(Self::check(&self.limits, footprint).is_ok(), "it could wait for ever");
        let key = SequenceKey(self.next_key);
        self.next_key += 1;
        let (class, owner) = (request.class, request.owner);
        let is_new = !self.sequences.values().any(|sequence| sequence.owner == owner);
        let sequence = Sequence {
            class,
            owner,
            tokens: request.prompt,
            kv_tokens_max: footprint.kv_tokens(),
            drafter: Drafter::default(),
            preempted: 0,
            reused: 0,
            has_run: false,
            place: None,
        };
        self.sequences.insert(key, sequence);
        self.line.push(key, class, owner, is_new);
        key
    }

    /// The rows of `plan` are in the KV cache now. `took`: how long the step was.
    ///
    /// # Panics
    /// When a part does not continue where its sequence stands: a plan used twice.
    pub fn computed(&mut self, plan: &Plan, took: Duration) {
        let mut decoding = 0;
        for part in &plan.parts {
            let Some(sequence) = self.sequences.get_mut(&part.key) else { continue };
            let cost = if sequence.decodes() { DECODE_COST } else { part.rows as u64 };
            decoding += if sequence.decodes() { part.rows + part.draft.len() } else { 0 };
            let Some(running) = &mut sequence.place else { continue };
            assert_eq!(running.computed, part.start, "a plan is carried out once, in order");
            running.computed += part.rows;
            assert!(running.computed <= sequence.tokens.len(), "only known tokens are computed");
            running.proposed = part.draft.len();
            running.accepted = 0;
            self.pool.fill(&mut running.table, &sequence.tokens[..running.computed]);
            self.line.charge(sequence.owner, cost);
        }
        self.budget.observe(decoding, plan.rows() - decoding, took);
    }

    /// A token was sampled for the sequence. True when it is the one that the plan proposed in this
    /// place: its row has been computed in the same step, and the next token may be sampled from
    /// that row's logits. Otherwise the token is computed in the next step.
    ///
    /// # Panics
    /// When the sequence does not run, or is at its end: both defects of the caller.
    pub fn sampled(&mut self, key: SequenceKey, token: u32, proposed: Option<u32>) -> bool {
        let sequence = self.sequences.get_mut(&key);
        assert!(sequence.is_some(), "only a sequence that runs samples");
        let Some(sequence) = sequence else { return false };
        assert_eq!(sequence.missing(), 0, "a token is sampled when all before it are computed");
        assert!(sequence.tokens.len() < sequence.kv_tokens_max, "a sequence ends at its last one");
        sequence.tokens.push(token);
        let is_right = proposed == Some(token);
        if let (true, Some(running)) = (is_right, &mut sequence.place) {
            running.computed += 1;
            running.accepted += 1;
            assert!(running.accepted <= running.proposed, "only what was proposed is right");
            self.accepted += 1;
        }
        is_right
    }

    /// All tokens of the sequence: its prompt and what was sampled.
    #[must_use]
    pub fn tokens(&self, key: SequenceKey) -> &[u32] {
        self.sequences.get(&key).map_or(&[], |sequence| &sequence.tokens)
    }

    /// Prompt tokens of the sequence that were reused instead of computed.
    #[must_use]
    pub fn reused(&self, key: SequenceKey) -> usize {
        self.sequences.get(&key).map_or(0, |sequence| sequence.reused)
    }

    /// The blocks of a sequence; none while it waits.
    #[must_use]
    pub fn blocks(&self, key: SequenceKey) -> &[u32] {
        let place = self.sequences.get(&key).and_then(|sequence| sequence.place.as_ref());
        place.map_or(&[], |running| running.table.blocks())
    }

    /// Ends a sequence and takes its blocks back. Ending it twice does nothing.
    pub fn remove(&mut self, key: SequenceKey) {
        let Some(sequence) = self.sequences.remove(&key) else { return };
        match sequence.place {
            Some(running) => {
                self.running -= 1;
                self.pool.release(running.table);
            }
            None => self.line.remove(key),
        }
    }

    /// Whether there is nobody, neither running nor waiting.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sequences.is_empty()
    }

    /// The figures now.
    #[must_use]
    pub fn figures(&self) -> SchedulerFigures {
        let block_tokens = self.pool.block_tokens();
        SchedulerFigures {
            running: self.running,
            waiting: self.line.len(),
            kv_tokens_used: self.pool.used() * block_tokens,
            kv_tokens_kept: self.pool.kept() * block_tokens,
            evictions: self.pool.evictions(),
            preemptions: self.preemptions,
            drafted: self.drafted,
            accepted: self.accepted,
        }
    }

    pub(super) fn root(&self, owner: OwnerKey) -> PrefixRoot {
        match self.limits.sharing {
            PrefixSharing::Off | PrefixSharing::All => PrefixRoot(0),
            PrefixSharing::PerOwner => PrefixRoot(owner.0),
        }
    }
}
