//! The end of the process, in this one and as the real binary under its sandbox.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::time::Duration;

use aisemble_protocol::keys::{KeyFile, Scope};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};

use crate::peer::Peer;
use crate::stack::{PATH, PATIENCE, Stack};

#[tokio::test]
async fn a_drain_lets_what_runs_finish_and_its_watchers_see_the_end() {
    let mut stack = Stack::start().await;
    let body = json!({"prompt": "hold on", "stream": true});
    let mut events = stack.admin.post_events(PATH, &[], &body).await;
    assert_eq!(events.next().await.unwrap().name, "job");
    stack.peer().let_go(1);
    assert_eq!(events.next().await.unwrap().name, "token");
    stack.stop(PATIENCE);
    stack.peer().let_go(100);
    let rest = events.rest().await;
    assert_eq!(rest.last().unwrap().name, "result", "{rest:?}");
    stack.ended().await;
}

#[tokio::test]
async fn a_drain_that_runs_out_gives_jobs_back_and_tells_those_who_wait() {
    let mut stack = Stack::start().await;
    let waiting = {
        let client = stack.admin.clone();
        let body = json!({"prompt": "hold on"});
        tokio::spawn(async move { client.post(PATH, &[("prefer", "wait=25")], &body).await })
    };
    let body = json!({"prompt": "hold on", "stream": true});
    let events = stack.admin.post_events(PATH, &[], &body).await;
    stack
        .eventually("both run", async || {
            stack.admin.get("/health").await;
            stack.peer().calls() == 2
        })
        .await;
    stack.stop(Duration::from_millis(500));
    let answer = tokio::time::timeout(PATIENCE, waiting).await.unwrap().unwrap();
    assert_eq!((answer.status, &answer.json["state"]), (202, &json!("queued")), "{}", answer.text);
    let error = events.rest().await.pop().unwrap();
    assert_eq!((error.name.as_str(), &error.json()["code"]), ("error", &json!("unavailable")));
    stack.ended().await;
}

/// The real binary.
pub(crate) struct Binary {
    child: Child,
    log: Lines<BufReader<ChildStderr>>,
    pub(crate) address: String,
}

impl Binary {
    async fn start(home: &std::path::Path) -> Self {
        Self::start_by(home, &[]).await
    }

    /// Starts it through another program, given with its arguments.
    pub(crate) async fn start_by(home: &std::path::Path, by: &[&str]) -> Self {
        let set = |key: &str, value: String| ["--set".to_owned(), format!("{key}={value}")];
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let line: Vec<_> =
            by.iter().copied().chain([env!("CARGO_BIN_EXE_ai-semble-orchestrator")]).collect();
        let mut child = Command::new(line[0])
            .args(&line[1..])
            .args(set("keys.file", home.join("keys.json").display().to_string()))
            .args(set("store.dir", home.join("data").display().to_string()))
            .args(set("files.dir", home.join("files").display().to_string()))
            .args(set("services.llm", format!("[{:?}]", home.join("run/llm.sock"))))
            .args(set("listen.address", format!("{:?}", port.to_string())))
            .env_clear()
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut binary = Self { child, log, address: port.to_string() };
        binary.said("serving").await;
        binary
    }

    /// Reads the log up to that message.
    async fn said(&mut self, message: &str) -> Value {
        let reading = async {
            let mut read = Vec::new();
            while let Some(line) = self.log.next_line().await.unwrap() {
                let line: Value = serde_json::from_str(&line).unwrap();
                if line["message"] == message {
                    return line;
                }
                read.push(line);
            }
            panic!("it ended without {message:?}: {read:#?}");
        };
        tokio::time::timeout(PATIENCE, reading).await.unwrap()
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().unwrap().to_string();
        let sent = std::process::Command::new("kill").args([&format!("-{name}"), &pid]).status();
        assert!(sent.unwrap().success());
    }
}

