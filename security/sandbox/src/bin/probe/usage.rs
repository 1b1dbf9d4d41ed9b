//! Which rules of a policy a real run never needed: reads what `strace -f -e raw=all` wrote of a
//! service, from its lock-down on, and counts how often each rule let a call through. What is never
//! used is a candidate for removal, no more: errors and rare paths need calls too.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::path::Path;

use aisemble_sandbox::Policy;
use aisemble_sandbox::policy::{ARGUMENTS, Condition, Rule, Test, Value};
use serde_json::{Value as Json, json};

/// `SECCOMP_FILTER_FLAG_TSYNC`: the filter of the second step is the one that all threads get.
const ALL_THREADS: u64 = 1;

/// A system call as strace saw it.
#[derive(Debug, PartialEq, Eq)]
struct Call<'a> {
    thread: u32,
    name: &'a str,
    arguments: [u64; ARGUMENTS],
}

/// Counts the calls of the trace's process, all its threads together, that came after lock-down.
pub(crate) fn report(policy: &Policy, trace: &Path) -> io::Result<Json> {
    let mut uses: BTreeMap<(usize, &str), u64> = BTreeMap::new();
    for (index, rule) in policy.allowed().iter().enumerate() {
        for syscall in rule.syscalls.iter().filter(|syscall| syscall.number.is_some()) {
            uses.insert((index, syscall.name), 0);
        }
    }
    let (mut seen, mut locked_down) = (0_u64, false);
    for line in BufReader::new(File::open(trace)?).lines() {
        let line = line?;
        let Some(call) = parse(&line) else { continue };
        if call.name == "seccomp" && call.arguments[1] & ALL_THREADS != 0 {
            locked_down = true;
        } else if locked_down {
            seen += 1;
            for (index, rule) in policy.allowed().iter().enumerate() {
                if let Some(name) = lets_through(rule, &call) {
                    *uses.entry((index, name)).or_default() += 1;
                }
            }
        }
    }
    let shown = |(&(index, name), count): (&(usize, &str), &u64)| json!({ "syscall": name, "uses": count, "rule": policy.allowed()[index].comment });
    let never: Vec<_> = uses.iter().filter(|(_, uses)| **uses == 0).map(shown).collect();
    let used: Vec<_> = uses.iter().filter(|(_, uses)| **uses > 0).map(shown).collect();
    Ok(json!({
        "policy": policy.name(),
        "locked_down": locked_down,
        "calls_after_lock_down": seen,
        "never_used": never,
        "used": used,
    }))
}

/// The name of the rule's call, if the rule is what lets this one through.
fn lets_through(rule: &Rule, call: &Call<'_>) -> Option<&'static str> {
    let syscall = rule.syscalls.iter().find(|syscall| syscall.name == call.name)?;
    let holds = |condition: &Condition| {
        // The process of the trace had another id than this one.
        condition.test == Test::Is(Value::OwnPid) || condition.holds(&call.arguments)
    };
    rule.when.iter().all(holds).then_some(syscall.name)
}

/// `4711 read(0x3, 0x7ffc, 0x10) = 0x10`, also unfinished ones; nothing for signals, exits and
/// the second half of what was unfinished.
fn parse(line: &str) -> Option<Call<'_>> {
    let (thread, rest) = line.split_once(' ')?;
    let (name, rest) = rest.trim_start().split_once('(')?;
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if name.is_empty() || !name.chars().all(is_name) {
        return None;
    }
    let end = rest.find([')', '<']).unwrap_or(rest.len());
    let mut arguments = [0; ARGUMENTS];
    for (argument, text) in arguments.iter_mut().zip(rest[..end].split(',')) {
        let text = text.trim();
        *argument = match text.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16).ok()?,
            None if text.is_empty() => 0,
            None => text.parse().ok()?,
        };
    }
    Some(Call { thread: thread.parse().ok()?, name, arguments })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_strace_are_read() {
        let call = parse("4711 openat(0xffffff9c, 0x7ffc0, 0x80000) = 0x3").unwrap();
        assert_eq!((call.thread, call.name), (4711, "openat"));
        assert_eq!(call.arguments, [0xffff_ff9c, 0x7_ffc0, 0x8_0000, 0, 0, 0]);
        let unfinished = parse("12 futex(0x1, 0x80, 0 <unfinished ...>").unwrap();
        assert_eq!(unfinished.arguments[..3], [1, 0x80, 0]);
        assert_eq!(parse("12 getpid() = 0xc").unwrap().arguments, [0; ARGUMENTS]);
        for line in [
            "12 <... futex resumed>) = 0x1",
            "12 --- SIGTERM {si_signo=SIGTERM, si_code=SI_USER} ---",
            "12 +++ exited with 0 +++",
            "",
            "x read(0x1)",
        ] {
            assert_eq!(parse(line), None, "{line}");
        }
    }

    #[test]
    fn only_what_comes_after_lock_down_counts() {
        let trace = tempfile::NamedTempFile::new().unwrap();
        let text = "1 read(0x1, 0x2, 0x3) = 0x0\n1 seccomp(0x1, 0x1, 0x7f) = 0x0\n\
                    1 getpid() = 0x1\n2 openat(0xffffff9c, 0x1, 0x0) = 0x4\n\
                    2 openat(0xffffff9c, 0x1, 0x1) = -1\n1 tgkill(0x1, 0x1, 0x6) = 0x0\n";
        std::fs::write(trace.path(), text).unwrap();
        let report = report(&Policy::named("llm").unwrap(), trace.path()).unwrap();
        assert_eq!(report["calls_after_lock_down"], 4);
        let names = |list: &str| -> Vec<String> {
            let list = report[list].as_array().unwrap();
            list.iter().map(|entry| entry["syscall"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(names("used").len(), 3);
        assert!(names("used").contains(&"openat".to_owned()));
        assert!(names("never_used").contains(&"read".to_owned()));
    }
}
