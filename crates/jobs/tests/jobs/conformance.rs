//! What every store must do. Each scenario runs on each store; a new back end adds one line below.

use aisemble_jobs::store::{Beat, Claim, Emission, Outcome, Settled, Store, Want};
use aisemble_jobs::{
    ErrorCode, Idempotency, JobFilter, JobState, JobsError, NewJob, Priority, StoreConfig,
    Submitted,
};
use serde_json::json;

use crate::beside::*;
use crate::support::*;

const DAY_MS: u64 = 24 * 3_600_000;

fn settings(config: &mut StoreConfig) {
    config.events_per_job_max = 3;
    config.event_bytes_per_job_max = 100;
    config.ageing_step_ms = 1_000;
}

macro_rules! scenarios {
    ($($scenario:ident,)*) => {
        mod on_sqlite {
            $(#[test] fn $scenario() {
                let fixture = crate::support::sqlite(super::settings);
                crate::support::block_on(super::$scenario(&*fixture.store));
            })*
        }
        mod on_memory {
            $(#[test] fn $scenario() {
                let fixture = crate::support::memory(super::settings);
                crate::support::block_on(super::$scenario(&*fixture.store));
            })*
        }
    };
}

scenarios! {
    a_job_goes_its_way,
    a_stale_lease_changes_nothing,
    a_retry_waits_and_attempts_run_out,
    an_interrupted_attempt_does_not_count,
    a_lost_worker_s_attempt_counts,
    cancelling,
    deadlines_end_jobs_in_every_state,
    needs_release_and_fail_their_dependants,
    needs_that_cannot_be_are_refused,
    a_key_gives_the_same_job_for_a_day,
    an_owner_has_as_many_open_jobs_as_it_may,
    priorities_age_and_owners_share,
    pages_and_filters,
    events_are_bounded,
    retention_by_outcome,
    children_stay_with_their_parent,
    what_has_ended_can_be_removed,
    an_id_is_submitted_once,
    a_paused_queue_gives_nothing,
    an_owner_runs_no_more_than_its_share,
    rows_are_recorded_once_and_under_a_lease,
    files_are_counted_and_kept_apart,
    schedules_are_used_once_a_time,
    depth_and_due_times,
    a_batch_settles_in_order,
}

async fn a_job_goes_its_way(store: &dyn Store) {
    let mut new = job("ann");
    new.metadata = Some(json!({"ward": 3}).as_object().unwrap().clone());
    new.trace_parent = Some("00-1-2-01".to_owned());
    let made = submit(store, 1, new.clone(), T0).await;
    assert_eq!((made.state, made.attempt, made.event_seq), (JobState::Queued, 0, 1));
    let claimed = claim(store, 5, T0 + 10).await.pop().unwrap();
    assert_eq!((claimed.id, claimed.attempt, claimed.lease), (id(1), 1, 1));
    assert_eq!(
        (claimed.payload.clone(), claimed.trace_parent.clone()),
        (new.payload, new.trace_parent)
    );
    assert!(claim(store, 5, T0 + 11).await.is_empty(), "claimed once");
    let settled = settle(store, held(&claimed), success(), T0 + 20).await;
    assert_eq!(settled, Settled::Recorded { state: JobState::Succeeded });
    let job = store.get(id(1)).await.unwrap().unwrap();
    assert_eq!((job.owner.as_str(), job.capability.as_str()), ("ann", "llm"));
    assert_eq!((job.view.started_at_ms, job.view.finished_at_ms), (Some(T0 + 10), Some(T0 + 20)));
    assert_eq!(job.view.metadata, new.metadata);
    assert_eq!(store.result(id(1)).await.unwrap().unwrap(), b"result");
    assert_eq!(history(store, id(1)).await, ["queued", "running", "succeeded"]);
    assert!(store.events(id(1), 3).await.unwrap().ended);
    assert!(store.get(id(2)).await.unwrap().is_none());
    assert!(matches!(store.events(id(2), 0).await, Err(JobsError::NotFound { .. })));
    let tally = store.metrics().tally;
    assert_eq!((tally.submitted, tally.claimed, tally.succeeded), (1, 1, 1));
}

