//! Messages of six numbers between the service and its fork server, some with descriptors, over a
//! pair of sockets that keeps messages apart. Both ends are this program.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use super::{ChildLimits, checked};

/// Numbers of a message.
const WORDS: usize = 6;
/// Descriptors of a message at most.
const DESCRIPTORS_MAX: usize = 2;
/// Room for a control message of [`DESCRIPTORS_MAX`] descriptors, in words.
const CONTROL_WORDS: usize = 8;

/// To the fork server: make a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) id: u64,
    pub(super) limits: ChildLimits,
}

/// From the fork server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// The child is there; its handle and its end of a socket come along.
    Made { id: u64 },
    /// The kernel refused (errno).
    NotMade { id: u64, errno: i32 },
    /// It ended: status as of `wait`, and the most memory it had, bytes.
    Ended { id: u64, status: i32, memory_peak_bytes: u64 },
}

impl Order {
    pub(super) fn words(self) -> [u64; WORDS] {
        let limits = self.limits;
        [
            self.id,
            limits.memory_bytes_max,
            limits.address_bytes_max,
            limits.cpu_s_max,
            limits.file_bytes_max,
            0,
        ]
    }

    pub(super) fn of(words: [u64; WORDS]) -> Self {
        let [id, memory_bytes_max, address_bytes_max, cpu_s_max, file_bytes_max, _] = words;
        let limits = ChildLimits { memory_bytes_max, address_bytes_max, cpu_s_max, file_bytes_max };
        Self { id, limits }
    }
}

impl News {
    pub(super) fn words(self) -> [u64; WORDS] {
        match self {
            Self::Made { id } => [1, id, 0, 0, 0, 0],
            Self::NotMade { id, errno } => [2, id, u64::from(errno.unsigned_abs()), 0, 0, 0],
            Self::Ended { id, status, memory_peak_bytes } => {
                [3, id, u64::from(status.cast_unsigned()), memory_peak_bytes, 0, 0]
            }
        }
    }

    pub(super) fn of(words: [u64; WORDS]) -> Option<Self> {
        let [kind, id, value, memory_peak_bytes, ..] = words;
        let value = u32::try_from(value).ok()?.cast_signed();
        match kind {
            1 => Some(Self::Made { id }),
            2 => Some(Self::NotMade { id, errno: value }),
            3 => Some(Self::Ended { id, status: value, memory_peak_bytes }),
            _ => None,
        }
    }
}

/// A pair of sockets that keep messages apart.
pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends: [RawFd; 2] = [-1; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    #[expect(unsafe_code, reason = "std makes no pair of this kind")]
    // SAFETY: the pointer is to two descriptors that the kernel fills in.
    let made = unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, ends.as_mut_ptr()) };
    checked(i64::from(made))?;
    #[expect(unsafe_code, reason = "the descriptors are new and nobody else's")]
    // SAFETY: the kernel has just made both.
    let ends = unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) };
    Ok(ends)
}

/// Sends one message.
pub(super) fn send(
    socket: BorrowedFd<'_>,
    words: [u64; WORDS],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    assert!(descriptors.len() <= DESCRIPTORS_MAX, "a message takes two descriptors at most");
    let mut words = words;
    let mut part =
        libc::iovec { iov_base: words.as_mut_ptr().cast(), iov_len: size_of_val(&words) };
    let mut control = [0_u64; CONTROL_WORDS];
    let raw: Vec<RawFd> = descriptors.iter().map(|descriptor| descriptor.as_raw_fd()).collect();
    let raw_bytes = u32::try_from(size_of_val(raw.as_slice())).map_err(io::Error::other)?;
    #[expect(unsafe_code, reason = "descriptors are passed by sendmsg, which std does not offer")]
    // SAFETY: an all-zero msghdr is a valid empty one; its pointers are to live buffers of the
    // sizes given; the control buffer is aligned for cmsghdr and large enough (CMSG_SPACE of two
    // descriptors is 24 bytes of its 64).
    let sent = unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        if !raw.is_empty() {
            message.msg_control = control.as_mut_ptr().cast();
            message.msg_controllen = libc::CMSG_SPACE(raw_bytes) as _;
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(raw_bytes) as _;
            std::ptr::copy_nonoverlapping(
                raw.as_ptr().cast::<u8>(),
                libc::CMSG_DATA(header),
                raw_bytes as usize,
            );
        }
        libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL)
    };
    checked(sent as i64).map(drop)
}

/// Waits for one message; `None` when the other end is gone.
pub(super) fn receive(socket: BorrowedFd<'_>) -> io::Result<Option<([u64; WORDS], Vec<OwnedFd>)>> {
    let mut words = [0_u64; WORDS];
    let mut part =
        libc::iovec { iov_base: words.as_mut_ptr().cast(), iov_len: size_of_val(&words) };
    let mut control = [0_u64; CONTROL_WORDS];
    let mut descriptors = Vec::new();
    #[expect(unsafe_code, reason = "descriptors are taken by recvmsg, which std does not offer")]
    // SAFETY: as in `send`; the kernel writes at most what the lengths say, and the descriptors
    // that it names in the control message are new ones of this process.
    let received = unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control) as _;
        let received = libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC);
        let header = if received > 0 {
            libc::CMSG_FIRSTHDR(&raw const message)
        } else {
            std::ptr::null_mut()
        };
        if !header.is_null() && (*header).cmsg_type == libc::SCM_RIGHTS {
            let bytes = (*header).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
            let data = libc::CMSG_DATA(header).cast::<RawFd>();
            for at in 0..(bytes / size_of::<RawFd>()).min(DESCRIPTORS_MAX) {
                descriptors.push(OwnedFd::from_raw_fd(data.add(at).read_unaligned()));
            }
        }
        received
    };
    match checked(received as i64) {
        Ok(0) => Ok(None),
        Ok(_) => Ok(Some((words, descriptors))),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::fd::AsFd as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn messages_and_descriptors_arrive_as_they_were_sent() {
        let (here, there) = pair().unwrap();
        let limits = ChildLimits {
            memory_bytes_max: 1,
            address_bytes_max: 2,
            cpu_s_max: 3,
            file_bytes_max: u64::MAX,
        };
        let order = Order { id: 7, limits };
        send(here.as_fd(), order.words(), &[]).unwrap();
        let (words, descriptors) = receive(there.as_fd()).unwrap().unwrap();
        assert_eq!((Order::of(words), descriptors.len()), (order, 0));

        let (mut one, two) = UnixStream::pair().unwrap();
        let news = News::Made { id: 7 };
        send(there.as_fd(), news.words(), &[two.as_fd(), there.as_fd()]).unwrap();
        drop(two);
        let (words, mut descriptors) = receive(here.as_fd()).unwrap().unwrap();
        assert_eq!((News::of(words), descriptors.len()), (Some(news), 2));
        let mut passed = UnixStream::from(descriptors.remove(0));
        one.write_all(b"hello").unwrap();
        let mut text = [0; 5];
        passed.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"hello");

        drop((there, descriptors));
        assert!(receive(here.as_fd()).unwrap().is_none());
        for news in [
            News::NotMade { id: 1, errno: libc::EAGAIN },
            News::Ended { id: 2, status: 9, memory_peak_bytes: 5 },
        ] {
            assert_eq!(News::of(news.words()), Some(news));
        }
        assert_eq!(News::of([9; WORDS]), None);
    }
}
