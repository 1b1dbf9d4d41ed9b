//! A process that accepts and runs jobs, and a driver that kills it again and again. The bench uses
//! both too.
//!
//! The worker reads `KEY NEED|-` lines and writes what it knows, one line at a time: `ready`; `ack
//! KEY ID` after `submit` returned; `run ID LEASE` when an attempt begins; `end ID STATE` after it
//! has read a final state. What it wrote before it was killed is still in the pipe, so the order of
//! the lines is the order in which things happened.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use aisemble_jobs::store::Store;
use aisemble_jobs::{
    Backoff, ClaimedJob, ErrorCode, Executor, Idempotency, JobContext, JobFailure, JobFilter,
    JobFuture, JobId, JobState, Jobs, NewJob, SchedulerConfig, SqliteStore, StoreConfig,
};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

/// Submissions that the driver leaves unanswered at a time.
const UNANSWERED_MAX: usize = 16;
/// Longest time from a start, or from being ready, to the kill, microseconds.
const LIFE_US_MAX: u64 = 50_000;

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // A driver that has gone has its reasons; this process then ends at the end of its input.
    let _ = out.write_all(format!("\n{line}\n").as_bytes()).and_then(|()| out.flush());
}

struct Echo;

impl Executor for Echo {
    fn free(&self, _capability: &str) -> usize {
        64
    }

    fn execute(&self, job: ClaimedJob, context: JobContext) -> JobFuture<'_> {
        Box::pin(async move {
            say(&format!("run {} {}", job.id, job.lease));
            let number = job.payload.last().copied().unwrap_or(0);
            let _ = context.events.emit("note", serde_json::json!(number)).await;
            match number {
                b'0'..=b'2' if job.attempt == 1 => {
                    Err(JobFailure::new(ErrorCode::Unavailable, "the first attempt fails"))
                }
                b'3' => Err(JobFailure::new(ErrorCode::Unprocessable, "never works")),
                _ => Ok(job.payload),
            }
        })
    }
}

/// The worker's whole life: ends when its input has ended and every job with it.
pub(crate) fn work(dir: &Path) {
    let jobs = Jobs::open(&config(dir)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let backoff = Backoff { base_ms: 1, cap_ms: 8 };
        let settings = SchedulerConfig { backoff, ..SchedulerConfig::default() };
        let scheduler = jobs.run(Arc::new(Echo), settings);
        let followed = follow_unended(&jobs).await;
        say("ready");
        let (sender, mut lines) = tokio::sync::mpsc::channel(64);
        std::thread::spawn(move || {
            for line in std::io::stdin().lock().lines().map_while(Result::ok) {
                if sender.blocking_send(line).is_err() {
                    return;
                }
            }
        });
        let mut tasks = followed;
        while let Some(line) = lines.recv().await {
            tasks.push(tokio::spawn(accept(jobs.clone(), line)));
        }
        for task in tasks {
            task.await.unwrap();
        }
        scheduler.drain(Duration::from_secs(10)).await;
    });
}

fn config(dir: &Path) -> StoreConfig {
    StoreConfig { readers: 1, ..StoreConfig::at(dir) }
}

async fn follow_unended(jobs: &Jobs) -> Vec<tokio::task::JoinHandle<()>> {
    let states = JobState::ALL.into_iter().filter(|state| !state.is_final()).collect();
    let mut filter = JobFilter { states, limit: 500, ..JobFilter::default() };
    let mut tasks = Vec::new();
    loop {
        let page = jobs.list(filter.clone()).await.unwrap();
        tasks.extend(page.jobs.iter().map(|job| tokio::spawn(follow(jobs.clone(), job.id))));
        filter.cursor = page.next_cursor;
        if filter.cursor.is_none() {
            return tasks;
        }
    }
}

async fn accept(jobs: Jobs, line: String) {
    let (key, need) = line.split_once(' ').unwrap();
    let mut new = NewJob::new("test.crash", "llm", "ann", key.as_bytes().to_vec());
    new.attempts_max = 20;
    new.needs = need.parse().into_iter().collect();
    new.idempotency = Some(Idempotency { key: key.to_owned(), fingerprint: [7; 32] });
    let id = jobs.submit(new).await.unwrap().view().id;
    say(&format!("ack {key} {id}"));
    follow(jobs, id).await;
}

