//! The orchestrator served on a real loopback listener, with a real gRPC peer on a Unix socket in
//! the place of a model service: its text generator is a simple one, its transport is not.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod bad_input;
mod completion;
mod connections;
mod documents;
mod jobs;
mod keys;
mod openai;
mod peer;
mod process;
mod refusals;
mod stack;
