//! The tiny service as a child process: started with settings, its log read line by line, its end
//! awaited. Whatever a test does, the process does not outlive it.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use aisemble_protocol::v1::llm_client::LlmClient;
use aisemble_protocol::v1::model_client::ModelClient;
use serde_json::Value;
use tempfile::TempDir;
use tonic::transport::Channel;
use tonic_health::pb::health_client::HealthClient;

/// How long anything may take on a loaded machine before the test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder of the test's own with the socket in it, and settings to start services with.
pub(crate) struct Home {
    pub folder: TempDir,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path("run/tiny.sock")
    }

    /// A command that starts the service; `settings` are given by `--set`.
    pub(crate) fn command(&self, settings: &[String]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_aisemble-service-tiny"));
        command.current_dir(self.folder.path()).env_clear().arg("--set");
        command.arg(format!("socket.path={}", self.socket().display()));
        for setting in settings {
            command.arg("--set").arg(setting);
        }
        command
    }

    pub(crate) fn start(&self, settings: &[String]) -> Tiny {
        Tiny::spawn(self.command(settings))
    }

    /// A service that serves.
    pub(crate) fn serving(&self, settings: &[String]) -> Tiny {
        let tiny = self.start(settings);
        tiny.log.line("serving");
        tiny
    }

    pub(crate) fn channel(&self) -> Channel {
        aisemble_service::socket::channel(&self.socket())
    }

    pub(crate) fn llm(&self) -> LlmClient<Channel> {
        LlmClient::new(self.channel())
    }

    pub(crate) fn model(&self) -> ModelClient<Channel> {
        ModelClient::new(self.channel())
    }

    pub(crate) fn health(&self) -> HealthClient<Channel> {
        HealthClient::new(self.channel())
    }
}

/// A pipe that a load waits at.
pub(crate) fn pipe(path: &Path) {
    let made = Command::new("mkfifo").arg(path).status().unwrap();
    assert!(made.success(), "mkfifo {}", path.display());
}

/// The running service.
pub(crate) struct Tiny {
    child: Child,
    pub log: Log,
}

impl Tiny {
    pub(crate) fn spawn(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Log::of(child.stderr.take().unwrap());
        Self { child, log }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Kills it as a crash would.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for the end, and gives the exit code and what was logged.
    pub(crate) fn end(mut self) -> (Option<i32>, Vec<Value>) {
        self.log.wait(|state| state.ended.then_some(()), "the end of the log");
        let status: ExitStatus = self.child.wait().unwrap();
        (status.code(), self.log.lines())
    }
}

impl Drop for Tiny {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The log of a process as far as it was written.
#[derive(Clone)]
pub(crate) struct Log {
    shared: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Default)]
pub(crate) struct State {
    lines: Vec<Value>,
    ended: bool,
}

impl Log {
    fn of(stderr: ChildStderr) -> Self {
        let shared: Arc<(Mutex<State>, Condvar)> = Arc::default();
        let log = Self { shared: Arc::clone(&shared) };
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                // What is not JSON is kept as a string, and the tests look at it.
                let line = serde_json::from_str(&line).unwrap_or(Value::String(line));
                shared.0.lock().unwrap().lines.push(line);
                shared.1.notify_all();
            }
            shared.0.lock().unwrap().ended = true;
            shared.1.notify_all();
        });
        log
    }

    pub(crate) fn lines(&self) -> Vec<Value> {
        self.shared.0.lock().unwrap().lines.clone()
    }

    /// Waits for the first line whose message begins with `message`.
    pub(crate) fn line(&self, message: &str) -> Value {
        self.wait(|state| state.lines.iter().find(|line| begins(line, message)).cloned(), message)
    }

    fn wait<T>(&self, found: impl Fn(&State) -> Option<T>, what: &str) -> T {
        let until = Instant::now() + PATIENCE;
        let (state, changed) = &*self.shared;
        let mut state = state.lock().unwrap();
        loop {
            if let Some(found) = found(&state) {
                return found;
            }
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero() && !state.ended, "no {what:?} in {:#?}", state.lines);
            state = changed.wait_timeout(state, left).unwrap().0;
        }
    }
}

/// Whether the line's message begins with `message`.
pub(crate) fn begins(line: &Value, message: &str) -> bool {
    line["message"].as_str().is_some_and(|text| text.starts_with(message))
}

/// How many lines' messages begin with `message`.
pub(crate) fn count(lines: &[Value], message: &str) -> usize {
    lines.iter().filter(|line| begins(line, message)).count()
}
