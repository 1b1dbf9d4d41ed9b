//! Products of activations with float weights for many rows at once: the layers of encoders, whose
//! batches have hundreds of rows (decoders, with few rows, read
//! [`PackedMatrix`](crate::PackedMatrix)).
//!
//! Panels of 32 output features lie one after the other, inside a panel the 32 weights of an
//! input feature are adjacent. It knows shapes and the partition of work; the arithmetic is in
//! `simd::dense`.
#![expect(unsafe_code, reason = "calls the matrix kernel, which takes raw pointers")]

use crate::aligned::AlignedBytes;
use crate::disjoint::Disjoint;
use crate::error::KernelError;
use crate::pool::Pool;
use crate::simd::dense::{PANEL, Panel, multiply_panel};

/// Rows that are multiplied with a panel before the next panel: they stay in the second-level
/// cache.
const PASS_ROWS: usize = 192;
/// Multiplications up to which waking other threads takes longer than the work.
const ALONE_MULTIPLICATIONS_MAX: usize = 256 * 1024;
/// Chunks that each thread gets on average.
const CHUNKS_PER_THREAD: usize = 6;

/// What is done to each value of a product before it is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    #[default]
    None,
    /// `x Phi(x)`, with the error function.
    Gelu,
    /// GELU in its tanh form.
    GeluTanh,
    /// `max(x, 0)`.
    Relu,
}

/// Weights and bias of a linear layer in single precision: `rows` outputs of `cols` inputs.
#[derive(Debug)]
pub struct DenseMatrix {
    rows: usize,
    cols: usize,
    /// The panels, then the bias, padded to whole panels.
    bytes: AlignedBytes,
}

impl DenseMatrix {
    /// Packs `weights`, `[rows, cols]`, and `bias`, `[rows]` or empty for none.
    ///
    /// # Errors
    /// [`KernelError`] when a side is zero or a length is not the shape's.
    pub fn pack(
        weights: &[f32],
        bias: &[f32],
        rows: usize,
        cols: usize,
    ) -> Result<Self, KernelError> {
        let dimensions = KernelError::Dimensions { rows, cols };
        if rows == 0 || cols == 0 || rows.checked_mul(cols) != Some(weights.len()) {
            return Err(dimensions);
        }
        if !bias.is_empty() && bias.len() != rows {
            return Err(dimensions);
        }
        let padded = rows.next_multiple_of(PANEL);
        let mut bytes = AlignedBytes::default();
        bytes.grow((padded * cols + padded) * 4);
        let to = bytes.as_mut_ptr().cast::<f32>();
        for (row, values) in weights.chunks_exact(cols).enumerate() {
            let base = row / PANEL * PANEL * cols + row % PANEL;
            for (col, value) in values.iter().enumerate() {
                // SAFETY: inside the panels, which `grow` made room for; 4-byte aligned.
                unsafe { to.add(base + col * PANEL).write(*value) };
            }
        }
        for (row, value) in bias.iter().enumerate() {
            // SAFETY: inside the bias, behind the panels.
            unsafe { to.add(padded * cols + row).write(*value) };
        }
        Ok(Self { rows, cols, bytes })
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

    /// Bytes in memory.
    #[must_use]
    pub const fn resident_bytes(&self) -> usize {
        self.bytes.len()
    }

    const fn base(&self) -> *const f32 {
        self.bytes.as_slice().as_ptr().cast()
    }

    const fn panels(&self) -> usize {
        self.rows.div_ceil(PANEL)
    }

    /// Rows `start..start + rows` of `x` times panel `index`.
    fn panel(&self, x: &[f32], out: &Disjoint<'_>, start: usize, index: usize) -> Panel {
        let column = index * PANEL;
        let bias = self.panels() * PANEL * self.cols + column;
        Panel {
            x: x[start * self.cols..].as_ptr(),
            x_stride: self.cols,
            w: self.base().wrapping_add(column * self.cols),
            w_stride: PANEL,
            steps: self.cols,
            bias: self.base().wrapping_add(bias),
            out: out.at(start * self.rows + column),
            out_stride: self.rows,
            live: (self.rows - column).min(PANEL),
            half: false,
            activation: Activation::None,
        }
    }
}

impl Pool {
    /// `out = activation(x W^T + b)`: `x` is `[m, w.cols()]`, `out` is `[m, w.rows()]`. A row's
    /// result does not depend on the other rows, on `m`, nor on the number of threads.
    ///
    /// # Panics
    /// When lengths disagree.
    pub fn dense(&self, x: &[f32], w: &DenseMatrix, activation: Activation, out: &mut [f32]) {
        let m = x.len() / w.cols;
        assert_eq!(x.len(), m * w.cols, "x length");
        assert_eq!(out.len(), m * w.rows, "out length");
        if m == 0 {
            return;
        }
        let (panels, passes) = (w.panels(), m.div_ceil(PASS_ROWS));
        let out = Disjoint::new(out);
        let cpu = self.cpu();
        let alone = m * w.rows * w.cols <= ALONE_MULTIPLICATIONS_MAX;
        let all = panels * passes;
        let chunk =
            if alone { all } else { all.div_ceil(self.threads() * CHUNKS_PER_THREAD).max(1) };
        self.for_chunks(all, chunk, &|range| {
            for unit in range {
                let start = unit / panels * PASS_ROWS;
                let rows = (m - start).min(PASS_ROWS);
                let panel = Panel { activation, ..w.panel(x, &out, start, unit % panels) };
                // SAFETY: `x` has `rows` whole rows from `start` (its length was checked), the
                // panel and the bias are whole and padded, and the columns of this panel in these
                // rows are written by this unit alone.
                unsafe { multiply_panel(cpu, rows, panel) };
            }
        });
    }
}
