//! The real binary as a child process, confined as in production, with files and a client.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use aisemble_protocol::data::{Blob, ProcessRequest, ProcessResult};
use aisemble_protocol::v1::data_client::DataClient;
use aisemble_protocol::v1::model_client::ModelClient;
use aisemble_protocol::v1::process_event::Event;
use aisemble_protocol::{ApiError, v1};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tonic::transport::Channel;

/// How long anything may take on a loaded machine before a test gives up.
const PATIENCE: Duration = Duration::from_secs(120);
const LOG_LINES_MAX: usize = 4096;

/// A running service; it ends with the value.
pub(crate) struct Instance {
    folder: TempDir,
    child: Child,
    log: Receiver<serde_json::Value>,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) result: ProcessResult,
    pub(crate) output: Option<PathBuf>,
    pub(crate) phases: Vec<String>,
}

impl Instance {
    /// Starts it and waits until it serves.
    pub(crate) fn serving(settings: &[&str]) -> Self {
        Self::serving_by(|_| Vec::new(), settings)
    }

    /// The same through another program: `by` gives it, with its arguments, for the folder.
    pub(crate) fn serving_by(by: impl Fn(&Path) -> Vec<String>, settings: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["blobs", "exchange"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        let mut line = by(folder.path());
        line.push(env!("CARGO_BIN_EXE_ai-semble-data-processor").to_owned());
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]);
        command.current_dir(folder.path()).env_clear();
        let paths = ["files.blobs=blobs", "files.exchange=exchange", "socket.path=run/data.sock"];
        for setting in paths {
            let (key, name) = setting.split_once('=').unwrap();
            let path = folder.path().join(name);
            command.arg("--set").arg(format!("{key}={}", path.display()));
        }
        for setting in settings {
            command.arg("--set").arg(setting);
        }
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        let (sender, log) = sync_channel(LOG_LINES_MAX);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let line = serde_json::from_str(&line).unwrap_or(serde_json::Value::String(line));
                // Nobody reads any more: the test is over.
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let instance = Self { folder, child, log };
        instance.line("serving");
        instance
    }

    /// The next log line with this message. Lines before it are passed over.
    pub(crate) fn line(&self, message: &str) -> serde_json::Value {
        let mut seen = Vec::new();
        loop {
            let line = self.log.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|end| panic!("no {message:?} ({end}): {seen:#?}"));
            if line["message"].as_str().is_some_and(|text| text.starts_with(message)) {
                return line;
            }
            seen.push(line);
        }
    }

    /// Asks it to stop, and waits for it; the code and what is left of the log.
    pub(crate) fn terminate(mut self) -> (Option<i32>, Vec<serde_json::Value>) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", "TERM", &pid]).status().unwrap().success());
        let code = self.child.wait().unwrap().code();
        (code, self.log.iter().collect())
    }

    fn channel(&self) -> Channel {
        aisemble_service::socket::channel(&self.folder.path().join("run/data.sock"))
    }

    pub(crate) fn data(&self) -> DataClient<Channel> {
        DataClient::new(self.channel())
    }

    pub(crate) fn model(&self) -> ModelClient<Channel> {
        ModelClient::new(self.channel())
    }

    pub(crate) async fn stats(&self) -> v1::StatsResponse {
        self.model().stats(v1::StatsRequest {}).await.unwrap().into_inner()
    }

    /// Stores a file as the orchestrator does; its digest.
    pub(crate) fn store(&self, bytes: &[u8]) -> String {
        let digest: String = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
        let folder = self.folder.path().join("blobs").join(&digest[..2]);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(&digest), bytes).unwrap();
        digest
    }

    /// Sends a request in the form of the HTTP API; `files` are names and contents, and a table's
    /// `file` is the name.
    pub(crate) fn request(
        &self,
        body: serde_json::Value,
        files: &[(&str, &[u8])],
    ) -> v1::ProcessRequest {
        let request: ProcessRequest = serde_json::from_value(body).unwrap();
        let blob = |(name, bytes): &(&str, &[u8])| {
            let blob = Blob { sha256: self.store(bytes), name: (*name).to_owned() };
            ((*name).to_owned(), blob)
        };
        request.to_process(&files.iter().map(blob).collect()).unwrap()
    }

    /// Runs a request to its end.
    pub(crate) async fn run(&self, request: v1::ProcessRequest) -> Result<Answer, ApiError> {
        let mut stream = self.data().process(request).await?.into_inner();
        let mut phases = Vec::new();
        while let Some(event) = stream.message().await? {
            match event.event.unwrap() {
                Event::Progress(progress) => phases.push(progress.phase),
                Event::Outcome(outcome) => {
                    assert!(stream.message().await?.is_none(), "something after the end");
                    let path = |file: v1::OutputFile| self.exchange().join(file.path);
                    return Ok(Answer {
                        result: serde_json::from_str(&outcome.result_json).unwrap(),
                        output: outcome.output.map(path),
                        phases,
                    });
                }
            }
        }
        panic!("the stream ended without an end");
    }

    /// [`Self::request`] and [`Self::run`].
    pub(crate) async fn ask(
        &self,
        body: serde_json::Value,
        files: &[(&str, &[u8])],
    ) -> Result<Answer, ApiError> {
        self.run(self.request(body, files)).await
    }

    /// Where outputs are made.
    pub(crate) fn exchange(&self) -> PathBuf {
        self.folder.path().join("exchange")
    }

    /// Outputs that are there.
    pub(crate) fn outputs(&self) -> usize {
        std::fs::read_dir(self.exchange()).unwrap().count()
    }

    /// The processes of queries that run: the children of the fork server.
    pub(crate) fn workers(&self) -> Vec<u32> {
        children(self.child.id()).into_iter().flat_map(children).collect()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn children(pid: u32) -> Vec<u32> {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let mut found = Vec::new();
    for task in tasks.flatten() {
        let text = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        found.extend(text.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    found
}

/// The rows of a result as JSON.
pub(crate) fn rows(answer: &Answer) -> serde_json::Value {
    serde_json::to_value(&answer.result.preview).unwrap()
}
