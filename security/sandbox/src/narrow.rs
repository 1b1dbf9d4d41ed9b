//! A child of a confined process that gives up more than its parent did: a smaller Landlock domain
//! inside the parent's, and a filter on top of the parent's. It knows no single rule.

use crate::error::SandboxError;
use crate::landlock_domain::{self, Paths};
use crate::policy::Policy;
use crate::{filter, process};

/// Confines a process that was forked from a confined one, before it does anything else: from here
/// on only `paths` and what the policy reads, as far as the parent had it, and only the calls that
/// the policy's second step allows, as far as the parent had them.
///
/// The caller must be the only thread of its process: Landlock binds the calling thread and those
/// it makes later.
///
/// # Errors
/// Any; the process is then confined in part and must end.
pub fn narrow(policy: &Policy, paths: &Paths) -> Result<(), SandboxError> {
    let programs = filter::compile(policy)?;
    let landlock_abi = landlock_domain::kernel_abi()?;
    let grants = landlock_domain::open_grants(policy, paths)?;
    process::refuse_new_privileges()?;
    landlock_domain::enforce(landlock_abi, &grants)?;
    filter::install_on_this_thread(std::slice::from_ref(&programs.lock_down))
}
