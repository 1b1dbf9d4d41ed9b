//! A real local stack: `ai-semble up` on a free port with its own home and the real model.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::http::Client;
use crate::{binary, cache};

/// The language model that the tests run.
pub const MODEL: &str = "smollm2-135m-instruct";
/// The models that a stack gets for each service.
const MODELS: [(&str, &[&str]); 3] = [
    ("llm", &[MODEL]),
    ("nlp", &["all-minilm-l6-v2", "splade-tiny", "quire-grammar", "sentiment-minilm"]),
    (
        "vision",
        &["efficientnet-lite0", "centerface", "ssdlite-person", "craft-mlt-25k", "crnn-english-g2"],
    ),
];
const READY_PATIENCE: Duration = Duration::from_secs(120);

/// A running stack. Dropping it stops it and removes its home.
#[derive(Debug)]
pub struct Stack {
    home: tempfile::TempDir,
    supervisor: Child,
    address: String,
    key: String,
}

static SHARED: Mutex<Weak<Stack>> = Mutex::new(Weak::new());

/// A stack that tests share as long as one of them runs: for tests that leave it as they found it.
///
/// # Panics
/// When it does not start.
#[must_use]
pub fn shared() -> Arc<Stack> {
    let mut slot = SHARED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(stack) = slot.upgrade() {
        return stack;
    }
    let stack = Arc::new(Stack::start(&[]));
    *slot = Arc::downgrade(&stack);
    stack
}

impl Stack {
    /// Starts a stack of its own, with the llm alone and more flags for `up`.
    ///
    /// # Panics
    /// When it does not become ready.
    #[must_use]
    pub fn start(flags: &[&str]) -> Self {
        Self::with(&["llm"], flags)
    }

    /// Starts a stack with these services (`llm`, `nlp`, `vision`, `data-processor`), their models
    /// laid from the cache, and more flags for `up`.
    ///
    /// # Panics
    /// When a model is not in the cache, or it does not become ready.
    #[must_use]
    pub fn with(services: &[&str], flags: &[&str]) -> Self {
        let home = tempfile::Builder::new().prefix("ais").tempdir();
        let home = home.unwrap_or_else(|error| panic!("no temporary folder: {error}"));
        for (_, models) in MODELS.iter().filter(|(service, _)| services.contains(service)) {
            models.iter().for_each(|model| lay_model(home.path(), model));
        }
        let log = fs::File::create(home.path().join("up.log"));
        let log = log.unwrap_or_else(|error| panic!("no log file: {error}"));
        let supervisor = Command::new(binary("ai-semble"))
            .arg("--home")
            .arg(home.path())
            .args(["up", "--listen", "127.0.0.1:0", "--services", &services.join(",")])
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start ai-semble: {error}"));
        let mut stack = Self { home, supervisor, address: String::new(), key: String::new() };
        stack.await_ready();
        stack
    }

