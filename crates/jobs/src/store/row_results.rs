//! Results that a running job records piece by piece, so that its next attempt does not begin
//! anew. A piece that was recorded is never recorded again.

use aisemble_protocol::JobId;

use super::{Held, StoreFuture};

/// Rows that one read takes from the store.
pub const ROWS_PAGE_MAX: usize = 1_000;
/// Bytes of data after which such a read ends early.
pub const ROWS_PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Data of one row, bytes.
pub const ROW_RESULT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The result of one row of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowResult {
    /// The row's number within the job, from 0.
    pub row: u32,
    /// It has an error instead of an answer.
    pub failed: bool,
    /// Tokens that it took.
    pub tokens: u64,
    /// The answer or the error; what it means is the executor's affair.
    pub data: Vec<u8>,
}

/// What the rows of all children of a job come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RowTally {
    /// Rows with an answer or an error.
    pub done: u64,
    /// Rows with an error.
    pub failed: u64,
    /// Tokens that all took.
    pub tokens: u64,
}

/// Results of rows.
pub trait RowStore {
    /// Records rows of a running job; those that it has already stay as they are.
    fn put_rows(&self, held: Held, rows: Vec<RowResult>) -> StoreFuture<'_, ()>;

    /// The job's rows from number `from` on, in order, bounded by [`ROWS_PAGE_MAX`].
    fn rows(&self, id: JobId, from: u32) -> StoreFuture<'_, Vec<RowResult>>;

    /// What the rows of the children of `parent` come to.
    fn row_tally(&self, parent: JobId) -> StoreFuture<'_, RowTally>;
}
