//! The llm service with its real parts: the real model, the real model thread, a real socket.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bounds;
mod checkpoint;
mod engine_thread;
mod families;
mod functions;
mod instance;
mod model_file;
mod reference;
mod service;
mod tiny;
