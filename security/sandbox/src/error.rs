//! What can go wrong while a process confines itself. Every case stops the start: there is no
//! variant that a caller should continue after.

use std::io;
use std::path::PathBuf;

/// Why the sandbox could not be put in force. A service that gets one exits.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// No policy of this name is built in.
    #[error("no sandbox policy is named `{name}`: the known ones are {known}")]
    UnknownPolicy {
        /// The name that was asked for.
        name: String,
        /// The names that exist, separated by commas.
        known: String,
    },
    /// The policy text is not valid.
    #[error("sandbox policy `{name}` is not valid: {reason}")]
    InvalidPolicy {
        /// The policy's name, or the file it was read as.
        name: String,
        /// What is wrong, and where.
        reason: String,
    },
    /// The policy is valid but does not compile to a filter.
    #[error("sandbox policy `{policy}` does not compile to a seccomp filter")]
    Compile {
        /// The policy's name.
        policy: String,
        /// What seccompiler says.
        #[source]
        source: seccompiler::BackendError,
    },
    /// `confine` was called too late.
    #[error(
        "the sandbox must be in force before the first thread starts, but this process already \
         has {threads} threads"
    )]
    ThreadsRunning {
        /// How many threads the process has, the caller included.
        threads: u32,
    },
    /// `confine` was called a second time.
    #[error("this process is already confined by policy `{policy}`")]
    AlreadyConfined {
        /// The policy in force.
        policy: String,
    },
    /// A question about the sandbox was asked before `confine`.
    #[error("this process is not confined")]
    NotConfined,
    /// A container's seccomp profile, or the kernel, lacks calls that the policy allows.
    #[error(
        "the seccomp profile around this process, or the kernel, refuses {calls}, which policy \
         `{policy}` needs"
    )]
    CallsRefused {
        /// The policy's name.
        policy: String,
        /// The calls, each in backticks.
        calls: String,
    },
    /// The kernel has no Landlock, or it is switched off.
    #[error(
        "this kernel offers no Landlock ({detail}): ai-semble needs Linux 6.7 or later with \
         `landlock` in the boot parameter lsm= (see /sys/kernel/security/lsm)"
    )]
    LandlockMissing {
        /// ENOSYS: not built in; EOPNOTSUPP: not enabled at boot.
        detail: String,
    },
    /// The kernel's Landlock cannot do what is required.
    #[error(
        "this kernel's Landlock has ABI {found}, but ABI {required} (Linux 6.7) is needed to \
         refuse TCP"
    )]
    LandlockTooOld {
        /// What the kernel reports.
        found: u32,
        /// What is needed.
        required: u32,
    },
    /// The kernel took the ruleset but would not enforce all of it.
    #[error("Landlock is in force only in part: {status}")]
    LandlockPartial {
        /// The status that the kernel reported.
        status: String,
    },
    /// A path that the service is to be allowed does not exist or cannot be opened.
    #[error("the sandbox cannot allow {purpose} in `{path}`: it does not exist or cannot be opened", path = path.display())]
    Path {
        /// The path as it was given.
        path: PathBuf,
        /// `reading`, `writing` or `sockets`.
        purpose: &'static str,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// A rule was refused by the kernel or by the landlock crate.
    #[error("Landlock refused the rules")]
    Landlock {
        /// What it says.
        #[source]
        source: Box<landlock::RulesetError>,
    },
    /// A filter was not accepted.
    #[error("the kernel did not take the seccomp filter of {step}")]
    Seccomp {
        /// `confine` or `lock_down`.
        step: &'static str,
        /// What seccompiler says.
        #[source]
        source: seccompiler::Error,
    },
    /// Another system call of the start failed.
    #[error("{call} failed")]
    System {
        /// The call and its purpose.
        call: &'static str,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// The kernel does not report what was just set.
    #[error("the sandbox is not in force: {field} is {found}, not {expected}")]
    NotInForce {
        /// The field of `/proc/self/status`, or the limit, that was read back.
        field: &'static str,
        /// What it says.
        found: u64,
        /// What it must say.
        expected: u64,
    },
}
