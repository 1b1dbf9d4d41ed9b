//! Things that a program does with files, sockets, signals and its own end, rather than single
//! system calls: what Landlock and the filters together make of them.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::PathBuf;

use aisemble_sandbox::Check;
use aisemble_sandbox::attempt::errno_name;

mod raw;

/// One deed, with its object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Deed {
    Read(PathBuf),
    Write(PathBuf),
    Create(PathBuf),
    List(PathBuf),
    Remove(PathBuf),
    MakeDir(PathBuf),
    Symlink(PathBuf),
    Map(PathBuf),
    UnixBind(PathBuf),
    UnixConnect(PathBuf),
    AbstractConnect(String),
    TcpBind(u16),
    TcpConnect(u16),
    Signal(i32),
    Panic,
    Abort,
    Int80,
    X32,
    ExecutableMemory,
    Backtrace,
    CoreLimit,
    Dumpable,
}

/// A deed by its text on the command line; `None` if it is none.
pub(crate) fn parse(word: &str) -> Result<Option<Deed>, String> {
    let number = |text: &str| text.parse().map_err(|_| format!("`{word}`: not a number"));
    let port = |text: &str| text.parse().map_err(|_| format!("`{word}`: not a port"));
    let Some((name, object)) = word.split_once('=') else {
        return Ok(match word {
            "panic" => Some(Deed::Panic),
            "abort" => Some(Deed::Abort),
            "int80" => Some(Deed::Int80),
            "x32" => Some(Deed::X32),
            "executable-memory" => Some(Deed::ExecutableMemory),
            "backtrace" => Some(Deed::Backtrace),
            "core-limit" => Some(Deed::CoreLimit),
            "dumpable" => Some(Deed::Dumpable),
            _ => None,
        });
    };
    let path = PathBuf::from(object);
    Ok(Some(match name {
        "read" => Deed::Read(path),
        "write" => Deed::Write(path),
        "create" => Deed::Create(path),
        "list" => Deed::List(path),
        "remove" => Deed::Remove(path),
        "mkdir" => Deed::MakeDir(path),
        "symlink" => Deed::Symlink(path),
        "map" => Deed::Map(path),
        "unix-bind" => Deed::UnixBind(path),
        "unix-connect" => Deed::UnixConnect(path),
        "abstract-connect" => Deed::AbstractConnect(object.to_owned()),
        "tcp-bind" => Deed::TcpBind(port(object)?),
        "tcp-connect" => Deed::TcpConnect(port(object)?),
        "signal" => Deed::Signal(number(object)?),
        _ => return Err(format!("`{name}` is not a deed")),
    }))
}

/// What the deeds need and could not make once they are confined.
pub(crate) struct Prepared {
    tcp: Option<File>,
}

impl Prepared {
    pub(crate) fn for_deeds(deeds: &[Deed]) -> Self {
        let tcp = deeds.iter().any(|deed| matches!(deed, Deed::TcpBind(_) | Deed::TcpConnect(_)));
        Self { tcp: tcp.then(raw::tcp_socket).and_then(Result::ok) }
    }

    fn tcp(&self) -> io::Result<i32> {
        self.tcp.as_ref().map(|socket| socket.as_raw_fd()).ok_or(io::ErrorKind::NotFound.into())
    }
}

impl Deed {
    /// Does it. The check passes when it succeeds; `panic`, `abort`, `int80` and `x32` come back
    /// only when they did not end the process.
    pub(crate) fn perform(&self, prepared: &Prepared) -> Check {
        let result = self.attempt(prepared);
        let observed = match &result {
            Ok(detail) if detail.is_empty() => "ok".to_owned(),
            Ok(detail) => detail.clone(),
            Err(error) => error.raw_os_error().map_or_else(|| error.kind().to_string(), errno_name),
        };
        let (name, expected) = (format!("{self:?}"), "ok".to_owned());
        Check { name, expected, observed, passed: result.is_ok() }
    }

    fn attempt(&self, prepared: &Prepared) -> io::Result<String> {
        let done = |()| String::new();
        match self {
            Self::Read(path) => File::open(path).and_then(raw::read_a_byte),
            Self::Write(path) => OpenOptions::new().write(true).open(path).map(drop).map(done),
            Self::Create(path) => File::create_new(path).map(drop).map(done),
            Self::List(path) => Ok(format!("{} entries", fs::read_dir(path)?.count())),
            Self::Remove(path) => fs::remove_file(path).map(done),
            Self::MakeDir(path) => fs::create_dir(path).map(done),
            Self::Symlink(path) => std::os::unix::fs::symlink("/", path).map(done),
            Self::Map(path) => raw::map_file(&File::open(path)?).map(done),
            Self::UnixBind(path) => UnixListener::bind(path).map(drop).map(done),
            Self::UnixConnect(path) => UnixStream::connect(path).map(drop).map(done),
            Self::AbstractConnect(name) => {
                let address = SocketAddr::from_abstract_name(name)?;
                UnixStream::connect_addr(&address).map(drop).map(done)
            }
            Self::TcpBind(port) => raw::bind_loopback(prepared.tcp()?, *port).map(done),
            Self::TcpConnect(port) => raw::connect_loopback(prepared.tcp()?, *port).map(done),
            Self::Signal(pid) => raw::may_signal(*pid).map(done),
            Self::Panic => deliberate_panic(),
            Self::Abort => std::process::abort(),
            Self::Int80 => raw::int80_getpid(),
            Self::X32 => raw::x32_getpid(),
            Self::ExecutableMemory => raw::make_executable().map(done),
            Self::Backtrace => Ok(backtrace_quality()),
            Self::CoreLimit => raw::core_limit(),
            Self::Dumpable => raw::dumpable(),
        }
    }
}

#[expect(clippy::panic, reason = "the deed is to panic")]
fn deliberate_panic() -> io::Result<String> {
    panic!("a deliberate panic");
}

fn backtrace_quality() -> String {
    let text = std::backtrace::Backtrace::force_capture().to_string();
    let named = text.contains("backtrace_quality") || text.contains("deed::");
    if named { "frames have names".to_owned() } else { "frames have no names".to_owned() }
}
