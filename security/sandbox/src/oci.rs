//! The OCI seccomp profiles of the services, `security/seccomp/<service>.json`, made from the same
//! policies as the filters inside the process, so that there is one truth: what a locked-down
//! service may do, plus what its start needs (`security/seccomp/start.json`), is allowed; what
//! `confine` refuses comes back as EPERM; all else does not exist (ENOSYS).
//!
//! Only a test writes and compares the files: `AISEMBLE_UPDATE=1 cargo test -p aisemble-sandbox
//! oci`. It must not know any container runtime.

mod evaluate;
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::policy::{CHILDREN, Condition, Policy, Rule, Test};

/// What the start needs beside the policies, in their own form.
const START: &str = include_str!("../../seccomp/start.json");

const ALLOW: &str = "SCMP_ACT_ALLOW";
const ERRNO: &str = "SCMP_ACT_ERRNO";

/// A profile in the form that container runtimes read.
#[derive(Debug, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Profile {
    default_action: String,
    default_errno_ret: i32,
    architectures: Vec<String>,
    syscalls: Vec<Entry>,
}

#[derive(Debug, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Entry {
    comment: String,
    names: Vec<String>,
    action: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    errno_ret: Option<i32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    args: Vec<Argument>,
}

#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Argument {
    index: u8,
    value: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value_two: Option<u64>,
    op: String,
}

impl Argument {
    fn of(condition: &Condition) -> Self {
        let width = if condition.wide { u64::MAX } else { u64::from(u32::MAX) };
        let (value, value_two, op) = match condition.test {
            Test::Is(wanted) if condition.wide => (wanted.resolve(), None, "SCMP_CMP_EQ"),
            // An int: what a caller leaves in the upper half of the register does not count.
            Test::Is(wanted) => (width, Some(wanted.resolve()), "SCMP_CMP_MASKED_EQ"),
            Test::IsNot(unwanted) => (unwanted.resolve(), None, "SCMP_CMP_NE"),
            Test::Bits { mask, are } => (mask, Some(are), "SCMP_CMP_MASKED_EQ"),
        };
        Self { index: condition.argument, value, value_two, op: op.to_owned() }
    }
}

/// The start's rules, parsed.
fn start() -> Policy {
    Policy::parse("start", START).expect("start.json is a policy text")
}

/// The profile of one service: what it does and what its children do.
fn profile(policy: &Policy) -> Profile {
    let start = start();
    let mut syscalls = Vec::new();
    for rule in start.allowed() {
        push(rule, ALLOW, &mut syscalls, |_| Some(rule.when.clone()));
    }
    let children: Vec<Policy> = CHILDREN
        .iter()
        .filter(|(_, service)| *service == policy.name())
        .map(|(child, _)| Policy::named(child).expect("a child's policy is built in"))
        .collect();
    let mut before = vec![flattened(start.allowed())];
    for policy in std::iter::once(policy).chain(&children) {
        for rule in policy.allowed() {
            push(rule, ALLOW, &mut syscalls, |name| {
                // Allowed already, whatever the arguments or with these.
                let mut known = before.iter().filter_map(|allowed| allowed.get(name)).flatten();
                let wider = |when: &&[Condition]| when.is_empty() || *when == rule.when.as_slice();
                let kept = !known.any(wider) && !rule.when.iter().any(is_own_pid);
                kept.then(|| without_refused(&rule.when, name, policy))
            });
        }
        before.push(flattened(policy.allowed()));
    }
    let allowed: Vec<(String, Vec<Argument>)> = syscalls
        .iter()
        .flat_map(|entry: &Entry| entry.names.iter().map(|n| (n.clone(), entry.args.clone())))
        .collect();
    for rule in policy.refused() {
        push(rule, ERRNO, &mut syscalls, |name| {
            let refused: Vec<Argument> = rule.when.iter().map(Argument::of).collect();
            let mut same = allowed.iter().filter(|(allowed, _)| allowed == name);
            same.all(|(_, args)| evaluate::disjoint(args, &refused)).then(|| rule.when.clone())
        });
    }
    Profile {
        default_action: ERRNO.to_owned(),
        default_errno_ret: libc::ENOSYS,
        architectures: vec!["SCMP_ARCH_X86_64".to_owned()],
        syscalls,
    }
}

/// Adds the rule's calls, grouped by the conditions that `conditions` leaves of it (none: not at
/// all), and of those that this architecture has.
fn push(
    rule: &Rule,
    action: &str,
    into: &mut Vec<Entry>,
    conditions: impl Fn(&str) -> Option<Vec<Condition>>,
) {
    let mut groups: BTreeMap<Vec<Argument>, Vec<String>> = BTreeMap::new();
    for syscall in rule.syscalls.iter().filter(|syscall| syscall.number.is_some()) {
        let Some(when) = conditions(syscall.name) else { continue };
        let args = when.iter().map(Argument::of).collect();
        groups.entry(args).or_default().push(syscall.name.to_owned());
    }
    into.extend(groups.into_iter().map(|(args, names)| Entry {
        comment: rule.comment.clone(),
        names,
        action: action.to_owned(),
        errno_ret: (action == ERRNO).then_some(libc::EPERM),
        args,
    }));
}

/// What a policy allows is what its rule says without what `confine` refuses of the same call.
fn without_refused(when: &[Condition], name: &str, policy: &Policy) -> Vec<Condition> {
    let allowed: Vec<Argument> = when.iter().map(Argument::of).collect();
    let mut left = when.to_vec();
    for rule in policy.refused() {
        let is_named = rule.syscalls.iter().any(|syscall| syscall.name == name);
        let refused: Vec<Argument> = rule.when.iter().map(Argument::of).collect();
        if is_named && !evaluate::disjoint(&allowed, &refused) {
            left.push(complement(&rule.when, name));
        }
    }
    left
}

/// The opposite of a refusal that has one condition on one bit or one value.
fn complement(when: &[Condition], name: &str) -> Condition {
    let [condition] = when else { panic!("{name}: a refusal that an allowance overlaps") };
    let test = match condition.test {
        Test::Bits { mask, are } if mask.is_power_of_two() && are == mask => {
            Test::Bits { mask, are: 0 }
        }
        Test::IsNot(value) => Test::Is(value),
        Test::Is(_) | Test::Bits { .. } => panic!("{name}: no single opposite"),
    };
    Condition { test, ..*condition }
}

fn is_own_pid(condition: &Condition) -> bool {
    matches!(condition.test, Test::Is(crate::policy::Value::OwnPid))
}

/// The conditions under which each call is named.
fn flattened(rules: &[Rule]) -> BTreeMap<&'static str, Vec<&[Condition]>> {
    let mut all: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for rule in rules {
        for syscall in &rule.syscalls {
            all.entry(syscall.name).or_default().push(rule.when.as_slice());
        }
    }
    all
}
