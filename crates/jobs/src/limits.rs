//! Limits of jobs that are the same in every store. Those that an operator may set are in `config`.

/// `kind` of a job, bytes.
pub const KIND_BYTES_MAX: usize = 64;
/// `capability` of a job, bytes.
pub const CAPABILITY_BYTES_MAX: usize = 64;
/// `owner` of a job, bytes.
pub const OWNER_BYTES_MAX: usize = 128;
/// `trace_parent` of a job, bytes; a W3C header has 55.
pub const TRACE_PARENT_BYTES_MAX: usize = 256;
/// Payload of a job, bytes.
pub const PAYLOAD_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Result of a job, bytes; a larger one fails the job.
pub const RESULT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Message of an error, bytes; longer ones are cut.
pub const ERROR_MESSAGE_BYTES_MAX: usize = 4 * 1024;
/// `kind` of an event, bytes.
pub const EVENT_KIND_BYTES_MAX: usize = 32;
/// Data of one event, encoded bytes.
pub const EVENT_DATA_BYTES_MAX: usize = 256 * 1024;
/// Times that one job may be claimed, interrupted claims included; then it fails.
pub const CLAIMS_PER_JOB_MAX: u64 = 1_000;
/// Jobs that may name one job in their `needs`.
pub const DEPENDANTS_MAX: u32 = 10_000;
/// Events that one read of a stream takes from the store.
pub const EVENTS_PAGE_MAX: usize = 256;
/// Bytes of event data after which such a read ends early.
pub const EVENTS_PAGE_BYTES_MAX: usize = 1024 * 1024;
/// Jobs that one `tick` moves in a transaction before it gives way to others.
pub const TICK_JOBS_MAX: usize = 1_000;
/// How long an idempotency key is kept, milliseconds (24 h).
pub const IDEMPOTENCY_KEPT_MS: u64 = 24 * 3_600_000;
