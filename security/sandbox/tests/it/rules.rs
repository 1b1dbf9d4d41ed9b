//! Every rule of every policy, in both steps, satisfied and altered, on the real kernel. The
//! policy is the table: the probe derives its tries from it.

use aisemble_sandbox::attempt;
use aisemble_sandbox::policy::{NAMES, Policy, Step, Verdict};

use crate::probe::{answers, ending, json, run};

fn check_all(policy: &str, stage: u8, on: &str) {
    let answers = answers(&format!("--policy {policy} --stage {stage} --on {on} all"));
    let wrong: Vec<_> = answers.iter().filter(|answer| !answer.passed).collect();
    assert!(wrong.is_empty(), "{policy}, stage {stage}, {on} thread: {wrong:#?}");
    // Nothing was left out: every derived try is there, but for the two that end the process.
    let step = if stage == 2 { Step::LockDown } else { Step::Confine };
    let derived = attempt::derive(&Policy::named(policy).unwrap(), step);
    let ending =
        derived.iter().filter(|a| a.ends_the_process() && a.expected == Verdict::Allowed).count();
    assert_eq!(ending, if stage == 2 { 2 } else { 0 });
    let raw = answers.iter().filter(|a| a.name.ends_with(", -1)") || a.name.contains(", 0x"));
    assert!(raw.count() >= derived.len() - ending, "{policy} {stage}: some tries are missing");
}

#[test]
fn every_rule_holds_on_the_main_thread() {
    for policy in NAMES {
        check_all(policy, 1, "main");
        check_all(policy, 2, "main");
    }
}

#[test]
fn every_rule_binds_a_thread_made_before_lock_down() {
    for policy in NAMES {
        check_all(policy, 1, "early");
        check_all(policy, 2, "early");
    }
}

#[test]
fn every_rule_binds_a_thread_made_after_lock_down() {
    for policy in NAMES {
        check_all(policy, 2, "late");
    }
}

#[test]
fn exits_are_allowed() {
    for policy in NAMES {
        for call in ["exit", "exit_group"] {
            let output = run(&format!("--policy {policy} --stage 2 try {call}"));
            assert_eq!(ending(output.status), "exit 255", "{policy} {call}");
        }
    }
}

/// A refusal proves something only if the kernel would have answered otherwise.
#[test]
fn what_is_refused_would_have_been_answered_otherwise() {
    for policy in NAMES {
        let bare = answers(&format!("--policy {policy} --stage 0 all"));
        assert!(bare.len() > 140, "{}", bare.len());
        let refused = bare.iter().filter(|a| a.expected == "EPERM" || a.expected == "ENOSYS");
        // Without privileges the kernel itself refuses some with the same errno.
        let is_root = is_root();
        for answer in refused {
            let same = answer.observed == answer.expected;
            assert!(!same || !is_root, "{policy}: {answer:?} is the same without the sandbox");
        }
    }
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

#[test]
fn the_kernel_reports_what_is_in_force() {
    for (stage, locked_down, filters) in [(1, false, 3), (2, true, 4)] {
        let report = &json(&format!("--stage {stage} try socket"))["report"];
        assert_eq!(report["policy"], "llm");
        assert_eq!(report["seccomp_mode"], 2);
        assert_eq!(report["no_new_privs"], true);
        assert_eq!(report["locked_down"], locked_down);
        assert!(report["landlock_abi"].as_u64().unwrap() >= 4);
        // A container's own filter counts too.
        assert!(report["seccomp_filters"].as_u64().unwrap() >= filters, "{report}");
    }
    let report = &json("--stage 0 try socket")["report"];
    assert_eq!((&report["policy"], &report["landlock_abi"]), (&"".into(), &0.into()));
}

#[test]
fn the_self_check_asks_what_matters() {
    for policy in NAMES {
        let answers = answers(&format!("--policy {policy} --stage 2 self-check"));
        assert!(answers.iter().all(|answer| answer.passed), "{answers:#?}");
        let expect = |name: &str, observed: &str| {
            let found = answers.iter().find(|answer| answer.name.starts_with(name));
            let found = found.unwrap_or_else(|| panic!("`{name}` is not asked"));
            assert_eq!(found.observed, observed, "{policy} {name}");
        };
        expect("Seccomp", "2");
        expect("NoNewPrivs", "1");
        expect("capabilities", "0");
        expect("PR_GET_DUMPABLE", "0");
        expect("RLIMIT_CORE", "0");
        for call in ["socket(AF_INET)", "socket(AF_INET6)", "execve", "ptrace", "unshare", "mount"]
        {
            expect(call, "EPERM");
        }
        // Who may open nothing for writing is refused by the filter, who may by Landlock.
        let parsed = Policy::named(policy).unwrap();
        let refused = |flags: i32| {
            let open = [0, 0, u64::from(flags.unsigned_abs()), 0, 0, 0];
            let may = parsed.verdict(Step::LockDown, libc::SYS_openat, &open) == Verdict::Allowed;
            if may { "EACCES" } else { "EPERM" }
        };
        let writing = refused(libc::O_WRONLY);
        expect("open(/proc/self/comm, O_WRONLY)", writing);
        expect("open(/, O_TMPFILE)", writing);
        expect("open(/proc/version, O_RDONLY)", refused(libc::O_RDONLY));
        expect("clone3", "ENOSYS");
        expect("mmap(PROT_EXEC)", "EPERM");
    }
    let unconfined = answers("--stage 0 self-check");
    assert_eq!(unconfined.len(), 1);
    assert!(!unconfined[0].passed && unconfined[0].observed.contains("not confined"));
}
