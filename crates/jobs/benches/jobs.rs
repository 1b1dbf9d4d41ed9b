//! Speed of durable jobs on this machine: accepting, burning down a backlog, and picking jobs up at
//! a steady rate. `--kills N` runs the crash test N times instead.
//!
//! `cargo bench -p aisemble-jobs -- [--jobs 50000] [--rate 1000] [--seconds 10] [--kills 1000]`

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a bench")]

#[path = "../tests/jobs/crash.rs"]
mod crash;

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aisemble_jobs::store::{Claim, Held, Outcome, Settlement, Store, Want};
use aisemble_jobs::{
    ClaimedJob, Executor, JobContext, JobFuture, JobId, Jobs, NewJob, SchedulerConfig, SqliteStore,
    StoreConfig,
};

const PAYLOAD_BYTES: usize = 512;
/// Callers that submit at the same time.
const SUBMITTERS: usize = 64;
/// Jobs in a batch of the store alone.
const BATCH: usize = 100;

fn number(name: &str, default: u64) -> u64 {
    let mut args = std::env::args().skip_while(|arg| arg != name);
    args.nth(1).map_or(default, |text| text.parse().expect("a number"))
}

fn main() {
    let worker = std::env::args().skip_while(|arg| arg != "--worker").nth(1);
    if let Some(dir) = worker {
        return crash::work(Path::new(&dir));
    }
    let kills = u32::try_from(number("--kills", 0)).expect("a number of kills");
    if kills > 0 {
        return kill(kills);
    }
    let jobs = number("--jobs", 50_000);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    println!("| what | jobs | rate or time | commits | ops a commit |");
    println!("|---|---|---|---|---|");
    runtime.block_on(store_alone(jobs));
    runtime.block_on(burn_down(jobs));
    runtime.block_on(paced(number("--rate", 1_000), number("--seconds", 10)));
}

fn kill(kills: u32) {
    let seed = number("--seed", rand::random::<u32>().into());
    println!("--seed {seed}");
    let dir = tempfile::tempdir().unwrap();
    let worker = || {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg("--worker").arg(dir.path());
        command
    };
    let report = crash::drive(worker, dir.path(), kills, seed);
    let crash::Report { kills, acknowledged, attempts, rescued_jobs, by_state, seconds } = report;
    println!(
        "| kills | seconds | acknowledged | attempts | taken back | lost | twice | ended as |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    println!(
        "| {kills} | {seconds:.1} | {acknowledged} | {attempts} | {rescued_jobs} | 0 | 0 | \
         {by_state:?} |"
    );
}

fn new_job(number: u64) -> NewJob {
    let mut payload = vec![7; PAYLOAD_BYTES];
    payload[..8].copy_from_slice(&number.to_le_bytes());
    NewJob::new("bench.nothing", "llm", "ann", payload)
}

fn row(what: &str, jobs: u64, answer: &str, (commits, ops): (u64, u64)) {
    #[expect(clippy::cast_precision_loss, reason = "a ratio to print")]
    let share = ops as f64 / commits.max(1) as f64;
    println!("| {what} | {jobs} | {answer} | {commits} | {share:.1} |");
}

#[expect(clippy::cast_precision_loss, reason = "a rate to print")]
fn rate(jobs: u64, begun: Instant) -> String {
    format!("{:.0} jobs/s", jobs as f64 / begun.elapsed().as_secs_f64())
}

fn commits(metrics: &aisemble_jobs::StoreMetrics) -> (u64, u64) {
    (metrics.batch_ops.count(), metrics.batch_ops.sum)
}

fn since(now: (u64, u64), before: (u64, u64)) -> (u64, u64) {
    (now.0 - before.0, now.1 - before.1)
}

/// Accepts, then claims and completes in batches with nothing but the store.
async fn store_alone(jobs: u64) {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(SqliteStore::open(&StoreConfig::at(dir.path()), 1).unwrap());
    let begun = Instant::now();
    accept(jobs, {
        let store = Arc::clone(&store);
        move |number| {
            let store = Arc::clone(&store);
            async move {
                store.submit(JobId::generate(), new_job(number), 1).await.unwrap();
            }
        }
    })
    .await;
    let before = commits(&store.metrics());
    row(&format!("store: accept, {SUBMITTERS} callers"), jobs, &rate(jobs, begun), before);
    let begun = Instant::now();
    let mut done = 0;
    let mut ended: Arc<[Settlement]> = [].into();
    while done < jobs {
        let wants =
            vec![Want { capability: "llm".to_owned(), jobs_max: BATCH, per_owner_max: None }];
        let claim = store.claim(Claim { wants, lease_until_ms: 90_000 }, 2);
        let (claimed, settled) = tokio::join!(claim, store.settle(Arc::clone(&ended), 2));
        done += settled.unwrap().len() as u64;
        ended = claimed
            .unwrap()
            .into_iter()
            .map(|job| Settlement {
                held: Held { id: job.id, lease: job.lease },
                outcome: Outcome::Succeeded { result: Vec::new() },
            })
            .collect();
    }
    let shared = since(commits(&store.metrics()), before);
    let what = format!("store: claim + complete, batches of {BATCH}");
    row(&what, jobs, &rate(jobs, begun), shared);
    println!("| store: file after it, bytes a job | {jobs} | {} | | |", bytes(dir.path()) / jobs);
}

