//! Content on its way out, block by block.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::ops::Range;
use std::path::Path;

use aisemble_protocol::ApiError;
use bytes::Bytes;
use futures_util::{Stream, stream};

use super::{blocking, disk};

/// Bytes that are read at once.
const BLOCK_BYTES: u64 = 256 * 1024;

/// An open content. It can be read to its end though its file is deleted meanwhile.
#[derive(Debug)]
pub struct BlobReader {
    file: File,
    left: u64,
}

impl BlobReader {
    pub(super) fn open(path: &Path, range: Range<u64>) -> Result<Self, ApiError> {
        let mut file = File::open(path).map_err(|error| disk(&error))?;
        file.seek(SeekFrom::Start(range.start)).map_err(|error| disk(&error))?;
        Ok(Self { file, left: range.end.saturating_sub(range.start) })
    }

    fn block(&mut self) -> Result<Bytes, ApiError> {
        let size = usize::try_from(self.left.min(BLOCK_BYTES)).unwrap_or(0);
        let mut block = vec![0; size];
        self.file.read_exact(&mut block).map_err(|error| disk(&error))?;
        self.left -= size as u64;
        Ok(Bytes::from(block))
    }

    /// The blocks, in order. An error ends them.
    pub fn blocks(self) -> impl Stream<Item = Result<Bytes, ApiError>> + Send + 'static {
        stream::unfold(Some(self), |reader| async move {
            let mut reader = reader.filter(|reader| reader.left > 0)?;
            let read = blocking(move || reader.block().map(|block| (block, reader))).await;
            match read {
                Ok((block, reader)) => Some((Ok(block), Some(reader))),
                Err(error) => Some((Err(error), None)),
            }
        })
    }
}
