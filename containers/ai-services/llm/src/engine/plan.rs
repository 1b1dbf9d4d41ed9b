//! The plan of a step: who starts, who makes room, and which rows are computed. One row for each
//! sequence that decodes (and its proposed tokens), and chunks of prompts beside them.

use super::blocks::{BlockPool, NextContent};
use super::line::Class;
use super::scheduler::{Running, Scheduler, Sequence, SequenceKey};

/// Steps that a prompt may be passed over by shorter ones before it goes first.
const PASSED_OVER_MAX: u32 = 8;
/// Rows of a step up to which proposed tokens are worth their rows.
pub(crate) const DRAFTED_ROWS_MAX: usize = 8;

/// Rows of one sequence in a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedRows {
    /// Whose.
    pub key: SequenceKey,
    /// Position of the first row's token.
    pub start: usize,
    /// How many rows of known tokens, at least 1.
    pub rows: usize,
    /// Whether the last row's logits are wanted: it is the last known token.
    pub samples: bool,
    /// Tokens that may follow, one more row each, whose logits are wanted too. Only with `samples`.
    pub draft: Vec<u32>,
}

/// The rows of a step. Empty when no sequence can move.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Sequences that run from now on for the first time.
    pub started: Vec<SequenceKey>,
    /// Decoding sequences first, each sequence at most once.
    pub parts: Vec<PlannedRows>,
}

impl Plan {
    /// Rows in all.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.parts.iter().map(|part| part.rows + part.draft.len()).sum()
    }
}

/// What a sequence could do in this step.
struct Candidate {
    key: SequenceKey,
    class: Class,
    rows: usize,
    decodes: bool,
}

impl Scheduler {
    /// Plans the next step and gives the planned rows their blocks. `readable`: tokens that the
    /// sequence's reader can take now; a sequence with 0 keeps its place and gets no rows.
    pub fn plan(&mut self, readable: impl Fn(SequenceKey) -> usize) -> Plan {
        let mut plan = Plan { started: self.start(), parts: Vec::new() };
        self.learn();
        self.adopt();
        // A turn that nobody can use (the prompt whose turn it is finds no block) is passed on; a
        // prompt is passed over so many times at most.
        for _ in 0..=PASSED_OVER_MAX {
            let candidates = self.candidates(&readable);
            if candidates.is_empty() {
                break;
            }
            plan.parts = self.grant(candidates, &readable);
            if !plan.parts.is_empty() {
                break;
            }
        }
        self.speculate(&mut plan, &readable);
        plan
    }

    /// Lets those run whose turn it is, as long as there is room. Gives those who had not run yet.
    fn start(&mut self) -> Vec<SequenceKey> {
        let mut started = Vec::new();
        while let Some(key) = self.line.first() {
            let has_place = self.running < self.limits.rows_max || self.displace(key);
            if !has_place || !self.has_blocks_for(key) {
                break;
            }
            // By its name: who was displaced for it may be the first by now.
            self.line.take(key);
            let root = self.sequences.get(&key).map(|sequence| self.root(sequence.owner));
            let (Some(sequence), Some(root)) = (self.sequences.get_mut(&key), root) else { break };
            let mut table = BlockPool::table(root);
            let reused = self.pool.reuse(&mut table, sequence.reusable());
            sequence.place =
                Some(Running { table, computed: reused, passed_over: 0, proposed: 0, accepted: 0 });
            self.running += 1;
            if !sequence.has_run {
                sequence.has_run = true;
                sequence.reused = reused;
                started.push(key);
            }
        }
        started
    }

    /// Whether the blocks for what is known of a waiting sequence are there, what those who run
    /// already know is counted off, and each has one more to grow into.
    fn has_blocks_for(&self, key: SequenceKey) -> bool {
        if self.running == 0 {
            return true;
        }
        let Some(sequence) = self.sequences.get(&key) else { return false };
        let shared = self.pool.shared_in_use(self.root(sequence.owner), sequence.reusable());
        let own = self.pool.blocks_for(sequence.tokens.len() + 1) - shared;
        let promised: usize = self
            .sequences
            .values()
            .filter_map(|sequence| {
                let held = sequence.place.as_ref()?.table.blocks().len();
                let known = self.pool.blocks_for(sequence.tokens.len());
                Some(known.saturating_sub(held) + 1)
            })
            .sum();
        own + promised <= self.pool.available()
    }

