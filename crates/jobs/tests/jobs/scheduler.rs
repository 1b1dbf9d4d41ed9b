//! The scheduler on a real store: what it runs, retries, stops, and gives back.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aisemble_jobs::{
    Backoff, ClaimedJob, ErrorCode, Executor, JobContext, JobFailure, JobFuture, JobId, JobState,
    JobView, Jobs, JobsError, NewJob, Scheduler, SchedulerConfig, StoreConfig,
};
use futures_util::{StreamExt, TryStreamExt};
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::{Semaphore, mpsc};

use crate::support::block_on;

const LONG: Duration = Duration::from_secs(30);

/// Does what the payload says, and tells of each attempt that it begins.
struct Actor {
    room: usize,
    running: AtomicUsize,
    most: AtomicUsize,
    begun: mpsc::Sender<(JobId, u32)>,
    /// What `gate` jobs wait for.
    gate: Semaphore,
    attempts: Mutex<HashMap<JobId, u32>>,
}

struct Busy<'a>(&'a Actor);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Executor for Actor {
    fn free(&self, capability: &str) -> usize {
        if capability == "none" {
            return 0;
        }
        self.room.saturating_sub(self.running.load(Ordering::SeqCst))
    }

    fn execute(&self, job: ClaimedJob, context: JobContext) -> JobFuture<'_> {
        Box::pin(async move {
            let busy = self.running.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(busy, Ordering::SeqCst);
            let _busy = Busy(self);
            *self.attempts.lock().unwrap().entry(job.id).or_default() += 1;
            let _ = self.begun.send((job.id, job.attempt)).await;
            self.act(&job, &context).await
        })
    }
}

impl Actor {
    async fn act(&self, job: &ClaimedJob, context: &JobContext) -> Result<Vec<u8>, JobFailure> {
        let fail = |code| Err(JobFailure::new(code, "as told"));
        match std::str::from_utf8(&job.payload).unwrap() {
            "echo" => Ok(job.payload.clone()),
            "emit" => {
                for number in 0..3 {
                    context.events.emit("note", json!(number)).await.unwrap();
                }
                Ok(Vec::new())
            }
            "flaky" if job.attempt < 3 => fail(ErrorCode::Unavailable),
            "flaky" => Ok(Vec::new()),
            "broken" => fail(ErrorCode::Unprocessable),
            "panic" if job.attempt == 1 => panic!("as told"),
            "panic" => Ok(Vec::new()),
            "polite" => {
                context.cancel.cancelled().await;
                fail(ErrorCode::Cancelled)
            }
            "deaf" => std::future::pending().await,
            "gate" => {
                self.gate.acquire().await.unwrap().forget();
                Ok(Vec::new())
            }
            other => panic!("{other}"),
        }
    }
}

struct Stage {
    _dir: TempDir,
    jobs: Jobs,
    actor: Arc<Actor>,
    scheduler: Scheduler,
    begun: mpsc::Receiver<(JobId, u32)>,
}

fn settings() -> SchedulerConfig {
    SchedulerConfig {
        backoff: Backoff { base_ms: 1, cap_ms: 4 },
        cancel_grace_ms: 100,
        ..SchedulerConfig::default()
    }
}

impl Stage {
    fn new(room: usize, config: SchedulerConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let jobs = Jobs::open(&StoreConfig::at(dir.path())).unwrap();
        let (sender, begun) = mpsc::channel(10_000);
        let actor = Arc::new(Actor {
            room,
            running: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            begun: sender,
            gate: Semaphore::new(0),
            attempts: Mutex::default(),
        });
        config.validate().unwrap();
        let scheduler = jobs.run(Arc::clone(&actor) as _, config);
        Self { _dir: dir, jobs, actor, scheduler, begun }
    }

    async fn submit(&self, act: &str) -> JobId {
        self.submit_with(act, |_| {}).await
    }

    async fn submit_with(&self, act: &str, change: impl FnOnce(&mut NewJob)) -> JobId {
        let mut new = NewJob::new("test.act", "llm", "ann", act.as_bytes().to_vec());
        change(&mut new);
        self.jobs.submit(new).await.unwrap().view().id
    }

    async fn end(&self, id: JobId) -> JobView {
        let view = self.jobs.wait(id, LONG).await.unwrap();
        assert!(view.state.is_final(), "{view:?}");
        view
    }
}

