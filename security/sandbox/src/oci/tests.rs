//! The profiles in the tree are what the policies say; the second step inside the process never
//! allows what the profile refuses; and nothing that `confine` refuses is allowed but for the
//! start.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::{ALLOW, Profile, START, profile, start};
use crate::policy::{
    ARGUMENTS, CHILDREN, Condition, NAMES, Policy, Rule, Step, Test, Verdict, syscalls,
};

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../seccomp/{name}.json"))
}

fn in_the_tree(name: &str) -> Profile {
    serde_json::from_str(&std::fs::read_to_string(path(name)).unwrap()).unwrap()
}

/// Values at which some condition of some rule changes its mind.
fn telling_values(rules: &[&Rule]) -> Vec<u64> {
    let mut values = BTreeSet::from([0, 1, 2, 3, 16, 17, 40, 0xffff, u64::from(u32::MAX)]);
    for Condition { test, .. } in rules.iter().flat_map(|rule| &rule.when) {
        match *test {
            Test::Is(value) | Test::IsNot(value) => {
                values.extend([value.resolve(), value.resolve() ^ 1]);
            }
            Test::Bits { mask, are } => {
                let one_off = are ^ (mask & mask.wrapping_neg());
                values.extend([are, one_off & u64::from(u32::MAX), mask & u64::from(u32::MAX)]);
            }
        }
    }
    values.into_iter().collect()
}

/// Arguments of `name` that reach every combination of what its rules test.
fn cases(name: &str, policies: [&Policy; 2]) -> Vec<[u64; ARGUMENTS]> {
    let lists = policies.map(|policy| [policy.refused(), policy.allowed()]).concat();
    let naming = |rule: &&Rule| rule.syscalls.iter().any(|syscall| syscall.name == name);
    let rules: Vec<&Rule> = lists.iter().flat_map(|list| list.iter().filter(naming)).collect();
    let tested: BTreeSet<u8> =
        rules.iter().flat_map(|rule| &rule.when).map(|condition| condition.argument).collect();
    let values = telling_values(&rules);
    let mut all = vec![[0; ARGUMENTS]];
    for argument in tested {
        all = all
            .iter()
            .flat_map(|base| {
                values.iter().map(move |value| {
                    let mut next = *base;
                    next[usize::from(argument)] = *value;
                    next
                })
            })
            .collect();
    }
    all
}

fn for_each_call(mut check: impl FnMut(&Policy, &Profile, &str, i64, &[u64; ARGUMENTS])) {
    let start = start();
    for name in NAMES {
        let (policy, profile) = (Policy::named(name).unwrap(), in_the_tree(name));
        for syscall in syscalls::all() {
            let Some(number) = syscall.number else { continue };
            for arguments in cases(syscall.name, [&policy, &start]) {
                check(&policy, &profile, syscall.name, number, &arguments);
            }
        }
    }
}

#[test]
fn the_files_are_made_from_the_policies() {
    for name in NAMES {
        let made = profile(&Policy::named(name).unwrap());
        let text = serde_json::to_string_pretty(&made).unwrap() + "\n";
        if std::env::var_os("AISEMBLE_UPDATE").is_some() {
            std::fs::write(path(name), &text).unwrap();
        }
        let found = std::fs::read_to_string(path(name)).unwrap();
        assert!(found == text, "{name}.json: AISEMBLE_UPDATE=1 cargo test -p aisemble-sandbox oci");
    }
}

#[test]
fn the_second_step_is_inside_the_profile() {
    let mut allowed: u32 = 0;
    for_each_call(|policy, profile, name, number, arguments| {
        if policy.verdict(Step::LockDown, number, arguments) == Verdict::Allowed {
            allowed += 1;
            let verdict = profile.verdict(name, arguments);
            assert_eq!(verdict, Verdict::Allowed, "{} {name} {arguments:x?}", policy.name());
        }
    });
    assert!(allowed > 200, "only {allowed} calls were compared");
}

#[test]
fn what_confine_refuses_is_allowed_only_for_the_start() {
    // What all services need to start, and what one does before it confines itself.
    let own = CHILDREN.iter().filter(|(child, _)| child.ends_with("-start"));
    let mut starts: Vec<(&str, Policy)> =
        own.map(|(child, service)| (*service, Policy::named(child).unwrap())).collect();
    starts.extend(NAMES.map(|name| (name, start())));
    for_each_call(|policy, profile, name, number, arguments| {
        let is_for_start = starts.iter().any(|(service, start)| {
            *service == policy.name()
                && start.verdict(Step::LockDown, number, arguments) == Verdict::Allowed
        });
        match (policy.verdict(Step::Confine, number, arguments), profile.verdict(name, arguments)) {
            (Verdict::Refused(_), Verdict::Allowed) => {
                assert!(is_for_start, "{} {name} {arguments:x?}", policy.name());
            }
            (Verdict::Refused(libc::EPERM), refused) => {
                // An errno that callers know, where it is no question of arguments alone.
                let plain = policy.refused().iter().any(|rule| {
                    rule.when.is_empty() && rule.syscalls.iter().any(|known| known.name == name)
                });
                assert!(!plain || refused == Verdict::Refused(libc::EPERM), "{name} {refused:?}");
            }
            (Verdict::Refused(_) | Verdict::Allowed, _) => {}
        }
    });
}

#[test]
fn a_call_is_named_only_where_the_kernel_has_it_and_says_why() {
    for name in NAMES {
        let profile = in_the_tree(name);
        assert_eq!(profile.default_errno_ret, libc::ENOSYS);
        assert_eq!(profile.architectures, ["SCMP_ARCH_X86_64"]);
        assert!(profile.syscalls.iter().any(|entry| entry.action == ALLOW));
        for entry in &profile.syscalls {
            assert!(!entry.comment.trim().is_empty() && !entry.names.is_empty(), "{entry:?}");
            for call in &entry.names {
                let known = syscalls::find(call).and_then(|syscall| syscall.number);
                assert!(known.is_some(), "{name}: the kernel has no {call}");
            }
        }
    }
    assert!(START.len() < 64 * 1024);
}

#[test]
fn the_families_of_sockets_that_matter_come_back_as_eperm() {
    for name in NAMES {
        let profile = in_the_tree(name);
        for family in [libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK, libc::AF_PACKET] {
            let arguments = [u64::try_from(family).unwrap(), 1, 0, 0, 0, 0];
            let verdict = profile.verdict("socket", &arguments);
            let expected = match (name, family) {
                // Its port, which it opens before it confines itself.
                ("door", libc::AF_INET | libc::AF_INET6) => Verdict::Allowed,
                ("door", _) => Verdict::Refused(libc::ENOSYS),
                _ => Verdict::Refused(libc::EPERM),
            };
            assert_eq!(verdict, expected, "{name} {family}");
        }
        assert_eq!(profile.verdict("socket", &[1, 1, 0, 0, 0, 0]), Verdict::Allowed);
        assert_eq!(profile.verdict("clone3", &[0; 6]), Verdict::Refused(libc::ENOSYS));
        assert_eq!(profile.verdict("not_yet_invented", &[0; 6]), Verdict::Refused(libc::ENOSYS));
    }
}
