//! Tests of the crate from outside: both stores against one suite and each other, the file, the
//! scheduler, event streams, and processes that are killed.

mod conformance;
mod crash;
mod docs;
mod file;
mod kill;
mod model;
mod scheduler;
mod streams;
mod support;
