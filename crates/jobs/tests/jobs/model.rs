//! Random operations on the SQLite store and on the model: every answer and every state must be the
//! same after each step. A crash opens a copy of the files as they lie, which is what a process
//! that is killed leaves.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use aisemble_jobs::store::{Claim, Emission, Held, Outcome, Settlement, Store, Want};
use aisemble_jobs::{
    ErrorCode, Idempotency, JobFilter, JobId, JobState, MemoryStore, NewJob, Priority, SqliteStore,
    StoreConfig,
};
use proptest::prelude::*;
use serde_json::json;
use tempfile::TempDir;

use crate::support::{self, T0, block_on, failure, id};

#[derive(Debug, Clone)]
enum Op {
    Submit(Box<NewJob>, Vec<usize>),
    Claim(Vec<(bool, usize)>),
    Settle(Vec<(usize, u64, Ending)>),
    Cancel(usize),
    Heartbeat(Vec<(usize, u64)>),
    Emit(usize, u64, usize),
    Advance(u64),
    Tick,
    Purge(usize),
    List(JobFilter),
    Crash,
}

#[derive(Debug, Clone, Copy)]
enum Ending {
    Success,
    Failure,
    Retry(u64),
    Interruption,
}

fn capability(llm: bool) -> String {
    if llm { "llm".to_owned() } else { "nlp".to_owned() }
}

fn priority() -> impl Strategy<Value = Priority> {
    prop::sample::select(vec![Priority::Interactive, Priority::Normal, Priority::Batch])
}

fn new_job() -> impl Strategy<Value = Op> {
    let times =
        (prop::option::weighted(0.2, 0_u64..3_000), prop::option::weighted(0.3, 1_u64..5_000));
    let keys = prop::option::weighted(0.3, (0_u8..3, 0_u8..2));
    let needs = prop::collection::vec(0_usize..12, 0..3);
    let parts = (0_usize..3, any::<bool>(), priority(), times, 1_u32..4, keys);
    (parts, needs).prop_map(
        |((owner, llm, priority, (run, deadline), attempts_max, key), needs)| {
            let owner = ["ann", "bob", "cid"][owner];
            let mut new =
                NewJob::new("test.op", capability(llm), owner, vec![attempts_max as u8; 9]);
            new.priority = priority;
            // Offsets; the run adds the time at which it submits.
            (new.run_at_ms, new.deadline_at_ms) = (run, deadline);
            new.attempts_max = attempts_max;
            new.idempotency = key.map(|(key, fingerprint)| Idempotency {
                key: format!("key {key}"),
                fingerprint: [fingerprint; 32],
            });
            Op::Submit(Box::new(new), needs)
        },
    )
}

fn ending() -> impl Strategy<Value = Ending> {
    prop_oneof![
        4 => Just(Ending::Success),
        1 => Just(Ending::Failure),
        2 => (0_u64..2_000).prop_map(Ending::Retry),
        1 => Just(Ending::Interruption),
    ]
}

fn filter() -> impl Strategy<Value = Op> {
    let states = prop::collection::vec(prop::sample::select(JobState::ALL.to_vec()), 0..3);
    let cursor = prop::option::of((0_u32..20).prop_map(|n| n.to_string()));
    let owner = prop::option::of(prop::sample::select(vec!["ann".to_owned(), "bob".to_owned()]));
    (owner, states, cursor, 1_u32..6).prop_map(|(owner, states, cursor, limit)| {
        Op::List(JobFilter { owner, states, cursor, limit, ..JobFilter::default() })
    })
}

