//! `ai-semble-sandbox-probe`: puts itself under a service's policy and tries things, the way a
//! compromised service would, and prints what came of them as JSON. Used by the tests of this
//! crate and by people who want to see a policy at work on their machine.

mod deed;
mod options;
mod usage;

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;

use aisemble_sandbox::attempt::{self, Attempt};
use aisemble_sandbox::policy::{Step, Verdict};
use aisemble_sandbox::{Check, Policy, SandboxError, confine, report, self_check};

use deed::{Deed, Prepared};
use options::{Command, On, Options};

/// All went as the policy says.
const EXIT_AGREES: u8 = 0;
/// Something went otherwise.
const EXIT_DISAGREES: u8 = 1;
/// The command line is wrong.
const EXIT_USAGE: u8 = 2;
/// A file that was given cannot be read.
const EXIT_UNREADABLE: u8 = 4;
/// The sandbox could not be put in force; nothing was tried.
const EXIT_REFUSED: u8 = 3;

fn main() -> ExitCode {
    let options = match options::parse(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            print(options::HELP.trim_end());
            return ExitCode::from(EXIT_AGREES);
        }
        Err(message) => {
            print_error(&format!("{message}\nhint: ai-semble-sandbox-probe --help"));
            return ExitCode::from(EXIT_USAGE);
        }
    };
    if let Command::Usage(trace) = &options.command {
        return print_usage(&options.policy, trace);
    }
    match run(&options) {
        Ok(true) => ExitCode::from(EXIT_AGREES),
        Ok(false) => ExitCode::from(EXIT_DISAGREES),
        Err(error) => {
            print_error(&full_text(&error));
            ExitCode::from(EXIT_REFUSED)
        }
    }
}

fn print_usage(policy: &str, trace: &Path) -> ExitCode {
    let policy = match Policy::named(policy) {
        Ok(policy) => policy,
        Err(error) => {
            print_error(&error.to_string());
            return ExitCode::from(EXIT_USAGE);
        }
    };
    match usage::report(&policy, trace) {
        Ok(report) => {
            print(&pretty(&report));
            ExitCode::from(EXIT_AGREES)
        }
        Err(error) => {
            print_error(&format!("{}: {error}", trace.display()));
            ExitCode::from(EXIT_UNREADABLE)
        }
    }
}

/// The error and everything behind it.
fn full_text(error: &dyn std::error::Error) -> String {
    let behind = std::iter::successors(error.source(), |error| error.source());
    behind.fold(error.to_string(), |text, source| format!("{text}: {source}"))
}

