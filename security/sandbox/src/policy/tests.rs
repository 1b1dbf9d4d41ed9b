//! Tests of policy texts: what is refused and with which words, and what the built-in ones say.

use proptest::prelude::*;

use super::*;
use crate::attempt;

fn with_rule(rule: &str) -> String {
    format!(r#"{{"comment": "c", "lock_down": {{"allowed": [{rule}]}}}}"#)
}

fn refused(text: &str, expect: &str) {
    let error = Policy::parse("test", text).expect_err(text).to_string();
    assert!(error.contains(expect), "{text}\n-> {error}\nexpected: {expect}");
    assert!(error.starts_with("sandbox policy `test` is not valid: "), "{error}");
}

#[test]
fn a_text_that_is_not_a_policy_is_refused_with_the_place() {
    refused("", "EOF");
    refused("[]", "not the expected JSON");
    refused(r#"{"comment": ""}"#, "comment");
    refused(r#"{"comment": "c", "surprise": 1}"#, "unknown field `surprise`");
    refused(r#"{"comment": "c", "includes": ["other"]}"#, "`other`, which is not built in");
    refused(r#"{"comment": "c", "includes": ["llm"]}"#, "`llm`, which includes others");
    let read = r#"{"comment": "c", "read": [{"path": "etc", "required": true, "comment": "c"}]}"#;
    refused(read, "`etc` is not an absolute path");
    refused(&read.replace("etc", "/a/../b"), "`/a/../b` is not an absolute path");
    refused(&format!("{{\"comment\": \"{}\"}}", "x".repeat(300_000)), "300015 bytes");
}

#[test]
fn a_rule_with_a_mistake_is_refused_with_its_place() {
    let refused_rule = |rule: &str, expect| refused(&with_rule(rule), expect);
    refused_rule(r#"{"syscalls": ["reed"], "comment": "c"}"#, "[0]: `reed` is not a system call");
    refused_rule(r#"{"syscalls": [], "comment": "c"}"#, "no system call is named");
    refused_rule(r#"{"syscalls": ["read"]}"#, "missing field `comment`");
    refused_rule(r#"{"syscalls": ["read"], "comment": " "}"#, "comment is missing");
    refused_rule(r#"{"syscalls": ["read"], "comment": "c", "x": 1}"#, "unknown field `x`");
    let refused_condition = |condition: &str, expect| {
        let rule = r#"{"syscalls": ["read"], "comment": "c", "when": [CONDITION]}"#;
        refused(&with_rule(&rule.replace("CONDITION", condition)), expect);
    };
    refused_condition(r#"{"argument": 6, "is": 1}"#, "argument 6 does not exist");
    refused_condition(r#"{"argument": 0}"#, "either `is`, or `is_not`");
    refused_condition(r#"{"argument": 0, "is": 1, "is_not": 2}"#, "either `is`, or `is_not`");
    refused_condition(r#"{"argument": 0, "bits": 4}"#, "either `is`, or `is_not`");
    refused_condition(r#"{"argument": 0, "bits": 4, "are": 3}"#, "can never be 0x3");
    refused_condition(r#"{"argument": 0, "bits": 0, "are": 0}"#, "can never be");
    refused_condition(r#"{"argument": 0, "is": "AF_UNIKS"}"#, "`AF_UNIKS` is not a constant");
    refused_condition(r#"{"argument": 0, "is": 4294967296}"#, "needs `wide`");
    refused_condition(r#"{"argument": 0, "is": -1}"#, "not the expected JSON");
}

#[test]
fn rules_that_repeat_or_contradict_each_other_are_refused() {
    let read = r#"{"syscalls": ["read"], "comment": "c"}"#;
    let some = r#"{"syscalls": ["read"], "when": [{"argument": 0, "is": 1}], "comment": "c"}"#;
    for pair in [[read, read], [some, some], [read, some], [some, read]] {
        refused(&with_rule(&pair.join(",")), "`read` is in lock_down.allowed more than once");
    }
    let both = r#"{"comment": "c", "confine": {"refused": [RULE]},
        "lock_down": {"allowed": [RULE]}}"#;
    refused(&both.replace("RULE", read), "`read` is allowed by lock_down but refused by confine");
    let absent = r#"{"comment": "c", "confine": {"not_implemented": [RULE]}}"#;
    refused(&absent.replace("RULE", some), "not supported");
}

#[test]
fn the_built_in_policies_are_valid_and_others_are_not_known() {
    for name in NAMES {
        let policy = Policy::named(name).unwrap();
        assert_eq!(policy.name(), name);
        assert!(!policy.read().is_empty() && !policy.refused().is_empty());
        assert!(!policy.allowed().is_empty() && !policy.not_implemented().is_empty());
    }
    for name in ["confine", "runtime", "", "../llm"] {
        let error = Policy::named(name).unwrap_err().to_string();
        assert!(error.contains(&NAMES.join(", ")), "{error}");
    }
}

#[test]
fn each_condition_of_each_rule_makes_a_difference() {
    for (name, step) in NAMES.into_iter().flat_map(|n| [(n, Step::Confine), (n, Step::LockDown)]) {
        let policy = Policy::named(name).unwrap();
        let attempts = attempt::derive(&policy, step);
        let rules = match step {
            Step::Confine => policy.refused(),
            Step::LockDown => policy.allowed(),
        };
        for rule in rules.iter().filter(|rule| !rule.when.is_empty()) {
            for syscall in rule.syscalls.iter().filter(|s| s.number.is_some()) {
                let verdicts: Vec<_> = attempts
                    .iter()
                    .filter(|a| a.rule == rule.comment && a.name() == syscall.name)
                    .map(|attempt| attempt.expected)
                    .collect();
                let refusals = verdicts.iter().filter(|v| **v != Verdict::Allowed).count();
                let place = format!("{name} {step:?}: {} ({})", syscall.name, rule.comment);
                assert!(refusals > 0, "nothing is refused: {place}");
                assert!(refusals < verdicts.len(), "nothing is allowed: {place}");
            }
        }
    }
}

#[test]
fn the_dangerous_set_is_refused_by_every_policy_from_the_first_step_on() {
    let dangerous = "ptrace process_vm_readv process_vm_writev pidfd_getfd kcmp bpf \
        perf_event_open userfaultfd io_uring_setup io_uring_enter io_uring_register keyctl add_key \
        request_key kexec_load kexec_file_load init_module finit_module delete_module mount \
        umount2 move_mount open_tree fsopen fsconfig fsmount fspick mount_setattr pivot_root \
        chroot unshare setns execve execveat reboot swapon swapoff personality acct quotactl iopl \
        ioperm memfd_secret name_to_handle_at open_by_handle_at";
    let any = [u64::MAX; ARGUMENTS];
    for (name, step) in NAMES.into_iter().flat_map(|n| [(n, Step::Confine), (n, Step::LockDown)]) {
        let policy = Policy::named(name).unwrap();
        for call in dangerous.split_whitespace() {
            let Some(number) = syscalls::find(call).expect(call).number else { continue };
            let verdict = policy.verdict(step, number, &any);
            assert_eq!(verdict, Verdict::Refused(libc::EPERM), "{name} {step:?} {call}");
        }
        let clone3 = policy.verdict(step, libc::SYS_clone3, &any);
        assert_eq!(clone3, Verdict::Refused(libc::ENOSYS), "{name} {step:?}");
    }
}

#[test]
fn only_the_orchestrator_writes_and_connects_once_locked_down() {
    let verdict = |name: &str, call, arguments| {
        Policy::named(name).unwrap().verdict(Step::LockDown, call, &arguments)
    };
    let (eperm, unix) = (Verdict::Refused(libc::EPERM), [libc::AF_UNIX as u64, 1, 0, 0, 0, 0]);
    let create = [0, 0, (libc::O_RDWR | libc::O_CREAT | libc::O_CLOEXEC) as u64, 0o600, 0, 0];
    let read = [0, 0, libc::O_CLOEXEC as u64, 0, 0, 0];
    let cases = [
        (libc::SYS_socket, unix, eperm, Verdict::Allowed),
        (libc::SYS_connect, [3, 0, 0, 0, 0, 0], eperm, Verdict::Allowed),
        (libc::SYS_bind, [3, 0, 0, 0, 0, 0], eperm, eperm),
        (libc::SYS_listen, [3, 0, 0, 0, 0, 0], eperm, eperm),
        (libc::SYS_accept4, [3, 0, 0, 0, 0, 0], Verdict::Allowed, Verdict::Allowed),
        (libc::SYS_openat, create, eperm, Verdict::Allowed),
        (libc::SYS_openat, read, Verdict::Allowed, Verdict::Allowed),
        (libc::SYS_ftruncate, [3, 0, 0, 0, 0, 0], eperm, Verdict::Allowed),
        (libc::SYS_seccomp, [1, 0, 0, 0, 0, 0], eperm, eperm),
        (libc::SYS_kill, [1, 9, 0, 0, 0, 0], eperm, eperm),
        (libc::SYS_tgkill, [1, 1, 9, 0, 0, 0], eperm, eperm),
    ];
    for (call, arguments, llm, orchestrator) in cases {
        assert_eq!(verdict("llm", call, arguments), llm, "llm {call}");
        assert_eq!(verdict("orchestrator", call, arguments), orchestrator, "orchestrator {call}");
    }
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let keys = "comment|includes|read|confine|lock_down|allowed|refused|syscalls|when|argument|is|\
                is_not|bits|are|wide|path|required|[a-z]{0,4}";
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        "(read|openat|AF_UNIX|!?O_RDWR|OWN_PID|llm|confine|/[a-z./]*|\\PC{0,8})"
            .prop_map(Into::into),
    ];
    leaf.prop_recursive(6, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            prop::collection::hash_map(keys, inner, 0..6)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn random_json_never_panics(value in json()) {
        let _ = Policy::parse("random", &value.to_string());
    }

    #[test]
    fn random_text_never_panics(text in "\\PC{0,200}") {
        let _ = Policy::parse("random", &text);
    }

    #[test]
    fn a_damaged_policy_never_panics(at in 0_usize..20_000, with in "\\PC{0,3}", cut in 0_usize..9) {
        let text = include_str!("../../policies/runtime.json");
        let at = at % text.len();
        let end = (at + cut).min(text.len());
        if text.is_char_boundary(at) && text.is_char_boundary(end) {
            let _ = Policy::parse("damaged", &[&text[..at], &with, &text[end..]].concat());
        }
    }
}