fn op() -> impl Strategy<Value = Op> {
    // The lease is an offset from the newest: 0 holds, more is stale.
    let job = || 0_usize..16;
    let lag = || prop_oneof![6 => Just(0_u64), 1 => Just(1_u64)];
    prop_oneof![
        6 => new_job(),
        5 => prop::collection::vec((any::<bool>(), 0_usize..4), 1..3).prop_map(Op::Claim),
        5 => prop::collection::vec((job(), lag(), ending()), 1..4).prop_map(Op::Settle),
        2 => job().prop_map(Op::Cancel),
        1 => prop::collection::vec((job(), lag()), 1..4).prop_map(Op::Heartbeat),
        2 => (job(), lag(), 0_usize..60).prop_map(|(job, lag, size)| Op::Emit(job, lag, size)),
        4 => prop_oneof![6 => 0_u64..1_500, 1 => Just(10_000), 1 => Just(24 * 3_600_000)]
            .prop_map(Op::Advance),
        2 => Just(Op::Tick),
        1 => (0_usize..4).prop_map(Op::Purge),
        1 => filter(),
        1 => Just(Op::Crash),
    ]
}

struct Pair {
    dir: TempDir,
    config: StoreConfig,
    real: Arc<SqliteStore>,
    model: MemoryStore,
    now_ms: u64,
    jobs: Vec<JobId>,
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for name in ["jobs.db", "jobs.db-wal"] {
        if from.join(name).exists() {
            fs::copy(from.join(name), to.join(name)).unwrap();
        }
    }
}

