//! The fork server: one thread, forked before there were others. It waits for orders and for
//! children to end, and parses nothing that comes from outside.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use aisemble_sandbox::{Paths, Policy, SandboxError, narrow};

use super::wire::{self, News, Order};
use super::{ChildLimits, checked};

/// The policy of the fork server.
const POLICY: &str = "data-processor-fork";
/// Descriptors that a child may have open.
const OPEN_FILES_MAX: u64 = 4096;
/// The exit code of a child that could not be limited.
const EXIT_UNLIMITED: i32 = 70;

/// What a child does; its result is the exit code.
pub(crate) type Deed = fn(UnixStream) -> i32;

/// Forks the server off. To be called while this process has one thread; `paths` is what it and
/// its children reach.
///
/// # Errors
/// What the kernel refuses.
pub fn start(deed: Deed, paths: &Paths) -> io::Result<OwnedFd> {
    let (here, there) = wire::pair()?;
    let parent = std::process::id();
    match fork()? {
        Some(_pid) => Ok(here),
        None => {
            drop(here);
            let ended = serve(&there, deed, paths, parent);
            end(i32::from(ended.is_err()))
        }
    }
}

/// Forks: the new process id in the parent, `None` in the child.
fn fork() -> io::Result<Option<libc::pid_t>> {
    #[expect(unsafe_code, reason = "std does not fork")]
    // SAFETY: this process has one thread, so that no lock is held by a thread that the child
    // does not have.
    let pid = unsafe { libc::fork() };
    let pid = checked(i64::from(pid))?;
    Ok(libc::pid_t::try_from(pid).ok().filter(|pid| *pid > 0))
}

/// Ends this process and runs nothing of what its parent had registered.
fn end(code: i32) -> ! {
    #[expect(unsafe_code, reason = "std's exit runs what the parent registered")]
    // SAFETY: ends the process.
    unsafe {
        libc::_exit(code)
    }
}

struct Running {
    id: u64,
    pid: libc::pid_t,
    handle: OwnedFd,
}

fn serve(socket: &OwnedFd, deed: Deed, paths: &Paths, parent: u32) -> Result<(), SandboxError> {
    let system = |call| move |source| SandboxError::System { call, source };
    end_with_parent(parent).map_err(system("prctl(PR_SET_PDEATHSIG)"))?;
    // Whoever stops the service stops this process by ending the service.
    ignore_signals();
    close_others(socket.as_raw_fd());
    narrow(&Policy::named(POLICY)?, paths)?;
    let mut running: BTreeMap<RawFd, Running> = BTreeMap::new();
    loop {
        let mut watched = vec![pollfd(socket.as_raw_fd())];
        watched.extend(running.keys().map(|handle| pollfd(*handle)));
        poll(&mut watched).map_err(system("poll"))?;
        for entry in &watched[1..] {
            if entry.revents != 0
                && let Some(child) = running.remove(&entry.fd)
            {
                let news = reap(&child);
                wire::send(socket.as_fd(), news.words(), &[]).map_err(system("sendmsg"))?;
            }
        }
        if watched[0].revents == 0 {
            continue;
        }
        let received = wire::receive(socket.as_fd()).map_err(system("recvmsg"))?;
        // The service is gone: so are the children, by PR_SET_PDEATHSIG.
        let Some((words, _)) = received else { return Ok(()) };
        let order = Order::of(words);
        match make(order, deed) {
            Ok((child, control)) => {
                let (news, descriptors) =
                    (News::Made { id: order.id }, [child.handle.as_fd(), control.as_fd()]);
                wire::send(socket.as_fd(), news.words(), &descriptors)
                    .map_err(system("sendmsg"))?;
                running.insert(child.handle.as_raw_fd(), child);
            }
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(libc::EIO);
                let news = News::NotMade { id: order.id, errno };
                wire::send(socket.as_fd(), news.words(), &[]).map_err(system("sendmsg"))?;
            }
        }
    }
}

