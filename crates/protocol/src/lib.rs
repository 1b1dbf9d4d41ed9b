//! What the processes of Ai-semble and their clients say to each other: gRPC definitions, JSON
//! types of the HTTP API, the closed set of error codes, API keys, and the limits that both sides
//! know.
//!
//! It must not know how anything is carried or done: no axum, no candle, no store.

pub mod completion;
pub mod data;
pub mod error;
pub mod file;
pub mod job;
pub mod keys;
pub mod limits;
pub mod model;
pub mod nlp;
pub mod response_format;
pub mod tools;
pub mod vision;
pub mod workflow;

/// The gRPC messages, clients and servers, generated from `proto/aisemble/v1/*.proto`.
#[expect(
    missing_docs,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::too_many_lines,
    clippy::large_enum_variant,
    reason = "generated code; the .proto files carry the documentation"
)]
pub mod v1 {
    tonic::include_proto!("aisemble.v1");

    /// The encoded `FileDescriptorSet` of all definitions, for gRPC reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
}

pub use error::{ApiError, ErrorCode};
pub use file::FileId;
pub use job::{JobId, JobState};