async fn a_stale_lease_changes_nothing(store: &dyn Store) {
    submit(store, 1, job("ann"), T0).await;
    let first = held(&claim(store, 1, T0).await[0]);
    assert_eq!(store.tick(T0 + 90_000).await.unwrap().rescued, 1);
    let second = held(&claim(store, 1, T0 + 90_001).await[0]);
    assert!(second.lease > first.lease);
    assert_eq!(settle(store, first, success(), T0 + 90_002).await, Settled::Stale);
    let late = Emission::new(first.id, first.lease, "note", &json!(1)).unwrap();
    assert!(matches!(store.emit(late, T0).await, Err(JobsError::LeaseLost { lease: 1, .. })));
    let beats = store.heartbeat(vec![first, second], T0 + 200_000).await.unwrap();
    assert_eq!(beats, [Beat::Lost, Beat::Renewed]);
    assert_eq!(store.tick(T0 + 199_999).await.unwrap().rescued, 0, "the heartbeat renewed it");
    let settled = settle(store, second, success(), T0 + 90_003).await;
    assert_eq!(settled, Settled::Recorded { state: JobState::Succeeded });
    assert_eq!(settle(store, second, success(), T0 + 90_004).await, Settled::Stale, "once only");
    assert_eq!(store.metrics().tally.stale, 4);
}

async fn a_retry_waits_and_attempts_run_out(store: &dyn Store) {
    let mut new = job("ann");
    new.attempts_max = 2;
    submit(store, 1, new, T0).await;
    let first = held(&claim(store, 1, T0).await[0]);
    settle(store, first, failure(ErrorCode::Unavailable, Some(T0 + 500)), T0 + 1).await;
    let waits = view(store, id(1)).await;
    assert_eq!((waits.state, waits.run_at_ms), (JobState::Scheduled, Some(T0 + 500)));
    assert_eq!(waits.error.unwrap().code, ErrorCode::Unavailable);
    assert!(claim(store, 1, T0 + 499).await.is_empty());
    let second = claim(store, 1, T0 + 500).await.pop().unwrap();
    assert_eq!(second.attempt, 2);
    let again = failure(ErrorCode::Unavailable, Some(T0 + 900));
    let settled = settle(store, held(&second), again, T0 + 501).await;
    assert_eq!(settled, Settled::Recorded { state: JobState::Failed }, "attempts are used up");
    let states = ["queued", "running", "scheduled", "queued", "running", "failed"];
    assert_eq!(history(store, id(1)).await, states);
    submit(store, 2, job("ann"), T0).await;
    let third = held(&claim(store, 1, T0 + 501).await[0]);
    settle(store, third, failure(ErrorCode::Unprocessable, None), T0 + 502).await;
    assert_eq!(state(store, id(2)).await, JobState::Failed, "not worth another attempt");
}

async fn an_interrupted_attempt_does_not_count(store: &dyn Store) {
    submit(store, 1, job("ann"), T0).await;
    submit(store, 2, job("ann"), T0 + 1).await;
    let first = claim(store, 1, T0 + 5).await.pop().unwrap();
    settle(store, held(&first), Outcome::Interrupted, T0 + 6).await;
    let back = view(store, id(1)).await;
    assert_eq!((back.state, back.attempt), (JobState::Queued, 0));
    let second = claim(store, 1, T0 + 7).await.pop().unwrap();
    assert_eq!((second.id, second.attempt, second.lease), (id(1), 1, 2), "it kept its place");
}

async fn a_lost_worker_s_attempt_counts(store: &dyn Store) {
    let mut new = job("ann");
    new.attempts_max = 2;
    submit(store, 1, new, T0).await;
    for (now_ms, expect) in [(T0, JobState::Queued), (T0 + 100_000, JobState::Failed)] {
        assert_eq!(claim(store, 1, now_ms).await.len(), 1);
        assert_eq!(store.tick(now_ms + 89_999).await.unwrap().rescued, 0);
        assert_eq!(store.tick(now_ms + 90_000).await.unwrap().rescued, 1);
        assert_eq!(state(store, id(1)).await, expect);
    }
    let error = view(store, id(1)).await.error.unwrap();
    assert_eq!(error.message, "the worker of attempt 2 was lost");
}

