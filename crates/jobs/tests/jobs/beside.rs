//! What every store must do beside the jobs' own way: families, queues, rows, files, schedules.
//! Run on each store by `conformance`.

use aisemble_jobs::files::{FileFilter, FileRecord, Quota};
use aisemble_jobs::store::{Claim, Outcome, Store, Want};
use aisemble_jobs::{
    ErrorCode, Fired, JobFilter, JobState, JobsError, RowResult, ScheduleRecord, Submitted,
};
use aisemble_protocol::FileId;
use aisemble_protocol::file::Purpose;

use crate::support::*;

const DAY_MS: u64 = 24 * 3_600_000;

pub(crate) async fn children_stay_with_their_parent(store: &dyn Store) {
    submit(store, 1, job("ann"), T0).await;
    let parent = claim(store, 1, T0).await.pop().unwrap();
    for number in 2..=4 {
        let mut child = job("ann");
        child.parent = Some(id(1));
        let made = submit(store, number, child, T0 + 1).await;
        assert_eq!(made.parent, Some(id(1)));
    }
    let first = claim(store, 1, T0 + 2).await.pop().unwrap();
    settle(store, held(&first), success(), T0 + 3).await;
    let of = |parent| JobFilter { parent: Some(parent), ..JobFilter::default() };
    assert_eq!(store.list(of(id(1))).await.unwrap().jobs.len(), 3);
    assert!(store.list(of(id(2))).await.unwrap().jobs.is_empty());
    store.purge(T0 + 3 + 10 * DAY_MS, 100).await.unwrap();
    assert!(store.view(first.id).await.unwrap().is_some(), "kept as long as its parent");
    let running = claim(store, 1, T0 + 4).await.pop().unwrap();
    assert_eq!(store.cancel_children(id(1), T0 + 5).await.unwrap(), 2);
    assert_eq!(store.cancel_children(id(1), T0 + 6).await.unwrap(), 0, "asked once");
    assert!(view(store, running.id).await.cancel_requested);
    assert_eq!(state(store, id(4)).await, JobState::Cancelled);
    assert_eq!(state(store, first.id).await, JobState::Succeeded, "ended before");
    settle(store, held(&parent), success(), T0 + 7).await;
    let gone_ms = T0 + 7 + 2 * DAY_MS;
    assert_eq!(store.purge(gone_ms, 100).await.unwrap(), 1, "the parent");
    assert_eq!(store.purge(gone_ms, 100).await.unwrap(), 2, "its children that have ended");
    settle(store, held(&running), Outcome::Interrupted, gone_ms + 1).await;
    assert_eq!(state(store, running.id).await, JobState::Cancelled);
    assert_eq!(store.purge(gone_ms + 1, 100).await.unwrap(), 1, "the orphan, as it ends");
}

pub(crate) async fn an_id_is_submitted_once(store: &dyn Store) {
    let mut new = job("ann");
    new.resumes = true;
    new.attempts_max = 1;
    submit(store, 1, new.clone(), T0).await;
    let again = store.submit(id(1), new, T0 + 1).await.unwrap();
    assert!(matches!(&again, Submitted::Existing(view) if view.created_at_ms == T0), "{again:?}");
    for round in 0..3 {
        let now_ms = T0 + 100_000 * round;
        assert_eq!(claim(store, 1, now_ms).await[0].attempt, 1, "a lost attempt does not count");
        assert_eq!(store.tick(now_ms + 90_000).await.unwrap().rescued, 1);
        assert_eq!(state(store, id(1)).await, JobState::Queued);
    }
    let last = claim(store, 1, T0 + 400_000).await.pop().unwrap();
    let broke = failure(ErrorCode::Unavailable, Some(T0 + 400_002));
    settle(store, held(&last), broke, T0 + 400_001).await;
    assert_eq!(state(store, id(1)).await, JobState::Failed, "a failed one does");
}

pub(crate) async fn a_paused_queue_gives_nothing(store: &dyn Store) {
    submit(store, 1, job("ann"), T0).await;
    for _ in 0..2 {
        store.pause("llm".to_owned(), true).await.unwrap();
    }
    assert_eq!(store.paused().await.unwrap(), ["llm"]);
    assert!(claim(store, 1, T0 + 1).await.is_empty());
    store.pause("nlp".to_owned(), true).await.unwrap();
    store.pause("llm".to_owned(), false).await.unwrap();
    assert_eq!(store.paused().await.unwrap(), ["nlp"]);
    assert_eq!(claim(store, 1, T0 + 2).await.len(), 1);
}

