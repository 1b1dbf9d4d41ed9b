//! Properties of the scheduler over random histories: no block leaked or shared, nobody starved,
//! everything ends.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const LIMITS: SchedulerLimits = SchedulerLimits {
    rows_max: 4,
    blocks: 24,
    block_tokens: 4,
    prefill_tokens_alone: 12,
    prefill_tokens_beside_decode: 5,
};

fn footprint(prompt_tokens: usize, output_tokens_max: usize) -> Footprint {
    Footprint { prompt_tokens, output_tokens_max }
}

/// What the test knows of a sequence, kept beside the scheduler.
#[derive(Debug)]
struct Mirror {
    footprint: Footprint,
    computed: usize,
    sampled: usize,
    steps_without_rows: usize,
}

#[derive(Debug, Clone)]
enum Operation {
    Admit { prompt: usize, output: usize },
    Step { paused: u8 },
    Cancel { which: usize },
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        2 => (1usize..60, 1usize..40)
            .prop_map(|(prompt, output)| Operation::Admit { prompt, output }),
        6 => any::<u8>().prop_map(|bits| Operation::Step { paused: bits & (bits >> 4) }),
        1 => (0usize..4).prop_map(|which| Operation::Cancel { which }),
    ]
}

struct World {
    scheduler: Scheduler,
    mirrors: BTreeMap<SequenceKey, Mirror>,
}

impl World {
    fn new() -> Self {
        Self { scheduler: Scheduler::new(LIMITS), mirrors: BTreeMap::new() }
    }

    fn admit(&mut self, prompt: usize, output: usize) {
        let wanted = footprint(prompt, output);
        let has_room = self.scheduler.has_room(wanted);
        let key = self.scheduler.admit(wanted);
        assert_eq!(key.is_some(), has_room);
        if let Some(key) = key {
            let mirror =
                Mirror { footprint: wanted, computed: 0, sampled: 0, steps_without_rows: 0 };
            assert!(self.mirrors.insert(key, mirror).is_none(), "a key came twice");
        }
    }

    /// One step in which the n-th sequence is paused when bit n is set.
    fn step(&mut self, paused: u8) {
        let keys: Vec<_> = self.mirrors.keys().copied().collect();
        let is_paused = |key: SequenceKey| {
            keys.iter().position(|k| *k == key).is_some_and(|at| paused & (1 << at) != 0)
        };
        let plan = self.scheduler.plan(is_paused);
        self.check_plan(&plan, is_paused);
        self.scheduler.computed(&plan);
        for part in &plan.parts {
            let mirror = self.mirrors.get_mut(&part.key).unwrap();
            mirror.computed += part.rows;
            if !part.samples {
                continue;
            }
            mirror.sampled += 1;
            if mirror.sampled == mirror.footprint.output_tokens_max {
                self.mirrors.remove(&part.key);
                self.scheduler.remove(part.key);
            } else {
                self.scheduler.sampled(part.key);
            }
        }
    }

    fn check_plan(&mut self, plan: &Plan, is_paused: impl Fn(SequenceKey) -> bool) {
        let planned: BTreeSet<_> = plan.parts.iter().map(|part| part.key).collect();
        assert_eq!(planned.len(), plan.parts.len(), "a sequence comes once a step");
        for part in &plan.parts {
            let mirror = &self.mirrors[&part.key];
            let known = mirror.footprint.prompt_tokens + mirror.sampled;
            assert!(!is_paused(part.key));
            assert_eq!(part.start, mirror.computed);
            assert!(part.rows > 0 && part.start + part.rows <= known);
            assert_eq!(part.samples, part.start + part.rows == known);
            let room = self.scheduler.blocks(part.key).len() * LIMITS.block_tokens;
            assert!(room >= part.start + part.rows, "rows without a place in the cache");
        }
        let decodes = |part: &&PlannedRows| part.start > 0 && part.rows == 1 && part.samples;
        let prefill: usize =
            plan.parts.iter().filter(|part| !decodes(part)).map(|part| part.rows).sum();
        assert!(prefill <= LIMITS.prefill_tokens_alone);
        for (key, mirror) in &mut self.mirrors {
            let waits = !planned.contains(key) && !is_paused(*key);
            mirror.steps_without_rows = if waits { mirror.steps_without_rows + 1 } else { 0 };
            // It is passed over at most 8 times, then waits for those that were before it.
            assert!(mirror.steps_without_rows <= 8 + 60, "starved: {mirror:?}");
        }
    }