async fn follow(jobs: Jobs, id: JobId) {
    let view = jobs.wait(id, Duration::from_secs(600)).await.unwrap();
    say(&format!("end {id} {}", view.state.as_str()));
}

/// What the driver knows of the jobs from the workers' lines.
#[derive(Default)]
struct Ledger {
    next_key: u64,
    /// Sent and not acknowledged, with what was sent: sent again after a kill.
    unanswered: BTreeMap<u64, String>,
    acknowledged: HashMap<u64, JobId>,
    newest: Option<JobId>,
    leases: HashMap<JobId, u64>,
    ended: HashMap<JobId, String>,
    attempts: u64,
}

impl Ledger {
    fn hear(&mut self, line: &str) {
        let words: Vec<_> = line.split_whitespace().collect();
        match words[..] {
            ["ack", key, id] => {
                let (key, id) = (key.parse().unwrap(), id.parse().unwrap());
                self.unanswered.remove(&key);
                let before = self.acknowledged.insert(key, id);
                assert!(before.is_none_or(|known| known == id), "key {key} made two jobs");
                self.newest = Some(id);
            }
            ["run", id, lease] => {
                let (id, lease) = (id.parse().unwrap(), lease.parse().unwrap());
                let ended = self.ended.get(&id);
                assert!(ended.is_none(), "job {id} ran again after it had {ended:?}");
                let before = self.leases.insert(id, lease).unwrap_or(0);
                assert!(lease > before, "job {id} ran under lease {lease} after {before}");
                self.attempts += 1;
            }
            ["end", id, state] => {
                let id = id.parse().unwrap();
                let before = self.ended.insert(id, state.to_owned());
                let same = before.is_none_or(|known| known == state);
                assert!(same, "job {id} ended twice, then {state}");
            }
            // `ready`, and what a test harness prints.
            _ => {}
        }
    }

    fn next_line(&mut self, random: &mut SmallRng) -> String {
        let key = self.next_key;
        self.next_key += 1;
        // Some need an earlier job; `-` is no id.
        let need = self.newest.filter(|_| random.random_bool(0.2));
        let line = format!("{key} {}", need.map_or("-".to_owned(), |id| id.to_string()));
        self.unanswered.insert(key, line.clone());
        line
    }
}

/// One life of the worker.
struct Life {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Life {
    fn begin(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the worker starts");
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = sync_channel(1_024);
        std::thread::spawn(move || {
            // A line that the kill cut in two has no end and is not a line.
            for line in output.split(b'\n').map_while(Result::ok) {
                if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    return;
                }
            }
        });
        Self { input: child.stdin.take(), child, lines }
    }

    fn send(&mut self, line: &str) {
        if let Some(input) = &mut self.input {
            // It may have been killed in between; the line is sent again to the next.
            let _ = writeln!(input, "{line}");
        }
    }

    /// Hears lines until the worker has opened the store.
    fn hear_ready(&mut self, ledger: &mut Ledger) {
        loop {
            let line = self.lines.recv_timeout(Duration::from_secs(60)).expect("the worker opens");
            ledger.hear(&line);
            if line == "ready" {
                return;
            }
        }
    }

    /// Hears lines until the worker has ended or `until` has come; whether it has ended.
    fn hear(&mut self, ledger: &mut Ledger, random: &mut SmallRng, until: Instant) -> bool {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => ledger.hear(&line),
                Err(RecvTimeoutError::Timeout) => return false,
                Err(RecvTimeoutError::Disconnected) => return true,
            }
            while self.input.is_some() && ledger.unanswered.len() < UNANSWERED_MAX {
                let line = ledger.next_line(random);
                self.send(&line);
            }
        }
    }
}

/// What a run of the driver saw.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) kills: u32,
    pub(crate) acknowledged: usize,
    pub(crate) attempts: u64,
    pub(crate) rescued_jobs: usize,
    pub(crate) by_state: BTreeMap<&'static str, usize>,
    pub(crate) seconds: f64,
}