    /// Takes the place of the last of those who are less urgent, if there is one.
    fn displace(&mut self, key: SequenceKey) -> bool {
        let Some(urgency) = self.sequences.get(&key).map(Sequence::urgency) else { return false };
        let less_urgent = self
            .sequences
            .iter()
            .filter(|(_, sequence)| sequence.place.is_some() && sequence.urgency() > urgency);
        let victim = less_urgent.max_by_key(|(key, sequence)| (sequence.urgency(), **key));
        let Some(victim) = victim.map(|(key, _)| *key) else { return false };
        self.preempt(victim);
        true
    }

    /// What came of the tokens that were proposed in the last step.
    fn learn(&mut self) {
        for sequence in self.sequences.values_mut() {
            let Some(running) = &mut sequence.place else { continue };
            let (proposed, accepted) = (running.proposed, running.accepted);
            (running.proposed, running.accepted) = (0, 0);
            sequence.drafter.learn(proposed, accepted);
        }
    }

    /// Prompts take over what another sequence computed since: of several that begin alike and come
    /// together, one computes the beginning.
    fn adopt(&mut self) {
        for sequence in self.sequences.values_mut() {
            let Sequence { tokens, place: Some(running), preempted, reused, .. } = sequence else {
                continue;
            };
            let block_tokens = self.pool.block_tokens();
            let at_a_block = running.computed.is_multiple_of(block_tokens);
            if tokens.len() - running.computed <= block_tokens || !at_a_block {
                continue;
            }
            let known = tokens.len() - 1;
            let now = self.pool.reuse(&mut running.table, &tokens[..known]);
            if now > running.computed {
                // After a preemption it finds its own blocks again; that is no gain.
                if *preempted == 0 {
                    *reused += now - running.computed;
                }
                running.computed = now;
            }
        }
    }

