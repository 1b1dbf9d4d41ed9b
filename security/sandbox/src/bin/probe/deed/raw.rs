//! The system calls behind the deeds that std has no function for.
#![expect(unsafe_code, reason = "these calls have no safe wrapper in std")]

use std::fs::File;
use std::io::{self, Read as _};
use std::mem::size_of;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

const PAGE_BYTES: usize = 4096;

fn checked(result: i64) -> io::Result<i64> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

pub(super) fn read_a_byte(mut file: File) -> io::Result<String> {
    file.read(&mut [0]).map(|_| String::new())
}

pub(super) fn tcp_socket() -> io::Result<File> {
    // SAFETY: takes no pointers.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    checked(i64::from(socket))?;
    // SAFETY: the descriptor was just made and belongs to nobody else.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(socket) }))
}

fn loopback(port: u16) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes([127, 0, 0, 1]) },
        sin_zero: [0; 8],
    }
}

pub(super) fn bind_loopback(socket: i32, port: u16) -> io::Result<()> {
    let (address, length) = (loopback(port), size_of::<libc::sockaddr_in>() as u32);
    // SAFETY: the address lives through the call and has the length that is given.
    let result = unsafe { libc::bind(socket, (&raw const address).cast(), length) };
    checked(i64::from(result)).map(drop)
}

pub(super) fn connect_loopback(socket: i32, port: u16) -> io::Result<()> {
    let (address, length) = (loopback(port), size_of::<libc::sockaddr_in>() as u32);
    // SAFETY: the address lives through the call and has the length that is given.
    let result = unsafe { libc::connect(socket, (&raw const address).cast(), length) };
    checked(i64::from(result)).map(drop)
}

pub(super) fn may_signal(pid: i32) -> io::Result<()> {
    // SAFETY: signal 0 only asks whether it would be allowed.
    checked(i64::from(unsafe { libc::kill(pid, 0) })).map(drop)
}

pub(super) fn map_file(file: &File) -> io::Result<()> {
    let (protection, flags) = (libc::PROT_READ, libc::MAP_PRIVATE);
    // SAFETY: a fresh read-only mapping of one page, unmapped at once.
    unsafe {
        let page =
            libc::mmap(std::ptr::null_mut(), PAGE_BYTES, protection, flags, file.as_raw_fd(), 0);
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        checked(i64::from(libc::munmap(page, PAGE_BYTES))).map(drop)
    }
}

pub(super) fn make_executable() -> io::Result<()> {
    let (protection, flags) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a fresh anonymous page, to which nothing points, is unmapped in the end.
    unsafe {
        let page = libc::mmap(std::ptr::null_mut(), PAGE_BYTES, protection, flags, -1, 0);
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let executable = libc::PROT_READ | libc::PROT_EXEC;
        let result = checked(i64::from(libc::mprotect(page, PAGE_BYTES, executable)));
        libc::munmap(page, PAGE_BYTES);
        result.map(drop)
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) fn int80_getpid() -> io::Result<String> {
    const I386_GETPID: u32 = 20;
    let answer: u32;
    // SAFETY: getpid takes no arguments; what the kernel may change is declared.
    unsafe {
        std::arch::asm!(
            "int 0x80",
            inlateout("eax") I386_GETPID => answer,
            lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _,
        );
    }
    Ok(format!("answered {answer}"))
}

#[cfg(target_arch = "x86_64")]
pub(super) fn x32_getpid() -> io::Result<String> {
    const X32_BIT: i64 = 0x4000_0000;
    // SAFETY: getpid takes no arguments.
    let answer = unsafe { libc::syscall(X32_BIT | libc::SYS_getpid) };
    checked(answer).map(|pid| format!("answered {pid}"))
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) fn int80_getpid() -> io::Result<String> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) fn x32_getpid() -> io::Result<String> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(super) fn core_limit() -> io::Result<String> {
    let mut limits = libc::rlimit { rlim_cur: 1, rlim_max: 1 };
    // SAFETY: the pointer is to a live rlimit that the kernel fills in.
    checked(i64::from(unsafe { libc::getrlimit(libc::RLIMIT_CORE, &raw mut limits) }))?;
    Ok(format!("{} {}", limits.rlim_cur, limits.rlim_max))
}

pub(super) fn dumpable() -> io::Result<String> {
    // SAFETY: takes no pointers.
    checked(i64::from(unsafe { libc::prctl(libc::PR_GET_DUMPABLE, 0, 0, 0, 0) }))
        .map(|answer| answer.to_string())
}
