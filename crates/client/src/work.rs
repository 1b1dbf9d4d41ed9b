//! Work of every kind that is done as a job (`/ai/*`, `/data/process`), in its three forms:
//! submitted, waited for, followed. What differs between the kinds is in [`WorkRequest`].

use std::pin::Pin;
use std::time::Duration;

use aisemble_protocol::completion::{CompletionRequest, CompletionResult};
use aisemble_protocol::data::{ProcessRequest, ProcessResult};
use aisemble_protocol::job::JobView;
use aisemble_protocol::limits;
use aisemble_protocol::nlp::{
    ClassifyRequest, EmbedRequest, EntitiesRequest, NlpTask, RedactRequest, RerankRequest,
};
use aisemble_protocol::vision::{AnalyzeRequest, AnalyzeResult, ImageResult};
use futures_util::Stream;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::completion::{Frames, WAIT_MARGIN, error_in, once};
use crate::error::ClientError;
use crate::http::{Call, Client};

/// A request for work, and where it goes.
pub trait WorkRequest: Serialize + Sync {
    /// Its route.
    const PATH: &'static str;
    /// The whole answer.
    type Answer: DeserializeOwned + Send + 'static;
    /// The answer of one of its parts, as it streams; [`Value`] where there are none.
    type Item: DeserializeOwned + Send + 'static;
}

macro_rules! nlp_requests {
    ($($request:ty => $path:literal),* $(,)?) => {$(
        impl WorkRequest for $request {
            const PATH: &'static str = $path;
            type Answer = <$request as NlpTask>::Result;
            type Item = Value;
        }
    )*};
}

nlp_requests! {
    EmbedRequest => "/ai/nlp/embed",
    RerankRequest => "/ai/nlp/rerank",
    ClassifyRequest => "/ai/nlp/classify",
    EntitiesRequest => "/ai/nlp/entities",
    RedactRequest => "/ai/nlp/redact",
}

impl WorkRequest for CompletionRequest {
    const PATH: &'static str = "/ai/llm/completion";
    type Answer = CompletionResult;
    type Item = Value;
}

impl WorkRequest for AnalyzeRequest {
    const PATH: &'static str = "/ai/vision/analyze";
    type Answer = AnalyzeResult;
    type Item = ImageResult;
}

impl WorkRequest for ProcessRequest {
    const PATH: &'static str = "/data/process";
    type Answer = ProcessResult;
    type Item = Value;
}

/// What happens while work is done.
#[derive(Debug, Clone, PartialEq)]
pub enum WorkEvent<A, I> {
    /// The job that does it; first.
    Job(Box<JobView>),
    /// The result of one text or picture; in the order in which they are done.
    Item(I),
    /// Text of a completion.
    Token(String),
    /// How far it is; what is counted depends on the kind.
    Progress(Value),
    /// The job was tried again: the items and the text so far are void.
    Restart {
        /// The attempt that works now.
        attempt: u32,
    },
    /// The whole; last.
    Result(Box<A>),
}

/// The events of one piece of work. Ends after `Result` or the first error.
pub type WorkEvents<R> = Pin<Box<dyn Stream<Item = NextEvent<R>> + Send>>;

type NextEvent<R> =
    Result<WorkEvent<<R as WorkRequest>::Answer, <R as WorkRequest>::Item>, ClientError>;

#[derive(Deserialize)]
struct TokenText {
    text: String,
}

#[derive(Deserialize)]
struct RestartOf {
    attempt: u32,
}

impl Client {
    /// Makes a job of the request and returns at once. Safe to repeat: a key that makes the job
    /// unique is sent along, `idempotency` or a random one.
    ///
    /// # Errors
    /// As any call.
    pub async fn submit<R: WorkRequest>(
        &self,
        request: &R,
        idempotency: Option<&str>,
    ) -> Result<JobView, ClientError> {
        let call = Call::new(reqwest::Method::POST, R::PATH).json(request)?;
        self.fetch(&once(call, idempotency)).await?.decode()
    }

    /// Makes a job of the request and waits for its end, at most `wait` (seconds count). When the
    /// time runs out, the job goes on and its view is given.
    ///
    /// # Errors
    /// As any call; a job that failed gives its own error.
    pub async fn run<R: WorkRequest>(
        &self,
        request: &R,
        wait: Duration,
    ) -> Result<Result<R::Answer, JobView>, ClientError> {
        let seconds = wait.as_secs().clamp(1, limits::PREFER_WAIT_S_MAX);
        let mut call = once(Call::new(reqwest::Method::POST, R::PATH).json(request)?, None)
            .header("prefer", format!("wait={seconds}"));
        call.patience = Duration::from_secs(seconds) + WAIT_MARGIN;
        let answer = self.fetch(&call).await?;
        if answer.status == 202 {
            return Ok(Err(answer.decode()?));
        }
        Ok(Ok(answer.decode()?))
    }

    /// Makes a job of the request and follows it. Dropping the stream leaves the job running.
    ///
    /// # Errors
    /// As any call, before the stream begins; later ones come in the stream.
    pub async fn follow<R: WorkRequest + 'static>(
        &self,
        request: &R,
    ) -> Result<WorkEvents<R>, ClientError> {
        let call = Call::new(reqwest::Method::POST, R::PATH)
            .json(request)?
            .header("accept", "text/event-stream");
        let call = once(call, None);
        let response = self.open(&call).await?;
        let frames = Frames::new(self.clone(), response, call.what());
        Ok(Box::pin(futures_util::stream::unfold(Some(frames), |state| async move {
            let mut frames = state?;
            match next::<R>(&mut frames).await {
                Ok(event @ WorkEvent::Result(_)) => Some((Ok(event), None)),
                Ok(event) => Some((Ok(event), Some(frames))),
                Err(error) => Some((Err(error), None)),
            }
        })))
    }

    /// The result of a job of that kind of request: [`Client::job_result`], typed.
    ///
    /// # Errors
    /// As [`Client::job_result`].
    pub async fn result_of<R: WorkRequest>(
        &self,
        id: aisemble_protocol::JobId,
    ) -> Result<R::Answer, ClientError> {
        self.fetch(&Call::get(format!("/jobs/{id}/result"))).await?.decode()
    }
}

async fn next<R: WorkRequest>(frames: &mut Frames) -> NextEvent<R> {
    loop {
        let Some(frame) = frames.next().await? else {
            return Err(frames.ended());
        };
        return Ok(match frame.event.as_str() {
            "job" => WorkEvent::Job(Box::new(frames.decode(&frame)?)),
            "item" => WorkEvent::Item(frames.decode(&frame)?),
            "token" => WorkEvent::Token(frames.decode::<TokenText>(&frame)?.text),
            "progress" => WorkEvent::Progress(frames.decode(&frame)?),
            "restart" => {
                WorkEvent::Restart { attempt: frames.decode::<RestartOf>(&frame)?.attempt }
            }
            "result" => WorkEvent::Result(Box::new(frames.decode(&frame)?)),
            "error" => return Err(error_in(&frame)),
            // An event of a newer server: what this client knows still holds.
            _ => continue,
        });
    }
}
