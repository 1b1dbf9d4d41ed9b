//! The batcher with toy models: nothing is lost, order and bounds hold, panics stay contained.

use std::collections::{BTreeSet, HashMap};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

/// A job that makes `pieces` pieces, its number each time.
#[derive(Clone, Debug)]
struct Count {
    number: u32,
    pieces: u32,
    /// The step panics when this job is in it.
    poison: bool,
    size: usize,
}

fn count(number: u32, pieces: u32) -> Count {
    Count { number, pieces, poison: false, size: 1 }
}

/// What the test sees of the model.
#[derive(Default)]
struct Seen {
    admitted: Mutex<Vec<u32>>,
    running_most: Mutex<usize>,
    gone: Mutex<BTreeSet<u32>>,
}

/// Each step makes one piece of each job. With a gate, a step waits for a token first.
struct Counter {
    seen: Arc<Seen>,
    gate: Option<Arc<Mutex<Receiver<()>>>>,
    room: usize,
    jobs: Vec<(Count, Outlet<u32>)>,
}

impl Model for Counter {
    type Job = Count;
    type Output = u32;

    fn has_room(&self, job: &Count) -> bool {
        self.jobs.iter().map(|(inside, _)| inside.size).sum::<usize>() + job.size <= self.room
    }

    fn admit(&mut self, job: Count, outlet: Outlet<u32>) {
        self.seen.admitted.lock().unwrap().push(job.number);
        self.jobs.push((job, outlet));
        let mut most = self.seen.running_most.lock().unwrap();
        *most = (*most).max(self.jobs.len());
    }

    fn step(&mut self) -> StepOutcome {
        if let Some(gate) = &self.gate {
            // A dropped gate is an open one.
            let _open = gate.lock().unwrap().recv();
        }
        self.jobs.retain(|(job, outlet)| {
            let gone = outlet.gone().is_some();
            if gone {
                self.seen.gone.lock().unwrap().insert(job.number);
            }
            !gone
        });
        assert!(!self.jobs.iter().any(|(job, _)| job.poison), "poison");
        let mut rows = 0;
        let mut kept = Vec::new();
        for (mut job, outlet) in self.jobs.drain(..) {
            match outlet.send(job.number) {
                Ok(()) => {
                    rows += 1;
                    job.pieces -= 1;
                    if job.pieces == 0 {
                        outlet.finish();
                    } else {
                        kept.push((job, outlet));
                    }
                }
                Err(SendRefused::Full(_)) => kept.push((job, outlet)),
                Err(SendRefused::Gone(_)) => {}
            }
        }
        self.jobs = kept;
        if rows == 0 { StepOutcome::Blocked } else { StepOutcome::Worked { rows } }
    }

    fn is_idle(&self) -> bool {
        self.jobs.is_empty()
    }
}

struct Bench {
    batcher: Batcher<Count, u32>,
    seen: Arc<Seen>,
    gate: Option<SyncSender<()>>,
}

fn bench(config: BatcherConfig, gated: bool) -> Bench {
    let seen = Arc::new(Seen::default());
    let (open, gate) = sync_channel(1_024);
    let gate = gated.then(|| Arc::new(Mutex::new(gate)));
    let for_model = Arc::clone(&seen);
    let batcher = Batcher::start(config, move || {
        let (seen, gate) = (Arc::clone(&for_model), gate.clone());
        Ok(Counter { seen, gate, room: 8, jobs: Vec::new() })
    })
    .unwrap();
    Bench { batcher, seen, gate: gated.then_some(open) }
}

fn config(queue_depth_max: usize, running_max: usize) -> BatcherConfig {
    BatcherConfig { queue_depth_max, running_max, ..BatcherConfig::default() }
}

fn of(priority: Priority) -> SubmitOptions {
    SubmitOptions { priority, ..SubmitOptions::default() }
}

/// All pieces, or why there are no more.
fn collect(mut reply: Reply<u32>) -> (Vec<u32>, Result<(), Lost>) {
    let mut pieces = Vec::new();
    loop {
        match reply.blocking_recv() {
            Ok(Some(piece)) => pieces.push(piece),
            Ok(None) => return (pieces, Ok(())),
            Err(lost) => return (pieces, Err(lost)),
        }
    }
}

fn wait_until(what: impl Fn() -> bool) {
    let begun = Instant::now();
    while !what() {
        assert!(begun.elapsed() < Duration::from_secs(20), "it does not come about");
        std::thread::yield_now();
    }
}

