//! Tells the service manager how the process is doing: the datagrams of `sd_notify(3)`, without its
//! library.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Bytes of a status text.
const STATUS_BYTES_MAX: usize = 200;

/// A connection to `$NOTIFY_SOCKET`, made before the sandbox forbids to make one.
#[derive(Debug)]
pub struct Notifier {
    /// A socket, used as a file: `write` is a call that every policy allows.
    socket: File,
}

impl Notifier {
    /// Connects to `$NOTIFY_SOCKET`; none where nobody set it.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn from_environment() -> io::Result<Option<Self>> {
        match std::env::var_os("NOTIFY_SOCKET") {
            None => Ok(None),
            Some(name) if name.is_empty() => Ok(None),
            Some(name) => Self::connect(name.as_bytes()).map(Some),
        }
    }

    /// Connects to the socket of that path, or, where it begins with `@`, of that abstract name.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn connect(name: &[u8]) -> io::Result<Self> {
        let address = match name.strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name))?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address)?;
        // A manager that does not read must not stop us.
        socket.set_nonblocking(true)?;
        Ok(Self { socket: File::from(OwnedFd::from(socket)) })
    }

    /// `READY=1`: the process serves.
    pub fn ready(&self) {
        self.send("READY=1\nSTATUS=serving\n");
    }

    /// `STOPPING=1`: the process drains.
    pub fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=draining\n");
    }

    /// A line for people who ask the manager how it goes.
    pub fn status(&self, text: &str) {
        let mut end = text.len().min(STATUS_BYTES_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.send(&format!("STATUS={}\n", text[..end].replace('\n', " ")));
    }

    fn send(&self, message: &str) {
        if let Err(error) = (&self.socket).write_all(message.as_bytes()) {
            tracing::debug!(error.cause = %error, "the service manager was not told");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 512];
        let count = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..count].to_vec()).unwrap()
    }

    #[test]
    fn the_manager_hears_what_happens() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let notifier = Notifier::connect(path.as_os_str().as_bytes()).unwrap();
        notifier.status("loading, 43 %\nX=1");
        assert_eq!(received(&manager), "STATUS=loading, 43 % X=1\n");
        notifier.ready();
        assert_eq!(received(&manager), "READY=1\nSTATUS=serving\n");
        notifier.stopping();
        assert_eq!(received(&manager), "STOPPING=1\nSTATUS=draining\n");
        notifier.status(&"é".repeat(400));
        assert!(received(&manager).len() <= STATUS_BYTES_MAX + 8);
    }

    #[test]
    fn an_abstract_name_works_too() {
        let name = format!("aisemble-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        let notifier = Notifier::connect(format!("@{name}").as_bytes()).unwrap();
        notifier.ready();
        assert!(received(&manager).starts_with("READY=1"));
    }

    #[test]
    fn nobody_there_is_an_error() {
        assert!(Notifier::connect(b"/nonexistent/notify").is_err());
        assert!(Notifier::connect(&[b'x'; 300]).is_err());
    }
}