fn print(text: &str) {
    // Nobody is left to tell when standard output is closed.
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn print_error(text: &str) {
    let _ = writeln!(std::io::stderr(), "error: {text}");
}

/// Confines the process as asked and works the list off; whether all went as the policy says.
fn run(options: &Options) -> Result<bool, SandboxError> {
    let policy = Policy::named(&options.policy)?;
    let work = Work::plan(options, &policy);
    if options.command == Command::List {
        print(&pretty(&work.listed()));
        return Ok(true);
    }
    // What must exist before the process is confined: sockets that could not be made after.
    let prepared = Prepared::for_deeds(&work.deeds);
    let _idle = options.threads_first.then(|| thread::spawn(thread::park));

    let confined = if options.stage == 0 { None } else { Some(confine(&policy, &options.paths)?) };
    let (go, wait) = mpsc::sync_channel::<()>(1);
    let (wanted, done) = mpsc::sync_channel::<Vec<Check>>(1);
    let perform = move || {
        let _ = wanted.send(work.perform(&prepared));
    };
    let results = match options.on {
        On::Early => {
            // Made before lock-down, which must bind it all the same.
            let worker = thread::spawn(move || {
                let _ = wait.recv();
                perform();
            });
            lock_down(options, confined)?;
            let _ = go.send(());
            let _ = worker.join();
            done.recv()
        }
        On::Late => {
            lock_down(options, confined)?;
            let _ = thread::spawn(perform).join();
            done.recv()
        }
        On::Main => {
            lock_down(options, confined)?;
            perform();
            done.recv()
        }
    };
    let results = results.unwrap_or_default();
    let passed = !results.is_empty() && results.iter().all(|check| check.passed);
    print(&pretty(&serde_json::json!({
        "policy": options.policy,
        "stage": options.stage,
        "report": report(),
        "results": results,
        "passed": passed,
    })));
    Ok(passed)
}

fn lock_down(
    options: &Options,
    confined: Option<aisemble_sandbox::Confined>,
) -> Result<(), SandboxError> {
    match confined {
        Some(confined) if options.stage == 2 => confined.lock_down().map(drop),
        Some(_) | None => Ok(()),
    }
}

fn pretty(value: &serde_json::Value) -> String {
    format!("{value:#}")
}

/// What is to be tried.
struct Work {
    attempts: Vec<Attempt>,
    deeds: Vec<Deed>,
    self_check: bool,
}

impl Work {
    fn plan(options: &Options, policy: &Policy) -> Self {
        let step = if options.stage == 2 { Step::LockDown } else { Step::Confine };
        let derived = attempt::derive(policy, step);
        match &options.command {
            Command::All | Command::List => Self {
                // Not those that would end the probe before it has printed anything.
                attempts: derived
                    .into_iter()
                    .filter(|a| options.command == Command::List || !ends(a))
                    .filter(|a| options.stage > 0 || a.is_harmless_unfiltered())
                    .collect(),
                deeds: Vec::new(),
                self_check: options.stage > 0 && options.command == Command::All,
            },
            // A trace is read, nothing is tried.
            Command::SelfCheck | Command::Usage(_) => {
                Self { attempts: Vec::new(), deeds: Vec::new(), self_check: true }
            }
            Command::Try { syscalls, deeds } => Self {
                attempts: derived
                    .into_iter()
                    .filter(|attempt| syscalls.iter().any(|name| name == attempt.name()))
                    .filter(|attempt| options.stage > 0 || attempt.is_harmless_unfiltered())
                    .collect(),
                deeds: deeds.clone(),
                self_check: false,
            },
        }
    }

    fn listed(&self) -> serde_json::Value {
        let attempts = self.attempts.iter().map(|attempt| {
            let (number, arguments) = attempt.call();
            serde_json::json!({
                "syscall": attempt.name(),
                "number": number,
                "arguments": arguments.map(|argument| format!("{argument:#x}")),
                "expected": expected(attempt),
                "ends_the_process": ends(attempt),
                "named": attempt.named,
                "rule": attempt.rule,
            })
        });
        attempts.collect()
    }

    fn perform(&self, prepared: &Prepared) -> Vec<Check> {
        let mut results: Vec<_> = self.attempts.iter().map(perform).collect();
        results.extend(self.deeds.iter().map(|deed| deed.perform(prepared)));
        if self.self_check {
            results.extend(self_check());
        }
        results
    }
}

fn ends(attempt: &Attempt) -> bool {
    attempt.ends_the_process() && attempt.expected == Verdict::Allowed
}

fn expected(attempt: &Attempt) -> String {
    match attempt.expected {
        Verdict::Allowed => "not EPERM".to_owned(),
        Verdict::Refused(errno) => attempt::errno_name(errno),
    }
}

fn perform(attempt: &Attempt) -> Check {
    let observed = attempt.perform();
    let (_, arguments) = attempt.call();
    let shown = arguments.map(|argument| match argument {
        u64::MAX => "-1".to_owned(),
        argument => format!("{argument:#x}"),
    });
    Check {
        name: format!("{}({})", attempt.name(), shown.join(", ")),
        expected: expected(attempt),
        observed: observed.to_string(),
        passed: attempt.agrees_with(observed),
    }
}
