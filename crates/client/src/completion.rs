//! `POST /ai/llm/completion`, in its three forms, and `POST /v1/chat/completions`.

use std::pin::Pin;
use std::time::Duration;

use aisemble_protocol::completion::{CompletionRequest, CompletionResult};
use aisemble_protocol::job::JobView;
use aisemble_protocol::limits;
use bytes::Bytes;
use futures_util::Stream;
use serde::Deserialize;

use crate::backoff::idempotency_key;
use crate::error::{ClientError, Problem};
use crate::http::{Call, Client, IDLE_MAX};
use crate::sse::{Frame, Parser};

const COMPLETION: &str = "/ai/llm/completion";
/// How much longer than the server's own wait the client waits for its answer.
pub(crate) const WAIT_MARGIN: Duration = Duration::from_secs(10);

/// What happens while a completion streams.
#[derive(Debug, Clone, PartialEq)]
pub enum CompletionEvent {
    /// The job that makes it; first.
    Job(Box<JobView>),
    /// Some text.
    Token {
        /// The text.
        text: String,
        /// Which token, from 0.
        index: u64,
    },
    /// The job was tried again and writes another text: what came so far is void.
    Restart {
        /// The attempt that writes now.
        attempt: u32,
    },
    /// The whole; last.
    Result(Box<CompletionResult>),
}

/// The events of a completion. Ends after `Result` or the first error.
pub type CompletionEvents =
    Pin<Box<dyn Stream<Item = Result<CompletionEvent, ClientError>> + Send>>;

#[derive(Deserialize)]
struct TokenData {
    text: String,
    #[serde(default)]
    index: u64,
}

#[derive(Deserialize)]
struct RestartData {
    attempt: u32,
}

impl Client {
    /// Makes a job of the request and returns at once. Safe to repeat: a key that makes the job
    /// unique is sent along, `idempotency` or a random one.
    ///
    /// # Errors
    /// As any call.
    pub async fn submit_completion(
        &self,
        request: &CompletionRequest,
        idempotency: Option<&str>,
    ) -> Result<JobView, ClientError> {
        let call = Call::new(reqwest::Method::POST, COMPLETION).json(request)?;
        self.fetch(&once(call, idempotency)).await?.decode()
    }

    /// Makes a job of the request and waits for its end, at most `wait` (seconds count). When the
    /// time runs out, the job goes on and its view is given.
    ///
    /// # Errors
    /// As any call; a job that failed gives its own error.
    pub async fn complete(
        &self,
        request: &CompletionRequest,
        wait: Duration,
    ) -> Result<Result<CompletionResult, JobView>, ClientError> {
        let seconds = wait.as_secs().clamp(1, limits::PREFER_WAIT_S_MAX);
        let mut call = once(Call::new(reqwest::Method::POST, COMPLETION).json(request)?, None)
            .header("prefer", format!("wait={seconds}"));
        call.patience = Duration::from_secs(seconds) + WAIT_MARGIN;
        let answer = self.fetch(&call).await?;
        if answer.status == 202 {
            return Ok(Err(answer.decode()?));
        }
        Ok(Ok(answer.decode()?))
    }

    /// Makes a job of the request and streams its text. Dropping the stream leaves the job running.
    ///
    /// # Errors
    /// As any call, before the stream begins; later ones come in the stream.
    pub async fn stream_completion(
        &self,
        request: &CompletionRequest,
    ) -> Result<CompletionEvents, ClientError> {
        let call = Call::new(reqwest::Method::POST, COMPLETION)
            .json(request)?
            .header("accept", "text/event-stream");
        let call = once(call, None);
        let response = self.open(&call).await?;
        let frames = Frames::new(self.clone(), response, call.what());
        Ok(Box::pin(futures_util::stream::unfold(Some(frames), |state| async move {
            let mut frames = state?;
            match frames.next_completion().await {
                Ok(event @ CompletionEvent::Result(_)) => Some((Ok(event), None)),
                Ok(event) => Some((Ok(event), Some(frames))),
                Err(error) => Some((Err(error), None)),
            }
        })))
    }

