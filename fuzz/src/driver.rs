//! Runs one target over mutated inputs for a while: what is new goes into the corpus, a panic ends
//! the run with the input that made it, and so does an input that takes too long. An input that
//! kills the process is in the file `last`, which is written before each.

use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

use crate::coverage::Edges;
use crate::mutate::mutate;
use crate::targets::{Answer, Target};

/// Inputs of a corpus; more are not kept.
const CORPUS_MAX: usize = 20_000;
/// Valid inputs that are kept besides; a new one takes the place of any.
const VALID_MAX: usize = 400;
/// Processor time that one input may take, and time, which a busy machine lengthens.
const INPUT_CPU_MAX: Duration = Duration::from_secs(20);
const INPUT_TIME_MAX: Duration = Duration::from_secs(300);
/// Clock ticks of `/proc` in a second: Linux shows them so on every machine.
const TICKS_PER_S: u64 = 100;

/// How long, from where, and where to leave what was found.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Time.
    pub time: Duration,
    /// Inputs at most.
    pub inputs_max: u64,
    /// Where the random numbers begin.
    pub seed: u64,
    /// For the last input and for inputs that fail.
    pub folder: PathBuf,
}

/// What a run was.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Report {
    /// The target.
    pub target: &'static str,
    /// Seconds that it ran.
    pub seconds: f64,
    /// Inputs that were tried.
    pub inputs: u64,
    /// Inputs that were taken as valid.
    pub valid: u64,
    /// Inputs that did something new.
    pub corpus: usize,
    /// Edges of our code that were taken; 0 in a build that does not count them.
    pub edges: usize,
    /// Different answers.
    pub answers: usize,
    /// The slowest input, milliseconds.
    pub slowest_ms: f64,
    /// Panics inside a library that its caller contains, as in production.
    pub contained: u64,
}

/// An input that broke the target.
#[derive(Debug)]
pub struct Broken {
    /// What happened.
    pub what: String,
    /// Where the input lies.
    pub path: PathBuf,
}

/// Runs a target.
///
/// # Errors
/// The first input that breaks it.
///
/// # Panics
/// When the folder cannot be written.
pub fn run(target: &Target, plan: &Plan) -> Result<Report, Broken> {
    std::fs::create_dir_all(&plan.folder).unwrap_or_else(|error| panic!("folder: {error}"));
    let last = plan.folder.join(format!("{}.last", target.name));
    let last = File::create(&last).unwrap_or_else(|error| panic!("{}: {error}", last.display()));
    let mut run = Run {
        target,
        folder: &plan.folder,
        last,
        edges: Edges::default(),
        answers: HashSet::new(),
        corpus: Vec::new(),
        valid: Vec::new(),
        report: Report {
            target: target.name,
            seconds: 0.0,
            inputs: 0,
            valid: 0,
            corpus: 0,
            edges: 0,
            answers: 0,
            slowest_ms: 0.0,
            contained: 0,
        },
    };
    let begin = Instant::now();
    let seeds = (target.seeds)();
    assert!(!seeds.is_empty(), "{} has no inputs to begin with", target.name);
    for seed in seeds {
        if run.one(&seed)?.is_valid {
            run.valid.push(seed.clone());
        }
        run.corpus.push(seed);
    }
    // Else the target would only ever see what is refused at once.
    assert!(run.report.valid > 0, "{}: no seed is valid: {:?}", target.name, run.answers);
    let mut random = SmallRng::seed_from_u64(plan.seed);
    while begin.elapsed() < plan.time && run.report.inputs < plan.inputs_max {
        // What is valid leads deepest, what was found last leads on most often.
        let recent = run.corpus.len().saturating_sub(32);
        let from = match random.random_range(0..4) {
            0 => &run.corpus[..],
            1 => &run.corpus[recent..],
            _ => &run.valid[..],
        };
        let mut input = from.choose(&mut random).cloned().unwrap_or_default();
        let other = run.corpus.choose(&mut random).map_or(&[][..], Vec::as_slice);
        mutate(&mut input, other, target.words, &mut random);
        let found = run.one(&input)?;
        if found.is_valid && run.valid.len() < VALID_MAX {
            run.valid.push(input.clone());
        } else if found.is_valid {
            let place = random.random_range(0..run.valid.len());
            run.valid[place].clone_from(&input);
        }
        if found.is_new && run.corpus.len() < CORPUS_MAX {
            run.corpus.push(input);
        }
    }
    let Run { mut report, edges, answers, corpus, .. } = run;
    report.seconds = (begin.elapsed().as_secs_f64() * 10.0).round() / 10.0;
    (report.edges, report.answers, report.corpus) = (edges.count(), answers.len(), corpus.len());
    Ok(report)
}

