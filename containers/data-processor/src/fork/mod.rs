//! New processes without executing anything: a server is forked off while this process has one
//! thread and forks one child a query. It knows descriptors, limits and how processes end; what a
//! child does is given to it.

mod client;
mod server;
mod wire;

use std::io;

pub use client::{Child, Ending, Forks};
pub use server::start;

/// What the kernel holds a child to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChildLimits {
    /// Memory that it may have as its own, bytes (`RLIMIT_DATA`).
    pub memory_bytes_max: u64,
    /// Addresses, mapped files included, bytes (`RLIMIT_AS`).
    pub address_bytes_max: u64,
    /// Processor time, seconds (`RLIMIT_CPU`).
    pub cpu_s_max: u64,
    /// Any file that it writes, bytes (`RLIMIT_FSIZE`).
    pub file_bytes_max: u64,
}

/// The result of a system call that answers -1 on failure.
fn checked(result: i64) -> io::Result<i64> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
