//! The running process asks itself: what a compromised service would try first, tried for real
//! and compared with what must come back. Harmless where it is allowed, so that it can be asked
//! in production (`SelfCheck` of the gRPC API). It changes nothing.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;

use crate::attempt::{Attempt, Observed, errno_name};
use crate::confine::{State, state};
use crate::error::SandboxError;
use crate::policy::{Step, Verdict};
use crate::process;

/// One question and its answer.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Check {
    /// What was tried, such as `socket(AF_INET)`.
    pub name: String,
    /// What must come back, such as `EPERM` or `0`.
    pub expected: String,
    /// What came back.
    pub observed: String,
    /// Whether they agree.
    pub passed: bool,
}

impl Check {
    fn new(name: impl Into<String>, expected: impl Into<String>, observed: String) -> Self {
        let (name, expected) = (name.into(), expected.into());
        let passed = expected == observed;
        Self { name, expected, observed, passed }
    }
}

/// Raw tries: a name to show, the call, and its first argument where that is the question.
const CALLS: [(&str, &str, Option<i32>); 27] = [
    ("socket(AF_INET)", "socket", Some(libc::AF_INET)),
    ("socket(AF_INET6)", "socket", Some(libc::AF_INET6)),
    ("socket(AF_NETLINK)", "socket", Some(libc::AF_NETLINK)),
    ("socket(AF_PACKET)", "socket", Some(libc::AF_PACKET)),
    ("socket(AF_VSOCK)", "socket", Some(libc::AF_VSOCK)),
    ("socket(AF_ALG)", "socket", Some(libc::AF_ALG)),
    ("socket(AF_UNIX)", "socket", Some(libc::AF_UNIX)),
    ("execve", "execve", None),
    ("execveat", "execveat", None),
    ("ptrace", "ptrace", None),
    ("process_vm_readv", "process_vm_readv", None),
    ("pidfd_getfd", "pidfd_getfd", None),
    ("kcmp", "kcmp", None),
    ("unshare(CLONE_NEWUSER)", "unshare", None),
    ("setns", "setns", None),
    ("mount", "mount", None),
    ("fsopen", "fsopen", None),
    ("pivot_root", "pivot_root", None),
    ("chroot", "chroot", None),
    ("bpf", "bpf", None),
    ("perf_event_open", "perf_event_open", None),
    ("userfaultfd", "userfaultfd", None),
    ("io_uring_setup", "io_uring_setup", None),
    ("keyctl", "keyctl", None),
    ("init_module", "init_module", None),
    ("clone3", "clone3", None),
    ("bind", "bind", None),
];

/// Asks everything. Before [`crate::confine`] there is one failed check that says so.
#[must_use]
pub fn self_check() -> Vec<Check> {
    match state() {
        Ok(state) => checks(state),
        Err(error) => vec![Check::new("confined", "yes", error.to_string())],
    }
}

fn checks(state: &State) -> Vec<Check> {
    let mut checks = kernel_state(state)
        .unwrap_or_else(|error| vec![Check::new("kernel state", "readable", error.to_string())]);
    let step = state.step();
    checks.extend(CALLS.iter().filter_map(|&(name, call, first)| {
        let first = first.map(|first| u64::from(first.unsigned_abs()));
        Attempt::of(&state.policy, step, call, first).map(|attempt| call_check(name, &attempt))
    }));
    checks.extend(file_checks(state));
    checks
}

fn kernel_state(state: &State) -> Result<Vec<Check>, SandboxError> {
    let status = process::read_status(&state.status)?;
    let (soft, hard) = process::core_limits()?;
    let check = |name: &str, expected: &str, observed: u64| {
        Check::new(name, expected, observed.to_string())
    };
    Ok(vec![
        check("Seccomp", "2", u64::from(status.seccomp_mode)),
        check("NoNewPrivs", "1", u64::from(status.no_new_privs)),
        check("capabilities", "0", status.capabilities),
        check("PR_GET_DUMPABLE", "0", process::dumpable()?),
        check("RLIMIT_CORE", "0", soft.max(hard)),
    ])
}

fn call_check(name: &str, attempt: &Attempt) -> Check {
    let observed = attempt.perform();
    match attempt.expected {
        Verdict::Refused(errno) => Check::new(name, errno_name(errno), observed.to_string()),
        Verdict::Allowed => Check {
            name: name.to_owned(),
            expected: "not EPERM".to_owned(),
            observed: observed.to_string(),
            passed: attempt.agrees_with(observed),
        },
    }
}

/// A file that exists everywhere, that everybody may read, and that no policy names.
const FILE_OUTSIDE: &str = "/proc/version";
/// A file that its own process may write, and that no policy names.
const FILE_TO_WRITE: &str = "/proc/self/comm";

fn file_checks(state: &State) -> Vec<Check> {
    let open = |options: &mut OpenOptions, path: &str| show_file(options.open(path).map(drop));
    // Opening for writing is the filter's matter where the policy has none, else Landlock's.
    let refused = |flags: i32| {
        let flags = u64::from((flags | libc::O_CLOEXEC).unsigned_abs());
        let arguments = [0, 0, flags, 0, 0, 0];
        match state.policy.verdict(state.step(), libc::SYS_openat, &arguments) {
            Verdict::Refused(errno) => errno_name(errno),
            Verdict::Allowed => "EACCES".to_owned(),
        }
    };
    let refused_by = refused(libc::O_WRONLY);
    let nameless = OpenOptions::new().write(true).custom_flags(libc::O_TMPFILE).clone();
    let mut checks = vec![
        Check::new(
            format!("open({FILE_OUTSIDE}, O_RDONLY)"),
            refused(libc::O_RDONLY),
            open(OpenOptions::new().read(true), FILE_OUTSIDE),
        ),
        Check::new(
            format!("open({FILE_TO_WRITE}, O_WRONLY)"),
            refused_by.clone(),
            open(OpenOptions::new().write(true), FILE_TO_WRITE),
        ),
    ];
    // On a read-only root, as a container's, the file system refuses before Landlock is asked.
    let observed = open(&mut nameless.clone(), "/");
    let is_read_only = observed == errno_name(libc::EROFS) && refused_by == "EACCES";
    let expected = if is_read_only { observed.clone() } else { refused_by };
    checks.push(Check::new("open(/, O_TMPFILE)", expected, observed));
    if state.step() == Step::LockDown {
        checks.push(Check::new("mmap(PROT_EXEC)", "EPERM", map_executable().to_string()));
    }
    checks
}

fn map_executable() -> Observed {
    const LENGTH_BYTES: usize = 4096;
    #[expect(unsafe_code, reason = "mmap has no safe wrapper in std")]
    // SAFETY: a fresh anonymous mapping, unmapped at once when it is given.
    unsafe {
        let (protection, flags) =
            (libc::PROT_READ | libc::PROT_EXEC, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        let page = libc::mmap(std::ptr::null_mut(), LENGTH_BYTES, protection, flags, -1, 0);
        if page == libc::MAP_FAILED {
            return Observed::Failed(io::Error::last_os_error().raw_os_error().unwrap_or_default());
        }
        libc::munmap(page, LENGTH_BYTES);
    }
    Observed::Returned(0)
}

fn show_file(result: io::Result<()>) -> String {
    match result {
        Ok(()) => Observed::Returned(0).to_string(),
        Err(error) => Observed::Failed(error.raw_os_error().unwrap_or_default()).to_string(),
    }
}