pub(crate) fn home_with_key() -> (tempfile::TempDir, String) {
    let home = tempfile::Builder::new().prefix("ais").tempdir().unwrap();
    std::fs::create_dir(home.path().join("run")).unwrap();
    let mut keys = KeyFile::generate().unwrap();
    let secret = keys.create("admin", &[Scope::Admin], 0, None).unwrap();
    let path = home.path().join("keys.json");
    std::fs::write(&path, serde_json::to_vec(&keys).unwrap()).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    (home, secret.reveal().to_owned())
}

async fn submit(address: &str, key: &str, body: &Value) -> Value {
    let client = reqwest::Client::new();
    let request = client.post(format!("http://{address}{PATH}")).bearer_auth(key).json(body);
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 202);
    answer.json().await.unwrap()
}

async fn get(address: &str, key: &str, path: &str) -> reqwest::Result<Value> {
    let request = reqwest::Client::new().get(format!("http://{address}{path}")).bearer_auth(key);
    request.send().await?.json().await
}

#[tokio::test]
async fn the_real_binary_drains_on_sigterm_with_its_job_done() {
    let (home, key) = home_with_key();
    let peer = Peer::start(&home.path().join("run/llm.sock"), (2, 2)).await;
    let mut binary = Binary::start(home.path()).await;
    let address = binary.address.clone();
    let page = reqwest::Client::new().get(format!("http://{address}/metrics")).bearer_auth(&key);
    let page = page.send().await.unwrap().text().await.unwrap();
    let confined = "aisemble_sandbox{process=\"orchestrator\",control=\"locked_down\"} 1\n";
    assert!(page.contains(confined), "{page}");

    let job = submit(&address, &key, &json!({"prompt": "hold on"})).await;
    while peer.calls() == 0 {
        get(&address, &key, "/health").await.unwrap();
    }
    binary.signal("TERM");
    binary.said("draining").await;
    peer.let_go(100);
    let drained = binary.said("drained: all work was done before the deadline").await;
    assert_eq!(drained["drain.met"], true);
    let status = tokio::time::timeout(PATIENCE, binary.child.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(0));

    let again = Binary::start(home.path()).await;
    let id = job["id"].as_str().unwrap();
    let job = get(&again.address, &key, &format!("/jobs/{id}")).await.unwrap();
    assert_eq!(job["state"], "succeeded", "{job}");
}

#[tokio::test]
async fn the_real_binary_killed_in_the_middle_finishes_its_job_when_it_is_back() {
    let (home, key) = home_with_key();
    let peer = Peer::start(&home.path().join("run/llm.sock"), (2, 2)).await;
    let mut binary = Binary::start(home.path()).await;
    let job = submit(&binary.address, &key, &json!({"prompt": "hold on"})).await;
    while peer.calls() == 0 {
        get(&binary.address, &key, "/health").await.unwrap();
    }
    binary.signal("KILL");
    binary.child.wait().await.unwrap();
    peer.let_go(100);
    let again = Binary::start(home.path()).await;
    let path = format!("/jobs/{}", job["id"].as_str().unwrap());
    let ended =
        async { while get(&again.address, &key, &path).await.unwrap()["state"] != "succeeded" {} };
    tokio::time::timeout(PATIENCE, ended).await.unwrap();
    let job = get(&again.address, &key, &path).await.unwrap();
    assert_eq!(job["attempt"], 2, "{job}");
}

#[tokio::test]
async fn a_wrong_setting_or_key_file_stops_the_start_and_says_where() {
    let (home, _) = home_with_key();
    let path = home.path().join("keys.json");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let check = async |set: &str, code: i32, sentence: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_ai-semble-orchestrator"))
            .args(["--set", &format!("keys.file={}", path.display()), "--set", set])
            .env_clear()
            .output()
            .await
            .unwrap();
        let log = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{log}");
        assert!(log.contains(sentence), "{log}");
    };
    check("limits.connections_maxx=1", 78, "limits.connections_maxx").await;
    check("listen.address=\"0.0.0.0:80\"", 78, "loopback").await;
    check("log.level=info", 78, "others may read it").await;
}
