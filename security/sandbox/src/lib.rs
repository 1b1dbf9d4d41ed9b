//! The in-process sandbox of every ai-semble service: Landlock and seccomp in two steps.
//!
//! [`confine`] runs before the first thread exists and refuses what no service ever needs;
//! [`Confined::lock_down`] runs once the model is loaded and leaves only what serving needs.
//! What is allowed is data (`policies/*.json`), not code; `docs/sandbox.md` says how to read it.
//!
//! This crate must not know tokio, gRPC, models or configuration: it is given paths and a policy
//! name, and it fails closed.

pub mod attempt;
mod check;
mod confine;
mod error;
mod filter;
mod landlock_domain;
mod narrow;
#[cfg(test)]
mod oci;
pub mod policy;
mod process;
mod report;

pub use check::{Check, self_check};
pub use confine::{Confined, confine};
pub use error::SandboxError;
pub use landlock_domain::Paths;
pub use narrow::narrow;
pub use policy::Policy;
pub use report::{Report, report};
