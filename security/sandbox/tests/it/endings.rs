//! How a confined process ends: a panic stays a panic, and a call of another architecture is the
//! only thing that the kernel kills for.

use aisemble_sandbox::policy::NAMES;

use crate::probe::{ending, observed, run, text};

fn check(arguments: &str, expect: &str) {
    for policy in NAMES {
        for stage in [1, 2] {
            let output = run(&format!("--policy {policy} --stage {stage} {arguments}"));
            assert_eq!(ending(output.status), expect, "{policy} {stage}: {}", text(&output));
        }
    }
}

#[test]
fn a_panic_is_reported_with_a_backtrace_and_is_no_seccomp_kill() {
    for policy in NAMES {
        for stage in [1, 2] {
            let mut probe = crate::probe::command("try panic");
            probe.args(["--policy", policy, "--stage", &stage.to_string()]);
            let output = probe.env("RUST_BACKTRACE", "1").output().unwrap();
            let text = text(&output);
            assert_eq!(ending(output.status), "exit 101", "{text}");
            assert!(text.contains("a deliberate panic"), "{text}");
            // A static program finds its names through /proc/self/exe, which Landlock refuses.
            if cfg!(not(target_feature = "crt-static")) {
                assert!(text.contains("deliberate_panic"), "the frames have no names: {text}");
            }
        }
    }
}

#[test]
fn a_panic_on_another_thread_ends_that_thread_only() {
    // The probe goes on without that thread's answer, and says that it did not pass.
    for on in ["early", "late"] {
        let output = run(&format!("--on {on} try panic"));
        assert_eq!(ending(output.status), "exit 1", "{}", text(&output));
        assert!(text(&output).contains("a deliberate panic"), "{}", text(&output));
    }
}

#[test]
fn an_abort_is_sigabrt() {
    check("try abort", "signal 6");
}

#[cfg(target_arch = "x86_64")]
#[test]
fn calls_through_the_32_bit_entry_are_killed() {
    // Without the sandbox the kernel answers, unless it is built without that entry.
    let bare = run("--stage 0 try int80");
    match ending(bare.status).as_str() {
        "exit 0" => check("try int80", "signal 31"),
        other => assert_eq!(other, "signal 11", "{}", text(&bare)),
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn calls_of_the_x32_table_are_killed() {
    check("try x32", "signal 31");
}

#[test]
fn no_core_is_dumped_and_nobody_reads_the_memory() {
    for policy in NAMES {
        assert_eq!(observed(&format!("--policy {policy} --stage 1 try core-limit")), "0 0");
        assert_eq!(observed(&format!("--policy {policy} --stage 1 try dumpable")), "0");
        assert_eq!(observed(&format!("--policy {policy} --stage 2 try dumpable")), "0");
    }
}

#[test]
fn memory_becomes_executable_only_before_lock_down() {
    assert_eq!(observed("--stage 1 try executable-memory"), "ok");
    assert_eq!(observed("--stage 2 try executable-memory"), "EPERM");
}
