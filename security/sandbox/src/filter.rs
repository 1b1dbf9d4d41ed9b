//! Compiles a policy's two steps to seccomp programs and installs them. It knows seccompiler and
//! the order in which filters must be stacked; what is allowed it takes from the policy.

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

use crate::error::SandboxError;
use crate::policy::{Condition, Policy, Rule, Test};

/// The programs of both steps. They are compiled before anything is refused, so that a policy
/// that does not compile stops the start with nothing half done.
#[derive(Debug)]
pub(crate) struct Programs {
    /// In the order of installation.
    pub(crate) confine: Vec<BpfProgram>,
    pub(crate) lock_down: BpfProgram,
}

pub(crate) fn compile(policy: &Policy) -> Result<Programs, SandboxError> {
    compile_programs(policy)
        .map_err(|source| SandboxError::Compile { policy: policy.name().to_owned(), source })
}

fn compile_programs(policy: &Policy) -> Result<Programs, BackendError> {
    // A seccompiler program kills the process when the call is of another architecture.
    let mut confine = other_abi_guard();
    let refusals = [(policy.not_implemented(), libc::ENOSYS), (policy.refused(), libc::EPERM)];
    for (rules, errno) in refusals {
        if !rules.is_empty() {
            confine.push(program(rules.iter(), SeccompAction::Allow, refusal(errno))?);
        }
    }
    // When two filters answer with an errno the newer one's counts, so the newer one lets through
    // what the older answers with ENOSYS.
    let allowed = policy.allowed().iter().chain(policy.not_implemented());
    let lock_down = program(allowed, refusal(libc::EPERM), SeccompAction::Allow)?;
    Ok(Programs { confine, lock_down })
}

fn refusal(errno: i32) -> SeccompAction {
    SeccompAction::Errno(errno.unsigned_abs())
}

fn program<'a>(
    rules: impl Iterator<Item = &'a Rule>,
    otherwise: SeccompAction,
    on_match: SeccompAction,
) -> Result<BpfProgram, BackendError> {
    let mut chains: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for rule in rules {
        let conditions = rule.when.iter().map(condition).collect::<Result<Vec<_>, _>>()?;
        // Not a call of this architecture: nothing to match.
        for number in rule.syscalls.iter().filter_map(|syscall| syscall.number) {
            let chain = chains.entry(number).or_default();
            if !conditions.is_empty() {
                chain.push(SeccompRule::new(conditions.clone())?);
            }
        }
    }
    SeccompFilter::new(chains, otherwise, on_match, target()?)?.try_into()
}

fn target() -> Result<TargetArch, BackendError> {
    std::env::consts::ARCH.try_into()
}

fn condition(condition: &Condition) -> Result<SeccompCondition, BackendError> {
    let length = if condition.wide { SeccompCmpArgLen::Qword } else { SeccompCmpArgLen::Dword };
    let (operator, value) = match condition.test {
        Test::Is(value) => (SeccompCmpOp::Eq, value.resolve()),
        Test::IsNot(value) => (SeccompCmpOp::Ne, value.resolve()),
        Test::Bits { mask, are } => (SeccompCmpOp::MaskedEq(mask), are),
    };
    SeccompCondition::new(condition.argument, length, operator, value)
}

/// The x32 calls of x86-64 have the same architecture number and other call numbers; a filter of
/// refusals would not see them. Nothing of ours makes one, so the process is killed.
#[cfg(target_arch = "x86_64")]
fn other_abi_guard() -> Vec<BpfProgram> {
    use seccompiler::sock_filter;

    /// `BPF_LD | BPF_W | BPF_ABS` of `linux/bpf_common.h`.
    const LOAD_WORD: u16 = 0x20;
    /// `BPF_JMP | BPF_JGE | BPF_K`
    const JUMP_IF_AT_LEAST: u16 = 0x35;
    /// `BPF_RET | BPF_K`
    const RETURN: u16 = 0x06;
    /// Where `struct seccomp_data` holds the call's number.
    const NUMBER_OFFSET: u32 = 0;
    /// `__X32_SYSCALL_BIT`
    const X32_BIT: u32 = 0x4000_0000;

    let statement = |code, k| sock_filter { code, jt: 0, jf: 0, k };
    vec![vec![
        statement(LOAD_WORD, NUMBER_OFFSET),
        sock_filter { code: JUMP_IF_AT_LEAST, jt: 0, jf: 1, k: X32_BIT },
        statement(RETURN, libc::SECCOMP_RET_KILL_PROCESS),
        statement(RETURN, libc::SECCOMP_RET_ALLOW),
    ]]
}

#[cfg(not(target_arch = "x86_64"))]
fn other_abi_guard() -> Vec<BpfProgram> {
    Vec::new()
}

/// Installs the first step's programs on the calling thread, the only one.
pub(crate) fn install_on_this_thread(programs: &[BpfProgram]) -> Result<(), SandboxError> {
    programs.iter().try_for_each(|program| {
        seccompiler::apply_filter(program)
            .map_err(|source| SandboxError::Seccomp { step: "confine", source })
    })
}

/// Installs the second step's program on every thread at once, or on none.
pub(crate) fn install_on_all_threads(program: &BpfProgram) -> Result<(), SandboxError> {
    seccompiler::apply_filter_all_threads(program)
        .map_err(|source| SandboxError::Seccomp { step: "lock_down", source })
}

#[cfg(test)]
mod tests;