    /// `POST /v1/chat/completions` or another path, as it is: what an OpenAI client does. Keeps no
    /// job. Used to measure that path.
    ///
    /// # Errors
    /// As any call.
    pub async fn post_json(
        &self,
        path: &str,
        body: &serde_json::Value,
    ) -> Result<serde_json::Value, ClientError> {
        let mut call = Call::new(reqwest::Method::POST, path).json(body)?;
        call.patience = Duration::from_secs(limits::PREFER_WAIT_S_MAX);
        self.fetch(&call).await?.decode()
    }
}

/// The call with a key that lets the server know its repetition.
pub(crate) fn once(call: Call, idempotency: Option<&str>) -> Call {
    match idempotency.map(str::to_owned).or_else(idempotency_key) {
        Some(key) => call.header("idempotency-key", key),
        None => call,
    }
}

/// An event stream that is being read.
pub(crate) struct Frames {
    client: Client,
    response: reqwest::Response,
    parser: Parser,
    read: std::collections::VecDeque<Frame>,
    what: String,
}

impl Frames {
    pub(crate) fn new(client: Client, response: reqwest::Response, what: String) -> Self {
        Self {
            client,
            response,
            parser: Parser::default(),
            read: std::collections::VecDeque::new(),
            what,
        }
    }

    /// The next event; none when the server closed the stream.
    pub(crate) async fn next(&mut self) -> Result<Option<Frame>, ClientError> {
        loop {
            if let Some(frame) = self.read.pop_front() {
                return Ok(Some(frame));
            }
            let Some(piece) = self.piece().await? else { return Ok(None) };
            let mut frames = Vec::new();
            self.parser.push(&piece, &mut frames).map_err(|error| ClientError::TooLarge {
                what: self.what.clone(),
                limit_bytes: error.limit_bytes,
            })?;
            self.read.extend(frames);
        }
    }

    /// The stream was closed before its last event.
    pub(crate) fn ended(&self) -> ClientError {
        ClientError::StreamEnded { what: self.what.clone() }
    }

    async fn piece(&mut self) -> Result<Option<Bytes>, ClientError> {
        match tokio::time::timeout(IDLE_MAX, self.response.chunk()).await {
            Ok(piece) => piece.map_err(|source| self.client.broke(source)),
            Err(_) => Err(ClientError::Deadline { what: self.what.clone(), deadline: IDLE_MAX }),
        }
    }

    async fn next_completion(&mut self) -> Result<CompletionEvent, ClientError> {
        loop {
            let Some(frame) = self.next().await? else { return Err(self.ended()) };
            match frame.event.as_str() {
                "job" => return Ok(CompletionEvent::Job(Box::new(self.decode(&frame)?))),
                "token" => {
                    let TokenData { text, index } = self.decode(&frame)?;
                    return Ok(CompletionEvent::Token { text, index });
                }
                "restart" => {
                    let RestartData { attempt } = self.decode(&frame)?;
                    return Ok(CompletionEvent::Restart { attempt });
                }
                "result" => return Ok(CompletionEvent::Result(Box::new(self.decode(&frame)?))),
                "error" => return Err(error_in(&frame)),
                // An event of a newer server: what this client knows still holds.
                _ => {}
            }
        }
    }

    pub(crate) fn decode<T: serde::de::DeserializeOwned>(
        &self,
        frame: &Frame,
    ) -> Result<T, ClientError> {
        serde_json::from_str(&frame.data).map_err(|error| ClientError::Decode {
            what: self.what.clone(),
            why: format!("event {:?}: {error}", frame.event),
        })
    }
}

/// The error that an event `error` carries.
pub(crate) fn error_in(frame: &Frame) -> ClientError {
    let mut problem = Problem::read(0, frame.data.as_bytes(), None);
    problem.status = status_in(&frame.data).unwrap_or(500);
    ClientError::Api { problem: Box::new(problem) }
}

fn status_in(problem: &str) -> Option<u16> {
    let value: serde_json::Value = serde_json::from_str(problem).ok()?;
    value.get("status")?.as_u64()?.try_into().ok()
}