#[test]
fn jobs_run_and_their_events_are_seen() {
    block_on(async {
        let stage = Stage::new(4, settings());
        let echo = stage.submit("echo").await;
        assert_eq!(stage.end(echo).await.state, JobState::Succeeded);
        assert_eq!(stage.jobs.result(echo).await.unwrap().unwrap(), b"echo");
        let emit = stage.submit("emit").await;
        let events: Vec<_> = stage.jobs.events(emit, 0).try_collect().await.unwrap();
        let kinds: Vec<_> = events.iter().map(|event| event.kind.as_str()).collect();
        assert_eq!(kinds, ["state", "state", "note", "note", "note", "state"]);
        assert!(events.iter().zip(1..).all(|(event, seq)| event.seq == seq));
    });
}

#[test]
fn failures_are_retried_as_their_code_says() {
    block_on(async {
        let stage = Stage::new(4, settings());
        let (flaky, broken) = (stage.submit("flaky").await, stage.submit("broken").await);
        let panic = stage.submit("panic").await;
        let twice = stage.submit_with("flaky", |new| new.attempts_max = 2).await;
        let flaky = stage.end(flaky).await;
        assert_eq!((flaky.state, flaky.attempt, flaky.error), (JobState::Succeeded, 3, None));
        let broken = stage.end(broken).await;
        assert_eq!((broken.state, broken.attempt), (JobState::Failed, 1));
        assert_eq!(broken.error.unwrap().code, ErrorCode::Unprocessable);
        let panic = stage.end(panic).await;
        assert_eq!((panic.state, panic.attempt), (JobState::Succeeded, 2), "it was contained");
        let twice = stage.end(twice).await;
        assert_eq!((twice.state, twice.attempt), (JobState::Failed, 2));
        assert_eq!(stage.jobs.metrics().tally.retried, 4);
    });
}

#[test]
fn no_more_run_than_there_is_room_for() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stage = Stage::new(3, settings());
        let nobody = stage.submit_with("echo", |new| new.capability = "none".to_owned()).await;
        let mut ids = Vec::new();
        for _ in 0..300 {
            ids.push(stage.submit("echo").await);
        }
        for id in &ids {
            assert_eq!(stage.end(*id).await.state, JobState::Succeeded);
        }
        assert!(stage.actor.most.load(Ordering::SeqCst) <= 3);
        let attempts = stage.actor.attempts.lock().unwrap();
        assert!(ids.iter().all(|id| attempts[id] == 1));
        assert!(!attempts.contains_key(&nobody), "nobody can do it, so it waits");
    });
}

#[test]
fn a_running_job_is_cancelled_whether_it_listens_or_not() {
    block_on(async {
        let mut stage = Stage::new(4, settings());
        for act in ["polite", "deaf"] {
            let id = stage.submit(act).await;
            assert_eq!(stage.begun.recv().await.unwrap(), (id, 1));
            let asked = stage.jobs.cancel(id).await.unwrap();
            assert!(asked.cancel_requested && asked.state == JobState::Running);
            let ended = stage.end(id).await;
            assert_eq!(
                (ended.state, ended.cancel_requested),
                (JobState::Cancelled, false),
                "{act}"
            );
        }
        let free = stage.submit("echo").await;
        assert_eq!(stage.end(free).await.state, JobState::Succeeded, "the room is free again");
    });
}

#[test]
fn a_running_job_expires_at_its_deadline() {
    block_on(async {
        let mut stage = Stage::new(4, settings());
        let now_ms = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64;
        let soon = |new: &mut NewJob| new.deadline_at_ms = Some(now_ms + 150);
        let id = stage.submit_with("polite", soon).await;
        assert_eq!(stage.begun.recv().await.unwrap().0, id);
        let never = stage.submit_with("echo", |new| {
            soon(new);
            new.capability = "none".to_owned();
        });
        let never = never.await;
        assert_eq!(stage.end(id).await.state, JobState::Expired);
        assert_eq!(stage.end(never).await.state, JobState::Expired, "it never had its turn");
        // The attempt was told to stop and its answer was dropped.
        while stage.jobs.metrics().tally.stale == 0 {
            tokio::task::yield_now().await;
        }
        let view = stage.end(id).await;
        assert!(view.finished_at_ms.unwrap() >= now_ms + 150);
    });
}

