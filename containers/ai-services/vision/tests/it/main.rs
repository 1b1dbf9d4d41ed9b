//! The vision service as a process, with the real models and real pictures.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bad_input;
mod data;
mod hub;
mod hub_folder;
mod instance;
mod reference;
mod service;