async fn cancelling(store: &dyn Store) {
    assert!(matches!(store.cancel(id(9), T0).await, Err(JobsError::NotFound { .. })));
    submit(store, 1, job("ann"), T0).await;
    assert_eq!(store.cancel(id(1), T0 + 1).await.unwrap().state, JobState::Cancelled);
    assert!(claim(store, 1, T0 + 2).await.is_empty());
    for number in 2..=5 {
        submit(store, number, job("ann"), T0 + 2).await;
    }
    let claimed = claim(store, 4, T0 + 3).await;
    for job in &claimed {
        let asked = store.cancel(job.id, T0 + 4).await.unwrap();
        assert_eq!((asked.state, asked.cancel_requested), (JobState::Running, true));
        store.cancel(job.id, T0 + 5).await.unwrap();
    }
    let beats = store.heartbeat(vec![held(&claimed[0])], T0 + 90_000).await.unwrap();
    assert_eq!(beats, [Beat::CancelRequested]);
    let retry = failure(ErrorCode::Unavailable, Some(T0 + 6));
    settle(store, held(&claimed[0]), retry, T0 + 6).await;
    settle(store, held(&claimed[1]), Outcome::Interrupted, T0 + 6).await;
    settle(store, held(&claimed[2]), success(), T0 + 6).await;
    store.tick(T0 + 100_000).await.unwrap();
    assert_eq!(state(store, claimed[0].id).await, JobState::Cancelled, "no retry");
    assert_eq!(state(store, claimed[1].id).await, JobState::Cancelled, "not given back");
    assert_eq!(state(store, claimed[2].id).await, JobState::Succeeded, "it was quicker");
    assert_eq!(
        state(store, claimed[3].id).await,
        JobState::Cancelled,
        "the rescuer leaves it dead"
    );
    let kinds: Vec<_> = events(store, claimed[0].id).await.unwrap();
    let kinds: Vec<_> = kinds.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds, ["state", "state", "cancel", "state"], "asked twice, recorded once");
    let ended = store.cancel(claimed[2].id, T0 + 7).await.unwrap();
    assert_eq!((ended.state, ended.cancel_requested), (JobState::Succeeded, false));
}

async fn deadlines_end_jobs_in_every_state(store: &dyn Store) {
    let due = |change: fn(&mut NewJob)| {
        let mut new = job("ann");
        new.deadline_at_ms = Some(T0 + 50);
        change(&mut new);
        new
    };
    submit(store, 1, due(|_| {}), T0).await;
    let running = claim(store, 1, T0).await.pop().unwrap();
    assert_eq!(running.deadline_at_ms, Some(T0 + 50));
    submit(store, 2, due(|_| {}), T0).await;
    submit(store, 3, due(|new| new.run_at_ms = Some(T0 + 500)), T0).await;
    submit(store, 4, due(|new| new.needs = vec![id(1)]), T0).await;
    assert_eq!(store.next_due_ms().await.unwrap(), Some(T0 + 50));
    assert_eq!(store.tick(T0 + 49).await.unwrap().expired, 0);
    let ticked = store.tick(T0 + 50).await.unwrap();
    assert_eq!((ticked.expired, ticked.more), (3, false), "the dependant failed with its need");
    for number in 1..=3 {
        let view = view(store, id(number)).await;
        assert_eq!(view.state, JobState::Expired, "job {number}");
        assert_eq!(view.error.unwrap().code, ErrorCode::Timeout);
    }
    assert_eq!(state(store, id(4)).await, JobState::Failed);
    assert_eq!(settle(store, held(&running), success(), T0 + 51).await, Settled::Stale);
    submit(store, 5, due(|_| {}), T0 + 60).await;
    assert!(claim(store, 1, T0 + 60).await.is_empty(), "a claim does not take what is over");
    assert_eq!(state(store, id(5)).await, JobState::Expired);
}

async fn needs_release_and_fail_their_dependants(store: &dyn Store) {
    let needing = |needs: &[u64]| {
        let mut new = job("ann");
        new.needs = needs.iter().map(|number| id(*number)).collect();
        new
    };
    submit(store, 1, job("ann"), T0).await;
    submit(store, 2, job("ann"), T0).await;
    let both = submit(store, 3, needing(&[1, 2, 1]), T0).await;
    assert_eq!((both.state, both.needs), (JobState::Pending, vec![id(1), id(2)]));
    let mut later = needing(&[1]);
    later.run_at_ms = Some(T0 + 1_000);
    submit(store, 4, later, T0).await;
    submit(store, 5, needing(&[3]), T0).await;
    let claimed = claim(store, 9, T0 + 1).await;
    assert_eq!(claimed.len(), 2);
    settle(store, held(&claimed[0]), success(), T0 + 2).await;
    assert_eq!(state(store, id(3)).await, JobState::Pending, "one need is open");
    assert_eq!(state(store, id(4)).await, JobState::Scheduled, "its time is to come");
    settle(store, held(&claimed[1]), success(), T0 + 3).await;
    assert_eq!(state(store, id(3)).await, JobState::Queued);
    let met = submit(store, 6, needing(&[1, 2]), T0 + 4).await;
    assert_eq!(met.state, JobState::Queued, "its needs have succeeded already");
    store.cancel(id(3), T0 + 5).await.unwrap();
    let failed = view(store, id(5)).await;
    assert_eq!(failed.state, JobState::Failed);
    let says = format!("job {}, which this job needs, has been cancelled", id(3));
    assert_eq!(failed.error.unwrap().message, says);
    let late = submit(store, 7, needing(&[6, 5]), T0 + 6).await;
    assert_eq!((late.state, late.event_seq), (JobState::Failed, 2), "a need had failed already");
    assert_eq!(history(store, id(7)).await, ["pending", "failed"]);
}