#[test]
fn a_scheduled_job_starts_at_its_time_and_a_dependant_after_its_need() {
    block_on(async {
        let stage = Stage::new(4, settings());
        let now_ms = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64;
        let later = stage.submit_with("echo", |new| new.run_at_ms = Some(now_ms + 120)).await;
        let child = stage.submit_with("echo", |new| new.needs = vec![later]).await;
        let ended = stage.end(child).await;
        assert_eq!(ended.state, JobState::Succeeded);
        let need = stage.end(later).await;
        assert!(need.started_at_ms.unwrap() >= now_ms + 120);
        assert!(need.started_at_ms.unwrap() < now_ms + 900, "a timer, not the poll, started it");
        assert!(ended.started_at_ms >= need.finished_at_ms);
    });
}

#[test]
fn a_drain_lets_jobs_finish_and_gives_the_rest_back() {
    block_on(async {
        let mut stage = Stage::new(8, settings());
        let gate = stage.submit("gate").await;
        let (polite, deaf) = (stage.submit("polite").await, stage.submit("deaf").await);
        for _ in 0..3 {
            stage.begun.recv().await.unwrap();
        }
        stage.actor.gate.add_permits(1);
        let waiting = stage.submit_with("echo", |new| new.capability = "none".to_owned()).await;
        let drained = stage.scheduler.drain(Duration::from_millis(200)).await;
        assert_eq!((drained.given_back, drained.met), (2, false));
        assert!(drained.finished <= 1, "the gate's job may have ended before the drain began");
        let state = async |id| {
            let view = stage.jobs.get(id).await.unwrap().unwrap().view;
            (view.state, view.attempt)
        };
        assert_eq!(state(gate).await, (JobState::Succeeded, 1));
        assert_eq!(state(polite).await, (JobState::Queued, 0), "the attempt does not count");
        assert_eq!(state(deaf).await, (JobState::Queued, 0));
        assert_eq!(state(waiting).await, (JobState::Queued, 0));
    });
}

#[test]
fn an_idle_drain_is_met_at_once() {
    block_on(async {
        let stage = Stage::new(8, settings());
        let drained = stage.scheduler.drain(LONG).await;
        assert_eq!((drained.finished, drained.given_back, drained.met), (0, 0, true));
    });
}

#[test]
fn heartbeats_keep_a_job_that_outlives_its_lease() {
    block_on(async {
        let mut config = settings();
        (config.lease_ms, config.heartbeat_ms, config.poll_ms) = (120, 20, 10);
        let mut stage = Stage::new(4, config);
        let id = stage.submit("gate").await;
        stage.begun.recv().await.unwrap();
        // Longer than the lease: without heartbeats the timers would have taken the job back.
        assert_eq!(stage.jobs.wait(id, Duration::from_millis(400)).await.unwrap().attempt, 1);
        stage.actor.gate.add_permits(1);
        let ended = stage.end(id).await;
        assert_eq!((ended.state, ended.attempt), (JobState::Succeeded, 1));
        assert_eq!(stage.jobs.metrics().tally.rescued, 0);
    });
}

#[test]
fn a_dropped_scheduler_leaves_its_jobs_to_the_next_opening() {
    block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let mut stage = Stage::new(4, settings());
        let id = stage.submit("deaf").await;
        stage.begun.recv().await.unwrap();
        let Stage { _dir: old, jobs, scheduler, .. } = stage;
        let mut events = Box::pin(jobs.events(id, 2));
        drop(scheduler);
        assert!(futures_util::poll!(events.next()).is_pending(), "it still counts as running");
        std::fs::copy(old.path().join("jobs.db"), dir.path().join("jobs.db")).unwrap();
        std::fs::copy(old.path().join("jobs.db-wal"), dir.path().join("jobs.db-wal")).unwrap();
        let jobs = Jobs::open(&StoreConfig::at(dir.path())).unwrap();
        let view = jobs.get(id).await.unwrap().unwrap().view;
        assert_eq!((view.state, view.attempt), (JobState::Queued, 1));
        let gone = jobs.cancel(JobId::generate()).await;
        assert!(matches!(gone, Err(JobsError::NotFound { .. })));
    });
}
