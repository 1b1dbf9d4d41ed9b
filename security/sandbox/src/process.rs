//! What the kernel says about this process, and the switches that are neither Landlock nor
//! seccomp: core dumps, dumpable, no new privileges, capabilities. It knows no policy.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::error::SandboxError;

/// More than `/proc/self/status` ever has, in bytes.
const STATUS_BYTES_MAX: usize = 16 * 1024;

/// The fields of `/proc/self/status` that matter here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) threads: u32,
    pub(crate) no_new_privs: u32,
    pub(crate) seccomp_mode: u32,
    pub(crate) seccomp_filters: u32,
    /// Capabilities that are held or could be taken up again: permitted, effective, inheritable and
    /// ambient ones together, a bit each.
    pub(crate) capabilities: u64,
}

/// `/proc/self/status`, to be kept open: under Landlock and memory pressure the name may stop
/// working, the descriptor does not.
pub(crate) fn open_status() -> Result<File, SandboxError> {
    File::open("/proc/self/status")
        .map_err(|source| SandboxError::System { call: "opening /proc/self/status", source })
}

pub(crate) fn read_status(file: &File) -> Result<Status, SandboxError> {
    let mut bytes = vec![0; STATUS_BYTES_MAX];
    let mut length = 0;
    while length < bytes.len() {
        let read = file
            .read_at(&mut bytes[length..], length as u64)
            .map_err(|source| SandboxError::System { call: "reading /proc/self/status", source })?;
        if read == 0 {
            break;
        }
        length += read;
    }
    Ok(parse_status(&String::from_utf8_lossy(&bytes[..length])))
}

fn parse_status(text: &str) -> Status {
    let value = |name: &str| {
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    };
    let field = |name: &str| value(name).and_then(|value| value.parse().ok()).unwrap_or(0);
    // A set that cannot be read is taken for a full one.
    let set = |name: &str| {
        value(name).and_then(|value| u64::from_str_radix(value, 16).ok()).unwrap_or(u64::MAX)
    };
    Status {
        threads: field("Threads"),
        no_new_privs: field("NoNewPrivs"),
        seccomp_mode: field("Seccomp"),
        seccomp_filters: field("Seccomp_filters"),
        capabilities: set("CapPrm") | set("CapEff") | set("CapInh") | set("CapAmb"),
    }
}

/// Core dumps off, for good: the hard limit goes too.
pub(crate) fn refuse_core_dumps() -> Result<(), SandboxError> {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    #[expect(unsafe_code, reason = "setrlimit has no safe wrapper in std")]
    // SAFETY: the pointer is to a live rlimit that the kernel only reads.
    let result = unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) };
    checked(i64::from(result), "setrlimit(RLIMIT_CORE, 0)").map(drop)
}

/// The core size limits, soft and hard, in bytes.
pub(crate) fn core_limits() -> Result<(u64, u64), SandboxError> {
    let mut limits = libc::rlimit { rlim_cur: 1, rlim_max: 1 };
    #[expect(unsafe_code, reason = "getrlimit has no safe wrapper in std")]
    // SAFETY: the pointer is to a live rlimit that the kernel fills in.
    let result = unsafe { libc::getrlimit(libc::RLIMIT_CORE, &raw mut limits) };
    checked(i64::from(result), "getrlimit(RLIMIT_CORE)")?;
    Ok((limits.rlim_cur, limits.rlim_max))
}

/// No process of the same user reads this one's memory, and no core file is written.
pub(crate) fn refuse_dumps() -> Result<(), SandboxError> {
    prctl(libc::PR_SET_DUMPABLE, 0, "prctl(PR_SET_DUMPABLE, 0)").map(drop)
}

pub(crate) fn dumpable() -> Result<u64, SandboxError> {
    prctl(libc::PR_GET_DUMPABLE, 0, "prctl(PR_GET_DUMPABLE)")
}

/// No setuid program and no file capability gives this process or its children anything.
pub(crate) fn refuse_new_privileges() -> Result<(), SandboxError> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, "prctl(PR_SET_NO_NEW_PRIVS, 1)").map(drop)
}

/// The last capability that a kernel may know: a set has 64 bits.
const CAPABILITY_MAX: u64 = 63;
/// `_LINUX_CAPABILITY_VERSION_3`: two words of 32 bits a set.
const CAPABILITY_VERSION: u32 = 0x2008_0522;

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    /// 0 is the calling thread.
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapabilityWords {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Gives up every capability, for good: of the bounding set too, while that is allowed. In a pod
/// there are none; a service that root started by hand has them all.
pub(crate) fn drop_capabilities() -> Result<(), SandboxError> {
    for capability in 0..=CAPABILITY_MAX {
        // Refused without CAP_SETPCAP or past the kernel's last one: no matter, because with no
        // new privileges nothing of the bounding set can come back.
        let _past_the_last_or_not_ours =
            prctl(libc::PR_CAPBSET_DROP, capability, "prctl(PR_CAPBSET_DROP)");
    }
    let clear = u64::from(libc::PR_CAP_AMBIENT_CLEAR_ALL.unsigned_abs());
    prctl(libc::PR_CAP_AMBIENT, clear, "prctl(PR_CAP_AMBIENT_CLEAR_ALL)")?;
    let header = CapabilityHeader { version: CAPABILITY_VERSION, pid: 0 };
    let none = [CapabilityWords::default(); 2];
    #[expect(unsafe_code, reason = "capset has no wrapper in std or libc")]
    // SAFETY: both pointers are to live values of the layout that version 3 has; the kernel reads
    // them only.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) };
    checked(result, "capset(none)").map(drop)
}

fn prctl(option: i32, argument: u64, call: &'static str) -> Result<u64, SandboxError> {
    let unused: u64 = 0;
    #[expect(unsafe_code, reason = "prctl has no safe wrapper in std")]
    // SAFETY: the options used here take integers; no pointer is passed.
    let result = unsafe { libc::prctl(option, argument, unused, unused, unused) };
    checked(i64::from(result), call)
}

/// The result of a system call that answers -1 on failure.
pub(crate) fn checked(result: i64, call: &'static str) -> Result<u64, SandboxError> {
    u64::try_from(result)
        .map_err(|_negative| SandboxError::System { call, source: io::Error::last_os_error() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_of_this_process_is_read() {
        let status = read_status(&open_status().unwrap()).unwrap();
        assert!(status.threads >= 2, "libtest runs a test on a thread of its own: {status:?}");
    }

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let sets = "CapInh:\t0000000000000001\nCapPrm:\t0000000000000002\nCapEff:\t0000000000000004\n\
                    CapBnd:\t000001ffffffffff\nCapAmb:\t0000000000000008\n";
        let text = "Name:\tx\nThreads:\t7\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t3\n";
        let (threads, no_new_privs, seccomp_mode, seccomp_filters) = (7, 1, 2, 3);
        let expect =
            Status { threads, no_new_privs, seccomp_mode, seccomp_filters, capabilities: 15 };
        assert_eq!(parse_status(&format!("{text}{sets}")), expect);
        let unreadable = Status { capabilities: u64::MAX, ..Status::default() };
        assert_eq!(parse_status("Threads: many\n\n:::\n"), unreadable);
    }
}
