//! The real binary as a child process, confined as in production, and clients of its socket.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use aisemble_protocol::v1::generate_event::Event;
use aisemble_protocol::v1::llm_client::LlmClient;
use aisemble_protocol::v1::model_client::ModelClient;
use aisemble_protocol::{ApiError, v1};
use tempfile::TempDir;
use tonic::transport::Channel;

use crate::model_file;

/// How long anything may take on a loaded machine before a test gives up.
const PATIENCE: Duration = Duration::from_secs(120);
const LOG_LINES_MAX: usize = 4096;

/// A running service; it ends with the value.
pub(crate) struct Instance {
    folder: TempDir,
    child: Child,
    log: Receiver<serde_json::Value>,
}

impl Instance {
    /// Starts it with more settings than the model's and the socket's path; not ready yet.
    pub(crate) fn start(settings: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_ai-semble-llm"));
        command.current_dir(folder.path()).env_clear();
        let path = format!("model.path={}", model_file::path().display());
        let socket = format!("socket.path={}", folder.path().join("run/llm.sock").display());
        for setting in [path.as_str(), socket.as_str()].into_iter().chain(settings.iter().copied())
        {
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
    pub(crate) fn serving(settings: &[&str]) -> Self {
        let instance = Self::start(settings);
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
        aisemble_service::socket::channel(&self.folder.path().join("run/llm.sock"))
    }

    pub(crate) fn llm(&self) -> LlmClient<Channel> {
        LlmClient::new(self.channel())
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
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A greedy request for a raw prompt.
pub(crate) fn prompt(text: &str, max_tokens: u32) -> v1::GenerateRequest {
    v1::GenerateRequest {
        input: Some(v1::generate_request::Input::Prompt(text.to_owned())),
        sampling: Some(v1::Sampling::default()),
        max_tokens,
        ..v1::GenerateRequest::default()
    }
}

/// One message of a chat.
pub(crate) fn said(role: &str, content: &str) -> v1::ChatMessage {
    let (role, content) = (role.to_owned(), content.to_owned());
    v1::ChatMessage { role, content, ..v1::ChatMessage::default() }
}

/// A greedy request for a chat of one message.
pub(crate) fn chat(content: &str, max_tokens: u32) -> v1::GenerateRequest {
    let message = said("user", content);
    let chat = v1::Chat { messages: vec![message], ..v1::Chat::default() };
    v1::GenerateRequest {
        input: Some(v1::generate_request::Input::Chat(chat)),
        ..prompt("", max_tokens)
    }
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) started: v1::Started,
    pub(crate) tokens: Vec<v1::Token>,
    pub(crate) finished: v1::Finished,
    /// The text of the tokens and the tail.
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn ids(&self) -> Vec<u32> {
        self.tokens.iter().map(|token| token.id).collect()
    }
}

/// Reads an answer to its end, which must be a good one.
pub(crate) async fn answer(
    mut client: LlmClient<Channel>,
    request: v1::GenerateRequest,
) -> Result<Answer, ApiError> {
    let mut stream = client.generate(request).await?.into_inner();
    let mut started = None;
    let mut tokens: Vec<v1::Token> = Vec::new();
    while let Some(event) = stream.message().await? {
        match event.event.unwrap() {
            Event::Started(event) => assert!(started.replace(event).is_none() && tokens.is_empty()),
            Event::Token(token) => tokens.push(token),
            Event::Finished(finished) => {
                assert!(stream.message().await?.is_none(), "something after the end");
                let mut text: String = tokens.iter().map(|token| token.text.as_str()).collect();
                text.push_str(&finished.text_tail);
                let started = started.expect("an answer has a beginning");
                return Ok(Answer { started, tokens, finished, text });
            }
        }
    }
    panic!("the stream ended without an end");
}
