//! A service in this process: the gRPC side of an llm, with a generator whose next token is a
//! function of prompt, seed and position. What a prompt says decides how it behaves:
//! `hold` waits for leave before each token, `die` breaks the first attempt off after two tokens,
//! `say:` has it say what follows, in pieces that respect nothing.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use aisemble_protocol::v1;
use aisemble_protocol::v1::generate_event::Event;
use aisemble_protocol::v1::llm_server::{Llm, LlmServer};
use aisemble_protocol::v1::model_server::{Model, ModelServer};
use aisemble_protocol::{ApiError, ErrorCode};
use futures_util::Stream;
use tokio::net::UnixListener;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::{Request, Response, Status};
use tonic_health::server::HealthReporter;

/// The model's name.
pub(crate) const MODEL: &str = "counting-words";
/// Tokens after which it ends by itself.
pub(crate) const WORDS: u32 = 5;
/// Words that fit into its context.
const CONTEXT_WORDS: usize = 200;
const SHA256: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// A running service.
#[derive(Debug)]
pub(crate) struct Peer {
    state: Arc<State>,
    health: HealthReporter,
    server: JoinHandle<()>,
}

#[derive(Debug)]
struct State {
    model: &'static str,
    rows_max: u32,
    queue_max: u32,
    /// One permit a token of a `hold` prompt.
    leave: Semaphore,
    calls: AtomicU64,
    deaths: AtomicU32,
    cancelled: Notify,
    traces: std::sync::Mutex<Vec<String>>,
}

impl Peer {
    /// A service that takes `rows_max` calls at once and queues `queue_max`, ready at once.
    pub(crate) async fn start(path: &Path, limits: (u32, u32)) -> Self {
        Self::hosting(MODEL, path, limits).await
    }

    /// The same with a model of that name.
    pub(crate) async fn hosting(
        model: &'static str,
        path: &Path,
        (rows_max, queue_max): (u32, u32),
    ) -> Self {
        let state = Arc::new(State {
            model,
            rows_max,
            queue_max,
            leave: Semaphore::new(0),
            calls: AtomicU64::new(0),
            deaths: AtomicU32::new(0),
            cancelled: Notify::new(),
            traces: std::sync::Mutex::default(),
        });
        let (health, health_server) = tonic_health::server::health_reporter();
        let listener = UnixListener::bind(path).unwrap();
        let routes = tonic::transport::Server::builder()
            .add_service(health_server)
            .add_service(LlmServer::new(Service(Arc::clone(&state))))
            .add_service(ModelServer::new(Service(Arc::clone(&state))));
        let server = tokio::spawn(async move {
            routes.serve_with_incoming(UnixListenerStream::new(listener)).await.unwrap();
        });
        Self { state, health, server }
    }

    /// Gives leave for so many tokens of `hold` prompts.
    pub(crate) fn let_go(&self, tokens: usize) {
        self.state.leave.add_permits(tokens);
    }

    /// Says that it is not ready any more.
    pub(crate) async fn unready(&self) {
        self.health.set_service_status("", tonic_health::ServingStatus::NotServing).await;
    }

    /// Resolves when a caller has gone away in the middle.
    pub(crate) async fn cancelled(&self) {
        self.state.cancelled.notified().await;
    }

    /// Calls so far.
    pub(crate) fn calls(&self) -> u64 {
        self.state.calls.load(Ordering::Relaxed)
    }

