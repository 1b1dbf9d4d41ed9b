//! What each kernel computes, in plain loops: the text that the SIMD kernels are tested against,
//! and that a reader should believe. Nothing in a hot path calls it.

mod blocks;
mod rows;

pub use blocks::{QuantisedBlock, dequantise_row, quantise_block};
pub use rows::{attention_row, rms_norm, rope, silu, softmax};

use crate::format::BlockFormat;

/// `out[r][n] = sum over k of x[r][k] * w[n][k]` where `x` is rounded to 8 bits per 32 values
/// first when the format is quantised, and `w` is dequantised exactly; in double precision.
/// `x` is `[m, cols]`, `bytes` holds `rows` rows as in the file; the result is `[m, rows]`.
///
/// # Panics
/// When lengths disagree.
#[must_use]
pub fn matmul(format: BlockFormat, bytes: &[u8], cols: usize, x: &[f32]) -> Vec<f32> {
    let row_bytes = format.row_bytes(cols).unwrap_or(0);
    assert!(row_bytes > 0 && bytes.len().is_multiple_of(row_bytes), "whole rows");
    assert!(x.len().is_multiple_of(cols), "whole rows of x");
    let mut weights = vec![0.0; cols];
    let rows = bytes.len() / row_bytes;
    let mut out = vec![0.0; x.len() / cols * rows];
    let rounded = if format.is_quantised() { round_activations(x) } else { x.to_vec() };
    for (n, row) in bytes.chunks_exact(row_bytes).enumerate() {
        dequantise_row(format, row, &mut weights);
        for (r, x_row) in rounded.chunks_exact(cols).enumerate() {
            let sum: f64 =
                x_row.iter().zip(&weights).map(|(a, w)| f64::from(*a) * f64::from(*w)).sum();
            out[r * rows + n] = sum as f32;
        }
    }
    out
}

/// `x` after a round trip through blocks of 32 8-bit values.
fn round_activations(x: &[f32]) -> Vec<f32> {
    x.chunks_exact(32)
        .flat_map(|block| {
            let q = quantise_block(block);
            q.quants.map(|value| f32::from(value) * q.scale)
        })
        .collect()
}
