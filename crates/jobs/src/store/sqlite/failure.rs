//! What SQLite's errors mean for a store.

use rusqlite::ffi;

use crate::error::{JobsError, StoreError};

/// Maps an error of SQLite.
pub(super) fn failed(source: rusqlite::Error) -> StoreError {
    let rusqlite::Error::SqliteFailure(failure, _) = &source else {
        return StoreError::Sqlite { source };
    };
    // Out of space for the shared-memory file is an I/O error of its own to SQLite.
    if failure.extended_code == ffi::SQLITE_IOERR_SHMSIZE {
        return StoreError::StorageFull;
    }
    match failure.extended_code & 0xff {
        ffi::SQLITE_FULL => StoreError::StorageFull,
        ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED => StoreError::Busy,
        ffi::SQLITE_CORRUPT | ffi::SQLITE_NOTADB => {
            StoreError::Corrupt { detail: source.to_string() }
        }
        _ => StoreError::Sqlite { source },
    }
}

impl From<rusqlite::Error> for JobsError {
    fn from(source: rusqlite::Error) -> Self {
        Self::Store(failed(source))
    }
}

/// A number as SQLite keeps it: times and counts stay far below the limit.
pub(super) fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A number as SQLite gave it; what we never write, a negative one, reads as 0.
pub(super) fn uint(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