async fn needs_that_cannot_be_are_refused(store: &dyn Store) {
    submit(store, 1, job("ann"), T0).await;
    for (owner, need) in [("ann", 9), ("bob", 1), ("ann", 2)] {
        let mut new = job(owner);
        new.needs = vec![id(need)];
        // Its own id is as unknown as any that was never given: there can be no cycle.
        let refused = store.submit(id(2), new, T0).await.unwrap_err();
        assert!(matches!(refused, JobsError::UnknownNeed { .. }), "{owner} {need}: {refused}");
        assert!(store.view(id(2)).await.unwrap().is_none(), "nothing was made");
    }
}

async fn a_key_gives_the_same_job_for_a_day(store: &dyn Store) {
    let keyed = |owner: &str, fingerprint: u8| {
        let mut new = job(owner);
        let fingerprint = [fingerprint; 32];
        new.idempotency = Some(Idempotency { key: "k".to_owned(), fingerprint });
        new
    };
    submit(store, 1, keyed("ann", 1), T0).await;
    let replayed = store.submit(id(2), keyed("ann", 1), T0 + 5).await.unwrap();
    assert!(matches!(&replayed, Submitted::Existing(view) if view.id == id(1)), "{replayed:?}");
    let other = store.submit(id(2), keyed("ann", 2), T0 + 5).await;
    assert!(matches!(other, Err(JobsError::IdempotencyMismatch)));
    let key = |fingerprint: u8| keyed("ann", fingerprint).idempotency.unwrap();
    let looked_up = store.replay("ann".to_owned(), key(1), T0 + 5).await.unwrap();
    assert_eq!(looked_up.unwrap().id, id(1), "without submitting anything");
    let other = store.replay("ann".to_owned(), key(2), T0 + 5).await;
    assert!(matches!(other, Err(JobsError::IdempotencyMismatch)));
    assert_eq!(store.replay("eve".to_owned(), key(1), T0 + 5).await.unwrap(), None);
    submit(store, 3, keyed("bob", 2), T0 + 5).await;
    let first = claim(store, 1, T0 + 6).await.pop().unwrap();
    settle(store, held(&first), success(), T0 + 7).await;
    store.purge(T0 + DAY_MS - 1, 100).await.unwrap();
    let replayed = store.submit(id(4), keyed("ann", 1), T0 + DAY_MS - 1).await.unwrap();
    assert_eq!(replayed.view().state, JobState::Succeeded, "kept as long as its key");
    submit(store, 4, keyed("ann", 2), T0 + DAY_MS).await;
    let tally = store.metrics().tally;
    assert_eq!((tally.submitted, tally.replayed), (3, 2));
}

async fn an_owner_has_as_many_open_jobs_as_it_may(store: &dyn Store) {
    let limited = |owner: &str| {
        let mut new = job(owner);
        new.open_jobs_max = Some(2);
        new
    };
    submit(store, 1, limited("ann"), T0).await;
    submit(store, 2, limited("ann"), T0).await;
    let full = store.submit(id(3), limited("ann"), T0).await;
    assert!(matches!(full, Err(JobsError::OwnerFull { open_max: 2 })), "{full:?}");
    submit(store, 3, limited("bob"), T0).await;
    let claimed = claim(store, 1, T0 + 1).await.pop().unwrap();
    let full = store.submit(id(4), limited("ann"), T0 + 1).await;
    assert!(matches!(full, Err(JobsError::OwnerFull { .. })), "one that runs counts");
    settle(store, held(&claimed), success(), T0 + 2).await;
    submit(store, 4, limited("ann"), T0 + 3).await;
}

