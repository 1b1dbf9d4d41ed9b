//! Tests of the crate from outside: both stores against one suite and each other, the file, the
//! scheduler, event streams, and processes that are killed.

#![expect(clippy::unwrap_used, reason = "tests, their helpers included")]

mod beside;
mod conformance;
mod crash;
mod docs;
mod file;
mod kill;
mod model;
mod scheduler;
mod streams;
mod support;
