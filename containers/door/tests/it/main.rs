//! The door as a process: it joins, refuses, and cannot dial out.

#![expect(clippy::unwrap_used, reason = "a test that finds something missing has failed")]

use std::io::{BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

struct Door {
    process: Child,
    address: String,
    _folder: tempfile::TempDir,
}

impl Drop for Door {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A door before `FOLDER/http.sock`, and that listener if `behind` wants one.
fn door(settings: &[&str], behind: bool) -> (Door, Option<UnixListener>) {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("http.sock");
    let listener = behind.then(|| UnixListener::bind(&socket).unwrap());
    let mut command = Command::new(env!("CARGO_BIN_EXE_ai-semble-door"));
    command.arg("--set").arg(format!("to.socket={}", socket.display()));
    command.args(["--set", "listen.address=127.0.0.1:0", "--set", "drain.deadline_ms=1000"]);
    for setting in settings {
        command.args(["--set", setting]);
    }
    let mut process = command.stderr(Stdio::piped()).spawn().unwrap();
    let address = serving(BufReader::new(process.stderr.take().unwrap()), process.id());
    (Door { process, address, _folder: folder }, listener)
}

/// Reads the log until the process serves, and gives its address.
fn serving(log: impl std::io::BufRead + Send + 'static, pid: u32) -> String {
    let mut lines = log.lines();
    for line in lines.by_ref() {
        if line.unwrap().contains("\"message\":\"serving\"") {
            // The rest is read, so that the process can go on writing.
            std::thread::spawn(move || lines.for_each(drop));
            return listening(pid);
        }
    }
    panic!("the door ended before it served");
}

/// The one port on which the process listens, as the kernel says.
fn listening(pid: u32) -> String {
    let inodes: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
        .filter_map(|link| {
            let text = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
            Some(text.to_owned())
        })
        .collect();
    let table = std::fs::read_to_string(Path::new("/proc/net/tcp")).unwrap();
    let port = table.lines().skip(1).find_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let ours = inodes.iter().any(|inode| inode == columns[9]);
        let (_, port) = columns[1].split_once(':')?;
        (ours && columns[3] == "0A").then(|| u16::from_str_radix(port, 16).unwrap())
    });
    format!("127.0.0.1:{}", port.expect("a listening port"))
}

fn connect(door: &Door) -> TcpStream {
    let stream = TcpStream::connect(&door.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

fn ask(door: &Door) -> String {
    let mut stream = connect(door);
    stream.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn what_comes_in_goes_through_and_back() {
    let (door, behind) = door(&[], true);
    let echo = std::thread::spawn(move || {
        let (mut stream, _) = behind.unwrap().accept().unwrap();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).unwrap();
        stream.write_all(&got).unwrap();
    });
    let sent: Vec<u8> = (0..300_000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
    let mut stream = connect(&door);
    let copy = sent.clone();
    let mut writer = stream.try_clone().unwrap();
    let writing = std::thread::spawn(move || {
        writer.write_all(&copy).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    writing.join().unwrap();
    echo.join().unwrap();
    assert_eq!(got, sent);
}

#[test]
fn nobody_behind_it_is_said_with_503() {
    let (door, _) = door(&[], false);
    let answer = ask(&door);
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(
        answer.contains("retry-after: 1\r\n") && answer.contains("may be starting"),
        "{answer}"
    );
}

#[test]
fn a_connection_too_many_is_told_to_come_again() {
    let (door, behind) = door(&["limits.connections_max=1"], true);
    let first = connect(&door);
    let (_held, _) = behind.as_ref().unwrap().accept().unwrap();
    let answer = ask(&door);
    assert!(answer.contains("too many connections"), "{answer}");
    drop(first);
}

#[test]
fn the_kernel_confines_it() {
    let (door, _) = door(&[], true);
    let status = std::fs::read_to_string(format!("/proc/{}/status", door.process.id())).unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    assert_eq!(field("Seccomp:"), "2");
    assert_eq!(field("NoNewPrivs:"), "1");
    let filters: u32 = field("Seccomp_filters:").parse().unwrap();
    assert!(filters >= 2, "both steps: {filters}");
}
