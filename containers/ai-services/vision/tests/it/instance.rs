//! The real binary as a child process, confined as in production, and clients of its socket.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use aisemble_protocol::v1::analyze_event::Event;
use aisemble_protocol::v1::model_client::ModelClient;
use aisemble_protocol::v1::vision_client::VisionClient;
use aisemble_protocol::vision::{GRPC_MESSAGE_BYTES_MAX, Task};
use aisemble_protocol::{ApiError, v1};
use tempfile::TempDir;
use tonic::transport::Channel;

use crate::data::{self, Model};

/// How long anything may take on a loaded machine before a test gives up.
const PATIENCE: Duration = Duration::from_secs(180);
const LOG_LINES_MAX: usize = 4096;

/// A running service; it ends with the value.
pub(crate) struct Instance {
    folder: TempDir,
    child: Child,
    log: Receiver<serde_json::Value>,
}

impl Instance {
    /// Starts it with these models and more settings than the socket's path; not ready yet.
    pub(crate) fn start(models: &[Model], settings: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("vision.toml");
        let mut text = std::fs::File::create(&config).unwrap();
        for model in models {
            let (name, architecture, license) = (&model.name, &model.architecture, &model.license);
            let path = &model.folder;
            writeln!(text, "[[model]]\nname = {name:?}\narchitecture = {architecture:?}").unwrap();
            writeln!(text, "path = {path:?}\nlicense = {license:?}\n[model.sha256]").unwrap();
            for (file, digest) in &model.files {
                writeln!(text, "{file:?} = {digest:?}").unwrap();
            }
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_ai-semble-vision"));
        command.current_dir(folder.path()).env_clear().arg("--config").arg(&config);
        let socket = format!("socket.path={}", folder.path().join("run/vision.sock").display());
        for setting in [socket.as_str()].into_iter().chain(settings.iter().copied()) {
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
        Self { folder, child, log }
    }

    /// Starts it with the models of these names and waits until it serves.
    pub(crate) fn serving(names: &[&str], settings: &[&str]) -> Self {
        let mut models = data::models();
        models.retain(|model| names.contains(&model.name.as_str()));
        assert_eq!(models.len(), names.len());
        let instance = Self::start(&models, settings);
        instance.line("serving");
        instance
    }

    /// All models of the default set.
    pub(crate) fn of_all(settings: &[&str]) -> Self {
        let instance = Self::start(&data::models(), settings);
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

    /// What is left of the log after the process ended, and its exit code.
    pub(crate) fn end(mut self) -> (Option<i32>, Vec<serde_json::Value>) {
        let code = self.child.wait().unwrap().code();
        (code, self.log.iter().collect())
    }

    /// Asks it to stop.
    pub(crate) fn terminate(&self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", "TERM", &pid]).status().unwrap().success());
    }

    fn channel(&self) -> Channel {
        aisemble_service::socket::channel(&self.folder.path().join("run/vision.sock"))
    }

    pub(crate) fn vision(&self) -> VisionClient<Channel> {
        VisionClient::new(self.channel()).max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
    }

    pub(crate) fn model(&self) -> ModelClient<Channel> {
        ModelClient::new(self.channel())
    }

    /// The answer to a request, which must be a good one: results in the order of the images.
    pub(crate) async fn analyze(
        &self,
        request: v1::AnalyzeRequest,
    ) -> Result<(Vec<v1::ImageResult>, v1::AnalyzeFinished), ApiError> {
        let mut stream = self.vision().analyze(request).await?.into_inner();
        let mut results: Vec<v1::ImageResult> = Vec::new();
        while let Some(event) = stream.message().await? {
            match event.event.unwrap() {
                Event::Result(result) => results.push(result),
                Event::Finished(finished) => {
                    assert!(stream.message().await?.is_none(), "something after the end");
                    results.sort_by_key(|result| result.index);
                    return Ok((results, finished));
                }
            }
        }
        panic!("the stream ended without an end");
    }

    /// The error that a request is answered with.
    pub(crate) async fn refused(&self, request: v1::AnalyzeRequest) -> ApiError {
        self.analyze(request).await.map(drop).expect_err("it must be refused")
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A request for these tasks, without options.
pub(crate) fn request(images: Vec<Vec<u8>>, tasks: &[Task]) -> v1::AnalyzeRequest {
    let task = |task: &Task| v1::VisionTask {
        task: task.as_str().to_owned(),
        ..v1::VisionTask::default()
    };
    let tasks = tasks.iter().map(task).collect();
    v1::AnalyzeRequest { images, tasks, ..v1::AnalyzeRequest::default() }
}
