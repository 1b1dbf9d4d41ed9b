//! What each kernel computes, in plain loops: the text that the SIMD kernels are tested against,
//! and that a reader should believe. Nothing in a hot path calls it.

mod blocks;
mod rows;

use blocks::q4_1_minimum;
pub use blocks::{QuantisedBlock, dequantise_row, quantise_block};
pub(crate) use blocks::{q4_k_scale, q5_k_quant, q5_quants, q6_k_quant};
pub(crate) use rows::rope_pairs;
pub use rows::{attention_row, gelu, rms_norm, rope, silu, softmax};

use crate::format::BlockFormat;

/// `out[r][n] = sum over k of x[r][k] * w[n][k]` in double precision, where `w` is dequantised
/// exactly and, when the format is quantised, `x` is rounded to 8 bits per 32 values first. The
/// minimum of a `Q4_1` or `Q5_1` block is multiplied with the rounded sum of the activations
/// ([`QuantisedBlock::sum`]), as in llama.cpp. `x` is `[m, cols]`, `bytes` holds `rows` rows as in
/// the file; the result is `[m, rows]`.
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
    let blocks: Vec<QuantisedBlock> = if format.is_quantised() {
        x.chunks_exact(32).map(quantise_block).collect()
    } else {
        Vec::new()
    };
    for (n, row) in bytes.chunks_exact(row_bytes).enumerate() {
        dequantise_row(format, row, &mut weights);
        for r in 0..x.len() / cols {
            out[r * rows + n] = if format.is_quantised() {
                let blocks = &blocks[r * cols / 32..][..cols / 32];
                quantised_dot(format, row, &weights, blocks)
            } else {
                dot(&x[r * cols..][..cols], &weights) as f32
            };
        }
    }
    out
}

fn dot(x: &[f32], weights: &[f32]) -> f64 {
    x.iter().zip(weights).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum()
}

fn quantised_dot(
    format: BlockFormat,
    row: &[u8],
    weights: &[f32],
    blocks: &[QuantisedBlock],
) -> f32 {
    let mut total = 0.0;
    for (index, (block, weights)) in blocks.iter().zip(weights.chunks_exact(32)).enumerate() {
        let x = block.quants.map(|quant| f32::from(quant) * block.scale);
        total += dot(&x, weights);
        if matches!(format, BlockFormat::Q4_1 | BlockFormat::Q5_1) {
            let minimum = q4_1_minimum(&row[index * format.block_bytes()..]);
            let exact: f32 = x.iter().sum();
            total += f64::from(minimum) * (f64::from(block.sum) - f64::from(exact));
        }
    }
    total as f32
}
