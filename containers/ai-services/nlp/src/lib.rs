//! The nlp service: encoders that embed, rerank, classify, find entities and redact.
//!
//! The way of a request: [`grpc`] (checks) -> [`text`] (tokens, windows of long texts) -> batcher
//! (permit, queue) -> [`serving`] (windows of several requests, sorted by length, up to a budget of
//! tokens) -> [`encoder`] (one forward pass without padding) -> [`heads`] (one output a window) ->
//! [`tasks`] (windows to texts, entities, redaction) -> the caller. See docs/nlp.md.

pub mod config;
pub mod encoder;
pub mod grpc;
pub mod heads;
pub mod host;
pub mod model;
pub mod service;
pub mod serving;
pub mod tasks;
pub mod tensors;
pub mod text;
pub mod warmup;
