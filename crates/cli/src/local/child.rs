//! One child process: started with nothing but what it needs, bound to the life of its parent, its
//! log read, its end waited for. When and how often it is started is `supervise`'s to say.

use std::ffi::OsString;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};

use super::logs::{BoundedLog, LOG_BYTES_MAX, Lines, summary};
use super::notices::Notices;
use crate::process::Identity;

/// Opens the way for a listening socket: it comes as standard input, becomes file 3, and the
/// shell's own pid, which `exec` keeps, becomes `LISTEN_PID`, as sd_listen_fds(3) wants it.
const HAND_OVER: &str = r#"LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" "$@" 3<&0 0</dev/null"#;

/// What to run.
#[derive(Debug, Clone)]
pub struct ChildSpec {
    /// `llm`, `orchestrator`: its name in messages and of its log file.
    pub name: String,
    /// The binary.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Its working directory.
    pub folder: PathBuf,
    /// Where its standard error goes.
    pub log: PathBuf,
    /// A listening socket that it gets as file 3.
    pub listener: Option<Arc<TcpListener>>,
}

/// A running child.
#[derive(Debug)]
pub struct Running {
    child: Child,
    /// Who it is.
    pub identity: Identity,
}

impl ChildSpec {
    /// Starts it.
    ///
    /// # Errors
    /// When the binary cannot be run or the log not be opened.
    pub fn start(&self, notices: &Notices) -> std::io::Result<Running> {
        let mut command = match &self.listener {
            None => {
                let mut command = Command::new(&self.program);
                command.stdin(Stdio::null());
                command
            }
            Some(listener) => {
                let socket: OwnedFd = listener.try_clone()?.into();
                let mut command = Command::new("/bin/sh");
                command.args(["-c", HAND_OVER]).arg(&self.program).stdin(Stdio::from(socket));
                command
            }
        };
        command
            .args(&self.args)
            .env_clear()
            .current_dir(&self.folder)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // Ctrl-C on the terminal is for `up`, which ends its children in order.
            .process_group(0)
            .kill_on_drop(true);
        bind_to_parent(&mut command);
        let log = BoundedLog::open(&self.log, LOG_BYTES_MAX)?;
        let mut child = command.spawn()?;
        let pid = child.id().unwrap_or_default();
        let Some(identity) = Identity::of(pid) else {
            return Err(std::io::Error::other("the process ended at once"));
        };
        if let Some(stderr) = child.stderr.take() {
            tokio::spawn(keep_log(stderr, log, self.name.clone(), notices.clone()));
        }
        Ok(Running { child, identity })
    }
}

impl Running {
    /// Waits for its end.
    ///
    /// # Errors
    /// When the system has lost it.
    pub async fn ended(&mut self) -> std::io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Asks it to end, waits, and kills it when it has not by then. Tells whether it ended by
    /// itself.
    pub async fn stop(&mut self, deadline: Duration) -> bool {
        let _ = self.identity.signal(Signal::TERM);
        if tokio::time::timeout(deadline, self.child.wait()).await.is_ok() {
            return true;
        }
        let _ = self.child.kill().await;
        false
    }
}

/// The child is told to end when its parent dies, however that dies: no service is left that nobody
/// watches. The signal is bound to the thread that starts it, which in this program is the only
/// one.
fn bind_to_parent(command: &mut Command) {
    let parent = rustix::process::getpid();
    let prepare = move || {
        rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
        // It may have died between the fork and the line above.
        if rustix::process::getppid() != Some(parent) {
            return Err(std::io::ErrorKind::BrokenPipe.into());
        }
        Ok(())
    };
    #[expect(unsafe_code, reason = "code between fork and exec")]
    // SAFETY: the closure makes two system calls, allocates nothing and takes no lock, which is
    // what is allowed between fork and exec.
    unsafe {
        command.pre_exec(prepare);
    }
}

async fn keep_log(
    mut from: tokio::process::ChildStderr,
    mut log: BoundedLog,
    name: String,
    notices: Notices,
) {
    let (mut lines, mut piece) = (Lines::default(), vec![0_u8; 16 * 1024]);
    let mut is_lost = false;
    let mut keep = |line: &[u8]| {
        if let Some(text) = summary(line) {
            notices.say(&format!("{name}: {text}"));
        }
        if let Err(error) = log.line(line)
            && !std::mem::replace(&mut is_lost, true)
        {
            notices.say(&format!("{name}: its log cannot be written: {error}"));
        }
    };
    // A service must never wait for its log: whatever happens to the file, the pipe is read.
    while let Ok(read) = from.read(&mut piece).await {
        if read == 0 {
            break;
        }
        lines.push(&piece[..read], &mut keep);
    }
    lines.finish(&mut keep);
}