/// Kills the worker that `command` starts on `dir` `kills` times at random moments, lets the last
/// one finish, and checks every promise. Panics at the first that was broken.
pub(crate) fn drive(
    mut command: impl FnMut() -> Command,
    dir: &Path,
    kills: u32,
    seed: u64,
) -> Report {
    let begun = Instant::now();
    let mut random = SmallRng::seed_from_u64(seed);
    let mut ledger = Ledger::default();
    let mut killed = 0;
    while killed < kills {
        let mut life = begin_again(&mut command, &ledger);
        // One in four may die while it opens the store; the others get to work first, so that the
        // test means the same on a slow machine.
        if random.random_bool(0.75) {
            life.hear_ready(&mut ledger);
        }
        let until = Instant::now() + Duration::from_micros(random.random_range(0..LIFE_US_MAX));
        let ended = life.hear(&mut ledger, &mut random, until);
        assert!(!ended, "the worker ended by itself: {:?}", life.child.wait());
        life.child.kill().unwrap();
        life.child.wait().unwrap();
        while let Ok(line) = life.lines.recv() {
            ledger.hear(&line);
        }
        killed += 1;
    }
    let mut last = begin_again(&mut command, &ledger);
    last.input = None;
    let ended = last.hear(&mut ledger, &mut random, Instant::now() + Duration::from_secs(60));
    assert!(ended, "the last worker did not come to an end");
    assert!(last.child.wait().unwrap().success());
    assert!(ledger.unanswered.is_empty(), "never answered: {:?}", ledger.unanswered);
    let (rescued_jobs, by_state) = check(&ledger, dir);
    Report {
        kills,
        acknowledged: ledger.acknowledged.len(),
        attempts: ledger.attempts,
        rescued_jobs,
        by_state,
        seconds: begun.elapsed().as_secs_f64(),
    }
}

fn begin_again(command: &mut impl FnMut() -> Command, ledger: &Ledger) -> Life {
    let mut life = Life::begin(&mut command());
    let again: VecDeque<_> = ledger.unanswered.values().cloned().collect();
    for line in again {
        life.send(&line);
    }
    life
}

/// Reads the store itself: every job that was acknowledged has ended, once, and its events say so.
fn check(ledger: &Ledger, dir: &Path) -> (usize, BTreeMap<&'static str, usize>) {
    let store = SqliteStore::open(&config(dir), u64::MAX >> 2).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut by_state: BTreeMap<&'static str, usize> = BTreeMap::new();
    let mut rescued_jobs = 0;
    runtime.block_on(async {
        let mut filter = JobFilter { limit: 500, ..JobFilter::default() };
        let mut count = 0;
        loop {
            let page = store.list(filter.clone()).await.unwrap();
            count += page.jobs.len();
            filter.cursor = page.next_cursor;
            if filter.cursor.is_none() {
                break;
            }
        }
        assert_eq!(count, ledger.acknowledged.len(), "one job for each key, no more");
        for (key, id) in &ledger.acknowledged {
            let view = store.view(*id).await.unwrap();
            let view = view.unwrap_or_else(|| panic!("job {id} of key {key} is lost"));
            assert!(view.state.is_final(), "{view:?}");
            // A worker that was killed between the end and the line did not tell of it.
            let told = ledger.ended.get(id).is_none_or(|state| state == view.state.as_str());
            assert!(told, "job {id} ended as {:?}, then {:?}", ledger.ended.get(id), view.state);
            *by_state.entry(view.state.as_str()).or_default() += 1;
            let page = store.events(*id, 0).await.unwrap();
            assert!(page.ended, "{page:?}");
            let numbers: Vec<_> = page.events.iter().map(|event| event.seq).collect();
            assert_eq!(numbers, (1..=view.event_seq).collect::<Vec<_>>(), "no gap, none twice");
            let states: Vec<JobState> = page
                .events
                .iter()
                .filter(|event| event.kind == "state")
                .map(|event| JobState::parse(event.data["state"].as_str().unwrap()).unwrap())
                .collect();
            let finals = states.iter().filter(|state| state.is_final()).count();
            assert_eq!((finals, states.last()), (1, Some(&view.state)), "{states:?}");
            let lost = states.windows(2).any(|w| w == [JobState::Running, JobState::Queued]);
            rescued_jobs += usize::from(lost);
            let result = store.result(*id).await.unwrap();
            let expect = (view.state == JobState::Succeeded).then(|| key.to_string().into_bytes());
            assert_eq!(result, expect, "job {id} of key {key}");
        }
    });
    (rescued_jobs, by_state)
}
