//! The gRPC server of a service: its own routes, those that every service has, and the guard around
//! all of them.

mod deadline;
mod guard;
mod model;

use std::future::Future;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use aisemble_protocol::{limits, v1};
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::RoutesBuilder;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::drain::Running;
use crate::memory::Memory;
use crate::socket::Connection;
use crate::{Ready, Service, StartError};
use guard::GuardLayer;
use model::ModelService;

pub use deadline::deadline;
pub(crate) use model::elapsed_ms;

/// Calls at once on one connection. Above any service's queue, so that the queue is what refuses.
const STREAMS_PER_CONNECTION_MAX: u32 = 1024;
/// Bytes of a call's metadata.
const HEADER_BYTES_MAX: u32 = 16 * 1024;
/// How often a quiet connection is asked whether it lives, and how long the answer may take.
const PING_INTERVAL: Duration = Duration::from_secs(60);

/// What the server knows of the process.
#[derive(Debug)]
pub(crate) struct Process {
    pub memory: Memory,
    pub started_at: Instant,
    /// Set when the service is ready.
    pub load_ms: OnceLock<u64>,
}

/// The health of a service, for the whole (`""`) and for the `Model` service.
#[derive(Clone)]
pub(crate) struct Health(HealthReporter);

impl Health {
    pub(crate) async fn set(&self, serving: bool) {
        let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        for name in HEALTH_NAMES {
            self.0.set_service_status(name, status).await;
        }
    }

    /// Ends the streams of those who watch.
    pub(crate) async fn close(mut self) {
        for name in HEALTH_NAMES {
            self.0.clear_service_status(name).await;
        }
    }
}

const HEALTH_NAMES: [&str; 2] = ["", "aisemble.v1.Model"];

/// Builds the server: `serve` resolves some time after `stop` does, when every connection is
/// closed. The health says NOT_SERVING.
///
/// # Errors
/// When the definitions do not decode: a defect of the build.
pub(crate) async fn server<S: Service>(
    parts: Parts<S>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(Health, impl Future<Output = Result<(), tonic::transport::Error>> + Send), StartError>
{
    let Parts { ready, process, running, connections } = parts;
    let (reporter, health_server) = tonic_health::server::health_reporter();
    let health = Health(reporter);
    health.set(false).await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(v1::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(|source| {
            StartError::failed("the gRPC definitions do not decode").with_source(source)
        })?;
    let model = v1::model_server::ModelServer::new(ModelService::new(ready.clone(), process))
        .max_decoding_message_size(limits::GRPC_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(limits::GRPC_MESSAGE_BYTES_MAX);
    let mut routes = RoutesBuilder::default();
    routes.add_service(health_server).add_service(reflection).add_service(model);
    S::routes(ready, &mut routes);
    let serve = Server::builder()
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .http2_keepalive_interval(Some(PING_INTERVAL))
        .http2_keepalive_timeout(Some(PING_INTERVAL))
        .layer(GuardLayer::new(running))
        .add_routes(routes.routes())
        .serve_with_incoming_shutdown(connections, stop);
    Ok((health, serve))
}

/// What a server is built of.
pub(crate) struct Parts<S> {
    pub ready: Ready<S>,
    pub process: Arc<Process>,
    pub running: Running,
    pub connections: ReceiverStream<io::Result<Connection>>,
}