async fn priorities_age_and_owners_share(store: &dyn Store) {
    let of = |owner: &str, priority| {
        let mut new = job(owner);
        new.priority = priority;
        new
    };
    let ids = |claimed: &[aisemble_jobs::ClaimedJob]| -> Vec<_> {
        claimed
            .iter()
            .map(|job| u64::from_str_radix(&job.id.to_string()[24..], 16).unwrap())
            .collect()
    };
    submit(store, 1, of("ann", Priority::Batch), T0).await;
    submit(store, 2, of("ann", Priority::Normal), T0 + 1).await;
    submit(store, 3, of("ann", Priority::Interactive), T0 + 2).await;
    assert_eq!(ids(&claim(store, 3, T0 + 3).await), [3, 2, 1]);
    submit(store, 4, of("ann", Priority::Batch), T0 + 10).await;
    submit(store, 5, of("ann", Priority::Interactive), T0 + 2_011).await;
    assert_eq!(ids(&claim(store, 2, T0 + 2_012).await), [4, 5], "two steps lift batch to the top");
    for number in 10..14 {
        submit(store, number, of("ann", Priority::Normal), T0 + 3_000).await;
    }
    submit(store, 20, of("bob", Priority::Normal), T0 + 3_001).await;
    submit(store, 21, of("cid", Priority::Normal), T0 + 3_002).await;
    let shared = ids(&claim(store, 3, T0 + 3_003).await);
    assert_eq!(shared, [20, 21, 10], "who runs least goes first, then who waited longest");
    let mut other = of("ann", Priority::Normal);
    other.capability = "nlp".to_owned();
    submit(store, 30, other, T0 + 3_004).await;
    let want = |capability: &str, jobs_max| Want {
        capability: capability.to_owned(),
        jobs_max,
        per_owner_max: None,
    };
    let wants = vec![want("nlp", 2), want("llm", 1)];
    let both = Claim { wants, lease_until_ms: T0 + 90_000 };
    assert_eq!(ids(&store.claim(both, T0 + 3_005).await.unwrap()), [30, 11]);
}

async fn pages_and_filters(store: &dyn Store) {
    for number in 1..=7 {
        let mut new = job(if number % 2 == 0 { "ann" } else { "bob" });
        new.kind = if number < 4 { "a".to_owned() } else { "b".to_owned() };
        submit(store, number, new, T0).await;
    }
    store.cancel(id(6), T0).await.unwrap();
    let list = async |filter: JobFilter| {
        let page = store.list(filter).await.unwrap();
        (page.jobs.iter().map(|job| job.id).collect::<Vec<_>>(), page.next_cursor)
    };
    let (first, cursor) = list(JobFilter { limit: 3, ..JobFilter::default() }).await;
    assert_eq!(first, [id(7), id(6), id(5)]);
    let (rest, end) = list(JobFilter { limit: 4, cursor, ..JobFilter::default() }).await;
    assert_eq!((rest, end), (vec![id(4), id(3), id(2), id(1)], None));
    let owner = Some("ann".to_owned());
    let (ann, _) = list(JobFilter { owner: owner.clone(), ..JobFilter::default() }).await;
    assert_eq!(ann, [id(6), id(4), id(2)]);
    let states = vec![JobState::Queued, JobState::Running];
    let (queued, _) = list(JobFilter { owner, states, ..JobFilter::default() }).await;
    assert_eq!(queued, [id(4), id(2)]);
    let (kind, _) = list(JobFilter { kind: Some("a".to_owned()), ..JobFilter::default() }).await;
    assert_eq!(kind, [id(3), id(2), id(1)]);
    let bad = store.list(JobFilter { cursor: Some("x'".to_owned()), ..JobFilter::default() }).await;
    assert!(matches!(bad, Err(JobsError::Invalid { field: "cursor", .. })));
}

