//! What the kernel says is in force now, for the start's log line, `Describe` and /metrics. It
//! reads and never changes anything.

use crate::confine::{State, state};
use crate::error::SandboxError;
use crate::policy::Step;
use crate::process;

/// The sandbox of this process, as the kernel reports it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// The kernel's Landlock ABI; everything it offers is enforced.
    pub landlock_abi: u32,
    /// `NoNewPrivs` of `/proc/self/status`.
    pub no_new_privs: bool,
    /// `Seccomp` of `/proc/self/status`: 2 is a filter.
    pub seccomp_mode: u32,
    /// `Seccomp_filters` of `/proc/self/status`; a container's own filter counts too.
    pub seccomp_filters: u32,
    /// The policy's name; empty before `confine`.
    pub policy: String,
    /// Whether the second step is in force.
    pub locked_down: bool,
}

/// The report of this process. Before [`crate::confine`], and for anything that cannot be read,
/// it says what is safe to believe: not in force.
#[must_use]
pub fn report() -> Report {
    state().and_then(report_of).unwrap_or_else(|_unconfined_or_unreadable| Report {
        landlock_abi: 0,
        no_new_privs: false,
        seccomp_mode: 0,
        seccomp_filters: 0,
        policy: String::new(),
        locked_down: false,
    })
}

pub(crate) fn report_of(state: &State) -> Result<Report, SandboxError> {
    let status = process::read_status(&state.status)?;
    Ok(Report {
        landlock_abi: state.landlock_abi,
        no_new_privs: status.no_new_privs == 1,
        seccomp_mode: status.seccomp_mode,
        seccomp_filters: status.seccomp_filters,
        policy: state.policy.name().to_owned(),
        locked_down: state.step() == Step::LockDown,
    })
}
