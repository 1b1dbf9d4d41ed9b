//! The smallest service: no model, and calls that end, hang, or panic as a test asks. It runs under
//! the llm's sandbox policy.
//!
//! It must not know the tests; they steer it by its settings and by the prompts they send.

use std::path::PathBuf;
use std::pin::Pin;
use std::process::ExitCode;

use aisemble_protocol::{ApiError, limits, v1};
use aisemble_service::config::SocketPath;
use aisemble_service::{
    DrainConfig, GrpcConfig, InvalidConfig, LoadProgress, LogConfig, Paths, Ready, Service,
    ServiceConfig, SocketConfig, StartError,
};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::RoutesBuilder;
use tonic::{Request, Response, Status};

fn main() -> ExitCode {
    aisemble_service::run::<Tiny>()
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    socket: SocketConfig,
    log: LogConfig,
    drain: DrainConfig,
    model: ModelConfig,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ModelConfig {
    /// A file that must be there.
    path: Option<PathBuf>,
    /// A pipe: the load waits until somebody has opened it for writing and closed it again.
    gate: Option<PathBuf>,
    /// The load fails, or panics.
    fail: Fail,
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Fail {
    #[default]
    Never,
    Error,
    Panic,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            socket: SocketConfig::of_service("tiny"),
            log: LogConfig::default(),
            drain: DrainConfig::default(),
            model: ModelConfig::default(),
        }
    }
}

impl ServiceConfig for Config {
    fn validate(&self) -> Result<(), InvalidConfig> {
        Ok(())
    }

    fn log(&self) -> &LogConfig {
        &self.log
    }

    fn drain(&self) -> &DrainConfig {
        &self.drain
    }

    fn health_socket(&self) -> Option<&SocketPath> {
        Some(&self.socket.path)
    }
}

impl GrpcConfig for Config {
    fn socket(&self) -> &SocketConfig {
        &self.socket
    }
}

struct Tiny {
    draining: watch::Sender<bool>,
}

impl Service for Tiny {
    const NAME: &'static str = "tiny";
    const VERSION: &'static str = "1.2.3";
    const POLICY: &'static str = "llm";
    type Config = Config;

    fn paths(config: &Config) -> Paths {
        let read = config.model.path.iter().chain(&config.model.gate).filter(|path| path.exists());
        Paths { read: read.cloned().collect(), ..Paths::default() }
    }

    fn load(config: &Config, progress: &LoadProgress) -> Result<Self, StartError> {
        progress.report("weights", 43, 100);
        if let Some(path) = &config.model.path {
            std::fs::read(path).map_err(|source| {
                StartError::config(format!("the model {} cannot be read", path.display()))
                    .with_source(source)
                    .with_hint("pull the model")
            })?;
        }
        if let Some(gate) = &config.model.gate {
            std::fs::read(gate).map_err(|source| {
                StartError::failed("the gate cannot be read").with_source(source)
            })?;
        }
        match config.model.fail {
            Fail::Never => Ok(Self { draining: watch::Sender::new(false) }),
            Fail::Error => Err(StartError::failed("the warm-up gave a wrong output")),
            Fail::Panic => panic!("secret prompt"),
        }
    }

    fn routes(ready: Ready<Self>, routes: &mut RoutesBuilder) {
        let server = v1::llm_server::LlmServer::new(Handlers { ready })
            .max_decoding_message_size(limits::GRPC_MESSAGE_BYTES_MAX);
        routes.add_service(server);
    }

    fn describe(&self) -> v1::DescribeResponse {
        let model = v1::ModelInfo { name: "tiny".to_owned(), ..v1::ModelInfo::default() };
        v1::DescribeResponse { models: vec![model], ..v1::DescribeResponse::default() }
    }

    fn stats(&self) -> v1::StatsResponse {
        v1::StatsResponse { requests_total: 7, ..v1::StatsResponse::default() }
    }

    async fn drain(&self) {
        self.draining.send_replace(true);
    }
}

struct Handlers {
    ready: Ready<Tiny>,
}

type Events = Pin<Box<dyn Stream<Item = Result<v1::GenerateEvent, Status>> + Send>>;

#[tonic::async_trait]
impl v1::llm_server::Llm for Handlers {
    type GenerateStream = Events;

    /// `until-drain` ends once the service drains, `forever` never, `panic-midway` in the middle.
    async fn generate(
        &self,
        request: Request<v1::GenerateRequest>,
    ) -> Result<Response<Events>, Status> {
        let tiny = self.ready.get()?;
        let prompt = match request.into_inner().input {
            Some(v1::generate_request::Input::Prompt(prompt)) => prompt,
            Some(v1::generate_request::Input::Chat(_)) | None => String::new(),
        };
        if prompt == "panic-midway" {
            let events = futures_util::stream::unfold(true, |first| async move {
                if !first {
                    // The first token leaves the process before the defect.
                    tokio::task::yield_now().await;
                    panic!("secret prompt");
                }
                Some((Ok(token("first")), false))
            });
            return Ok(Response::new(Box::pin(events)));
        }
        let (sender, receiver) = mpsc::channel(4);
        tokio::spawn(async move {
            let _ = sender.send(Ok(token("first"))).await;
            match prompt.as_str() {
                "forever" => sender.closed().await,
                "until-drain" => {
                    let _ = tiny.draining.subscribe().wait_for(|draining| *draining).await;
                    let _ = sender.send(Ok(token("last"))).await;
                }
                _ => {}
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    /// `panic` panics; the length of any other text is its only token.
    async fn tokenize(
        &self,
        request: Request<v1::TokenizeRequest>,
    ) -> Result<Response<v1::TokenizeResponse>, Status> {
        self.ready.get()?;
        let Some(v1::tokenize_request::Input::Prompt(prompt)) = request.into_inner().input else {
            return Err(ApiError::invalid("prompt", "a prompt is needed").into());
        };
        tracing::info!("tokenizing");
        assert!(prompt != "panic", "secret prompt");
        let length = u32::try_from(prompt.len()).unwrap_or(u32::MAX);
        Ok(Response::new(v1::TokenizeResponse { ids: vec![length], pieces: Vec::new() }))
    }

    async fn detokenize(
        &self,
        _request: Request<v1::DetokenizeRequest>,
    ) -> Result<Response<v1::DetokenizeResponse>, Status> {
        Ok(Response::new(v1::DetokenizeResponse::default()))
    }
}

fn token(text: &str) -> v1::GenerateEvent {
    let token = v1::Token { text: text.to_owned(), ..v1::Token::default() };
    v1::GenerateEvent { event: Some(v1::generate_event::Event::Token(token)) }
}
