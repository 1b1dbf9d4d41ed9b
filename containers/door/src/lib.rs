//! The door: a TCP port in front of the orchestrator's Unix socket, for places where nobody hands a
//! listening socket over (`podman kube play`, Kubernetes).
//!
//! It holds nothing: no key, no job, no model, no file. It is the only process of such a pod with a
//! network, and it can answer there but not dial out. It must not know HTTP beyond the one answer
//! that it gives while nobody is behind it.

pub mod config;
pub mod relay;