fn make(order: Order, deed: Deed) -> io::Result<(Running, UnixStream)> {
    let (here, there) = UnixStream::pair()?;
    let parent = std::process::id();
    let Some(pid) = fork()? else {
        drop(here);
        close_others(there.as_raw_fd());
        let limited = end_with_parent(parent).and_then(|()| limit(order.limits));
        end(if limited.is_ok() { deed(there) } else { EXIT_UNLIMITED })
    };
    drop(there);
    #[expect(unsafe_code, reason = "libc has no wrapper for this call")]
    // SAFETY: takes integers. The process is a child that nobody has waited for, so the number
    // is still its own.
    let handle = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let handle = RawFd::try_from(checked(handle)?).map_err(io::Error::other)?;
    #[expect(unsafe_code, reason = "the descriptor is new and nobody else's")]
    // SAFETY: the kernel has just made it.
    let handle = unsafe { OwnedFd::from_raw_fd(handle) };
    Ok((Running { id: order.id, pid, handle }, here))
}

fn reap(child: &Running) -> News {
    let mut status = 0;
    #[expect(unsafe_code, reason = "std waits only for children that it made")]
    // SAFETY: an all-zero rusage is valid; the kernel fills in both.
    let memory_peak = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::wait4(child.pid, &raw mut status, 0, &raw mut usage);
        usage.ru_maxrss
    };
    let memory_peak_bytes = u64::try_from(memory_peak).unwrap_or(0).saturating_mul(1024);
    News::Ended { id: child.id, status, memory_peak_bytes }
}

/// The kernel kills this process when the one that made it ends.
fn end_with_parent(parent: u32) -> io::Result<()> {
    #[expect(unsafe_code, reason = "prctl has no safe wrapper in std")]
    // SAFETY: takes integers.
    let set = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    checked(i64::from(set))?;
    // It may have ended before.
    if std::os::unix::process::parent_id() == parent {
        Ok(())
    } else {
        Err(io::Error::from(io::ErrorKind::BrokenPipe))
    }
}

fn ignore_signals() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT] {
        #[expect(unsafe_code, reason = "std sets no signal dispositions")]
        // SAFETY: SIG_IGN runs no code.
        unsafe {
            libc::signal(signal, libc::SIG_IGN);
        }
    }
}

/// Closes every descriptor but the standard ones and `kept`.
fn close_others(kept: RawFd) {
    let close = |first: RawFd, last: u32| {
        #[expect(unsafe_code, reason = "std has no wrapper for this call")]
        // SAFETY: takes integers; what owns the descriptors in this process is never used again,
        // as neither the fork server nor a child goes back to the code that made them.
        unsafe {
            libc::syscall(libc::SYS_close_range, first, last, 0);
        }
    };
    if kept > 3 {
        close(3, (kept - 1).unsigned_abs());
    }
    close(kept + 1, u32::MAX);
}

fn limit(limits: ChildLimits) -> io::Result<()> {
    for (resource, value) in [
        (libc::RLIMIT_DATA, limits.memory_bytes_max),
        (libc::RLIMIT_AS, limits.address_bytes_max),
        (libc::RLIMIT_CPU, limits.cpu_s_max),
        (libc::RLIMIT_FSIZE, limits.file_bytes_max),
        (libc::RLIMIT_NOFILE, OPEN_FILES_MAX),
    ] {
        set_limit(resource, value)?;
    }
    Ok(())
}

fn set_limit(resource: libc::__rlimit_resource_t, value: u64) -> io::Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    #[expect(unsafe_code, reason = "limits have no safe wrapper in std")]
    // SAFETY: the pointer is to a live rlimit, which the kernel fills in, then reads.
    let set = unsafe {
        libc::getrlimit(resource, &raw mut limit);
        // What the service itself is held to stays.
        limit.rlim_cur = value.min(limit.rlim_max);
        limit.rlim_max = limit.rlim_cur;
        libc::setrlimit(resource, &raw const limit)
    };
    checked(i64::from(set)).map(drop)
}

fn pollfd(descriptor: RawFd) -> libc::pollfd {
    libc::pollfd { fd: descriptor, events: libc::POLLIN, revents: 0 }
}

fn poll(watched: &mut [libc::pollfd]) -> io::Result<()> {
    let count = watched.len() as libc::nfds_t;
    #[expect(unsafe_code, reason = "poll has no safe wrapper in std")]
    // SAFETY: the pointer is to as many live entries as are said.
    let ready = unsafe { libc::poll(watched.as_mut_ptr(), count, -1) };
    match checked(i64::from(ready)) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
        other => other.map(drop),
    }
}