async fn events_are_bounded(store: &dyn Store) {
    submit(store, 1, job("ann"), T0).await;
    submit(store, 2, job("ann"), T0).await;
    let claimed = claim(store, 2, T0).await;
    let emit = async |index: usize, data: serde_json::Value| {
        let job = &claimed[index];
        store.emit(Emission::new(job.id, job.lease, "note", &data).unwrap(), T0 + 1).await
    };
    for (number, seq) in [(1, 3), (2, 4), (3, 5)] {
        assert_eq!(emit(0, json!({ "n": number })).await.unwrap(), seq);
    }
    assert!(matches!(emit(0, json!(4)).await, Err(JobsError::EventsFull { .. })), "too many");
    assert!(
        matches!(emit(1, json!("x".repeat(99))).await, Err(JobsError::EventsFull { .. })),
        "too much"
    );
    settle(store, held(&claimed[0]), success(), T0 + 2).await;
    assert_eq!(
        history(store, id(1)).await,
        ["queued", "running", "succeeded"],
        "states always fit"
    );
    for kind in ["", "state", "cancel", &"k".repeat(33)] {
        assert!(Emission::new(id(1), 1, kind, &json!(1)).is_err(), "{kind:?}");
    }
    let big = json!("x".repeat(300_000));
    assert!(matches!(Emission::new(id(1), 1, "note", &big), Err(JobsError::TooLarge { .. })));
}

async fn retention_by_outcome(store: &dyn Store) {
    for number in 1..=3 {
        submit(store, number, job("ann"), T0).await;
    }
    let claimed = claim(store, 2, T0).await;
    settle(store, held(&claimed[0]), success(), T0).await;
    settle(store, held(&claimed[1]), failure(ErrorCode::Unprocessable, None), T0).await;
    assert_eq!(store.purge(T0 + DAY_MS - 1, 100).await.unwrap(), 0);
    assert_eq!(store.purge(T0 + DAY_MS, 100).await.unwrap(), 1, "succeeded: a day");
    assert!(store.view(id(1)).await.unwrap().is_none());
    assert!(store.result(id(1)).await.unwrap().is_none());
    assert_eq!(store.purge(T0 + 7 * DAY_MS, 100).await.unwrap(), 1, "failed: a week");
    assert_eq!(state(store, id(3)).await, JobState::Queued, "what has not ended is never deleted");
}

async fn depth_and_due_times(store: &dyn Store) {
    assert_eq!(store.next_due_ms().await.unwrap(), None);
    assert!(store.capabilities().await.unwrap().is_empty());
    submit(store, 1, job("ann"), T0).await;
    submit(store, 2, job("bob"), T0 + 5).await;
    let mut later = job("ann");
    later.run_at_ms = Some(T0 + 700);
    later.capability = "nlp".to_owned();
    assert_eq!(submit(store, 3, later, T0).await.state, JobState::Scheduled);
    assert_eq!(store.capabilities().await.unwrap(), ["llm"]);
    assert_eq!(store.next_due_ms().await.unwrap(), Some(T0 + 700));
    claim(store, 1, T0 + 10).await;
    let depth = store.depth(T0 + 25).await.unwrap();
    let found: Vec<_> = depth
        .entries
        .iter()
        .map(|e| (e.capability.as_str(), e.state, e.count, e.oldest_ms))
        .collect();
    let expect = [
        ("llm", JobState::Queued, 1, 20),
        ("llm", JobState::Running, 1, 25),
        ("nlp", JobState::Scheduled, 1, 0),
    ];
    assert_eq!(found, expect);
    assert_eq!(depth.count("llm", JobState::Queued), 1);
    assert_eq!(store.tick(T0 + 700).await.unwrap().started, 1);
    assert_eq!(store.capabilities().await.unwrap(), ["llm", "nlp"]);
    assert_eq!(store.next_due_ms().await.unwrap(), Some(T0 + 90_010), "the lease");
}

async fn a_batch_settles_in_order(store: &dyn Store) {
    for number in 1..=3 {
        submit(store, number, job("ann"), T0).await;
    }
    let claimed = claim(store, 3, T0).await;
    let of = |index: usize, lease: u64, outcome| {
        let held = aisemble_jobs::store::Held { id: claimed[index].id, lease };
        aisemble_jobs::store::Settlement { held, outcome }
    };
    let too_large = Outcome::Succeeded { result: vec![0; 16 * 1024 * 1024 + 1] };
    let batch = [of(0, 1, success()), of(1, 7, success()), of(2, 1, too_large)];
    let settled = store.settle(batch.into(), T0 + 1).await.unwrap();
    let recorded = |state| Settled::Recorded { state };
    let expect = [recorded(JobState::Succeeded), Settled::Stale, recorded(JobState::Failed)];
    assert_eq!(settled, expect);
    assert_eq!(view(store, id(3)).await.error.unwrap().code, ErrorCode::PayloadTooLarge);
    assert!(store.result(id(3)).await.unwrap().is_none());
}