impl Pair {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = StoreConfig::at(dir.path().join("data"));
        config.readers = 1;
        config.ageing_step_ms = 700;
        config.events_per_job_max = 4;
        config.event_bytes_per_job_max = 150;
        config.retention.cancelled_ms = 3_000;
        let real = Arc::new(SqliteStore::open(&config, T0).unwrap());
        let model = MemoryStore::new(&config);
        Self { dir, config, real, model, now_ms: T0, jobs: Vec::new() }
    }

    /// The job of that number and its lease less `lag`; one that was never made when there is none.
    async fn held(&self, index: usize, lag: u64) -> Held {
        let id = self.jobs.get(index).copied().unwrap_or_else(|| id(999));
        // A claim raises the lease by one and records a state; counting those gives the lease.
        let events = support::events(&self.model, id).await.unwrap_or_default();
        let running = events.iter().filter(|e| e.kind == "state" && e.data["state"] == "running");
        Held { id, lease: (running.count() as u64).saturating_sub(lag) }
    }

    async fn run(&mut self, op: &Op) {
        let now_ms = self.now_ms;
        match op {
            Op::Submit(new, needs) => {
                let mut new = NewJob::clone(new);
                new.run_at_ms = new.run_at_ms.map(|offset| now_ms + offset);
                new.deadline_at_ms = new.deadline_at_ms.map(|offset| now_ms + offset);
                new.needs = needs.iter().filter_map(|n| self.jobs.get(*n).copied()).collect();
                let fresh = id(self.jobs.len() as u64 + 1);
                let ours = self.real.submit(fresh, new.clone(), now_ms).await;
                same(&ours, &self.model.submit(fresh, new, now_ms).await);
                if ours.is_ok_and(|submitted| submitted.view().id == fresh) {
                    self.jobs.push(fresh);
                }
            }
            Op::Claim(wants) => {
                let want = |(llm, jobs_max): &(bool, usize)| Want {
                    capability: capability(*llm),
                    jobs_max: *jobs_max,
                    per_owner_max: None,
                };
                let wants = wants.iter().map(want).collect();
                let claim = Claim { wants, lease_until_ms: now_ms + 2_000 };
                let ours = self.real.claim(claim.clone(), now_ms).await;
                same(&ours, &self.model.claim(claim, now_ms).await);
            }
            Op::Settle(batch) => {
                let mut settlements = Vec::new();
                for (index, lag, ending) in batch {
                    let outcome = match ending {
                        Ending::Success => support::success(),
                        Ending::Failure => failure(ErrorCode::Unprocessable, None),
                        Ending::Retry(ms) => failure(ErrorCode::Unavailable, Some(now_ms + ms)),
                        Ending::Interruption => Outcome::Interrupted,
                    };
                    settlements.push(Settlement { held: self.held(*index, *lag).await, outcome });
                }
                let batch: Arc<[Settlement]> = settlements.into();
                let ours = self.real.settle(Arc::clone(&batch), now_ms).await;
                same(&ours, &self.model.settle(batch, now_ms).await);
            }
            Op::Heartbeat(beats) => {
                let mut held = Vec::new();
                for (index, lag) in beats {
                    held.push(self.held(*index, *lag).await);
                }
                let ours = self.real.heartbeat(held.clone(), now_ms + 2_000).await;
                same(&ours, &self.model.heartbeat(held, now_ms + 2_000).await);
            }
            Op::Cancel(_) | Op::Emit(..) | Op::Tick | Op::Purge(_) | Op::List(_) => {
                self.run_small(op).await;
            }
            Op::Advance(ms) => self.now_ms += ms,
            Op::Crash => self.crash(),
        }
    }

    async fn run_small(&mut self, op: &Op) {
        let now_ms = self.now_ms;
        match op {
            Op::Cancel(index) => {
                let id = self.held(*index, 0).await.id;
                let ours = self.real.cancel(id, now_ms).await;
                same(&ours, &self.model.cancel(id, now_ms).await);
            }
            Op::Emit(index, lag, size) => {
                let Held { id, lease } = self.held(*index, *lag).await;
                let data = json!("x".repeat(*size));
                let emission = Emission::new(id, lease, "note", &data).unwrap();
                let ours = self.real.emit(emission.clone(), now_ms).await;
                same(&ours, &self.model.emit(emission, now_ms).await);
            }
            Op::Tick => same(&self.real.tick(now_ms).await, &self.model.tick(now_ms).await),
            Op::Purge(jobs_max) => {
                let ours = self.real.purge(now_ms, *jobs_max).await;
                same(&ours, &self.model.purge(now_ms, *jobs_max).await);
            }
            Op::List(filter) => {
                let ours = self.real.list(filter.clone()).await;
                same(&ours, &self.model.list(filter.clone()).await);
            }
            Op::Submit(..)
            | Op::Claim(_)
            | Op::Settle(_)
            | Op::Heartbeat(_)
            | Op::Advance(_)
            | Op::Crash => {}
        }
    }

    fn crash(&mut self) {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("data");
        copy(&self.config.dir, &to);
        self.config.dir = to;
        self.real = Arc::new(SqliteStore::open(&self.config, self.now_ms).unwrap());
        self.dir = dir;
        self.model.recover(self.now_ms).unwrap();
    }

    async fn compare(&self) {
        for id in &self.jobs {
            same(&self.real.get(*id).await, &self.model.get(*id).await);
            same(&self.real.result(*id).await, &self.model.result(*id).await);
            let ours = support::events(&*self.real, *id).await;
            same(&ours, &support::events(&self.model, *id).await);
        }
        same(&self.real.depth(self.now_ms).await, &self.model.depth(self.now_ms).await);
        same(&self.real.next_due_ms().await, &self.model.next_due_ms().await);
        same(&self.real.capabilities().await, &self.model.capabilities().await);
    }
}

#[track_caller]
fn same<T: PartialEq + std::fmt::Debug, E: ToString + std::fmt::Debug>(
    ours: &Result<T, E>,
    model: &Result<T, E>,
) {
    match (ours, model) {
        (Ok(ours), Ok(model)) => assert_eq!(ours, model),
        (Err(ours), Err(model)) => assert_eq!(ours.to_string(), model.to_string()),
        (ours, model) => panic!("sqlite says {ours:?}\nthe model says {model:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn sqlite_does_what_the_model_does(ops in prop::collection::vec(op(), 1..40)) {
        block_on(async {
            let mut pair = Pair::new();
            for op in &ops {
                pair.run(op).await;
                pair.compare().await;
            }
            pair.crash();
            pair.compare().await;
        });
    }
}
