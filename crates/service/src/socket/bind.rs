//! Binds a service's socket. Two processes never hold the same one: a lock file beside it is held
//! as long as the process lives, and is let go by the kernel however the process ends.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _,
};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::StartError;
use crate::config::SocketPath;

/// Mode of a directory that is made for a socket.
const DIRECTORY_MODE: u32 = 0o750;
/// Bits that a socket's mode does not get: it is 0660.
const SOCKET_MASK: Mode = Mode::from_raw_mode(0o117);

/// A socket cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The directory does not exist and cannot be made, or cannot be looked at.
    #[error("the socket's directory {} cannot be used", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The directory is another user's, who could put another socket into our place.
    #[error(
        "the socket's directory {} belongs to user {owner}, not to us ({user})",
        path.display()
    )]
    Owner {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        user: u32,
    },
    /// Everybody may write into the directory.
    #[error(
        "the socket's directory {} has mode {mode:04o}: others may write in it",
        path.display()
    )]
    Writable {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The place is taken by something that is no socket.
    #[error("{} exists and is not a socket", path.display())]
    NotASocket {
        /// The place.
        path: PathBuf,
    },
    /// Another process lives there.
    #[error("another process serves {} already", path.display())]
    Live {
        /// The socket.
        path: PathBuf,
    },
    /// The kernel refuses.
    #[error("{} cannot be {doing}", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// What was tried, as a participle.
        doing: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl From<SocketError> for StartError {
    fn from(error: SocketError) -> Self {
        let hint = match &error {
            SocketError::Directory { .. } => {
                "make the directory, or set socket.path to a place that this user may write to"
            }
            SocketError::Owner { .. } => "set socket.path to a directory of this user",
            SocketError::Writable { .. } => "chmod o-w the directory",
            SocketError::NotASocket { .. } => "move the file away, or set another socket.path",
            SocketError::Live { .. } => "stop the other process, or set another socket.path",
            SocketError::Refused { .. } => "this user must be able to write in the directory",
        };
        let own = match &error {
            // The other process may be gone at the next start.
            SocketError::Live { .. } | SocketError::Refused { .. } => {
                Self::failed(error.to_string())
            }
            SocketError::Directory { .. }
            | SocketError::Owner { .. }
            | SocketError::Writable { .. }
            | SocketError::NotASocket { .. } => Self::config(error.to_string()),
        };
        let own = own.with_hint(hint);
        match error {
            SocketError::Directory { source, .. } | SocketError::Refused { source, .. } => {
                own.with_source(source)
            }
            SocketError::Owner { .. }
            | SocketError::Writable { .. }
            | SocketError::NotASocket { .. }
            | SocketError::Live { .. } => own,
        }
    }
}

/// The right to bind a socket's path: its directory is ours, no other process has it, and nothing
/// stale lies there.
#[derive(Debug)]
pub struct Claim {
    path: SocketPath,
    lock: File,
}

/// Claims the path: makes the directory (0750) where it is missing, takes the lock, removes the
/// socket of a process that is gone. To be called before confinement, which may forbid all this.
///
/// # Errors
/// [`SocketError::Live`] when another process serves the path; the others when it cannot be ours.
pub fn claim(path: &SocketPath) -> Result<Claim, SocketError> {
    prepare_directory(path.directory())?;
    let lock = take_lock(path)?;
    remove_stale(path.as_path())?;
    Ok(Claim { path: path.clone(), lock })
}

impl Claim {
    /// Binds and listens, mode 0660. To be called before the first thread exists, because the file
    /// mode mask is the whole process's.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn bind(self) -> Result<Listener, SocketError> {
        let path = self.path.as_path();
        let mask = rustix::process::umask(SOCKET_MASK);
        let bound = UnixListener::bind(path);
        rustix::process::umask(mask);
        let refused =
            |source| SocketError::Refused { path: path.to_owned(), doing: "bound", source };
        let socket = bound.map_err(refused)?;
        socket.set_nonblocking(true).map_err(refused)?;
        Ok(Listener { socket, path: self.path, lock: self.lock })
    }
}

/// A bound socket, and the lock that keeps its path ours.
#[derive(Debug)]
pub struct Listener {
    pub(super) socket: UnixListener,
    path: SocketPath,
    lock: File,
}

impl Listener {
    /// Splits off what must live as long as the process: the path and its lock.
    #[must_use]
    pub fn into_parts(self) -> (UnixListener, Bound) {
        (self.socket, Bound { path: self.path, _lock: self.lock })
    }
}

/// Keeps a bound path ours until it is dropped.
#[derive(Debug)]
pub struct Bound {
    path: SocketPath,
    _lock: File,
}

impl Bound {
    /// Removes the socket's file. A locked-down process may not be allowed to; then the next start
    /// removes it.
    pub fn remove(self) {
        match std::fs::remove_file(self.path.as_path()) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::debug!(
                socket.path = %self.path,
                error.cause = %error,
                "the socket's file is left for the next start to remove"
            ),
        }
    }
}

