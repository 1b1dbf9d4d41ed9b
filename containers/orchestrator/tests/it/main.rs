//! The orchestrator served on a real loopback listener, with a real gRPC peer on a Unix socket in
//! the place of each service: what it answers is simple, its transport is not.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod bad_input;
mod capabilities;
mod completion;
mod connections;
mod disk;
mod documents;
mod files;
mod jobs;
mod keys;
mod nlp;
mod openai;
mod peer;
mod process;
mod quota;
mod refusals;
mod responses;
mod resume;
mod services;
mod stack;
mod tools;
mod vision_data;
mod workflows;
