//! The llm service with its real parts: the real model, the real model thread, a real socket.

mod bounds;
mod engine_thread;
mod instance;
mod model_file;
mod reference;
mod service;