    fn check_blocks(&self) {
        let mut seen = BTreeSet::new();
        for (key, mirror) in &self.mirrors {
            for block in self.scheduler.blocks(*key) {
                assert!(seen.insert(*block), "a block belongs to two sequences");
                assert!((*block as usize) < LIMITS.blocks);
            }
            let needed = mirror.footprint.kv_tokens().div_ceil(LIMITS.block_tokens);
            assert!(self.scheduler.blocks(*key).len() <= needed);
        }
        assert_eq!(self.scheduler.kv_tokens_used(), seen.len() * LIMITS.block_tokens);
        assert_eq!(self.scheduler.len(), self.mirrors.len());
    }
}

proptest! {
    #[test]
    fn blocks_are_neither_leaked_nor_shared_and_all_sequences_end(
        history in proptest::collection::vec(operation(), 1..200)
    ) {
        let mut world = World::new();
        for operation in history {
            match operation {
                Operation::Admit { prompt, output } => world.admit(prompt, output),
                Operation::Step { paused } => world.step(paused),
                Operation::Cancel { which } => {
                    if let Some(key) = world.mirrors.keys().nth(which).copied() {
                        world.mirrors.remove(&key);
                        world.scheduler.remove(key);
                    }
                }
            }
            world.check_blocks();
        }
        let work: usize = world
            .mirrors
            .values()
            .map(|mirror| mirror.footprint.kv_tokens() + 1 - mirror.computed)
            .sum();
        for _ in 0..work {
            world.step(0);
        }
        prop_assert!(world.scheduler.is_empty(), "a step that moves nobody: {:?}", world.mirrors);
        prop_assert_eq!(world.scheduler.kv_tokens_used(), 0);
    }
}

#[test]
fn decode_goes_on_beside_a_long_prompt() {
    let mut scheduler = Scheduler::new(LIMITS);
    let short = scheduler.admit(footprint(3, 20)).unwrap();
    let plan = scheduler.plan(|_| false);
    scheduler.computed(&plan);
    scheduler.sampled(short);
    let long = scheduler.admit(footprint(40, 2)).unwrap();
    let plan = scheduler.plan(|_| false);
    let parts: Vec<_> = plan.parts.iter().map(|p| (p.key, p.rows, p.samples)).collect();
    assert_eq!(parts, [(short, 1, true), (long, 5, false)]);
}

#[test]
fn a_short_prompt_passes_a_long_one_but_not_for_ever() {
    let limits = SchedulerLimits { rows_max: 64, ..LIMITS };
    let mut scheduler = Scheduler::new(limits);
    let long = scheduler.admit(footprint(30, 1)).unwrap();
    let mut passed = 0;
    loop {
        let short = scheduler.admit(footprint(12, 1)).unwrap();
        let plan = scheduler.plan(|_| false);
        scheduler.computed(&plan);
        if plan.parts[0].key == long {
            break;
        }
        assert_eq!(plan.parts[0].key, short);
        scheduler.remove(short);
        passed += 1;
    }
    assert_eq!(passed, 8);
}

#[test]
fn a_request_that_can_never_fit_is_told_both_numbers() {
    assert_eq!(Scheduler::check(&LIMITS, footprint(90, 7)), Ok(()));
    let refused = Scheduler::check(&LIMITS, footprint(90, 8)).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the request needs 97 tokens of KV cache; the whole cache holds 96"
    );
}
