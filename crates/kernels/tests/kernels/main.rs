//! Every kernel against the plain reference, over random shapes, on every instruction set that
//! this machine has and with 1 to 3 threads.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking; helpers are tests too")]

mod samples;

mod attention;
mod encoder;
mod matmul;
mod rows;