fn prepare_directory(path: &Path) -> Result<(), SocketError> {
    let failed = |source| SocketError::Directory { path: path.to_owned(), source };
    if !path.exists() {
        DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path).map_err(failed)?;
    }
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if !metadata.is_dir() {
        return Err(failed(io::Error::from(io::ErrorKind::NotADirectory)));
    }
    let user = rustix::process::geteuid().as_raw();
    // Root's folder is fine where we can write in it (by the group): root could replace it anyway.
    if metadata.uid() != user && metadata.uid() != 0 {
        return Err(SocketError::Owner { path: path.to_owned(), owner: metadata.uid(), user });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o002 != 0 {
        return Err(SocketError::Writable { path: path.to_owned(), mode });
    }
    Ok(())
}

fn take_lock(path: &SocketPath) -> Result<File, SocketError> {
    let mut name = path.as_path().as_os_str().to_owned();
    name.push(".lock");
    let refused =
        |source| SocketError::Refused { path: PathBuf::from(&name), doing: "locked", source };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&name)
        .map_err(refused)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(SocketError::Live { path: path.as_path().to_owned() }),
        Err(TryLockError::Error(source)) => Err(refused(source)),
    }
}

/// Removes a socket that nobody listens on.
fn remove_stale(path: &Path) -> Result<(), SocketError> {
    let refused = |doing| {
        move |source: io::Error| SocketError::Refused { path: path.to_owned(), doing, source }
    };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(refused("looked at")(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(SocketError::NotASocket { path: path.to_owned() });
        }
        Ok(_) => {}
    }
    if answers(path).map_err(refused("tried"))? {
        return Err(SocketError::Live { path: path.to_owned() });
    }
    std::fs::remove_file(path).map_err(refused("removed"))?;
    tracing::info!(socket.path = %path.display(), "removed the socket of a process that is gone");
    Ok(())
}

/// Whether somebody listens. Not blocking: a listener whose queue is full would hold us for ever.
fn answers(path: &Path) -> io::Result<bool> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, &SocketAddrUnix::new(path)?) {
        // A full queue, or a socket of another type, is somebody too.
        Ok(()) | Err(Errno::AGAIN | Errno::INPROGRESS | Errno::PROTOTYPE | Errno::ACCESS) => {
            Ok(true)
        }
        Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn at(folder: &Path, name: &str) -> SocketPath {
        SocketPath::try_from(folder.join(name)).unwrap()
    }

    #[test]
    fn a_missing_directory_is_made_and_a_stale_socket_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = at(folder.path(), "run/llm/llm.sock");
        let listener = claim(&path).unwrap().bind().unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(path.directory()), mode(path.as_path())), (0o750, 0o660));
        assert!(matches!(claim(&path), Err(SocketError::Live { .. })), "the lock is held");
        drop(listener);
        assert!(path.as_path().exists(), "stale");
        claim(&path).unwrap().bind().unwrap();
    }

    #[test]
    fn a_live_listener_without_our_lock_is_not_robbed() {
        let folder = tempfile::tempdir().unwrap();
        let path = at(folder.path(), "other.sock");
        let other = UnixListener::bind(path.as_path()).unwrap();
        assert!(matches!(claim(&path), Err(SocketError::Live { .. })));
        drop(other);
        claim(&path).unwrap();
        let datagrams = std::os::unix::net::UnixDatagram::bind(path.as_path()).unwrap();
        assert!(matches!(claim(&path), Err(SocketError::Live { .. })));
        drop(datagrams);
    }

    #[test]
    fn what_is_not_ours_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = at(folder.path(), "file");
        std::fs::write(file.as_path(), "data").unwrap();
        assert!(matches!(claim(&file), Err(SocketError::NotASocket { .. })));
        assert_eq!(std::fs::read(file.as_path()).unwrap(), b"data");
        assert!(matches!(claim(&at(file.as_path(), "x")), Err(SocketError::Directory { .. })));
        let open = folder.path().join("open");
        std::fs::create_dir(&open).unwrap();
        std::fs::set_permissions(&open, PermissionsExt::from_mode(0o777)).unwrap();
        assert!(matches!(claim(&at(&open, "x")), Err(SocketError::Writable { mode: 0o777, .. })));
        if rustix::process::geteuid().is_root() {
            let theirs = folder.path().join("theirs");
            std::fs::create_dir(&theirs).unwrap();
            std::os::unix::fs::chown(&theirs, Some(65_534), None).unwrap();
            assert!(matches!(
                claim(&at(&theirs, "x")),
                Err(SocketError::Owner { owner: 65_534, .. })
            ));
        } else {
            assert!(matches!(
                claim(&at(Path::new("/usr"), "x")),
                Err(SocketError::Owner { owner: 0, .. })
            ));
        }
    }
}
