//! The data processor: tables in, SQL or a pipeline of operations by polars, tables out.
//!
//! The way of a request: [`grpc`] (checks, a place in the queue) -> [`fork`] (a new process, forked
//! by a server that was forked before there were threads) -> [`worker`] (limits, Landlock, seccomp)
//! -> [`engine`] (polars). The service's own process parses no table. See docs/data.md.

pub mod config;
pub mod engine;
pub mod fork;
pub mod grpc;
pub mod host;
mod memory;
mod output;
pub mod service;
pub mod worker;
