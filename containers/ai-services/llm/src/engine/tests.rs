//! Properties of the scheduler over random histories: no block leaked or shared wrongly, nobody
//! starved, everything ends, and the tokens of a sequence are its own whoever else is there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const LIMITS: SchedulerLimits = SchedulerLimits {
    rows_max: 4,
    blocks: 24,
    block_tokens: 4,
    prefill_tokens_alone: 12,
    prefill_tokens_beside_decode: 5,
    slowdown_percent_max: 0,
    sharing: PrefixSharing::PerOwner,
    draft_tokens_max: 3,
};
const STEP: Duration = Duration::from_millis(5);
/// Steps in a row that a sequence may be without rows while others move.
const PATIENCE_STEPS: usize = 1500;

/// What the test knows of a sequence, kept beside the scheduler.
#[derive(Debug)]
struct Mirror {
    prompt: Vec<u32>,
    output: Vec<u32>,
    output_tokens_max: usize,
    owner: u64,
    started: bool,
    steps_without_rows: usize,
}

impl Mirror {
    fn known(&self) -> Vec<u32> {
        [self.prompt.as_slice(), &self.output].concat()
    }
}

/// The next token of a sequence: depends on its own tokens alone, as a model's does, and repeats
/// itself often enough for drafts to be right now and then.
fn next_token(known: &[u32]) -> u32 {
    let last = known.last().copied().unwrap_or(0);
    if known.len().is_multiple_of(16) { 0 } else { (last + 1) % 5 }
}

#[derive(Debug, Clone)]
enum Operation {
    Submit { prompt: usize, output: usize, class: Class, owner: u64, head: u32 },
    Step { paused: u8 },
    Cancel { which: usize },
}

fn operation() -> impl Strategy<Value = Operation> {
    let class = prop_oneof![Just(Class::Interactive), Just(Class::Normal), Just(Class::Batch)];
    prop_oneof![
        2 => (1usize..60, 1usize..37, class, 0u64..3, 0u32..2).prop_map(
            |(prompt, output, class, owner, head)| {
                Operation::Submit { prompt, output, class, owner, head }
            }
        ),
        6 => any::<u8>().prop_map(|bits| Operation::Step { paused: bits & (bits >> 4) }),
        1 => (0usize..6).prop_map(|which| Operation::Cancel { which }),
    ]
}

/// A scheduler, its mirror, and a cache that remembers which token was written where.
struct World {
    scheduler: Scheduler,
    mirrors: BTreeMap<SequenceKey, Mirror>,
    /// For each slot: the owner's root and all tokens up to the one that was written there.
    cache: Vec<Option<(u64, Vec<u32>)>>,
}

impl World {
    fn new(limits: SchedulerLimits) -> Self {
        let cache = vec![None; limits.blocks * limits.block_tokens];
        Self { scheduler: Scheduler::new(limits), mirrors: BTreeMap::new(), cache }
    }

    fn submit(&mut self, prompt: Vec<u32>, output: usize, class: Class, owner: u64) -> SequenceKey {
        let request = Request {
            prompt: prompt.clone(),
            output_tokens_max: output,
            class,
            owner: OwnerKey(owner),
        };
        let key = self.scheduler.submit(request);
        let mirror = Mirror {
            prompt,
            output: Vec::new(),
            output_tokens_max: output,
            owner,
            started: false,
            steps_without_rows: 0,
        };
        assert!(self.mirrors.insert(key, mirror).is_none(), "a key came twice");
        key
    }

    /// One step in which the n-th sequence is paused when bit n is set. Rows that were computed.
    fn step(&mut self, paused: u8) -> usize {
        let keys: Vec<_> = self.mirrors.keys().copied().collect();
        let readable = |key: SequenceKey| {
            let at = keys.iter().position(|k| *k == key).unwrap_or(0);
            if at < 8 && paused & (1 << at) != 0 { 0 } else { 4 }
        };
        let plan = self.scheduler.plan(readable);
        for key in &plan.started {
            let mirror = self.mirrors.get_mut(key).unwrap();
            assert!(!std::mem::replace(&mut mirror.started, true), "it starts once");
        }
        self.check_plan(&plan, readable);
        for part in &plan.parts {
            self.write(part);
        }
        self.scheduler.computed(&plan, STEP);
        for part in plan.parts.iter().filter(|part| part.samples) {
            self.sample(part);
        }
        self.check_blocks();
        plan.rows()
    }