#[test]
fn an_answer_is_complete_and_its_place_is_free_again() {
    let bench = bench(config(4, 2), false);
    let reply = bench.batcher.try_submit(count(7, 3), SubmitOptions::default()).unwrap();
    assert_eq!(collect(reply), (vec![7; 3], Ok(())));
    assert_eq!(bench.batcher.stats().inside, 0);
    // A step is counted when it is over, which is after its last piece.
    wait_until(|| bench.batcher.stats().steps_total == 3);
    let stats = bench.batcher.stats();
    assert_eq!((stats.submitted_total, stats.admitted_total, stats.finished_total), (1, 1, 1));
    assert_eq!((stats.rows_total, stats.running), (3, 0));
    assert!(stats.healthy);
}

#[test]
fn a_full_house_refuses_at_once_and_says_when_to_come_back() {
    let bench = bench(config(2, 1), true);
    let replies: Vec<_> = (0..3)
        .map(|n| bench.batcher.try_submit(count(n, 1), SubmitOptions::default()).unwrap())
        .collect();
    let refused = bench.batcher.permit().unwrap_err();
    let expected =
        Refused::Full { inside: 3, drain_per_s: None, retry_after: Duration::from_secs(1) };
    assert_eq!(refused, expected);
    drop(bench.gate);
    for (n, reply) in (0..).zip(replies) {
        assert_eq!(collect(reply), (vec![n], Ok(())));
    }
    wait_until(|| bench.batcher.stats().inside == 0);
    let stats = bench.batcher.stats();
    assert_eq!(stats.refused_full_total, 1);
    assert!(stats.drain_per_s.is_some_and(|rate| rate > 0.0));
}

#[test]
fn a_permit_that_is_not_used_gives_its_place_back() {
    let bench = bench(config(0, 1), false);
    let permit = bench.batcher.permit().unwrap();
    assert!(matches!(bench.batcher.permit(), Err(Refused::Full { inside: 1, .. })));
    drop(permit);
    assert!(bench.batcher.permit().is_ok());
    // It says nothing about the speed of the model.
    assert_eq!(bench.batcher.stats().drain_per_s, None);
}

#[test]
fn the_urgent_go_first_and_a_class_keeps_its_order() {
    let bench = bench(config(16, 1), true);
    let submit = |n, priority| bench.batcher.try_submit(count(n, 1), of(priority)).unwrap();
    let mut replies = vec![submit(0, Priority::Normal)];
    wait_until(|| bench.batcher.stats().running == 1);
    for (n, priority) in [
        (1, Priority::Batch),
        (2, Priority::Normal),
        (3, Priority::Interactive),
        (4, Priority::Batch),
        (5, Priority::Interactive),
        (6, Priority::Normal),
    ] {
        replies.push(submit(n, priority));
    }
    assert_eq!(bench.batcher.stats().waiting, [2, 2, 2]);
    drop(bench.gate);
    assert!(replies.into_iter().all(|reply| collect(reply).1.is_ok()));
    assert_eq!(*bench.seen.admitted.lock().unwrap(), [0, 3, 5, 2, 6, 1, 4]);
}

#[test]
fn new_jobs_join_between_two_steps() {
    let bench = bench(config(4, 4), true);
    let gate = bench.gate.unwrap();
    let long = bench.batcher.try_submit(count(0, 5), SubmitOptions::default()).unwrap();
    wait_until(|| bench.batcher.stats().running == 1);
    gate.send(()).unwrap();
    let short = bench.batcher.try_submit(count(1, 1), SubmitOptions::default()).unwrap();
    gate.send(()).unwrap();
    gate.send(()).unwrap();
    assert_eq!(collect(short), (vec![1], Ok(())));
    assert_eq!(bench.batcher.stats().running, 1, "the long one goes on");
    drop(gate);
    assert_eq!(collect(long), (vec![0; 5], Ok(())));
    assert_eq!(*bench.seen.running_most.lock().unwrap(), 2);
}

#[test]
fn a_caller_that_left_the_queue_costs_no_work() {
    let bench = bench(config(4, 1), true);
    let first = bench.batcher.try_submit(count(0, 1), SubmitOptions::default()).unwrap();
    wait_until(|| bench.batcher.stats().running == 1);
    let second = bench.batcher.try_submit(count(1, 1), SubmitOptions::default()).unwrap();
    let third = bench.batcher.try_submit(count(2, 1), SubmitOptions::default()).unwrap();
    drop(second);
    assert_eq!((bench.batcher.stats().waiting[1], bench.batcher.stats().inside), (1, 2));
    drop(bench.gate);
    assert!(collect(first).1.is_ok() && collect(third).1.is_ok());
    assert_eq!(*bench.seen.admitted.lock().unwrap(), [0, 2]);
}

#[test]
fn a_caller_that_left_the_model_is_seen_before_the_next_step() {
    let bench = bench(config(4, 1), true);
    let gate = bench.gate.unwrap();
    let mut reply = bench.batcher.try_submit(count(3, 1_000), SubmitOptions::default()).unwrap();
    gate.send(()).unwrap();
    assert_eq!(reply.blocking_recv(), Ok(Some(3)));
    drop(reply);
    gate.send(()).unwrap();
    gate.send(()).unwrap();
    wait_until(|| bench.batcher.stats().inside == 0);
    assert!(bench.seen.gone.lock().unwrap().contains(&3));
    assert!(bench.batcher.stats().rows_total <= 2);
    assert_eq!(bench.batcher.stats().unfinished_total, 1);
}