pub(crate) async fn an_owner_runs_no_more_than_its_share(store: &dyn Store) {
    for number in 1..=4 {
        submit(store, number, job("ann"), T0).await;
    }
    submit(store, 5, job("bob"), T0 + 1).await;
    let claim = async |now_ms| {
        let want = Want { capability: "llm".to_owned(), jobs_max: 9, per_owner_max: Some(2) };
        let claim = Claim { wants: vec![want], lease_until_ms: now_ms + 90_000 };
        let claimed = store.claim(claim, now_ms).await.unwrap();
        claimed.into_iter().map(|job| job.owner).collect::<Vec<_>>()
    };
    assert_eq!(claim(T0 + 2).await, ["ann", "bob", "ann"]);
    assert!(claim(T0 + 3).await.is_empty());
}

fn row(number: u32, text: &str, failed: bool) -> RowResult {
    RowResult { row: number, failed, tokens: 5, data: text.as_bytes().to_vec() }
}

pub(crate) async fn rows_are_recorded_once_and_under_a_lease(store: &dyn Store) {
    submit(store, 9, job("ann"), T0).await;
    let mut child = job("ann");
    child.parent = Some(id(9));
    submit(store, 1, child, T0).await;
    let claimed = claim(store, 2, T0).await;
    let first = held(claimed.iter().find(|job| job.id == id(1)).unwrap());
    store.put_rows(first, vec![row(0, "a", false), row(2, "c", true)]).await.unwrap();
    store.put_rows(first, vec![row(2, "other", false), row(1, "b", false)]).await.unwrap();
    let expect = [row(0, "a", false), row(1, "b", false), row(2, "c", true)];
    assert_eq!(store.rows(id(1), 0).await.unwrap(), expect, "the first answer stays");
    assert_eq!(store.rows(id(1), 2).await.unwrap(), expect[2..]);
    assert!(store.rows(id(7), 0).await.unwrap().is_empty());
    let tally = store.row_tally(id(9)).await.unwrap();
    assert_eq!((tally.done, tally.failed, tally.tokens), (3, 1, 15));
    store.tick(T0 + 90_000).await.unwrap();
    let late = store.put_rows(first, vec![row(3, "d", false)]).await;
    assert!(matches!(late, Err(JobsError::LeaseLost { .. })), "{late:?}");
    assert_eq!(store.rows(id(1), 0).await.unwrap().len(), 3, "kept for the next attempt");
}

fn file(number: u128, owner: &str, content: u8) -> FileRecord {
    FileRecord {
        id: FileId(uuid::Uuid::from_u128(number)),
        owner: owner.to_owned(),
        name: format!("{number}.txt"),
        purpose: Purpose::Data,
        bytes: 10,
        sha256: [content; 32],
        created_at_ms: T0,
        expires_at_ms: (number == 3).then_some(T0 + 50),
    }
}

