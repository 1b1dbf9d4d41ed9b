//! The probe's command line. Parsed by hand, so that the crate that every service links against
//! needs no argument parser.

use std::path::PathBuf;

use aisemble_sandbox::Paths;
use aisemble_sandbox::policy::{NAMES, syscalls};

use crate::deed::{self, Deed};

pub(crate) const HELP: &str = "\
Puts itself under a service's sandbox policy, tries things, and prints what came of them.

Usage: ai-semble-sandbox-probe [OPTIONS] COMMAND

Commands:
  all              Every rule of the policy, satisfied and altered, every other system call, and
                   the self check
  try WHAT...      Only these: system calls by name, or deeds (below)
  self-check       What a running service answers to `SelfCheck`
  list             What `all` would do, without doing it
  usage TRACE      Which rules of the policy a run of the service used after lock-down, and which
                   never: TRACE is what `strace -f -e raw=all -o TRACE SERVICE` wrote

Options:
  --policy NAME    llm (default) or orchestrator
  --stage N        0: no sandbox; 1: after `confine`; 2 (default): after `lock_down` too
  --read PATH      Allow reading there, as a service allows its model (repeatable)
  --read-write DIR Allow writing there, as the orchestrator allows its data (repeatable)
  --sockets DIR    Allow sockets there (repeatable)
  --on THREAD      Who tries: main (default); early: a thread made before lock_down;
                   late: a thread made after it
  --threads-first  Start a thread before `confine`, which must then refuse
  -h, --help       This text

Deeds:
  read=PATH write=PATH create=PATH list=DIR remove=PATH mkdir=DIR symlink=PATH map=PATH
  unix-bind=PATH unix-connect=PATH abstract-connect=NAME signal=PID
  tcp-bind=PORT tcp-connect=PORT   on a socket made before `confine`
  panic abort int80 x32            how the process ends is the answer
  executable-memory backtrace core-limit dumpable

Exit code: 0 as the policy says, 1 not, 2 usage, 3 the sandbox could not be put in force,
4 no trace.
A deed has no expectation: it passes when it succeeds.
";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    All,
    List,
    SelfCheck,
    Usage(PathBuf),
    Try { syscalls: Vec<String>, deeds: Vec<Deed> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum On {
    Main,
    Early,
    Late,
}

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) policy: String,
    pub(crate) stage: u8,
    pub(crate) paths: Paths,
    pub(crate) on: On,
    pub(crate) threads_first: bool,
    pub(crate) command: Command,
}

/// The options; `None` when help was asked for.
pub(crate) fn parse(
    mut arguments: impl Iterator<Item = String>,
) -> Result<Option<Options>, String> {
    let mut options = Options {
        policy: NAMES[0].to_owned(),
        stage: 2,
        paths: Paths::default(),
        on: On::Main,
        threads_first: false,
        command: Command::All,
    };
    let mut words = Vec::new();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("`{argument}` needs a value"));
        match argument.as_str() {
            "-h" | "--help" => return Ok(None),
            "--policy" => options.policy = value()?,
            "--stage" => options.stage = stage(&value()?)?,
            "--read" => options.paths.read.push(PathBuf::from(value()?)),
            "--read-write" => options.paths.read_write.push(PathBuf::from(value()?)),
            "--sockets" => options.paths.sockets.push(PathBuf::from(value()?)),
            "--on" => options.on = on(&value()?)?,
            "--threads-first" => options.threads_first = true,
            flag if flag.starts_with('-') => return Err(format!("`{flag}` is not an option")),
            _ => words.push(argument),
        }
    }
    options.command = command(&words)?;
    Ok(Some(options))
}

fn stage(value: &str) -> Result<u8, String> {
    let number = value.parse().ok().filter(|stage| *stage <= 2);
    number.ok_or(format!("`--stage {value}`: 0, 1 or 2"))
}

fn on(value: &str) -> Result<On, String> {
    match value {
        "main" => Ok(On::Main),
        "early" => Ok(On::Early),
        "late" => Ok(On::Late),
        _ => Err(format!("`--on {value}`: main, early or late")),
    }
}

fn command(words: &[String]) -> Result<Command, String> {
    let (command, rest) = words.split_first().ok_or("no command is given")?;
    match (command.as_str(), rest) {
        ("all", []) => Ok(Command::All),
        ("list", []) => Ok(Command::List),
        ("self-check", []) => Ok(Command::SelfCheck),
        ("usage", [trace]) => Ok(Command::Usage(PathBuf::from(trace))),
        ("usage", _) => Err("`usage` needs one trace".to_owned()),
        ("try", []) => Err("`try` needs at least one system call or deed".to_owned()),
        ("try", tries) => {
            let (mut calls, mut deeds) = (Vec::new(), Vec::new());
            for word in tries {
                match deed::parse(word)? {
                    Some(deed) => deeds.push(deed),
                    None if syscalls::find(word).is_some() => calls.push(word.clone()),
                    None => return Err(format!("`{word}` is no system call and no deed")),
                }
            }
            Ok(Command::Try { syscalls: calls, deeds })
        }
        ("all" | "list" | "self-check", _) => Err(format!("`{command}` takes nothing more")),
        _ => Err(format!("`{command}` is not a command")),
    }
}
