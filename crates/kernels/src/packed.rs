//! A weight matrix, repacked once at load. It owns the layout in memory; the file's layout is read
//! by `repack`, and `simd::matmul` reads this one.
//!
//! 16 output features make a tile. Inside a tile, blocks of 32 input features follow each other,
//! and inside a block words of four bytes, one for each of the 16 features, are adjacent: one
//! 64-byte vector holds the same four inputs of 16 outputs, which meet one broadcast word of
//! activations. The same bytes serve vectors of half that width. Scales keep the file's precision,
//! so that the matrix takes the file's size (but for `Q4_K`, 4.63 instead of 4.5 bits, and the
//! padding of the last tile).

use crate::arena::ArenaBytes;
use crate::error::KernelError;
use crate::format::BlockFormat;
use crate::repack;

/// Output features in a tile.
pub(crate) const TILE_ROWS: usize = 16;
const LINE: usize = 64;

/// Where things lie inside a tile, in bytes from its start (scales are at 0).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TileLayout {
    /// Blocks of 32 values, or values of a float format.
    pub(crate) steps: usize,
    /// Scales of whole blocks of 256 (the K formats).
    pub(crate) supers_at: usize,
    pub(crate) quants_at: usize,
    /// Size of the tile.
    pub(crate) bytes: usize,
}

impl TileLayout {
    /// The layout for rows of `cols` values (whole blocks).
    pub(crate) const fn new(format: BlockFormat, cols: usize) -> Self {
        let steps = match format {
            BlockFormat::F32 | BlockFormat::F16 | BlockFormat::Bf16 => cols,
            BlockFormat::Q4_0
            | BlockFormat::Q4_1
            | BlockFormat::Q5_0
            | BlockFormat::Q5_1
            | BlockFormat::Q8_0
            | BlockFormat::Q4K
            | BlockFormat::Q5K
            | BlockFormat::Q6K => cols / 32,
        };
        // For a step: bytes of scales and of quants; for 256 values: bytes of their own scales.
        let (scales, wholes, quants) = match format {
            BlockFormat::F32 => (0, 0, TILE_ROWS * 4),
            BlockFormat::F16 | BlockFormat::Bf16 => (0, 0, TILE_ROWS * 2),
            BlockFormat::Q4_0 => (TILE_ROWS * 2, 0, TILE_ROWS * 16),
            BlockFormat::Q4_1 => (TILE_ROWS * 4, 0, TILE_ROWS * 16),
            BlockFormat::Q5_0 => (TILE_ROWS * 2, 0, TILE_ROWS * 20),
            BlockFormat::Q5_1 => (TILE_ROWS * 4, 0, TILE_ROWS * 20),
            BlockFormat::Q8_0 => (TILE_ROWS * 2, 0, TILE_ROWS * 32),
            BlockFormat::Q4K => (TILE_ROWS * 2, TILE_ROWS * 4, TILE_ROWS * 16),
            BlockFormat::Q5K => (TILE_ROWS * 2, TILE_ROWS * 4, TILE_ROWS * 20),
            BlockFormat::Q6K => (TILE_ROWS * 2, TILE_ROWS * 2, TILE_ROWS * 24),
        };
        let supers_at = (steps * scales).next_multiple_of(LINE);
        let quants_at = supers_at + (steps / 8 * wholes).next_multiple_of(LINE);
        let bytes = quants_at + (steps * quants).next_multiple_of(LINE);
        Self { steps, supers_at, quants_at, bytes }
    }
}

/// Weights of a linear layer: `rows` output features of `cols` input features each.
#[derive(Debug)]
pub struct PackedMatrix {
    format: BlockFormat,
    rows: usize,
    cols: usize,
    layout: TileLayout,
    bytes: ArenaBytes,
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
        let row_bytes = format.row_bytes(cols).ok_or(KernelError::Dimensions { rows, cols })?;
        let expected = row_bytes.checked_mul(rows).ok_or(KernelError::Dimensions { rows, cols })?;
        if bytes.len() != expected {
            let found = bytes.len();
            return Err(KernelError::ByteLength { format, rows, cols, expected, found });
        }
        let layout = TileLayout::new(format, cols);
        let mut packed = ArenaBytes::zeroed(rows.div_ceil(TILE_ROWS) * layout.bytes);
        let tiles = packed.as_mut_slice().chunks_exact_mut(layout.bytes);
        for (tile, rows) in tiles.zip(bytes.chunks(row_bytes * TILE_ROWS)) {
            for (lane, row) in rows.chunks_exact(row_bytes).enumerate() {
                repack::write_row(format, row, &layout, tile, lane);
            }
        }
        Ok(Self { format, rows, cols, layout, bytes: packed })
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
    pub const fn resident_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The weights of one output feature as floats (an embedding row).
    ///
    /// # Panics
    /// When `row` is not in the matrix or `out` is not `cols` long.
    pub fn dequantise_row(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        assert_eq!(out.len(), self.cols, "out length");
        let tile = self.tile(row / TILE_ROWS);
        repack::read_row(self.format, &self.layout, tile, row % TILE_ROWS, out);
    }

    /// The rows `ids` as floats, `[ids.len(), cols]`: the embedding of tokens.
    ///
    /// # Panics
    /// When an id is not a row of the matrix or `out` has another length.
    pub fn embed(&self, ids: &[u32], out: &mut [f32]) {
        assert_eq!(out.len(), ids.len() * self.cols, "out length");
        for (&id, out) in ids.iter().zip(out.chunks_exact_mut(self.cols)) {
            self.dequantise_row(id as usize, out);
        }
    }

    pub(crate) const fn tiles(&self) -> usize {
        self.rows.div_ceil(TILE_ROWS)
    }

    pub(crate) const fn layout(&self) -> TileLayout {
        self.layout
    }

    /// The bytes of one tile.
    pub(crate) fn tile(&self, index: usize) -> &[u8] {
        &self.bytes.as_slice()[index * self.layout.bytes..][..self.layout.bytes]
    }
}
