//! The pool covers every index once, survives panics, nesting and callers from several threads.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

fn check_covers(pool: &Pool, count: usize, chunk: usize) {
    let hits: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
    pool.for_chunks(count, chunk, &|range| {
        assert!(range.len() <= chunk);
        range.for_each(|index| {
            hits[index].fetch_add(1, Ordering::Relaxed);
        });
    });
    assert!(hits.iter().all(|hits| hits.load(Ordering::Relaxed) == 1), "{count} by {chunk}");
}

#[test]
fn every_index_is_visited_once_for_any_number_of_threads() {
    for threads in 1..=4 {
        let pool = Pool::new(Some(threads)).unwrap();
        assert_eq!(pool.threads(), threads);
        for count in [0, 1, 2, 7, 64, 1000] {
            for chunk in [1, 3, 64] {
                check_covers(&pool, count, chunk);
            }
        }
    }
}

#[test]
fn many_turns_in_a_row_and_after_a_pause() {
    let pool = Pool::new(Some(3)).unwrap();
    for round in 0..2000 {
        check_covers(&pool, 5 + round % 7, 1);
        if round % 200 == 0 {
            // Long enough for every thread to park.
            let start = Instant::now();
            while start.elapsed() < Duration::from_micros(4 * SPIN_US_MAX) {
                std::thread::yield_now();
            }
        }
    }
}

#[test]
fn a_panic_reaches_the_caller_and_the_pool_lives() {
    let pool = Pool::new(Some(3)).unwrap();
    for bad in [0, 5, 99] {
        let result = catch_unwind(AssertUnwindSafe(|| {
            pool.for_chunks(100, 1, &|range| assert!(!range.contains(&bad), "bad index"));
        }));
        assert!(result.is_err());
        check_covers(&pool, 100, 1);
    }
}

#[test]
fn a_nested_call_runs_on_the_calling_thread() {
    let pool = Pool::new(Some(2)).unwrap();
    let total = AtomicUsize::new(0);
    pool.for_chunks(8, 1, &|_| {
        pool.for_chunks(8, 1, &|range| {
            total.fetch_add(range.len(), Ordering::Relaxed);
        });
    });
    assert_eq!(total.into_inner(), 64);
}

#[test]
fn callers_from_several_threads_take_turns() {
    let pool = Pool::new(Some(2)).unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..200).for_each(|_| check_covers(&pool, 33, 2)));
        }
    });
}

#[test]
fn counts_out_of_range_are_refused() {
    for threads in [0, Pool::THREADS_MAX + 1] {
        let error = Pool::new(Some(threads)).unwrap_err();
        assert_eq!(error, KernelError::Threads { threads, max: Pool::THREADS_MAX });
    }
}

/// More threads than processors, so that callers are interrupted between publishing a task and
/// waking the workers, and workers park before that late wake-up reaches them.
#[test]
fn crowded_pools_lose_no_wake_up() {
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let pool = Pool::new(Some(4)).unwrap();
                for round in 0..1500 {
                    check_covers(&pool, 4, 1);
                    let start = Instant::now();
                    while round % 3 == 0 && start.elapsed() < Duration::from_micros(SPIN_US_MAX) {
                        std::hint::spin_loop();
                    }
                }
            });
        }
    });
}
