//! What can be wrong with weights or a request for an instruction set. Shapes that disagree inside
//! a call are the caller's bug and panic; this is for what comes from a file or a configuration.

use thiserror::Error;

use crate::format::BlockFormat;
use crate::isa::Isa;

/// Why a matrix cannot be packed or an instruction set cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum KernelError {
    /// A row does not consist of whole blocks.
    #[error(
        "{format:?} rows consist of blocks of {block} values, which {cols} is not a multiple of"
    )]
    PartialBlock {
        /// The format of the weights.
        format: BlockFormat,
        /// Values in a row.
        cols: usize,
        /// Values in a block.
        block: usize,
    },
    /// The bytes are more or fewer than the shape needs.
    #[error("{rows} rows of {cols} values in {format:?} take {expected} bytes, not {found}")]
    ByteLength {
        /// The format of the weights.
        format: BlockFormat,
        /// Rows (output features).
        rows: usize,
        /// Values in a row (input features).
        cols: usize,
        /// Bytes that the shape takes.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
    /// A dimension is zero or the matrix is larger than the address space.
    #[error("a matrix of {rows} x {cols} is empty or too large")]
    Dimensions {
        /// Rows (output features).
        rows: usize,
        /// Values in a row (input features).
        cols: usize,
    },
    /// This machine lacks the instruction set.
    #[error("this machine does not have the instruction set {isa:?}")]
    IsaMissing {
        /// What was asked for.
        isa: Isa,
    },
    /// A pool needs at least one thread and at most [`crate::Pool::THREADS_MAX`].
    #[error("a pool has 1 to {max} threads, not {threads}")]
    Threads {
        /// What was asked for.
        threads: usize,
        /// The limit.
        max: usize,
    },
    /// The operating system refused a thread.
    #[error("the operating system refused worker thread {index}")]
    Spawn {
        /// Which worker.
        index: usize,
    },
}
