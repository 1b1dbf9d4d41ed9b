//! The orchestrator: takes jobs over HTTP, keeps them, and has the services do them.
//!
//! `http` knows axum and nothing of the store; `app` decides and knows no axum; `dispatch` alone
//! knows the services. What happens inside a model is none of its business.

pub mod app;
pub mod backup;
pub mod calls;
pub mod capability;
pub mod config;
pub mod dispatch;
pub mod executor;
pub mod files;
pub mod http;
pub mod live;
pub mod metrics;
pub mod process;
pub mod trace;
pub mod work;
pub mod workflow;