#[test]
fn deadlines_hold_in_the_queue_and_at_the_caller() {
    let bench = bench(config(1, 1), true);
    let deadline = Some(Instant::now() + Duration::from_millis(30));
    let options = SubmitOptions { deadline, ..SubmitOptions::default() };
    let running = bench.batcher.try_submit(count(0, 1), SubmitOptions::default()).unwrap();
    wait_until(|| bench.batcher.stats().running == 1);
    let mut late = bench.batcher.try_submit(count(1, 1), options).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    assert_eq!(runtime.block_on(late.recv()), Err(Lost::DeadlinePassed));
    // The place of a job that nobody can be served any more is given to the next caller, while the
    // model still works on another.
    let next = bench.batcher.try_submit(count(2, 1), SubmitOptions::default()).unwrap();
    drop(bench.gate);
    assert!(collect(running).1.is_ok() && collect(next).1.is_ok());
    assert_eq!(*bench.seen.admitted.lock().unwrap(), [0, 2]);
}

#[test]
fn a_slow_reader_holds_up_nobody_else() {
    let bench = bench(config(4, 2), false);
    let narrow = SubmitOptions { outputs_max: 1, ..SubmitOptions::default() };
    let slow = bench.batcher.try_submit(count(0, 10), narrow).unwrap();
    let quick = bench.batcher.try_submit(count(1, 10), SubmitOptions::default()).unwrap();
    assert_eq!(collect(quick), (vec![1; 10], Ok(())));
    assert_eq!(collect(slow), (vec![0; 10], Ok(())));
}

#[test]
fn a_job_beyond_all_room_is_refused_and_a_large_one_gets_its_turn() {
    let bench = bench(config(8, 8), false);
    let sized = |number, size| Count { size, ..count(number, 20) };
    let submit = |job| bench.batcher.try_submit(job, SubmitOptions::default()).unwrap();
    let beyond = submit(sized(0, 9));
    assert_eq!(collect(beyond), (vec![], Err(Lost::TooLarge)));
    let replies = [submit(sized(1, 5)), submit(sized(2, 8)), submit(sized(3, 1))];
    assert!(replies.into_iter().all(|reply| collect(reply).1.is_ok()));
}

#[test]
fn a_panic_is_told_to_those_inside_and_the_rest_are_served() {
    let bench = bench(config(8, 2), true);
    let poison = Count { poison: true, ..count(0, 5) };
    let submit = |job| bench.batcher.try_submit(job, SubmitOptions::default()).unwrap();
    let replies = [submit(count(9, 1)), submit(poison), submit(count(1, 2)), submit(count(2, 1))];
    drop(bench.gate);
    let ends: Vec<_> = replies.into_iter().map(collect).collect();
    // The first two may have met in a step or not; the poisoned one is lost in any case.
    assert!(matches!(ends[0].1, Ok(()) | Err(Lost::Panicked)));
    assert_eq!(ends[1], (vec![], Err(Lost::Panicked)));
    assert!(matches!(ends[2].1, Ok(()) | Err(Lost::Panicked)));
    assert_eq!(ends[3], (vec![2], Ok(())));
    wait_until(|| bench.batcher.stats().inside == 0);
    let stats = bench.batcher.stats();
    assert_eq!((stats.panics_total, stats.healthy, stats.running), (1, true, 0));
}

#[test]
fn too_many_panics_in_a_row_make_it_unhealthy() {
    let bench = bench(BatcherConfig { panics_in_a_row_max: 1, ..config(8, 1) }, true);
    let poison = |number| Count { poison: true, ..count(number, 1) };
    let submit = |job| bench.batcher.try_submit(job, SubmitOptions::default()).unwrap();
    let replies = [submit(poison(0)), submit(poison(1)), submit(count(2, 1))];
    drop(bench.gate);
    let ends: Vec<_> = replies.into_iter().map(|reply| collect(reply).1).collect();
    assert_eq!(ends, [Err(Lost::Panicked), Err(Lost::Panicked), Err(Lost::Stopped)]);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(bench.batcher.unhealthy());
    assert!(!bench.batcher.healthy());
    assert!(matches!(bench.batcher.permit(), Err(Refused::Unhealthy)));
}

