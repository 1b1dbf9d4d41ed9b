//! When a process must not start: a kernel without Landlock or with too little of it, a second
//! thread, a path that is not there, an unknown policy, a wrong command line.

use std::process::Output;

use crate::kernels::{with_landlock_abi, without_landlock};
use crate::probe::{ending, run, text};

fn refused(output: &Output, code: u8, expect: &str) {
    let text = text(output);
    assert_eq!(ending(output.status), format!("exit {code}"), "{text}");
    assert!(text.contains(expect), "{text}\nexpected: {expect}");
    assert!(output.stdout.is_empty(), "nothing was tried: {text}");
}

#[test]
fn a_kernel_without_landlock_refuses_the_start() {
    for (errno, says) in
        [(libc::ENOSYS, "Function not implemented"), (libc::EOPNOTSUPP, "Operation not supported")]
    {
        for stage in [1, 2] {
            let output = without_landlock(&format!("--stage {stage} all"), errno);
            refused(&output, 3, "this kernel offers no Landlock");
            assert!(text(&output).contains(says), "{}", text(&output));
            assert!(text(&output).contains("Linux 6.7"), "{}", text(&output));
        }
    }
}

#[test]
fn a_kernel_with_too_little_landlock_refuses_the_start() {
    for abi in [1, 3] {
        let output = with_landlock_abi("all", abi);
        refused(&output, 3, &format!("Landlock has ABI {abi}, but ABI 4"));
    }
}

#[test]
fn a_second_thread_refuses_the_start() {
    refused(&run("--threads-first all"), 3, "already has 2 threads");
}

#[test]
fn a_path_that_is_not_there_is_named() {
    refused(&run("--read /nowhere/model.gguf all"), 3, "reading in `/nowhere/model.gguf`");
    refused(&run("--read-write /nowhere/data all"), 3, "writing in `/nowhere/data`");
    refused(&run("--sockets /nowhere/run all"), 3, "sockets in `/nowhere/run`");
    refused(&run("--sockets /proc/version all"), 3, "sockets in `/proc/version`");
}

#[test]
fn an_unknown_policy_is_refused() {
    refused(&run("--policy confine all"), 3, "the known ones are llm, ");
}

#[test]
fn a_wrong_command_line_says_so() {
    for (arguments, expect) in [
        ("", "no command"),
        ("try", "at least one"),
        ("try nothing", "`nothing` is no system call and no deed"),
        ("try tcp-bind=many", "not a port"),
        ("try dance=x", "`dance` is not a deed"),
        ("--stage 3 all", "`--stage 3`: 0, 1 or 2"),
        ("--stage", "`--stage` needs a value"),
        ("--on moon all", "main, early or late"),
        ("--colour all", "`--colour` is not an option"),
        ("all more", "`all` takes nothing more"),
    ] {
        refused(&run(arguments), 2, expect);
        assert!(text(&run(arguments)).contains("hint: "));
    }
    let help = run("--help");
    assert_eq!(ending(help.status), "exit 0");
    assert!(text(&help).contains("Usage: ai-semble-sandbox-probe"));
}
