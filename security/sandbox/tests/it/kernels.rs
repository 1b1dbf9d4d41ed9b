//! Kernels with less Landlock than this one, and profiles with fewer calls, as a child process sees
//! them: a filter that the test puts on the child before it becomes the probe answers the child's
//! call. The product has no switch for this.
#![expect(unsafe_code, reason = "filters of a child are installed between fork and exec")]

use std::io;
use std::mem::zeroed;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Output, Stdio};

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, sock_filter};

use crate::probe;

/// Runs the probe where `landlock_create_ruleset` fails with `errno`.
pub(crate) fn without_landlock(arguments: &str, errno: i32) -> Output {
    without_call(arguments, libc::SYS_landlock_create_ruleset, errno).unwrap()
}

/// Runs the probe where the call of this number fails with `errno`, as under a container's profile
/// that lacks it; an error when not even the program can be started there.
pub(crate) fn without_call(arguments: &str, number: i64, errno: i32) -> io::Result<Output> {
    let rules = [(number, Vec::new())].into_iter().collect();
    let refuse = SeccompAction::Errno(errno.unsigned_abs());
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch).unwrap();
    let program = BpfProgram::try_from(filter).unwrap();
    let mut command = probe::command(arguments);
    // SAFETY: two system calls on memory that was allocated before the fork.
    unsafe {
        command.pre_exec(move || seccompiler::apply_filter(&program).map_err(io::Error::other));
    }
    command.output()
}

/// Where the child keeps the listener of its filter.
const LISTENER: i32 = 100;
/// `SECCOMP_IOCTL_NOTIF_RECV` and `_SEND` of `linux/seccomp.h`.
const NOTIFY_RECEIVE: libc::c_ulong = 0xc050_2100;
const NOTIFY_SEND: libc::c_ulong = 0xc018_2101;

/// Runs the probe where `landlock_create_ruleset` answers `abi`. An errno filter cannot answer a
/// positive number, so the filter asks this process.
pub(crate) fn with_landlock_abi(arguments: &str, abi: i64) -> Output {
    let number = u32::try_from(libc::SYS_landlock_create_ruleset).unwrap();
    let program = vec![
        sock_filter { code: 0x20, jt: 0, jf: 0, k: 0 },
        sock_filter { code: 0x15, jt: 0, jf: 1, k: number },
        sock_filter { code: 0x06, jt: 0, jf: 0, k: libc::SECCOMP_RET_USER_NOTIF },
        sock_filter { code: 0x06, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW },
    ];
    let mut command = probe::command(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    // SAFETY: system calls on memory that was allocated before the fork.
    unsafe {
        command.pre_exec(move || listen(&program));
    }
    let child = command.spawn().unwrap();
    let listener = listener_of(i32::try_from(child.id()).unwrap()).unwrap();
    answer(&listener, abi).unwrap();
    child.wait_with_output().unwrap()
}

fn checked(result: i64) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(i32::try_from(result).unwrap()) }
}

/// In the child: installs the filter and keeps its listener open over exec.
fn listen(program: &[sock_filter]) -> io::Result<()> {
    let filter =
        libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut().cast() };
    // SAFETY: the program outlives the calls; the kernel only reads it.
    unsafe {
        checked(i64::from(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)))?;
        let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
        let mode = libc::SECCOMP_SET_MODE_FILTER;
        let listener = checked(libc::syscall(libc::SYS_seccomp, mode, flags, &raw const filter))?;
        checked(i64::from(libc::dup2(listener, LISTENER))).map(drop)
    }
}

/// In the parent: the child's listener.
fn listener_of(child: i32) -> io::Result<OwnedFd> {
    // SAFETY: the calls take no pointers, and the descriptors they return are new.
    unsafe {
        let process = checked(libc::syscall(libc::SYS_pidfd_open, child, 0))?;
        let process = OwnedFd::from_raw_fd(process);
        let call = libc::SYS_pidfd_getfd;
        let listener = checked(libc::syscall(call, process.as_raw_fd(), LISTENER, 0))?;
        Ok(OwnedFd::from_raw_fd(listener))
    }
}

/// Waits for the child's call and answers it.
fn answer(listener: &OwnedFd, value: i64) -> io::Result<()> {
    // SAFETY: both structures are the kernel's own and live through the calls.
    unsafe {
        let mut call: libc::seccomp_notif = zeroed();
        let receive = libc::ioctl(listener.as_raw_fd(), NOTIFY_RECEIVE, &raw mut call);
        checked(i64::from(receive))?;
        let response = libc::seccomp_notif_resp { id: call.id, val: value, error: 0, flags: 0 };
        let send = libc::ioctl(listener.as_raw_fd(), NOTIFY_SEND, &raw const response);
        checked(i64::from(send)).map(drop)
    }
}