pub(crate) async fn files_are_counted_and_kept_apart(store: &dyn Store) {
    let quota = Quota { files_max: 3, bytes_max: 25 };
    for (number, owner, content) in [(1, "ann", 1), (2, "ann", 1), (3, "bob", 2)] {
        store.put_file(file(number, owner, content), quota).await.unwrap();
    }
    store.put_file(file(1, "ann", 1), quota).await.unwrap();
    let taken = store.put_file(file(1, "bob", 1), quota).await;
    assert!(matches!(taken, Err(JobsError::Invalid { field: "id", .. })), "{taken:?}");
    let full = store.put_file(file(4, "ann", 4), quota).await;
    assert!(matches!(full, Err(JobsError::QuotaFull { files: 2, bytes: 20, .. })), "{full:?}");
    let list = async |filter| {
        let page = store.files(filter).await.unwrap();
        let ids: Vec<_> = page.files.iter().map(|file| file.id.0.as_u128()).collect();
        (ids, page.more)
    };
    let all = FileFilter { limit: 2, ..FileFilter::default() };
    assert_eq!(list(all.clone()).await, (vec![3, 2], true));
    let after = Some(FileId(uuid::Uuid::from_u128(2)));
    assert_eq!(list(FileFilter { after, ..all.clone() }).await, (vec![1], false));
    let oldest = FileFilter { ascending: true, owner: Some("ann".to_owned()), ..all.clone() };
    assert_eq!(list(oldest).await, (vec![1, 2], false));
    let purpose = Some(Purpose::Batch);
    assert_eq!(list(FileFilter { purpose, ..all }).await, (vec![], false));
    assert_eq!(store.contents().await.unwrap(), [[1; 32], [2; 32]]);
    assert_eq!(store.files_due(T0 + 49, 9).await.unwrap(), []);
    let due = store.files_due(T0 + 50, 9).await.unwrap();
    assert_eq!(due, [FileId(uuid::Uuid::from_u128(3))]);
    let drop = async |number| {
        let dropped = store.drop_file(FileId(uuid::Uuid::from_u128(number))).await.unwrap();
        dropped.map(|dropped| dropped.last)
    };
    assert_eq!(drop(1).await, Some(false), "another file has the same content");
    assert_eq!(drop(2).await, Some(true));
    assert_eq!(drop(2).await, None);
    let usage = store.file_usage("ann".to_owned()).await.unwrap();
    assert_eq!((usage.files, usage.bytes), (0, 0));
    let left = store.file(FileId(uuid::Uuid::from_u128(3))).await.unwrap();
    assert_eq!(left.unwrap().owner, "bob");
}

pub(crate) async fn schedules_are_used_once_a_time(store: &dyn Store) {
    let schedule = |number: u128, owner: &str, next_at_ms| ScheduleRecord {
        id: uuid::Uuid::from_u128(number),
        owner: owner.to_owned(),
        body: b"body".to_vec(),
        next_at_ms,
        last_at_ms: None,
        last_job: None,
        created_at_ms: T0,
    };
    store.put_schedule(schedule(1, "ann", Some(T0 + 10))).await.unwrap();
    store.put_schedule(schedule(2, "bob", None)).await.unwrap();
    store.put_schedule(schedule(2, "bob", Some(T0 + 5))).await.unwrap();
    assert!(store.schedules_due(T0 + 4, 9).await.unwrap().is_empty());
    let due = store.schedules_due(T0 + 10, 9).await.unwrap();
    assert_eq!(due.iter().map(|s| s.id.as_u128()).collect::<Vec<_>>(), [2, 1]);
    let job = Some(id(7));
    let fired = Fired { id: due[1].id, due_at_ms: T0 + 10, next_at_ms: Some(T0 + 99), job };
    assert!(store.schedule_fired(fired).await.unwrap());
    assert!(!store.schedule_fired(fired).await.unwrap(), "that time is over");
    let ann = store.schedules(Some("ann".to_owned())).await.unwrap();
    assert_eq!((ann[0].next_at_ms, ann[0].last_at_ms), (Some(T0 + 99), Some(T0 + 10)));
    assert_eq!(ann[0].last_job, job);
    assert!(store.drop_schedule(ann[0].id).await.unwrap());
    assert!(!store.drop_schedule(ann[0].id).await.unwrap());
    assert_eq!(store.schedules(None).await.unwrap().len(), 1);
}

pub(crate) async fn what_has_ended_can_be_removed(store: &dyn Store) {
    for number in 1..=3 {
        submit(store, number, job("ann"), T0).await;
    }
    let claimed = claim(store, 2, T0).await;
    settle(store, held(&claimed[0]), success(), T0 + 1).await;
    assert!(store.remove(id(1), T0 + 2).await.unwrap());
    assert!(store.view(id(1)).await.unwrap().is_none());
    assert!(store.result(id(1)).await.unwrap().is_none());
    assert!(!store.remove(id(1), T0 + 3).await.unwrap(), "once");
    assert!(!store.remove(id(2), T0 + 4).await.unwrap(), "it runs");
    assert!(!store.remove(id(3), T0 + 5).await.unwrap(), "it waits");
    assert_eq!(state(store, id(2)).await, JobState::Running);
    assert_eq!(state(store, id(3)).await, JobState::Queued);
}