    /// `traceparent` of each call.
    pub(crate) fn traces(&self) -> Vec<String> {
        self.state.traces.lock().unwrap().clone()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

struct Service(Arc<State>);

type Events = Pin<Box<dyn Stream<Item = Result<v1::GenerateEvent, Status>> + Send>>;

#[tonic::async_trait]
impl Llm for Service {
    type GenerateStream = Events;

    async fn generate(
        &self,
        request: Request<v1::GenerateRequest>,
    ) -> Result<Response<Events>, Status> {
        let trace = request.metadata().get("traceparent").unwrap().to_str().unwrap().to_owned();
        self.0.traces.lock().unwrap().push(trace);
        self.0.calls.fetch_add(1, Ordering::Relaxed);
        let request = request.into_inner();
        let prompt = prompt_of(&request);
        let words = prompt.split_whitespace().count();
        if words > CONTEXT_WORDS {
            let message = format!("the prompt has {words} tokens; the context has {CONTEXT_WORDS}");
            return Err(ApiError::new(ErrorCode::Unprocessable, message).into());
        }
        let (sender, receiver) = mpsc::channel(1);
        let state = Arc::clone(&self.0);
        tokio::spawn(async move {
            if write(&state, &request, &prompt, &sender).await.is_none() {
                state.cancelled.notify_one();
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn tokenize(
        &self,
        request: Request<v1::TokenizeRequest>,
    ) -> Result<Response<v1::TokenizeResponse>, Status> {
        let Some(v1::tokenize_request::Input::Prompt(prompt)) = request.into_inner().input else {
            return Err(ApiError::new(ErrorCode::Unprocessable, "no chats here").into());
        };
        let pieces: Vec<String> = prompt.split_inclusive(' ').map(str::to_owned).collect();
        let ids = (0_u32..).zip(&pieces).map(|(id, _)| id).collect();
        Ok(Response::new(v1::TokenizeResponse { ids, pieces }))
    }

    async fn detokenize(
        &self,
        request: Request<v1::DetokenizeRequest>,
    ) -> Result<Response<v1::DetokenizeResponse>, Status> {
        let ids = request.into_inner().ids;
        if ids.contains(&99) {
            return Err(ApiError::invalid("ids", "99 is no token").into());
        }
        let text = ids.into_iter().map(|id| word(0, id)).collect();
        Ok(Response::new(v1::DetokenizeResponse { text }))
    }
}

fn prompt_of(request: &v1::GenerateRequest) -> String {
    match request.input.clone().unwrap() {
        v1::generate_request::Input::Prompt(prompt) => prompt,
        v1::generate_request::Input::Chat(chat) => {
            chat.messages.into_iter().map(|message| message.content).collect::<Vec<_>>().join("\n")
        }
    }
}

/// Writes the events; none when the caller has gone.
async fn write(
    state: &State,
    request: &v1::GenerateRequest,
    prompt: &str,
    sender: &mpsc::Sender<Result<v1::GenerateEvent, Status>>,
) -> Option<()> {
    let send = async |event| sender.send(Ok(v1::GenerateEvent { event: Some(event) })).await.ok();
    let seed = request.sampling.as_ref().and_then(|sampling| sampling.seed).unwrap_or(99);
    let prompt_tokens = u32::try_from(prompt.split_whitespace().count()).unwrap();
    let started = v1::Started {
        model: state.model.to_owned(),
        prompt_tokens,
        seed,
        sha256: SHA256.to_owned(),
        ..v1::Started::default()
    };
    send(Event::Started(started)).await?;
    let dies = prompt.contains("die") && state.deaths.fetch_add(1, Ordering::Relaxed) == 0;
    if let Some((_, script)) = prompt.split_once("say:") {
        return say(request, script, sender).await;
    }
    let end = if request.ignore_eos { request.max_tokens } else { request.max_tokens.min(WORDS) };
    for number in 0..end {
        if prompt.contains("hold") {
            tokio::select! {
                permit = state.leave.acquire() => permit.unwrap().forget(),
                () = sender.closed() => return None,
            }
        }
        if dies && number == 2 {
            // As the transport says it when the process is gone.
            let broken = Status::unknown("error reading a body from connection");
            return sender.send(Err(broken)).await.ok();
        }
        send(Event::Token(token(request, number, seed))).await?;
    }
    let length = end == request.max_tokens;
    let reason = if length { v1::FinishReason::Length } else { v1::FinishReason::Stop };
    let finished = v1::Finished {
        reason: reason.into(),
        prompt_tokens,
        output_tokens: end,
        decode_us: 1_000,
        ..v1::Finished::default()
    };
    send(Event::Finished(finished)).await
}

/// Says `script`, seven characters a token, `max_tokens` at most.
async fn say(
    request: &v1::GenerateRequest,
    script: &str,
    sender: &mpsc::Sender<Result<v1::GenerateEvent, Status>>,
) -> Option<()> {
    let send = async |event| sender.send(Ok(v1::GenerateEvent { event: Some(event) })).await.ok();
    let characters: Vec<char> = script.chars().collect();
    let pieces: Vec<String> = characters.chunks(7).map(|piece| piece.iter().collect()).collect();
    let end = pieces.len().min(request.max_tokens as usize);
    for (id, text) in (0..).zip(&pieces[..end]) {
        let text = text.clone();
        send(Event::Token(v1::Token { id, text, ..v1::Token::default() })).await?;
    }
    let cut = end < pieces.len();
    let reason = if cut { v1::FinishReason::Length } else { v1::FinishReason::Stop };
    let finished = v1::Finished {
        reason: reason.into(),
        prompt_tokens: 3,
        output_tokens: u32::try_from(end).unwrap(),
        ..v1::Finished::default()
    };
    send(Event::Finished(finished)).await
}

fn token(request: &v1::GenerateRequest, number: u32, seed: u64) -> v1::Token {
    let text = word(seed, number);
    let logprob =
        |text: String| v1::Logprob { bytes: text.clone().into_bytes(), token: text, logprob: -0.5 };
    let top = (0..request.top_logprobs).map(|rank| logprob(format!("{text}-{rank}"))).collect();
    v1::Token {
        id: number,
        logprob: request.logprobs.then(|| logprob(text.clone())),
        top_logprobs: if request.logprobs { top } else { Vec::new() },
        text,
    }
}

/// The word at a position.
pub(crate) fn word(seed: u64, number: u32) -> String {
    format!(" {}{number}", ["zero", "one", "two"][usize::try_from(seed % 3).unwrap()])
}

/// The whole text for a seed.
pub(crate) fn text(seed: u64, words: u32) -> String {
    (0..words).map(|number| word(seed, number)).collect()
}

#[tonic::async_trait]
impl Model for Service {
    async fn describe(
        &self,
        _: Request<v1::DescribeRequest>,
    ) -> Result<Response<v1::DescribeResponse>, Status> {
        let limits = v1::Limits {
            context_tokens_max: u32::try_from(CONTEXT_WORDS).unwrap(),
            output_tokens_max: 1_000,
            queue_depth_max: self.0.queue_max,
            batch_rows_max: self.0.rows_max,
        };
        let model = v1::ModelInfo {
            name: self.0.model.to_owned(),
            family: "counter".to_owned(),
            sha256: SHA256.to_owned(),
            device: "cpu".to_owned(),
            limits: Some(limits),
            memory: Some(v1::MemoryPlan { weights_bytes: 1, ..v1::MemoryPlan::default() }),
            ..v1::ModelInfo::default()
        };
        let sandbox = v1::SandboxInfo { seccomp_mode: 2, ..v1::SandboxInfo::default() };
        Ok(Response::new(v1::DescribeResponse {
            service: "llm".to_owned(),
            models: vec![model],
            sandbox: Some(sandbox),
            load_ms: 3_000,
            ..v1::DescribeResponse::default()
        }))
    }

    async fn stats(
        &self,
        _: Request<v1::StatsRequest>,
    ) -> Result<Response<v1::StatsResponse>, Status> {
        let requests_total = self.0.calls.load(Ordering::Relaxed);
        Ok(Response::new(v1::StatsResponse { requests_total, ..v1::StatsResponse::default() }))
    }

    async fn self_check(
        &self,
        _: Request<v1::SelfCheckRequest>,
    ) -> Result<Response<v1::SelfCheckResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }
}
