//! What the service and a worker say to each other over their socket: frames of a length and JSON;
//! the bytes of tables that came with the request follow their order as frames of their own.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use aisemble_protocol::ApiError;
use aisemble_protocol::data::{Operation, ProcessResult, ReadOptions, TableFormat};
use serde::{Deserialize, Serialize};

use crate::engine::{Counters, Plan};

/// Bytes of a frame: a table that came with the request is the longest.
const FRAME_BYTES_MAX: usize = 64 << 20;

/// What a worker is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Order {
    /// The tables.
    pub tables: Vec<TableOrder>,
    /// What to do with them.
    pub plan: PlanOrder,
    /// The format of the output, if one is made.
    pub output_format: Option<TableFormat>,
    /// An empty folder for it.
    pub output_folder: Option<PathBuf>,
    /// Its size at most.
    pub output_bytes_max: u64,
    /// Rows of the preview.
    pub preview_rows: usize,
    /// Whether columns are described.
    pub profile: bool,
    /// Threads that compute.
    pub threads: usize,
}

/// A table of an order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TableOrder {
    /// What SQL calls it.
    pub name: String,
    /// Its format.
    pub format: TableFormat,
    /// How to read it.
    pub options: ReadOptions,
    /// Where it is.
    pub origin: Origin,
}

/// Where a table is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Origin {
    /// In a frame after the order.
    Inline {
        /// Its length.
        bytes: usize,
    },
    /// In a stored file.
    File {
        /// Which.
        path: PathBuf,
    },
}

/// What to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[expect(missing_docs, reason = "as engine::Plan")]
pub enum PlanOrder {
    AsItIs,
    Sql(String),
    Pipeline { from: String, operations: Vec<Operation> },
}

/// What a worker says.
#[derive(Debug, Serialize, Deserialize)]
pub enum Message {
    /// It is on its way.
    Progress {
        /// What it does.
        phase: String,
        /// Rows that came out of tables.
        rows_read: u64,
        /// Bytes of the output.
        bytes_written: u64,
    },
    /// It is done.
    Done(Box<ProcessResult>),
    /// It cannot be done.
    Failed(ApiError),
}

impl Origin {
    pub(super) fn path(&self) -> Option<PathBuf> {
        match self {
            Self::Inline { .. } => None,
            Self::File { path } => Some(path.clone()),
        }
    }
}

impl From<PlanOrder> for Plan {
    fn from(order: PlanOrder) -> Self {
        match order {
            PlanOrder::AsItIs => Self::AsItIs,
            PlanOrder::Sql(text) => Self::Sql(text),
            PlanOrder::Pipeline { from, operations } => Self::Pipeline { from, operations },
        }
    }
}

impl Message {
    pub(super) fn progress(counters: &Counters) -> Self {
        Self::Progress {
            phase: counters.phase().to_owned(),
            rows_read: counters.rows_read.load(Ordering::Relaxed),
            bytes_written: counters.bytes_written.load(Ordering::Relaxed),
        }
    }
}

/// Reads one frame.
///
/// # Errors
/// When it is over the limit, or the other end is gone.
pub fn read_frame(mut from: impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    }
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Writes one frame.
///
/// # Errors
/// As [`read_frame`].
pub fn write_frame(mut to: impl Write, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    to.write_all(&length.to_le_bytes())?;
    to.write_all(bytes)
}

pub(super) fn read_order(from: &UnixStream) -> Option<(Order, Vec<Vec<u8>>)> {
    let order: Order = serde_json::from_slice(&read_frame(from).ok()?).ok()?;
    let inline = order.tables.iter().filter(|table| matches!(table.origin, Origin::Inline { .. }));
    let inline = inline.map(|_| read_frame(from).ok()).collect::<Option<Vec<_>>>()?;
    Some((order, inline))
}

pub(super) fn send(to: &UnixStream, message: &Message) -> io::Result<()> {
    write_frame(to, &serde_json::to_vec(message)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_a_frame_or_an_error(
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            if let Ok(frame) = read_frame(bytes.as_slice()) {
                prop_assert!(frame.len() + 4 <= bytes.len());
            }
            let mut written = Vec::new();
            write_frame(&mut written, &bytes).unwrap();
            prop_assert_eq!(read_frame(written.as_slice()).unwrap(), bytes);
        }
    }
}