    /// Where it listens: `127.0.0.1:PORT`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its home folder.
    #[must_use]
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// The first key, with every scope.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// A client with the first key.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(&self.address, Some(&self.key))
    }

    /// The llm's socket.
    #[must_use]
    pub fn llm_socket(&self) -> PathBuf {
        self.home().join("run/llm/llm.sock")
    }

    /// Runs `ai-semble --home HOME ARGS`; gives status, stdout and stderr.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = Command::new(binary("ai-semble"))
            .arg("--home")
            .arg(self.home())
            .args(arguments)
            .output();
        let output = output.unwrap_or_else(|error| panic!("cannot run ai-semble: {error}"));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
    }

    /// The process id of a child of the supervisor, by the name of its binary.
    #[must_use]
    pub fn pid(&self, name: &str) -> Option<u32> {
        let supervisor = self.supervisor.id();
        let children = format!("/proc/{supervisor}/task/{supervisor}/children");
        let mut pids = fs::read_to_string(children).ok()?;
        // The supervisor may have started them from another of its threads.
        for task in fs::read_dir(format!("/proc/{supervisor}/task")).ok()?.flatten() {
            let more = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            pids.push(' ');
            pids.push_str(&more);
        }
        pids.split_whitespace().filter_map(|pid| pid.parse().ok()).find(|pid: &u32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let program = line.split(|byte| *byte == 0).next().unwrap_or_default();
            String::from_utf8_lossy(program).ends_with(name)
        })
    }

    /// Sends SIGKILL to a child and gives its process id.
    ///
    /// # Panics
    /// When there is no such child.
    pub fn kill(&self, name: &str) -> u32 {
        let pid = self.pid(name).unwrap_or_else(|| panic!("no process {name}\n{}", self.log()));
        signal(pid, "KILL");
        pid
    }

    /// What the supervisor and the services said.
    #[must_use]
    pub fn log(&self) -> String {
        let mut text = fs::read_to_string(self.home().join("up.log")).unwrap_or_default();
        for entry in fs::read_dir(self.home().join("logs")).into_iter().flatten().flatten() {
            text.push_str(&format!("\n--- {}\n", entry.path().display()));
            text.push_str(&fs::read_to_string(entry.path()).unwrap_or_default());
        }
        text
    }

    /// Asks until `probe` gives something.
    ///
    /// # Panics
    /// When `patience` runs out.
    pub fn eventually<T>(
        &self,
        what: &str,
        patience: Duration,
        mut probe: impl FnMut() -> Option<T>,
    ) -> T {
        let start = Instant::now();
        loop {
            if let Some(found) = probe() {
                return found;
            }
            assert!(start.elapsed() < patience, "not in {patience:?}: {what}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn await_ready(&mut self) {
        let start = Instant::now();
        while start.elapsed() < READY_PATIENCE {
            if let Ok(Some(status)) = self.supervisor.try_wait() {
                panic!("ai-semble up ended with {status}\n{}", self.log());
            }
            if let Some((address, key)) = self.door() {
                let answer = Client::new(&address, None).get("/ready");
                if answer.status == 200 && answer.json["ready"] == Value::Bool(true) {
                    (self.address, self.key) = (address, key);
                    return;
                }
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("not ready in {READY_PATIENCE:?}\n{}", self.log());
    }

    fn door(&self) -> Option<(String, String)> {
        let up = fs::read_to_string(self.home().join("run/up.json")).ok()?;
        let up: Value = serde_json::from_str(&up).ok()?;
        let key = fs::read_to_string(self.home().join("client-key")).ok()?;
        Some((up["address"].as_str()?.to_owned(), key.trim().to_owned()))
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        signal(self.supervisor.id(), "TERM");
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(30) {
            if let Ok(Some(_)) = self.supervisor.try_wait() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        for service in ["orchestrator", "llm", "nlp", "vision", "data-processor"] {
            let name = &format!("ai-semble-{service}");
            if let Some(pid) = self.pid(name) {
                signal(pid, "KILL");
            }
        }
        let _ = self.supervisor.kill();
        let _ = self.supervisor.wait();
    }
}

/// Sends a signal by name.
pub fn signal(pid: u32, name: &str) {
    let _ = Command::new("kill").args(["-s", name, &pid.to_string()]).status();
}

/// The model file that `scripts/test.sh` fetched.
///
/// # Panics
/// When it is not there.
#[must_use]
pub fn model_file() -> PathBuf {
    let folder = cache().join("models").join(MODEL);
    let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
    let file =
        entries.map(|entry| entry.path()).find(|p| p.extension().is_some_and(|e| e == "gguf"));
    file.unwrap_or_else(|| panic!("no model in {}: run scripts/test.sh", folder.display()))
}

/// Lays a model of the cache into the home: every file of it, without copying.
fn lay_model(home: &Path, name: &str) {
    let source = cache().join("models").join(name);
    let target = home.join("models").join(name);
    let lay = || -> std::io::Result<()> {
        fs::create_dir_all(&target)?;
        for entry in fs::read_dir(&source)? {
            let entry = entry?;
            let (from, to) = (entry.path(), target.join(entry.file_name()));
            fs::hard_link(&from, &to).or_else(|_| fs::copy(&from, &to).map(drop))?;
        }
        Ok(())
    };
    let laid = lay();
    assert!(laid.is_ok(), "no model {name} in {}: {laid:?}: run scripts/test.sh", source.display());
}