    /// Writes the rows of a part into the cache, after looking that all before them are there.
    fn write(&mut self, part: &PlannedRows) {
        let mirror = &self.mirrors[&part.key];
        let mut known = mirror.known();
        assert_eq!(self.scheduler.tokens(part.key), known);
        assert!(part.draft.is_empty() || part.samples);
        known.extend(&part.draft);
        let blocks = self.scheduler.blocks(part.key).to_vec();
        let slot = |at: usize| {
            let block = blocks[at / LIMITS.block_tokens] as usize;
            block * LIMITS.block_tokens + at % LIMITS.block_tokens
        };
        for at in 0..part.start {
            let expected = Some((mirror.owner, known[..=at].to_vec()));
            assert_eq!(self.cache[slot(at)], expected, "position {at} of {:?}", part.key);
        }
        for at in part.start..part.start + part.rows + part.draft.len() {
            self.cache[slot(at)] = Some((mirror.owner, known[..=at].to_vec()));
        }
    }

    fn sample(&mut self, part: &PlannedRows) {
        for row in 0..=part.draft.len() {
            let mirror = self.mirrors.get_mut(&part.key).unwrap();
            let token = next_token(&mirror.known());
            mirror.output.push(token);
            if mirror.output.len() == mirror.output_tokens_max {
                self.mirrors.remove(&part.key);
                self.scheduler.remove(part.key);
                return;
            }
            if !self.scheduler.sampled(part.key, token, part.draft.get(row).copied()) {
                return;
            }
        }
    }

    fn check_plan(&mut self, plan: &Plan, readable: impl Fn(SequenceKey) -> usize) {
        let planned: BTreeSet<_> = plan.parts.iter().map(|part| part.key).collect();
        assert_eq!(planned.len(), plan.parts.len(), "a sequence comes once a step");
        for part in &plan.parts {
            let mirror = &self.mirrors[&part.key];
            let known = mirror.prompt.len() + mirror.output.len();
            assert!(mirror.started && readable(part.key) > part.draft.len());
            assert!(part.rows > 0 && part.start + part.rows <= known);
            assert_eq!(part.samples, part.start + part.rows == known);
            let end = part.start + part.rows + part.draft.len();
            let room = self.scheduler.blocks(part.key).len() * LIMITS.block_tokens;
            assert!(room >= end, "rows without a place in the cache");
            assert!(end < mirror.prompt.len() + mirror.output_tokens_max, "past the end");
        }
        let decodes = |part: &&PlannedRows| part.start > 0 && part.rows == 1 && part.samples;
        let prefill: usize =
            plan.parts.iter().filter(|part| !decodes(part)).map(|part| part.rows).sum();
        assert!(prefill <= LIMITS.prefill_tokens_alone);
        assert!(self.scheduler.figures().running <= LIMITS.rows_max);
        for (key, mirror) in &mut self.mirrors {
            let waits = !planned.contains(key) && readable(*key) > 0 && !planned.is_empty();
            mirror.steps_without_rows = if waits { mirror.steps_without_rows + 1 } else { 0 };
            assert!(mirror.steps_without_rows <= PATIENCE_STEPS, "starved: {mirror:?}");
        }
    }

    /// Blocks that several hold are full of what each of them has there.
    fn check_blocks(&self) {
        let mut holders: BTreeMap<u32, Vec<SequenceKey>> = BTreeMap::new();
        for (key, mirror) in &self.mirrors {
            let blocks = self.scheduler.blocks(*key);
            let needed =
                (mirror.prompt.len() + mirror.output_tokens_max - 1).div_ceil(LIMITS.block_tokens);
            assert!(blocks.len() <= needed, "more blocks than it can ever need");
            for (at, block) in blocks.iter().enumerate() {
                let sharers = holders.entry(*block).or_default();
                for other in sharers.iter() {
                    let end = (at + 1) * LIMITS.block_tokens;
                    let (own, others) = (mirror.known(), self.mirrors[other].known());
                    assert!(own.len() >= end && others.len() >= end, "a tail is shared");
                    assert_eq!(own[..end], others[..end]);
                    assert_eq!(mirror.owner, self.mirrors[other].owner);
                }
                assert!(!sharers.contains(key), "a block twice in one table");
                sharers.push(*key);
            }
        }
        let figures = self.scheduler.figures();
        assert_eq!(figures.kv_tokens_used, holders.len() * LIMITS.block_tokens, "a leak");
        let total = LIMITS.blocks * LIMITS.block_tokens;
        assert!(figures.kv_tokens_used + figures.kv_tokens_kept <= total);
        assert_eq!(figures.running + figures.waiting, self.mirrors.len());
        assert!(figures.accepted <= figures.drafted);
    }