fn bytes(dir: &Path) -> u64 {
    let files = std::fs::read_dir(dir).unwrap();
    files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
}

async fn accept<F>(jobs: u64, submit: impl Fn(u64) -> F + Send + Sync + 'static)
where
    F: Future<Output = ()> + Send,
{
    let submit = Arc::new(submit);
    let mut tasks = Vec::new();
    for task in 0..SUBMITTERS as u64 {
        let submit = Arc::clone(&submit);
        tasks.push(tokio::spawn(async move {
            let mut number = task;
            while number < jobs {
                submit(number).await;
                number += SUBMITTERS as u64;
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}

/// Does nothing, and notes when each job was picked up.
struct Nothing {
    room: usize,
    running: AtomicUsize,
    picked: Mutex<Vec<Option<Instant>>>,
    done: AtomicUsize,
}

impl Executor for Nothing {
    fn free(&self, _capability: &str) -> usize {
        self.room - self.running.load(Ordering::Relaxed).min(self.room)
    }

    fn execute(&self, job: ClaimedJob, _context: JobContext) -> JobFuture<'_> {
        let number = u64::from_le_bytes(job.payload[..8].try_into().unwrap());
        if let Some(slot) = self.picked.lock().unwrap().get_mut(number as usize) {
            *slot = Some(Instant::now());
        }
        self.done.fetch_add(1, Ordering::Relaxed);
        Box::pin(async { Ok(Vec::new()) })
    }
}

fn nothing(timed: u64) -> Arc<Nothing> {
    Arc::new(Nothing {
        room: 512,
        running: AtomicUsize::new(0),
        picked: Mutex::new(vec![None; usize::try_from(timed).unwrap()]),
        done: AtomicUsize::new(0),
    })
}

/// Accepts all, then lets the scheduler do them.
async fn burn_down(jobs: u64) {
    let dir = tempfile::tempdir().unwrap();
    let all = Jobs::open(&StoreConfig::at(dir.path())).unwrap();
    let submitting = all.clone();
    accept(jobs, move |number| {
        let jobs = submitting.clone();
        async move {
            jobs.submit(new_job(number)).await.unwrap();
        }
    })
    .await;
    let before = commits(&all.metrics());
    let begun = Instant::now();
    let scheduler = all.run(nothing(0), SchedulerConfig::default());
    while all.metrics().tally.succeeded < jobs {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let shared = since(commits(&all.metrics()), before);
    row("scheduler: burn-down", jobs, &rate(jobs, begun), shared);
    scheduler.drain(Duration::from_secs(5)).await;
}

/// Accepts at a steady rate and measures from the call of `submit` to the start of the attempt.
async fn paced(per_s: u64, seconds: u64) {
    let dir = tempfile::tempdir().unwrap();
    let all = Jobs::open(&StoreConfig::at(dir.path())).unwrap();
    let jobs = per_s * seconds;
    let executor = nothing(jobs);
    let scheduler = all.run(Arc::clone(&executor) as _, SchedulerConfig::default());
    let begun = Instant::now();
    let mut tasks = Vec::new();
    for number in 0..jobs {
        let at = begun + Duration::from_nanos(number * 1_000_000_000 / per_s);
        tokio::time::sleep_until(at.into()).await;
        let all = all.clone();
        tasks.push(tokio::spawn(async move {
            let called = Instant::now();
            all.submit(new_job(number)).await.unwrap();
            (called, called.elapsed())
        }));
    }
    let mut called = Vec::new();
    for task in tasks {
        called.push(task.await.unwrap());
    }
    while all.metrics().tally.succeeded < jobs {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    scheduler.drain(Duration::from_secs(5)).await;
    let picked = executor.picked.lock().unwrap();
    let waits = called.iter().zip(picked.iter());
    let mut pickup: Vec<_> = waits.map(|((at, _), picked)| picked.unwrap() - *at).collect();
    let mut accept: Vec<_> = called.iter().map(|(_, took)| *took).collect();
    let shared = commits(&all.metrics());
    let rate = format!("paced {per_s}/s");
    row(&format!("{rate}: submit p50 / p95 / p99"), jobs, &percentiles(&mut accept), shared);
    row(&format!("{rate}: pickup p50 / p95 / p99"), jobs, &percentiles(&mut pickup), shared);
}

fn percentiles(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e3;
    format!("{:.2} / {:.2} / {:.2} ms", at(50), at(95), at(99))
}
