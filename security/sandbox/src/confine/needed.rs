//! Whether what surrounds the process lets through the calls that its policy allows. A container's
//! seccomp profile that lost a rule would otherwise show itself as a service that fails somewhere,
//! or hangs; asked before the first step, it stops the start with the name of the call.
//!
//! It makes harmless calls only and changes nothing.

use std::collections::BTreeSet;

use crate::attempt::{self, Attempt, Observed};
use crate::error::SandboxError;
use crate::policy::{Policy, Step, Verdict};

/// Calls that have an effect whatever their arguments are, or whose try needs a handler or a
/// second thread.
const NOT_ASKED: [&str; 7] =
    ["alarm", "clone", "rt_sigreturn", "setpgid", "setsid", "umask", "wait4"];

/// Fails with the names of all calls that the policy allows and that come back as if they did not
/// exist (ENOSYS) or were forbidden (EPERM).
pub(super) fn require(policy: &Policy) -> Result<(), SandboxError> {
    let refused: BTreeSet<&str> = attempt::derive(policy, Step::LockDown)
        .iter()
        .filter(|attempt| attempt.named && attempt.expected == Verdict::Allowed)
        .filter(|attempt| is_asked(attempt) && is_refused(attempt))
        .map(Attempt::name)
        .collect();
    if refused.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = refused.iter().map(|name| format!("`{name}`")).collect();
    let (policy, calls) = (policy.name().to_owned(), names.join(", "));
    Err(SandboxError::CallsRefused { policy, calls })
}

fn is_asked(attempt: &Attempt) -> bool {
    attempt.is_harmless_unfiltered() && !NOT_ASKED.contains(&attempt.name())
}

fn is_refused(attempt: &Attempt) -> bool {
    matches!(attempt.perform(), Observed::Failed(libc::EPERM | libc::ENOSYS))
}
