//! The typed client of the HTTP API: completions and work of every other kind (waited for,
//! followed, as jobs), jobs and their events, models, health. Deadlines, retries with jittered
//! backoff, and errors as the server's own `problem+json` live here once.
//!
//! It must not know how the server does anything, print anything, or read a configuration.

mod backoff;
mod completion;
mod error;
mod files;
mod health;
mod http;
mod jobs;
mod openai;
pub mod sse;
mod work;
mod workflows;

pub use backoff::RetryPolicy;
pub use completion::{CompletionEvent, CompletionEvents};
pub use error::{ClientError, Problem};
pub use files::Upload;
pub use health::{CapabilityReady, Ready};
pub use http::{Client, ClientConfig, IDLE_MAX, RESPONSE_BYTES_MAX};
pub use jobs::{Cancelled, JobQuery, WatchEvent, WatchEvents, WatchOptions};
pub use openai::DataEvents;
pub use work::{WorkEvent, WorkEvents, WorkRequest};
pub use workflows::Drawing;
