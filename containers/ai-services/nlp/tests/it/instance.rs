//! The real binary as a child process, confined as in production, and clients of its socket.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use aisemble_nlp::config::{ModelSection, NlpConfig};
use aisemble_protocol::nlp::{Gathered, NlpTask};
use aisemble_protocol::v1::model_client::ModelClient;
use aisemble_protocol::v1::nlp_client::NlpClient;
use aisemble_protocol::{ApiError, v1};
use tempfile::TempDir;
use tonic::transport::Channel;

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
    /// Starts it with models and more settings; not ready yet.
    pub(crate) fn start(models: Vec<ModelSection>, settings: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = NlpConfig { model: models, ..NlpConfig::default() };
        let socket = folder.path().join("run/nlp.sock");
        config.socket.path = socket.try_into().unwrap();
        let file = folder.path().join("nlp.toml");
        std::fs::write(&file, toml::to_string(&config).unwrap()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_ai-semble-nlp"));
        command.current_dir(folder.path()).env_clear().arg("--config").arg(&file);
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
        Self { folder, child, log }
    }

    /// Starts it and waits until it serves.
    pub(crate) fn serving(models: Vec<ModelSection>, settings: &[&str]) -> Self {
        let instance = Self::start(models, settings);
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
        aisemble_service::socket::channel(&self.folder.path().join("run/nlp.sock"))
    }

    pub(crate) fn nlp(&self) -> NlpClient<Channel> {
        NlpClient::new(self.channel())
    }

    pub(crate) async fn stats(&self) -> v1::StatsResponse {
        let mut client = ModelClient::new(self.channel());
        client.stats(v1::StatsRequest {}).await.unwrap().into_inner()
    }

    pub(crate) async fn describe(&self) -> v1::DescribeResponse {
        let mut client = ModelClient::new(self.channel());
        client.describe(v1::DescribeRequest {}).await.unwrap().into_inner()
    }

    pub(crate) async fn self_check(&self) -> v1::SelfCheckResponse {
        let mut client = ModelClient::new(self.channel());
        client.self_check(v1::SelfCheckRequest {}).await.unwrap().into_inner()
    }

    /// A task from its JSON to its result, through the socket.
    pub(crate) async fn ask<T: NlpTask>(
        &self,
        json: serde_json::Value,
    ) -> Result<T::Result, ApiError> {
        let task: T = serde_json::from_value(json).unwrap();
        let gathered = answer(self.nlp(), task.to_run()?).await?;
        task.result(gathered)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads an answer to its end.
pub(crate) async fn answer(
    mut client: NlpClient<Channel>,
    request: v1::NlpRequest,
) -> Result<Gathered, ApiError> {
    let mut stream = client.run(request).await?.into_inner();
    let mut gathered = Gathered::default();
    while let Some(event) = stream.message().await? {
        gathered.push(event)?;
    }
    Ok(gathered)
}
