//! The language-model service: a decoder on candle tensors, continuous batching over a paged KV
//! cache, sampling, text in and out, and the gRPC service in front of it.
//!
//! The way of a request: [`grpc`] (checks, tokens) -> batcher (permit, queue) -> [`engine`] (rows
//! of the next step) -> [`model`] (logits) -> [`sampling`] -> [`text`] (characters, stop strings)
//! -> the caller's bounded channel. See docs/llm.md.

pub mod config;
pub mod constraint;
pub mod device;
pub mod engine;
mod files;
pub mod grpc;
pub mod host;
pub mod model;
pub mod sampling;
pub mod service;
pub mod serving;
pub mod text;
pub mod warmup;
