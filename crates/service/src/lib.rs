//! What every process of Ai-semble shares: configuration, logs, the order of confinement, Unix
//! sockets, health, drain. A gRPC service is a [`Service`] given to [`run`]; a process of another
//! kind puts the same blocks together itself.
//!
//! It must not know what a service does: no models, no jobs, no HTTP routes.

pub mod config;
pub mod drain;
mod grpc;
mod health;
pub mod inherited;
pub mod memory;
pub mod notify;
mod panics;
mod ready;
mod run;
pub mod runtime;
pub mod sandboxed;
pub mod signals;
pub mod socket;
mod start;
pub mod telemetry;

pub use aisemble_sandbox::{Paths, Report};
pub use config::{
    DrainConfig, GrpcConfig, InvalidConfig, LogConfig, SecretFile, ServiceConfig, SocketConfig,
};
pub use grpc::deadline;
pub use ready::{LoadProgress, Ready};
pub use run::{Service, run};
pub use start::{StartError, Started, start, start_from};