struct Run<'a> {
    target: &'a Target,
    folder: &'a Path,
    last: File,
    edges: Edges,
    answers: HashSet<String>,
    corpus: Vec<Vec<u8>>,
    valid: Vec<Vec<u8>>,
    report: Report,
}

/// What an input showed.
#[derive(Debug, Clone, Copy)]
struct Found {
    /// Something that none before it did.
    is_new: bool,
    /// It is valid.
    is_valid: bool,
}

impl Run<'_> {
    /// Tries an input.
    fn one(&mut self, input: &[u8]) -> Result<Found, Broken> {
        self.report.inputs += 1;
        let written = self.last.set_len(0).and_then(|()| self.last.write_all_at(input, 0));
        written.unwrap_or_else(|error| panic!("the last input cannot be written: {error}"));
        let cpu = processor_time();
        Edges::reset();
        watch::begin();
        let begin = Instant::now();
        let answer = std::panic::catch_unwind(AssertUnwindSafe(|| (self.target.run)(input)));
        let took = begin.elapsed();
        watch::end();
        self.report.slowest_ms =
            self.report.slowest_ms.max((took.as_secs_f64() * 1e4).round() / 10.0);
        let (mut is_new, mut is_valid) = (self.edges.add(), false);
        match answer {
            Ok(Answer::Taken) => is_valid = true,
            Ok(Answer::Refused(why)) => is_new |= self.answers.insert(without_numbers(&why)),
            Ok(Answer::Contained) => self.report.contained += 1,
            Err(_) => return Err(self.broken("it panicked (see above)", input)),
        }
        let cpu = processor_time().saturating_sub(cpu);
        if cpu > INPUT_CPU_MAX {
            return Err(self.broken(&format!("it took {cpu:?} of processor time"), input));
        }
        self.report.valid += u64::from(is_valid);
        Ok(Found { is_new, is_valid })
    }

    fn broken(&self, what: &str, input: &[u8]) -> Broken {
        let path = self.folder.join(format!("{}.broken", self.target.name));
        let what = match std::fs::write(&path, input) {
            Ok(()) => what.to_owned(),
            Err(error) => format!("{what}; the input could not be kept: {error}"),
        };
        Broken { what, path }
    }
}

/// What this process has computed so far, all its threads together.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the program's name, which may have spaces: user and system time are fields 14 and 15.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 1000 / TICKS_PER_S)
}

/// The kind of an answer: the same words about other numbers and names are nothing new.
fn without_numbers(text: &str) -> String {
    let kept =
        text.chars().filter(|character| character.is_ascii_alphabetic() || *character == ' ');
    let words: String = kept.take(160).collect();
    words.split(' ').filter(|word| word.len() < 16).take(8).collect::<Vec<_>>().join(" ")
}

/// Ends the process when one input takes for ever.
mod watch {
    use std::io::{self, Write as _};
    use std::sync::OnceLock;

    use super::{AtomicU64, Duration, INPUT_TIME_MAX, Instant, Ordering};

    /// Milliseconds since the first input at which the one that runs began; 0 = none runs.
    static BEGUN_MS: AtomicU64 = AtomicU64::new(0);
    static START: OnceLock<Instant> = OnceLock::new();

    fn now_ms() -> u64 {
        let start = START.get_or_init(|| {
            std::thread::spawn(look);
            Instant::now()
        });
        start.elapsed().as_millis() as u64 + 1
    }

    pub(super) fn begin() {
        BEGUN_MS.store(now_ms(), Ordering::Relaxed);
    }

    pub(super) fn end() {
        BEGUN_MS.store(0, Ordering::Relaxed);
    }

    fn look() {
        let limit_ms = INPUT_TIME_MAX.as_millis() as u64;
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let begun = BEGUN_MS.load(Ordering::Relaxed);
            if begun > 0 && now_ms().saturating_sub(begun) > limit_ms {
                let _ = writeln!(io::stderr(), "one input takes for ever; it is the last one");
                std::process::abort();
            }
        }
    }
}
