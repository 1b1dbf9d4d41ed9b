//! A listening socket that another process (systemd, `ai-semble up`) opened and handed over: the
//! protocol of `sd_listen_fds(3)`, without its library.
//!
//! The variables stay in the environment (taking them out would be a race with other threads); the
//! socket is closed on exec, and it can be taken once.

use std::ffi::OsString;
use std::net::TcpListener;
use std::os::fd::{AsFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
use rustix::net::sockopt::{socket_acceptconn, socket_domain, socket_type};
use rustix::net::{AddressFamily, SocketType};

/// The first descriptor that is handed over.
const FIRST: RawFd = 3;

static TAKEN: AtomicBool = AtomicBool::new(false);

/// A listener as it was handed over, not blocking.
#[derive(Debug)]
pub enum Inherited {
    /// On an internet address.
    Tcp(TcpListener),
    /// On a path.
    Unix(UnixListener),
}

/// What was handed over is not one listening stream socket.
#[derive(Debug, thiserror::Error)]
pub enum InheritedError {
    /// More than one, or not a number.
    #[error("LISTEN_FDS is {count:?}, exactly one listening socket is taken")]
    Count {
        /// The variable's text.
        count: OsString,
    },
    /// The descriptor is not open, or not what it should be.
    #[error("descriptor 3, handed over by LISTEN_FDS, {reason}")]
    NotAListener {
        /// What it is instead.
        reason: &'static str,
    },
    /// The kernel refuses to handle it.
    #[error("the inherited socket cannot be used")]
    Refused {
        /// Why.
        source: std::io::Error,
    },
    /// It was taken before.
    #[error("the inherited socket was taken already")]
    TakenAlready,
}

/// The listener that was handed to this process; none when none was (no `LISTEN_FDS`, or it was
/// meant for another process).
///
/// # Errors
/// When the variables promise one and there is none that can be used.
pub fn listener() -> Result<Option<Inherited>, InheritedError> {
    let count = std::env::var_os("LISTEN_FDS");
    if !is_promised(count, std::env::var_os("LISTEN_PID"), std::process::id())? {
        return Ok(None);
    }
    if TAKEN.swap(true, Ordering::AcqRel) {
        return Err(InheritedError::TakenAlready);
    }
    take(FIRST).map(Some)
}

/// Whether the variables promise one listener to the process `own_pid`.
fn is_promised(
    count: Option<OsString>,
    pid: Option<OsString>,
    own_pid: u32,
) -> Result<bool, InheritedError> {
    let pid: Option<u32> = pid.and_then(|pid| pid.to_str().and_then(|pid| pid.parse().ok()));
    match count {
        Some(count) if pid == Some(own_pid) => {
            if count == "1" {
                Ok(true)
            } else {
                Err(InheritedError::Count { count })
            }
        }
        Some(_) | None => Ok(false),
    }
}

/// Takes the descriptor over if it is a listening stream socket.
fn take(number: RawFd) -> Result<Inherited, InheritedError> {
    #[expect(unsafe_code, reason = "a number from the environment becomes a descriptor")]
    // SAFETY: used only within this function, and the first call tells whether it is open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    let family = check(borrowed)?;
    let refused = |source: std::io::Error| InheritedError::Refused { source };
    fcntl_setfd(borrowed, FdFlags::CLOEXEC).map_err(|error| refused(error.into()))?;
    #[expect(unsafe_code, reason = "the descriptor changes hands")]
    // SAFETY: it is open and a listening socket, which nothing in this process opens before; the
    // protocol gives it to us, and `TAKEN` lets it be taken once.
    let owned = unsafe { OwnedFd::from_raw_fd(number) };
    if family == AddressFamily::UNIX {
        let listener = UnixListener::from(owned);
        listener.set_nonblocking(true).map_err(refused)?;
        return Ok(Inherited::Unix(listener));
    }
    let listener = TcpListener::from(owned);
    listener.set_nonblocking(true).map_err(refused)?;
    Ok(Inherited::Tcp(listener))
}

fn check(descriptor: BorrowedFd<'_>) -> Result<AddressFamily, InheritedError> {
    let wrong = |reason| InheritedError::NotAListener { reason };
    let descriptor = descriptor.as_fd();
    fcntl_getfd(descriptor).map_err(|_| wrong("is not open"))?;
    let kind = socket_type(descriptor).map_err(|_| wrong("is not a socket"))?;
    if kind != SocketType::STREAM {
        return Err(wrong("is not a stream socket"));
    }
    if !socket_acceptconn(descriptor).map_err(|_| wrong("is not a socket"))? {
        return Err(wrong("does not listen"));
    }
    let family = socket_domain(descriptor).map_err(|_| wrong("is not a socket"))?;
    if ![AddressFamily::INET, AddressFamily::INET6, AddressFamily::UNIX].contains(&family) {
        return Err(wrong("is of a family that is not served"));
    }
    Ok(family)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::fd::{AsRawFd as _, IntoRawFd as _};
    use std::os::unix::net::{UnixDatagram, UnixStream};

    use super::*;

    fn reason(descriptor: BorrowedFd<'_>) -> String {
        check(descriptor).unwrap_err().to_string()
    }

    #[test]
    fn a_promise_to_another_process_is_none_to_us() {
        let promised = |count: Option<&str>, pid: Option<&str>| {
            is_promised(count.map(OsString::from), pid.map(OsString::from), 42)
        };
        assert!(promised(Some("1"), Some("42")).unwrap());
        for (count, pid) in
            [(None, None), (None, Some("42")), (Some("1"), None), (Some("1"), Some("43"))]
        {
            assert!(!promised(count, pid).unwrap(), "{count:?} {pid:?}");
        }
        assert!(!promised(Some("2"), Some("x")).unwrap());
        for count in ["0", "2", "-1", "", "one"] {
            assert!(promised(Some(count), Some("42")).is_err(), "{count:?}");
        }
    }

    #[test]
    fn only_a_listening_stream_socket_is_taken() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(reason(file.as_fd()).ends_with("is not a socket"));
        let (stream, _other) = UnixStream::pair().unwrap();
        assert!(reason(stream.as_fd()).ends_with("does not listen"));
        let datagrams = UnixDatagram::unbound().unwrap();
        assert!(reason(datagrams.as_fd()).ends_with("is not a stream socket"));
        assert!(matches!(take(9_999), Err(InheritedError::NotAListener { reason: "is not open" })));
    }

    #[test]
    fn a_listener_changes_hands_and_is_closed_on_exec() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        let Inherited::Tcp(taken) = take(tcp.into_raw_fd()).unwrap() else { panic!("not TCP") };
        assert_eq!(taken.local_addr().unwrap(), address);
        assert!(fcntl_getfd(&taken).unwrap().contains(FdFlags::CLOEXEC));
        assert_eq!(taken.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let unix = UnixListener::bind(&path).unwrap();
        assert!(unix.as_raw_fd() > 2);
        let Inherited::Unix(taken) = take(unix.into_raw_fd()).unwrap() else { panic!("not Unix") };
        let mut client = UnixStream::connect(&path).unwrap();
        drop(taken);
        assert_eq!(client.read(&mut [0; 1]).unwrap_or(0), 0);
    }
}