#[test]
fn a_drain_lets_nobody_in_and_serves_who_is_inside() {
    let bench = bench(config(8, 1), true);
    let replies: Vec<_> = (0..4)
        .map(|n| bench.batcher.try_submit(count(n, 2), SubmitOptions::default()).unwrap())
        .collect();
    let drain = bench.batcher.drain();
    assert!(matches!(bench.batcher.permit(), Err(Refused::Draining)));
    drop(bench.gate);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(drain);
    assert_eq!(bench.batcher.stats().inside, 0);
    for (n, reply) in (0..).zip(replies) {
        assert_eq!(collect(reply), (vec![n; 2], Ok(())));
    }
}

#[test]
fn a_stop_ends_everything_after_the_step() {
    let bench = bench(config(8, 1), true);
    let gate = bench.gate.unwrap();
    let submit = |n| bench.batcher.try_submit(count(n, 1_000), SubmitOptions::default()).unwrap();
    let (running, waiting) = (submit(0), submit(1));
    gate.send(()).unwrap();
    drop(gate);
    bench.batcher.stop();
    assert!(matches!(collect(running).1, Err(Lost::Stopped)));
    assert_eq!(collect(waiting), (vec![], Err(Lost::Stopped)));
    assert_eq!(bench.batcher.stats().inside, 0);
    assert!(matches!(bench.batcher.permit(), Err(Refused::Unhealthy)));
}

#[test]
fn a_model_that_cannot_be_built_is_reported() {
    let failed: Result<Batcher<Count, u32>, _> =
        Batcher::start(config(1, 1), || Err::<Counter, BuildError>("no weights".into()));
    assert!(matches!(failed, Err(StartError::Build { .. })));
    let panicked: Result<Batcher<Count, u32>, _> =
        Batcher::start(config(1, 1), || -> Result<Counter, BuildError> { panic!("broken") });
    assert!(matches!(panicked, Err(StartError::BuildPanicked)));
    let none: Result<Batcher<Count, u32>, _> =
        Batcher::start(config(1, 0), || Err::<Counter, BuildError>("not called".into()));
    assert!(matches!(none, Err(StartError::NoRows)));
}

#[derive(Clone, Debug)]
struct Arrival {
    priority: Priority,
    pieces: u32,
    leaves: bool,
    poison: bool,
}

fn arrivals() -> impl Strategy<Value = Vec<Arrival>> {
    let priority = prop::sample::select(Priority::ALL.to_vec());
    let arrival =
        (priority, 1_u32..6, prop::bool::weighted(0.2), prop::bool::weighted(0.02)).prop_map(
            |(priority, pieces, leaves, poison)| Arrival { priority, pieces, leaves, poison },
        );
    prop::collection::vec(arrival, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Every job ends exactly once, with all of its pieces or a reason; places are never exceeded;
    /// a class keeps its order.
    #[test]
    fn nothing_is_lost(arrivals in arrivals(), running_max in 1_usize..5, depth in 0_usize..8) {
        let limits = BatcherConfig { panics_in_a_row_max: 1_000, ..config(depth, running_max) };
        let bench = bench(limits, false);
        let mut replies = Vec::new();
        let mut refused = 0;
        let mut classes = HashMap::new();
        for (number, arrival) in (0..).zip(arrivals) {
            let job = Count { number, pieces: arrival.pieces, poison: arrival.poison, size: 1 };
            prop_assert!(bench.batcher.stats().inside <= depth + running_max);
            match bench.batcher.try_submit(job, of(arrival.priority)) {
                Ok(reply) if arrival.leaves => drop(reply),
                Ok(reply) => {
                    classes.insert(number, arrival.priority);
                    replies.push((number, arrival, reply));
                }
                Err(Refused::Full { inside, .. }) => {
                    // Somebody may have left since; more than all the places were never taken.
                    prop_assert!(inside <= depth + running_max);
                    refused += 1;
                }
                Err(other) => prop_assert!(false, "{other}"),
            }
        }
        for (number, arrival, reply) in replies {
            let (pieces, end) = collect(reply);
            prop_assert!(pieces.iter().all(|&piece| piece == number));
            match end {
                Ok(()) => prop_assert_eq!(pieces.len() as u32, arrival.pieces),
                Err(lost) => prop_assert_eq!(lost, Lost::Panicked),
            }
            prop_assert!(!(arrival.poison && end.is_ok()));
        }
        wait_until(|| bench.batcher.stats().inside == 0);
        let stats = bench.batcher.stats();
        prop_assert_eq!(stats.refused_full_total, refused);
        prop_assert_eq!(stats.submitted_total, stats.finished_total + stats.unfinished_total);
        prop_assert!(*bench.seen.running_most.lock().unwrap() <= running_max);
        let admitted = bench.seen.admitted.lock().unwrap();
        for class in Priority::ALL {
            let order: Vec<_> =
                admitted.iter().filter(|number| classes.get(number) == Some(&class)).collect();
            prop_assert!(order.is_sorted(), "{:?} out of order: {:?}", class, order);
        }
    }
}
