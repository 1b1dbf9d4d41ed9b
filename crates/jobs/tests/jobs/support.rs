//! Stores, jobs and runtimes for tests.

use std::future::Future;
use std::sync::Arc;

use aisemble_jobs::store::{Claim, Held, Outcome, Settled, Settlement, Store, Want};
use aisemble_jobs::{
    ClaimedJob, ErrorCode, JobError, JobEvent, JobId, JobState, JobView, JobsError, MemoryStore,
    NewJob, SqliteStore, StoreConfig, Submitted,
};
use tempfile::TempDir;

/// When tests begin, milliseconds since 1970.
pub(crate) const T0: u64 = 1_800_000_000_000;

/// A store, and the directory that it lies in if it lies in one.
pub(crate) struct Fixture {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) dir: Option<TempDir>,
}

pub(crate) fn sqlite(change: impl FnOnce(&mut StoreConfig)) -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let mut config = StoreConfig::at(dir.path().join("data"));
    change(&mut config);
    let store = Arc::new(SqliteStore::open(&config, T0).unwrap());
    Fixture { store, dir: Some(dir) }
}

pub(crate) fn memory(change: impl FnOnce(&mut StoreConfig)) -> Fixture {
    let mut config = StoreConfig::default();
    change(&mut config);
    Fixture { store: Arc::new(MemoryStore::new(&config)), dir: None }
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

pub(crate) fn id(number: u64) -> JobId {
    let text = format!("01980000-0000-7000-8000-{number:012x}");
    text.parse().unwrap()
}

pub(crate) fn job(owner: &str) -> NewJob {
    NewJob::new("test.echo", "llm", owner, b"payload".to_vec())
}

pub(crate) async fn submit(store: &dyn Store, number: u64, new: NewJob, now_ms: u64) -> JobView {
    match store.submit(id(number), new, now_ms).await.unwrap() {
        Submitted::Created(view) => view,
        Submitted::Existing(view) => panic!("{view:?} existed"),
    }
}

pub(crate) async fn claim(store: &dyn Store, jobs_max: usize, now_ms: u64) -> Vec<ClaimedJob> {
    let wants = vec![Want { capability: "llm".to_owned(), jobs_max, per_owner_max: None }];
    store.claim(Claim { wants, lease_until_ms: now_ms + 90_000 }, now_ms).await.unwrap()
}

pub(crate) fn held(job: &ClaimedJob) -> Held {
    Held { id: job.id, lease: job.lease }
}

pub(crate) fn success() -> Outcome {
    Outcome::Succeeded { result: b"result".to_vec() }
}

pub(crate) fn failure(code: ErrorCode, retry_at_ms: Option<u64>) -> Outcome {
    let error = JobError { code, message: "it broke".to_owned() };
    Outcome::Failed { error, retry_at_ms }
}

pub(crate) async fn settle(
    store: &dyn Store,
    held: Held,
    outcome: Outcome,
    now_ms: u64,
) -> Settled {
    let settled = store.settle([Settlement { held, outcome }].into(), now_ms).await.unwrap();
    settled[0]
}

pub(crate) async fn view(store: &dyn Store, id: JobId) -> JobView {
    store.view(id).await.unwrap().unwrap()
}

pub(crate) async fn state(store: &dyn Store, id: JobId) -> JobState {
    view(store, id).await.state
}

/// Every event of the job, page by page.
pub(crate) async fn events(store: &dyn Store, id: JobId) -> Result<Vec<JobEvent>, JobsError> {
    let mut all: Vec<JobEvent> = Vec::new();
    loop {
        let page = store.events(id, all.last().map_or(0, |event| event.seq)).await?;
        if page.events.is_empty() {
            return Ok(all);
        }
        all.extend(page.events);
    }
}

/// The states that the job's events tell of, after checking that their numbers have no gap.
pub(crate) async fn history(store: &dyn Store, id: JobId) -> Vec<String> {
    let events = events(store, id).await.unwrap();
    for (event, seq) in events.iter().zip(1..) {
        assert_eq!(event.seq, seq, "{events:?}");
    }
    let states = events.iter().filter(|event| event.kind == "state");
    states.map(|event| event.data["state"].as_str().unwrap().to_owned()).collect()
}
