//! A weight matrix, repacked once at load.

use crate::error::KernelError;
use crate::format::BlockFormat;
use crate::reference;

/// Weights of a linear layer: `rows` output features of `cols` input features each.
#[derive(Debug)]
pub struct PackedMatrix {
    format: BlockFormat,
    rows: usize,
    cols: usize,
    bytes: Vec<u8>,
}

impl PackedMatrix {
    /// Packs `rows` x `cols` weights; `bytes` is the tensor as in the file (rows one after the
    /// other). The result holds about as many bytes, and `bytes` is not needed any more.
    ///
    /// # Errors
    /// [`KernelError`] when `cols` is not whole blocks or `bytes` has another length than the
    /// shape needs. Any content of the bytes is accepted.
    pub fn pack(
        format: BlockFormat,
        bytes: &[u8],
        rows: usize,
        cols: usize,
    ) -> Result<Self, KernelError> {
        if rows == 0 || cols == 0 {
            return Err(KernelError::Dimensions { rows, cols });
        }
        let block = format.block_values();
        if !cols.is_multiple_of(block) {
            return Err(KernelError::PartialBlock { format, cols, block });
        }
        let expected = format
            .row_bytes(cols)
            .and_then(|row| row.checked_mul(rows))
            .ok_or(KernelError::Dimensions { rows, cols })?;
        if bytes.len() != expected {
            let found = bytes.len();
            return Err(KernelError::ByteLength { format, rows, cols, expected, found });
        }
        Ok(Self { format, rows, cols, bytes: bytes.to_vec() })
    }

    /// Output features.
    #[must_use]
    pub const fn rows(&self) -> usize {
        self.rows
    }

    /// Input features.
    #[must_use]
    pub const fn cols(&self) -> usize {
        self.cols
    }

    /// The format of the file's weights.
    #[must_use]
    pub const fn format(&self) -> BlockFormat {
        self.format
    }

    /// Bytes held in memory.
    #[must_use]
    pub fn resident_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The weights of one output feature as floats (an embedding row).
    ///
    /// # Panics
    /// When `row` is not in the matrix or `out` is not `cols` long.
    pub fn dequantise_row(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        assert_eq!(out.len(), self.cols, "out length");
        let width = self.bytes.len() / self.rows;
        reference::dequantise_row(self.format, &self.bytes[row * width..][..width], out);
    }
}