    fn run_to_the_end(&mut self) {
        for _ in 0..20_000 {
            if self.mirrors.is_empty() {
                break;
            }
            assert!(self.step(0) > 0, "a step that moves nobody: {:?}", self.mirrors);
        }
        assert!(self.scheduler.is_empty(), "they never end: {:?}", self.mirrors);
        assert_eq!(self.scheduler.figures().kv_tokens_used, 0);
    }
}

fn prompt(head: u32, len: usize) -> Vec<u32> {
    (0..len as u32).map(|at| if at < 24 { head + at / 5 } else { at % 7 }).collect()
}

proptest! {
    #[test]
    fn blocks_are_neither_leaked_nor_shared_wrongly_and_all_sequences_end(
        rows_max in 1usize..=4,
        history in proptest::collection::vec(operation(), 1..300),
    ) {
        let mut world = World::new(SchedulerLimits { rows_max, ..LIMITS });
        for operation in history {
            match operation {
                Operation::Submit { prompt: len, output, class, owner, head } => {
                    world.submit(prompt(head, len), output, class, owner);
                }
                Operation::Step { paused } => {
                    world.step(paused);
                }
                Operation::Cancel { which } => {
                    if let Some(key) = world.mirrors.keys().nth(which).copied() {
                        world.mirrors.remove(&key);
                        world.scheduler.remove(key);
                        world.check_blocks();
                    }
                }
            }
        }
        world.run_to_the_end();
    }
}

fn rows_of(plan: &Plan) -> Vec<(SequenceKey, usize, bool)> {
    plan.parts.iter().map(|part| (part.key, part.rows, part.samples)).collect()
}

fn world(change: fn(&mut SchedulerLimits)) -> World {
    let mut limits = SchedulerLimits { draft_tokens_max: 0, ..LIMITS };
    change(&mut limits);
    World::new(limits)
}

#[test]
fn decode_goes_on_beside_a_long_prompt() {
    let mut world = world(|_| {});
    let short = world.submit(prompt(0, 3), 20, Class::Normal, 0);
    world.step(0);
    let long = world.submit(prompt(9, 40), 2, Class::Normal, 0);
    let plan = world.scheduler.plan(|_| 1);
    assert_eq!(rows_of(&plan), [(short, 1, true), (long, 5, false)]);
}

#[test]
fn a_short_prompt_passes_a_long_one_but_not_for_ever() {
    let mut world = world(|limits| limits.sharing = PrefixSharing::Off);
    let long = world.submit(prompt(0, 30), 1, Class::Normal, 0);
    let mut passed = 0;
    loop {
        let short = world.submit(prompt(1, 12), 1, Class::Normal, 0);
        let plan = world.scheduler.plan(|_| 1);
        world.scheduler.computed(&plan, STEP);
        if plan.parts[0].key == long {
            break;
        }
        assert_eq!(plan.parts[0].key, short);
        world.scheduler.remove(short);
        world.mirrors.remove(&short);
        passed += 1;
    }
    assert_eq!(passed, 8);
}

#[test]
fn a_beginning_that_was_computed_is_not_computed_again() {
    let mut world = world(|_| {});
    world.submit(prompt(0, 22), 1, Class::Normal, 0);
    world.run_to_the_end();
    // Five blocks are full; the sixth is not, and the last token is always computed.
    let again = world.submit(prompt(0, 22), 2, Class::Normal, 0);
    let plan = world.scheduler.plan(|_| 1);
    assert_eq!((world.scheduler.reused(again), rows_of(&plan)), (20, vec![(again, 2, true)]));
    world.scheduler.remove(again);
    world.mirrors.clear();
    // Another owner's prompts are nobody else's business.
    let other = world.submit(prompt(0, 22), 2, Class::Normal, 1);
    assert_eq!(rows_of(&world.scheduler.plan(|_| 1)), [(other, 12, false)]);
}

