//! Event streams and waiting: replay, then live, whole and in order, for quick and slow readers.

use std::sync::Arc;
use std::time::Duration;

use aisemble_jobs::store::{Emission, Store};
use aisemble_jobs::{JobEvent, JobState, Jobs, JobsError, NewJob, SqliteStore, StoreConfig};
use futures_util::{StreamExt, TryStreamExt};
use serde_json::json;
use tempfile::TempDir;

use crate::support::*;

fn jobs() -> (TempDir, Arc<SqliteStore>, Jobs) {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(SqliteStore::open(&StoreConfig::at(dir.path()), T0).unwrap());
    let jobs = Jobs::with_store(Arc::clone(&store) as _);
    (dir, store, jobs)
}

type Change = fn(&mut NewJob);

fn numbers(events: &[JobEvent]) -> Vec<u64> {
    events.iter().map(|event| event.seq).collect()
}

#[test]
fn readers_at_any_time_and_speed_see_every_event_once() {
    const EVENTS: u64 = 600; // more than two pages
    let (_dir, store, jobs) = jobs();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        submit(&*store, 1, job("ann"), T0).await;
        let claimed = claim(&*store, 1, T0).await.pop().unwrap();
        let mut readers = Vec::new();
        for reader in 0..20_u64 {
            let (jobs, store) = (jobs.clone(), Arc::clone(&store));
            readers.push(tokio::spawn(async move {
                // Each begins when the job has come to another event, and from another number.
                while view(&*store, id(1)).await.event_seq < reader * 20 {
                    tokio::task::yield_now().await;
                }
                let after = (reader % 3) * 5;
                let events: Vec<_> = jobs
                    .events(id(1), after)
                    .then(|event| async {
                        if reader % 2 == 0 {
                            tokio::task::yield_now().await;
                        }
                        event
                    })
                    .try_collect()
                    .await
                    .unwrap();
                (after, events)
            }));
        }
        for number in 0..EVENTS {
            let data = json!({ "n": number });
            let emission = Emission::new(id(1), claimed.lease, "note", &data).unwrap();
            store.emit(emission, T0).await.unwrap();
        }
        settle(&*store, held(&claimed), success(), T0).await;
        for reader in readers {
            let (after, events) = reader.await.unwrap();
            let expect: Vec<u64> = (after + 1..=EVENTS + 3).collect();
            assert_eq!(numbers(&events), expect, "after {after}");
            assert_eq!(events.last().unwrap().data["state"], "succeeded");
        }
        let late: Vec<_> = jobs.events(id(1), EVENTS + 3).try_collect().await.unwrap();
        assert!(late.is_empty(), "nothing after the end");
        let beyond: Vec<_> = jobs.events(id(1), u64::MAX).try_collect().await.unwrap();
        assert!(beyond.is_empty());
    });
}

#[test]
fn an_unknown_job_is_the_first_item() {
    let (_dir, _store, jobs) = jobs();
    block_on(async {
        let mut events = Box::pin(jobs.events(id(7), 0));
        assert!(matches!(events.next().await, Some(Err(JobsError::NotFound { .. }))));
        assert!(events.next().await.is_none());
        let waited = jobs.wait(id(7), Duration::from_secs(9)).await;
        assert!(matches!(waited, Err(JobsError::NotFound { .. })));
    });
}

#[test]
fn waiting_ends_with_the_job_or_the_time() {
    let (_dir, store, jobs) = jobs();
    block_on(async {
        submit(&*store, 1, job("ann"), T0).await;
        let view = jobs.wait(id(1), Duration::from_millis(20)).await.unwrap();
        assert_eq!(view.state, JobState::Queued, "the time was over");
        let waiting = tokio::spawn({
            let jobs = jobs.clone();
            async move { jobs.wait(id(1), Duration::from_secs(60)).await.unwrap().state }
        });
        jobs.cancel(id(1)).await.unwrap();
        assert_eq!(waiting.await.unwrap(), JobState::Cancelled);
    });
}

#[test]
fn what_is_wrong_with_a_new_job_is_named() {
    let (_dir, _store, jobs) = jobs();
    let cases: [(Change, &str); 8] = [
        (|new| new.kind.clear(), "kind must not be empty"),
        (|new| new.owner = "o".repeat(129), "owner has 129 bytes; the limit is 128"),
        (|new| new.attempts_max = 0, "attempts_max must be 1 to 20, not 0"),
        (|new| new.attempts_max = 21, "attempts_max must be 1 to 20, not 21"),
        (|new| new.needs = vec![id(1); 257], "needs names 257 jobs; the limit is 256"),
        (|new| new.run_at_ms = Some(u64::MAX), "run_at_ms must be milliseconds since 1970"),
        (
            |new| new.payload = vec![0; 16 * 1024 * 1024 + 1],
            "payload has 16777217 bytes; the limit is 16777216",
        ),
        (
            |new| {
                let text = json!({ "a": "x".repeat(20_000) });
                new.metadata = text.as_object().cloned();
            },
            "metadata has 20008 bytes; the limit is 16384",
        ),
    ];
    block_on(async {
        for (change, says) in cases {
            let mut new = job("ann");
            change(&mut new);
            assert_eq!(jobs.submit(new).await.unwrap_err().to_string(), says);
        }
    });
}
