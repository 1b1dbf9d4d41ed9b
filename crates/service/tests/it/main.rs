//! Runs a tiny service as a process of its own and looks at it from outside, as its clients and its
//! operator do. One binary for all, so that it links once.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says what it could not run"
)]

mod drain;
mod exits;
mod lifecycle;
mod panics;
mod peers;
mod process;
mod sockets;
