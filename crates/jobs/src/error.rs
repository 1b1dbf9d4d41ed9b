//! The two errors of the crate: what the store itself suffers, and what an operation on jobs
//! answers. Messages are public text; causes stay in `source`.

use std::path::PathBuf;

use aisemble_protocol::{ApiError, ErrorCode, JobId, JobState};

use crate::config::ConfigError;

/// The store cannot do its work.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A setting is wrong.
    #[error("store setting {}: {}", source.key, source.reason)]
    Config {
        /// Which.
        #[from]
        source: ConfigError,
    },
    /// The directory or a file in it cannot be made or read.
    #[error("cannot use {path}")]
    Path {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Another process has the store open.
    #[error("{path} is in use by another process")]
    InUse {
        /// The lock file.
        path: PathBuf,
    },
    /// The database was written by a newer version of this program.
    #[error(
        "the job database has schema {found}; this program knows up to {known}: use a newer one"
    )]
    NewerSchema {
        /// What the file says.
        found: u32,
        /// What this program knows.
        known: u32,
    },
    /// The database is damaged.
    #[error("the job database is damaged: {detail}; restore a backup")]
    Corrupt {
        /// What the check found first.
        detail: String,
    },
    /// The disk, or the quota, is full. Nothing of the operation was done.
    #[error("the disk that holds jobs is full")]
    StorageFull,
    /// The write queue stayed full, or the file locked, for too long.
    #[error("the job store is too busy")]
    Busy,
    /// The store is closed.
    #[error("the job store is closed")]
    Closed,
    /// SQLite answered something else.
    #[error("the job store failed")]
    Sqlite {
        /// Its error.
        #[source]
        source: rusqlite::Error,
    },
    /// A row does not say what it must: damage, or a defect of ours.
    #[error("the job store holds an impossible value in {column}")]
    BadRow {
        /// Where.
        column: &'static str,
    },
    /// An operation panicked; it was rolled back.
    #[error("an operation of the job store broke off")]
    Panicked,
}

/// An operation on jobs did not happen.
#[derive(Debug, thiserror::Error)]
pub enum JobsError {
    /// There is no such job.
    #[error("there is no job {id}")]
    NotFound {
        /// The id that was asked for.
        id: JobId,
    },
    /// A field of the new job, event or filter is not acceptable.
    #[error("{field} {reason}")]
    Invalid {
        /// Which field.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A field is over a limit.
    #[error("{field} has {bytes} bytes; the limit is {bytes_max}")]
    TooLarge {
        /// Which field.
        field: &'static str,
        /// What it has.
        bytes: usize,
        /// What it may have.
        bytes_max: usize,
    },
    /// The owner has as many jobs that have not ended as it may.
    #[error("this key has {open_max} jobs that have not ended, which is as many as it may")]
    OwnerFull {
        /// How many it may have.
        open_max: u32,
    },
    /// The owner keeps as many files as it may.
    #[error(
        "this key keeps {files} files of {bytes} bytes; it may keep {files_max} of {bytes_max}"
    )]
    QuotaFull {
        /// Files that it keeps.
        files: u64,
        /// Their bytes.
        bytes: u64,
        /// Files that it may keep.
        files_max: u64,
        /// Bytes that they may have.
        bytes_max: u64,
    },
    /// The key was used for another request.
    #[error("this idempotency key was used for a different request")]
    IdempotencyMismatch,
    /// `needs` names a job that does not exist (for this owner).
    #[error("needs names job {id}, which does not exist")]
    UnknownNeed {
        /// Which.
        id: JobId,
    },
    /// The job's lease was lost: it was rescued, has expired or ended. The worker must stop.
    #[error("job {id} is no longer held under lease {lease}")]
    LeaseLost {
        /// The job.
        id: JobId,
        /// The lease that the worker held.
        lease: u64,
    },
    /// The job has emitted as many events as it may.
    #[error("job {id} has emitted as many events as it may")]
    EventsFull {
        /// The job.
        id: JobId,
    },
    /// The state machine has no such transition: a defect of ours.
    #[error("job in state {} cannot take that step", from.as_str())]
    IllegalTransition {
        /// The state it is in.
        from: JobState,
    },
    /// The store cannot do its work.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl JobsError {
    /// The error's code for callers.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NotFound { .. } => ErrorCode::NotFound,
            Self::Invalid { .. } => ErrorCode::InvalidRequest,
            Self::TooLarge { .. } | Self::QuotaFull { .. } => ErrorCode::PayloadTooLarge,
            Self::OwnerFull { .. } => ErrorCode::Overloaded,
            Self::IdempotencyMismatch | Self::UnknownNeed { .. } => ErrorCode::Unprocessable,
            Self::LeaseLost { .. } | Self::EventsFull { .. } => ErrorCode::Conflict,
            Self::IllegalTransition { .. } => ErrorCode::Internal,
            Self::Store(error) => match error {
                StoreError::StorageFull => ErrorCode::StorageFull,
                StoreError::Busy => ErrorCode::Overloaded,
                StoreError::Closed => ErrorCode::Unavailable,
                StoreError::Config { .. }
                | StoreError::Path { .. }
                | StoreError::InUse { .. }
                | StoreError::NewerSchema { .. }
                | StoreError::Corrupt { .. }
                | StoreError::Sqlite { .. }
                | StoreError::BadRow { .. }
                | StoreError::Panicked => ErrorCode::Internal,
            },
        }
    }
}

impl From<&JobsError> for ApiError {
    fn from(error: &JobsError) -> Self {
        let api = Self::new(error.code(), error.to_string());
        match error {
            JobsError::Invalid { field, .. } | JobsError::TooLarge { field, .. } => {
                api.with_param(field)
            }
            JobsError::UnknownNeed { .. } => api.with_param("needs"),
            JobsError::Store(StoreError::Busy | StoreError::Closed) => {
                api.with_retry_after_ms(1_000)
            }
            JobsError::NotFound { .. }
            | JobsError::OwnerFull { .. }
            | JobsError::QuotaFull { .. }
            | JobsError::IdempotencyMismatch
            | JobsError::LeaseLost { .. }
            | JobsError::EventsFull { .. }
            | JobsError::IllegalTransition { .. }
            | JobsError::Store(_) => api,
        }
    }
}
