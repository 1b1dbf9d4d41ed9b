//! The gRPC service in front of the model: checks, tokens, and pieces of answers as messages.
//!
//! It must not know tensors or how steps are planned.

mod generate;
mod input;
mod tokens;

use aisemble_protocol::{limits, v1};
use aisemble_service::Ready;
use futures_util::stream::BoxStream;
use tonic::{Request, Response, Status};

use crate::service::LlmService;

/// The `Llm` service.
#[derive(Debug, Clone)]
pub struct LlmApi {
    ready: Ready<LlmService>,
}

impl LlmApi {
    /// A server of it; it answers `unavailable` until `ready` is.
    #[must_use]
    pub fn server(ready: Ready<LlmService>) -> v1::llm_server::LlmServer<Self> {
        v1::llm_server::LlmServer::new(Self { ready })
            .max_decoding_message_size(limits::GRPC_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(limits::GRPC_MESSAGE_BYTES_MAX)
    }
}

#[tonic::async_trait]
impl v1::llm_server::Llm for LlmApi {
    type GenerateStream = BoxStream<'static, Result<v1::GenerateEvent, Status>>;

    async fn generate(
        &self,
        request: Request<v1::GenerateRequest>,
    ) -> Result<Response<Self::GenerateStream>, Status> {
        let service = self.ready.get()?;
        let deadline = generate::deadline(request.metadata());
        let stream = generate::generate(service.host(), request.into_inner(), deadline).await?;
        Ok(Response::new(stream))
    }

    async fn tokenize(
        &self,
        request: Request<v1::TokenizeRequest>,
    ) -> Result<Response<v1::TokenizeResponse>, Status> {
        let service = self.ready.get()?;
        Ok(Response::new(tokens::tokenize(service.host(), request.into_inner()).await?))
    }

    async fn detokenize(
        &self,
        request: Request<v1::DetokenizeRequest>,
    ) -> Result<Response<v1::DetokenizeResponse>, Status> {
        let service = self.ready.get()?;
        Ok(Response::new(tokens::detokenize(service.host(), &request.into_inner())?))
    }
}
