//! The nlp service with its real parts: real models, the real model thread, a real socket; and
//! every family on small random weights against another implementation.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod families;
mod instance;
mod models;
mod reference;
mod sentiment;
mod service;
mod stops;
