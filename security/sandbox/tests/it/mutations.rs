//! Each call that a policy allows, taken away by a filter around the process, as a container's
//! profile that lost the rule would: the start is refused, nothing was tried, and the message names
//! the call.

use std::collections::BTreeSet;

use aisemble_sandbox::policy::{NAMES, Policy};

use crate::kernels::without_call;
use crate::probe::{ending, text};

/// Without these the program does not come as far as its first line, or cannot say anything: they
/// fail closed without words of ours.
const BEFORE_MAIN: [&str; 9] = [
    "brk",
    "mmap",
    "mprotect",
    "munmap",
    "poll",
    "rt_sigaction",
    "sigaltstack",
    "write",
    "set_robust_list",
];

/// `clone` makes the first thread, `exit` and `exit_group` end one and all, `rt_sigreturn` ends a
/// signal handler: they have no harmless form before the sandbox is in force.
const HAVE_NO_HARMLESS_FORM: [&str; 4] = ["clone", "exit", "exit_group", "rt_sigreturn"];

#[test]
fn a_needed_call_that_is_missing_stops_the_start_and_is_named() {
    let mut named: u32 = 0;
    for policy in NAMES {
        let parsed = Policy::named(policy).unwrap();
        let calls: BTreeSet<_> = parsed
            .allowed()
            .iter()
            .flat_map(|rule| &rule.syscalls)
            .filter_map(|syscall| syscall.number.map(|number| (syscall.name, number)))
            .filter(|(name, _)| !HAVE_NO_HARMLESS_FORM.contains(name))
            .collect();
        for (name, number) in calls {
            // The default answer of a container's profile, and for one policy that of its refusals.
            let errnos = if policy == NAMES[0] { 2 } else { 1 };
            for errno in [libc::ENOSYS, libc::EPERM].into_iter().take(errnos) {
                let what = format!("{policy} without {name} (errno {errno})");
                let arguments = format!("--policy {policy} --stage 2 try ptrace");
                // Not to be started at all is closed, too.
                let Ok(output) = without_call(&arguments, number, errno) else { continue };
                let said = text(&output);
                assert_ne!(ending(output.status), "exit 0", "{what}: {said}");
                assert!(output.stdout.is_empty(), "{what}: something was tried: {said}");
                let is_named = said.contains(&format!("`{name}`"));
                // 127: a dynamic loader that could not do its work, in a build that has one.
                let has_begun = ending(output.status) != "exit 127" && !BEFORE_MAIN.contains(&name);
                assert!(is_named || !has_begun, "{what} is not named: {said}");
                if is_named {
                    assert_eq!(ending(output.status), "exit 3", "{what}: {said}");
                    assert!(said.contains("seccomp profile around this process"), "{said}");
                    named += 1;
                }
            }
        }
    }
    assert!(named > 200, "only {named} refusals named their call");
}
