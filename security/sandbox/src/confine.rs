//! The order of the two steps, and the proof after each that the kernel has done what was asked.
//! Everything is checked, compiled and opened first; then it is refused, from the mildest to the
//! strictest. It knows no single rule: those are the policy's.

mod needed;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::SandboxError;
use crate::filter;
use crate::landlock_domain::{self, Grant, Paths};
use crate::policy::{Policy, Step};
use crate::process;
use crate::report::{Report, report_of};

/// What this process is confined by: a fact about the process, hence a static.
static STATE: OnceLock<State> = OnceLock::new();

/// `SECCOMP_MODE_FILTER` as `/proc/self/status` prints it.
const MODE_FILTER: u32 = 2;

/// What stays known for the life of the process.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) policy: Policy,
    pub(crate) landlock_abi: u32,
    pub(crate) status: File,
    pub(crate) locked_down: AtomicBool,
    /// See [`Grant`].
    _granted: Vec<OwnedFd>,
}

impl State {
    pub(crate) fn step(&self) -> Step {
        if self.locked_down.load(Ordering::Acquire) { Step::LockDown } else { Step::Confine }
    }
}

/// The state of this process.
pub(crate) fn state() -> Result<&'static State, SandboxError> {
    STATE.get().ok_or(SandboxError::NotConfined)
}

/// A process after the first step. Dropping it leaves the process confined for ever.
#[derive(Debug)]
#[must_use = "a service locks down once it is warm"]
pub struct Confined {
    state: &'static State,
    lock_down: seccompiler::BpfProgram,
}

/// The first step, from the first lines of `main`: no core dumps, not dumpable, no new
/// privileges, no capabilities, Landlock with everything that this kernel offers (ABI 4 at least),
/// and the filter of what no service ever does.
///
/// # Errors
/// Any; the process is then confined in part and must end. `ThreadsRunning` if a second thread
/// exists, because Landlock binds only the calling thread and those it makes later.
pub fn confine(policy: &Policy, paths: &Paths) -> Result<Confined, SandboxError> {
    if let Some(state) = STATE.get() {
        return Err(SandboxError::AlreadyConfined { policy: state.policy.name().to_owned() });
    }
    needed::require(policy)?;
    let status = process::open_status()?;
    let process::Status { threads, capabilities, .. } = process::read_status(&status)?;
    if threads != 1 {
        return Err(SandboxError::ThreadsRunning { threads });
    }
    let programs = filter::compile(policy)?;
    let landlock_abi = landlock_domain::kernel_abi()?;
    let grants = landlock_domain::open_grants(policy, paths)?;

    process::refuse_core_dumps()?;
    process::refuse_dumps()?;
    process::refuse_new_privileges()?;
    // A container has none, and its own filter refuses the call.
    if capabilities != 0 {
        process::drop_capabilities()?;
    }
    landlock_domain::enforce(landlock_abi, &grants)?;
    filter::install_on_this_thread(&programs.confine)?;

    let state = STATE.get_or_init(|| State {
        policy: policy.clone(),
        landlock_abi,
        status,
        locked_down: AtomicBool::new(false),
        _granted: grants.into_iter().map(Grant::into_fd).collect(),
    });
    require_in_force(state)?;
    Ok(Confined { state, lock_down: programs.lock_down })
}

impl Confined {
    /// The second step, once the model is loaded and warm: from here on only the calls that the
    /// policy allows, on every thread of the process and those made later.
    ///
    /// # Errors
    /// Any; the process must then end. `Seccomp` also when a thread cannot be reached.
    pub fn lock_down(self) -> Result<Report, SandboxError> {
        let before = process::read_status(&self.state.status)?.seccomp_filters;
        filter::install_on_all_threads(&self.lock_down)?;
        self.state.locked_down.store(true, Ordering::Release);
        let report = require_in_force(self.state)?;
        // Kernels before 5.9 do not count filters and report 0.
        if before > 0 {
            let (found, expected) = (report.seccomp_filters, before + 1);
            require("Seccomp_filters", u64::from(found), u64::from(expected))?;
        }
        Ok(report)
    }
}

fn require_in_force(state: &State) -> Result<Report, SandboxError> {
    let report = report_of(state)?;
    require("NoNewPrivs", u64::from(report.no_new_privs), 1)?;
    require("Seccomp", u64::from(report.seccomp_mode), u64::from(MODE_FILTER))?;
    require("CapPrm and CapEff", process::read_status(&state.status)?.capabilities, 0)?;
    require("PR_GET_DUMPABLE", process::dumpable()?, 0)?;
    let (soft, hard) = process::core_limits()?;
    require("RLIMIT_CORE (soft)", soft, 0)?;
    require("RLIMIT_CORE (hard)", hard, 0)?;
    Ok(report)
}

fn require(field: &'static str, found: u64, expected: u64) -> Result<(), SandboxError> {
    if found == expected {
        Ok(())
    } else {
        Err(SandboxError::NotInForce { field, found, expected })
    }
}
