//! The gRPC service in front of the models: checks, windows, and results as messages.
//!
//! It must not know vectors or how batches are made.

mod answer;
mod check;
mod deadline;
mod prepare;

use aisemble_protocol::{limits, v1};
use aisemble_service::Ready;
use futures_util::stream::BoxStream;
use tonic::{Request, Response, Status};

use crate::service::NlpService;

/// The `Nlp` service.
#[derive(Debug, Clone)]
pub struct NlpApi {
    ready: Ready<NlpService>,
}

impl NlpApi {
    /// A server of it; it answers `unavailable` until `ready` is.
    #[must_use]
    pub fn server(ready: Ready<NlpService>) -> v1::nlp_server::NlpServer<Self> {
        v1::nlp_server::NlpServer::new(Self { ready })
            .max_decoding_message_size(limits::GRPC_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(limits::GRPC_MESSAGE_BYTES_MAX)
    }
}

#[tonic::async_trait]
impl v1::nlp_server::Nlp for NlpApi {
    type RunStream = BoxStream<'static, Result<v1::NlpEvent, Status>>;

    async fn run(
        &self,
        request: Request<v1::NlpRequest>,
    ) -> Result<Response<Self::RunStream>, Status> {
        let service = self.ready.get()?;
        let deadline = deadline::of(request.metadata());
        let stream = answer::run(service.host(), request.into_inner(), deadline).await?;
        Ok(Response::new(stream))
    }
}
