//! The vision service as a process, with the real models and real pictures.

mod bad_input;
mod data;
mod instance;
mod reference;
mod service;
