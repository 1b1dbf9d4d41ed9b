//! The service's side of the fork server: asks for children, hears how they ended, and ends them.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::wire::{self, News, Order};
use super::{ChildLimits, checked};

/// The fork server, as the service talks to it.
#[derive(Debug)]
pub struct Forks {
    socket: OwnedFd,
    next: AtomicU64,
    waiting: Mutex<BTreeMap<u64, Waiting>>,
}

#[derive(Debug)]
struct Waiting {
    made: Option<oneshot::Sender<io::Result<(OwnedFd, UnixStream)>>>,
    ended: oneshot::Sender<Ending>,
}

/// A process for one query. Dropping it ends the process.
#[derive(Debug)]
pub struct Child {
    handle: OwnedFd,
    /// The service's end of its socket, until somebody takes it.
    pub control: Option<UnixStream>,
    ending: Option<oneshot::Receiver<Ending>>,
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    /// Its status, as of `wait`.
    pub status: i32,
    /// The most memory that it had, bytes.
    pub memory_peak_bytes: u64,
}

impl Ending {
    /// Its exit code, when it ended by itself.
    #[must_use]
    pub fn code(self) -> Option<i32> {
        libc::WIFEXITED(self.status).then(|| libc::WEXITSTATUS(self.status))
    }

    /// The signal that ended it.
    #[must_use]
    pub fn signal(self) -> Option<i32> {
        libc::WIFSIGNALED(self.status).then(|| libc::WTERMSIG(self.status))
    }
}

impl Forks {
    /// Talks to the server at the other end of `socket`, on a thread of its own. The process ends
    /// when the server does: this one has threads and cannot make another.
    ///
    /// # Errors
    /// When the thread cannot be made.
    pub fn connect(socket: OwnedFd) -> io::Result<Arc<Self>> {
        let forks = Arc::new(Self {
            socket,
            next: AtomicU64::new(1),
            waiting: Mutex::new(BTreeMap::new()),
        });
        let listener = Arc::clone(&forks);
        std::thread::Builder::new().name("data-forks".to_owned()).spawn(move || {
            listener.listen();
            tracing::error!("the fork server is gone; the process ends too");
            std::process::abort();
        })?;
        Ok(forks)
    }

    /// A new child.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub async fn child(self: &Arc<Self>, limits: ChildLimits) -> io::Result<Child> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (made, is_made) = oneshot::channel();
        let (ended, ending) = oneshot::channel();
        self.lock().insert(id, Waiting { made: Some(made), ended });
        if let Err(error) = wire::send(self.socket.as_fd(), Order { id, limits }.words(), &[]) {
            self.lock().remove(&id);
            return Err(error);
        }
        let gone = |_closed| io::Error::from(io::ErrorKind::BrokenPipe);
        let (handle, control) = is_made.await.map_err(gone)??;
        Ok(Child { handle, control: Some(control), ending: Some(ending) })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Waiting>> {
        // A map of channels: no holder can leave it half-written.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listen(&self) {
        while let Ok(Some((words, descriptors))) = wire::receive(self.socket.as_fd()) {
            match News::of(words) {
                Some(News::Made { id }) => self.made(id, descriptors),
                Some(News::NotMade { id, errno }) => {
                    let made = self.lock().remove(&id).and_then(|waiting| waiting.made);
                    if let Some(made) = made {
                        // Nobody waits any more: there is nothing to end either.
                        let _ = made.send(Err(io::Error::from_raw_os_error(errno)));
                    }
                }
                Some(News::Ended { id, status, memory_peak_bytes }) => {
                    if let Some(waiting) = self.lock().remove(&id) {
                        let _ = waiting.ended.send(Ending { status, memory_peak_bytes });
                    }
                }
                None => return,
            }
        }
    }

    fn made(&self, id: u64, descriptors: Vec<OwnedFd>) {
        let made = self.lock().get_mut(&id).and_then(|waiting| waiting.made.take());
        let mut descriptors = descriptors.into_iter();
        let (Some(handle), Some(control), Some(made)) =
            (descriptors.next(), descriptors.next(), made)
        else {
            return;
        };
        if let Err(Ok((handle, _))) = made.send(Ok((handle, UnixStream::from(control)))) {
            kill(&handle);
        }
    }
}

impl Child {
    /// Ends it at once.
    pub fn kill(&self) {
        kill(&self.handle);
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> Ending {
        let lost = Ending { status: libc::SIGKILL, memory_peak_bytes: 0 };
        match &mut self.ending {
            Some(ending) => {
                let ended = ending.await.unwrap_or(lost);
                self.ending = None;
                ended
            }
            None => lost,
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.ending.is_some() {
            self.kill();
        }
    }
}

fn kill(handle: &OwnedFd) {
    let nothing: *const libc::siginfo_t = std::ptr::null();
    #[expect(unsafe_code, reason = "libc has no wrapper for this call")]
    // SAFETY: the handle is open, and without a siginfo the kernel makes one itself.
    let sent = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, handle.as_raw_fd(), libc::SIGKILL, nothing, 0)
    };
    match checked(sent) {
        Ok(_) => {}
        // It has ended already.
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
        Err(error) => tracing::error!(%error, "a query's process cannot be ended"),
    }
}