    /// Who could have rows, and how many.
    fn candidates(&mut self, readable: &impl Fn(SequenceKey) -> usize) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        let mut prefilling = Vec::new();
        for (&key, sequence) in &self.sequences {
            let Some(running) = &sequence.place else { continue };
            if sequence.missing() == 0 || readable(key) == 0 {
                continue;
            }
            let class = sequence.urgency();
            if sequence.decodes() {
                candidates.push(Candidate { key, class, rows: 1, decodes: true });
            } else {
                let first = running.passed_over >= PASSED_OVER_MAX;
                let (class, short) =
                    if first { (Class::Interactive, 0) } else { (class, sequence.missing()) };
                prefilling.push((!first, class, short, key));
            }
        }
        let mut budget = if candidates.is_empty() {
            self.limits.prefill_tokens_alone
        } else {
            self.budget.tokens(candidates.len())
        };
        // The urgent first, and short prompts before long ones, so that one long prompt does not
        // hold all the others; a prompt that was passed over too often goes before them, the oldest
        // first.
        prefilling.sort_unstable();
        let mut begun: Vec<NextContent> = Vec::new();
        for (_, _, _, key) in prefilling {
            let Some(sequence) = self.sequences.get_mut(&key) else { continue };
            let (rows, class) = (sequence.missing().min(budget), sequence.urgency());
            let Some(running) = &mut sequence.place else { continue };
            // Of those who go on alike one computes it, and the others adopt it in the next step.
            let next = self.pool.next_content(&running.table, running.computed, &sequence.tokens);
            if let Some((content, at_its_start)) = next {
                if at_its_start && begun.contains(&content) {
                    continue;
                }
                begun.push(content);
            }
            if rows == 0 {
                running.passed_over += 1;
                continue;
            }
            running.passed_over = 0;
            budget -= rows;
            candidates.push(Candidate { key, class, rows, decodes: false });
        }
        candidates
    }

    /// Gives blocks to the candidates, the urgent and old first; for want of blocks those behind
    /// give theirs up. The first of all always gets its rows: the whole cache would do for it.
    fn grant(
        &mut self,
        mut candidates: Vec<Candidate>,
        readable: &impl Fn(SequenceKey) -> usize,
    ) -> Vec<PlannedRows> {
        candidates.sort_unstable_by_key(|candidate| (candidate.class, candidate.key));
        let mut granted = Vec::new();
        for Candidate { key, rows, decodes, .. } in candidates {
            while let Some(sequence) = self.sequences.get_mut(&key) {
                // It may have been preempted by one of those before it.
                let Some(running) = &mut sequence.place else { break };
                let start = running.computed;
                if self.pool.grow(&mut running.table, start + rows) {
                    let samples = start + rows == sequence.tokens.len();
                    let part = PlannedRows { key, start, rows, samples, draft: Vec::new() };
                    granted.push((!decodes, part));
                    break;
                }
                let Some(victim) = self.victim(key, readable) else { break };
                self.preempt(victim);
            }
        }
        // Stable: decoding ones first, otherwise in the order of their urgency.
        granted.sort_by_key(|(prefills, _)| *prefills);
        granted.into_iter().map(|(_, part)| part).collect()
    }

    /// Who gives its blocks up for `key`: one whose reader is behind, else the last of those who
    /// are less urgent or came later.
    fn victim(
        &self,
        key: SequenceKey,
        readable: &impl Fn(SequenceKey) -> usize,
    ) -> Option<SequenceKey> {
        let urgency = self.sequences.get(&key)?.urgency();
        let others = self.sequences.iter().filter(|(other, sequence)| {
            let holds = sequence.place.as_ref().is_some_and(|r| !r.table.blocks().is_empty());
            let behind = (sequence.urgency(), **other) > (urgency, key);
            holds && **other != key && (behind || readable(**other) == 0)
        });
        let last = others
            .max_by_key(|(other, sequence)| (readable(**other) == 0, sequence.urgency(), **other));
        last.map(|(other, _)| *other)
    }

    /// Takes place and blocks from a running sequence; it waits again. What its full blocks contain
    /// is kept while nobody needs them.
    pub(super) fn preempt(&mut self, key: SequenceKey) {
        let Some(sequence) = self.sequences.get_mut(&key) else { return };
        let Some(running) = sequence.place.take() else { return };
        self.pool.release(running.table);
        self.running -= 1;
        self.preemptions += 1;
        sequence.preempted += 1;
        self.line.push(key, sequence.urgency(), sequence.owner, false);
    }

    /// Proposes tokens in a step that only decodes and has few rows.
    fn speculate(&mut self, plan: &mut Plan, readable: &impl Fn(SequenceKey) -> usize) {
        let mut rows = plan.rows();
        let decodes = plan.parts.iter().all(|part| part.rows == 1 && part.samples);
        if self.limits.draft_tokens_max == 0 || !decodes || rows == 0 {
            return;
        }
        for part in &mut plan.parts {
            let Some(sequence) = self.sequences.get_mut(&part.key) else { continue };
            let Some(running) = &mut sequence.place else { continue };
            // The last token is never computed, and one place is for the token that is sampled
            // behind the draft.
            let room = (sequence.kv_tokens_max - sequence.tokens.len())
                .min(readable(part.key).saturating_sub(1))
                .min(self.limits.draft_tokens_max)
                .min(DRAFTED_ROWS_MAX.saturating_sub(rows));
            let draft = sequence.drafter.propose(&sequence.tokens, room);
            if draft.is_empty() {
                continue;
            }
            // Nobody gives a block up for a guess.
            let end = part.start + part.rows + draft.len();
            if self.pool.has_free_for(&running.table, end)
                && self.pool.grow(&mut running.table, end)
            {
                rows += draft.len();
                self.drafted += draft.len() as u64;
                part.draft = draft;
            }
        }
    }
}