#[test]
fn of_several_equal_prompts_one_is_computed() {
    let mut world = world(|_| {});
    for _ in 0..3 {
        world.submit(prompt(0, 22), 3, Class::Normal, 0);
    }
    let mut computed = 0;
    while world.mirrors.values().any(|mirror| mirror.output.is_empty()) {
        computed += world.step(0);
    }
    // 22 of the first; of the others the two behind the five shared blocks, and a few decode rows.
    assert!(computed < 22 + 2 * 2 + 8, "{computed} rows");
}

#[test]
fn when_blocks_run_out_the_last_comes_again_and_loses_nothing() {
    let mut world = world(|limits| limits.sharing = PrefixSharing::Off);
    for owner in 0..3 {
        world.submit(prompt(owner as u32, 24), 30, Class::Normal, owner);
    }
    world.run_to_the_end();
    let figures = world.scheduler.figures();
    assert!(figures.preemptions > 0, "three times 54 tokens do not fit into 96: {figures:?}");
}

#[test]
fn the_urgent_take_the_place_of_the_others_who_come_back() {
    let mut world = world(|limits| limits.rows_max = 1);
    let batch = world.submit(prompt(0, 8), 8, Class::Batch, 0);
    world.step(0);
    let urgent = world.submit(prompt(3, 8), 2, Class::Interactive, 1);
    let plan = world.scheduler.plan(|_| 1);
    assert_eq!((plan.started.as_slice(), plan.parts[0].key), ([urgent].as_slice(), urgent));
    world.scheduler.remove(urgent);
    world.mirrors.remove(&urgent);
    let plan = world.scheduler.plan(|_| 1);
    // It finds both its full blocks again, and its one sampled token is computed.
    assert_eq!(rows_of(&plan), [(batch, 1, true)]);
    assert!(plan.started.is_empty(), "it had started before");
}

#[test]
fn who_was_displaced_often_enough_stays() {
    let mut world = world(|limits| limits.rows_max = 1);
    let batch = world.submit(prompt(0, 8), 30, Class::Batch, 0);
    world.step(0);
    let mut displaced = 0;
    for number in 0..10 {
        let urgent = world.submit(prompt(3 + number, 8), 1, Class::Interactive, 1);
        world.step(0);
        displaced += usize::from(!world.mirrors.contains_key(&urgent));
        world.step(0);
    }
    assert_eq!(displaced, 3, "each time the urgent one was done in one step");
    assert!(world.mirrors.contains_key(&batch));
    world.run_to_the_end();
}

#[test]
fn proposed_tokens_change_the_number_of_steps_and_nothing_else() {
    let run = |draft_tokens_max: usize| {
        let mut world = World::new(SchedulerLimits { draft_tokens_max, ..LIMITS });
        let key = world.submit(prompt(0, 12), 80, Class::Normal, 0);
        let (mut steps, mut output) = (0, Vec::new());
        while !world.mirrors.is_empty() {
            world.step(0);
            steps += 1;
            if let Some(mirror) = world.mirrors.get(&key) {
                output.clone_from(&mirror.output);
            }
        }
        (steps, output[..70].to_vec())
    };
    let (plain, drafted) = (run(0), run(3));
    assert_eq!(plain.1, drafted.1);
    assert!(drafted.0 < plain.0, "{} steps instead of {}", drafted.0, plain.0);
}

#[test]
fn a_request_that_can_never_fit_is_told_both_numbers() {
    let footprint =
        |prompt_tokens, output_tokens_max| Footprint { prompt_tokens, output_tokens_max };
    assert_eq!(Scheduler::check(&LIMITS, footprint(90, 7)), Ok(()));
    let refused = Scheduler::check(&LIMITS, footprint(90, 8)).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the request needs 97 tokens of KV cache; the whole cache holds 96"
    );
}
