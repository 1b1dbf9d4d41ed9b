//! The two steps of confinement as a start takes them, with what they say in the log.

use aisemble_sandbox::{Confined, Paths, Policy, Report};

use crate::StartError;

/// Step 1, before any thread exists: Landlock on `paths`, the first seccomp filter of the policy of
/// that name, no new privileges, no core dumps.
///
/// # Errors
/// When the kernel lacks something (Landlock most likely) or refuses; the process must not go on.
pub fn confine(policy: &str, paths: &Paths) -> Result<Confined, StartError> {
    let refused = |source| {
        StartError::failed("the sandbox cannot be put in force").with_source(source).with_hint(
            "Linux 6.7 or newer with Landlock is needed: `landlock` in /sys/kernel/security/lsm",
        )
    };
    let rules = Policy::named(policy).map_err(refused)?;
    let confined = aisemble_sandbox::confine(&rules, paths).map_err(refused)?;
    let report = aisemble_sandbox::report();
    tracing::info!(
        sandbox.policy = policy,
        sandbox.landlock_abi = report.landlock_abi,
        sandbox.seccomp_filters = report.seccomp_filters,
        sandbox.no_new_privs = report.no_new_privs,
        "confined, Landlock ABI {}",
        report.landlock_abi
    );
    Ok(confined)
}

/// Step 2, when everything that serving needs is open: the tight filter, on all threads.
///
/// # Errors
/// When the kernel refuses; the process must not serve.
pub fn lock_down(confined: Confined) -> Result<Report, StartError> {
    let report = confined.lock_down().map_err(|source| {
        StartError::failed("the sandbox cannot be tightened").with_source(source)
    })?;
    tracing::info!(
        sandbox.policy = report.policy,
        sandbox.seccomp_mode = report.seccomp_mode,
        sandbox.seccomp_filters = report.seccomp_filters,
        sandbox.locked_down = report.locked_down,
        "locked down"
    );
    Ok(report)
}
