//! The data processor with its real parts: the real binary, confined, real processes for queries, a
//! real socket.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bad_input;
mod disk;
mod formats;
mod instance;
mod limits;
mod memory;
mod service;
