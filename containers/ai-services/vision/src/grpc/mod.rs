//! The gRPC service in front of the models: a request is checked as a whole, its images are
//! analysed a few at a time, and each result is sent when it is there.
//!
//! It must not know networks or how batches are made.

mod stream;

use aisemble_protocol::{v1, vision};
use aisemble_service::{Ready, deadline};
use futures_util::stream::BoxStream;
use tonic::{Request, Response, Status};

use crate::service::VisionService;

/// The `Vision` service.
#[derive(Debug, Clone)]
pub struct VisionApi {
    ready: Ready<VisionService>,
}

impl VisionApi {
    /// A server of it; it answers `unavailable` until `ready` is.
    #[must_use]
    pub fn server(ready: Ready<VisionService>) -> v1::vision_server::VisionServer<Self> {
        v1::vision_server::VisionServer::new(Self { ready })
            .max_decoding_message_size(vision::GRPC_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(vision::GRPC_MESSAGE_BYTES_MAX)
    }
}

#[tonic::async_trait]
impl v1::vision_server::Vision for VisionApi {
    type AnalyzeStream = BoxStream<'static, Result<v1::AnalyzeEvent, Status>>;

    async fn analyze(
        &self,
        request: Request<v1::AnalyzeRequest>,
    ) -> Result<Response<Self::AnalyzeStream>, Status> {
        let service = self.ready.get()?;
        let deadline = deadline(request.metadata());
        let stream = stream::analyze(service.host(), request.into_inner(), deadline)?;
        Ok(Response::new(stream))
    }
}
