//! Durable jobs: a pure state machine, a store behind a trait (SQLite here), a scheduler that
//! claims under leases, and numbered events per job.
//!
//! It must not know HTTP, gRPC, or what a job's payload means: payloads and results are bytes.

mod clock;
pub mod config;
mod error;
mod events;
mod executor;
mod facade;
mod hub;
mod job;
pub mod limits;
pub mod metrics;
mod retry;
mod scheduler;
pub mod state;
pub mod store;

pub use aisemble_protocol::job::{JobError, JobEvent, JobPage, JobView, Priority};
pub use aisemble_protocol::{ErrorCode, JobId, JobState};
pub use config::{Backoff, Retention, SchedulerConfig, StoreConfig};
pub use error::{JobsError, StoreError};
pub use executor::{ClaimedJob, EventSink, Executor, JobContext, JobFailure, JobFuture};
pub use facade::Jobs;
pub use job::{Depth, DepthEntry, Idempotency, Job, JobFilter, NewJob, Submitted};
pub use metrics::StoreMetrics;
pub use scheduler::{Drained, Scheduler};
pub use store::Store;
pub use store::files;
pub use store::memory::MemoryStore;
pub use store::row_results::{RowResult, RowTally};
pub use store::schedules::{Fired, ScheduleRecord};
pub use store::sqlite::SqliteStore;
