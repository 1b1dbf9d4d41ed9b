//! The block formats bit by bit, from the GGUF/ggml layout: plain decoding of weights and plain
//! rounding of activations. It knows nothing of the repacked layout.

use half::{bf16, f16};

use crate::format::BlockFormat;

/// 32 activations rounded to 8 bits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QuantisedBlock {
    /// What a quant is worth: largest magnitude / 127, rounded to a half float.
    pub scale: f32,
    /// Scale (before that rounding) x sum of the quants, rounded to a half float: what the minimum
    /// of a weight block is multiplied with.
    pub sum: f32,
    /// The quants, -127 to 127.
    pub quants: [i8; 32],
}

/// Rounds 32 activations to 8 bits as llama.cpp does for `Q8_0` and `Q8_1` on x86: nearest-even,
/// scale and sum kept as half floats.
///
/// # Panics
/// When `x` has not 32 values.
#[must_use]
pub fn quantise_block(x: &[f32]) -> QuantisedBlock {
    assert_eq!(x.len(), 32, "a block of activations");
    let largest = x.iter().fold(0.0f32, |max, value| max.max(value.abs()));
    let scale = largest / 127.0;
    let inverse = if largest == 0.0 { 0.0 } else { 127.0 / largest };
    let mut quants = [0i8; 32];
    for (quant, value) in quants.iter_mut().zip(x) {
        *quant = (value * inverse).round_ties_even() as i8;
    }
    let sum: i32 = quants.iter().map(|q| i32::from(*q)).sum();
    let to_half = |value: f32| f16::from_f32(value).to_f32();
    QuantisedBlock { scale: to_half(scale), sum: to_half(scale * sum as f32), quants }
}

fn half_at(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// Decodes one row of weights; `bytes` is that row as in the file.
///
/// # Panics
/// When `bytes` is not the size of a row of `out.len()` values.
pub fn dequantise_row(format: BlockFormat, bytes: &[u8], out: &mut [f32]) {
    assert_eq!(format.row_bytes(out.len()), Some(bytes.len()), "bytes of the row");
    let blocks = bytes.chunks_exact(format.block_bytes());
    let outs = out.chunks_exact_mut(format.block_values());
    for (block, out) in blocks.zip(outs) {
        match format {
            BlockFormat::F32 => {
                out[0] = f32::from_le_bytes([block[0], block[1], block[2], block[3]])
            }
            BlockFormat::F16 => out[0] = half_at(block, 0),
            BlockFormat::Bf16 => out[0] = bf16::from_le_bytes([block[0], block[1]]).to_f32(),
            BlockFormat::Q4_0 => nibbles(half_at(block, 0), -8.0, 0.0, &block[2..], out),
            BlockFormat::Q4_1 => {
                nibbles(half_at(block, 0), 0.0, half_at(block, 2), &block[4..], out);
            }
            BlockFormat::Q5_0 => {
                fives(half_at(block, 0), -16.0, 0.0, q5_quants(&block[2..]), out);
            }
            BlockFormat::Q5_1 => {
                fives(half_at(block, 0), 0.0, half_at(block, 2), q5_quants(&block[4..]), out);
            }
            BlockFormat::Q8_0 => {
                let scale = half_at(block, 0);
                for (value, &quant) in out.iter_mut().zip(&block[2..]) {
                    *value = scale * f32::from(quant as i8);
                }
            }
            BlockFormat::Q4K => q4_k(block, out),
            BlockFormat::Q5K => q5_k(block, out),
            BlockFormat::Q6K => q6_k(block, out),
        }
    }
}

/// 32 values: the low nibbles are the first 16, the high nibbles the last 16.
fn nibbles(scale: f32, offset: f32, minimum: f32, quants: &[u8], out: &mut [f32]) {
    for (i, &byte) in quants.iter().enumerate() {
        out[i] = scale * (f32::from(byte & 15) + offset) + minimum;
        out[i + 16] = scale * (f32::from(byte >> 4) + offset) + minimum;
    }
}

/// The quants (0 to 31) of 32 values: 4 bytes of fifth bits, then 16 of nibbles.
pub(crate) fn q5_quants(bytes: &[u8]) -> [u8; 32] {
    let fifths = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    std::array::from_fn(|index| {
        let byte = bytes[4 + index % 16];
        let low = if index < 16 { byte & 15 } else { byte >> 4 };
        low | ((((fifths >> index) & 1) as u8) << 4)
    })
}

fn fives(scale: f32, offset: f32, minimum: f32, quants: [u8; 32], out: &mut [f32]) {
    for (value, quant) in out.iter_mut().zip(quants) {
        *value = scale * (f32::from(quant) + offset) + minimum;
    }
}

/// The quant (0 to 31) of value `index` of a `Q5_K` block: 32 bytes of fifth bits, a bit for each
/// sub-block of 32 values, then nibbles as in `Q4_K`.
pub(crate) fn q5_k_quant(block: &[u8], index: usize) -> u8 {
    let (part, within) = (index / 32, index % 32);
    let byte = block[48 + part / 2 * 32 + within];
    let low = if part % 2 == 0 { byte & 15 } else { byte >> 4 };
    low | (((block[16 + within] >> part) & 1) << 4)
}

/// Bytes: d f16, dmin f16, 12 of scales, 32 of fifth bits, 128 of nibbles.
fn q5_k(block: &[u8], out: &mut [f32]) {
    let (d, dmin) = (half_at(block, 0), half_at(block, 2));
    for (index, value) in out.iter_mut().enumerate() {
        let (scale, minimum) = q4_k_scale(&block[4..16], index / 32);
        let quant = f32::from(q5_k_quant(block, index));
        *value = d * f32::from(scale) * quant - dmin * f32::from(minimum);
    }
}

/// The minimum of a `Q4_1` or `Q5_1` block.
pub(super) fn q4_1_minimum(block: &[u8]) -> f32 {
    half_at(block, 2)
}

/// The 6-bit scale and minimum of sub-block `index` of a `Q4_K` block's 12 packed bytes.
pub(crate) fn q4_k_scale(packed: &[u8], index: usize) -> (u8, u8) {
    if index < 4 {
        (packed[index] & 63, packed[index + 4] & 63)
    } else {
        let low = packed[index + 4];
        ((low & 15) | ((packed[index - 4] >> 6) << 4), (low >> 4) | ((packed[index] >> 6) << 4))
    }
}

/// Bytes: d f16, dmin f16, 12 of scales, 128 of nibbles; each 32 bytes of nibbles are 64 values.
fn q4_k(block: &[u8], out: &mut [f32]) {
    let (d, dmin) = (half_at(block, 0), half_at(block, 2));
    for (index, out) in out.chunks_exact_mut(32).enumerate() {
        let (scale, minimum) = q4_k_scale(&block[4..16], index);
        let quants = &block[16 + index / 2 * 32..];
        for (value, &byte) in out.iter_mut().zip(quants) {
            let quant = if index % 2 == 0 { byte & 15 } else { byte >> 4 };
            *value = d * f32::from(scale) * f32::from(quant) - dmin * f32::from(minimum);
        }
    }
}

/// The quant (0 to 63) of value `index` of a `Q6_K` block: 128 bytes of low nibbles, 64 bytes of
/// high bit pairs, in halves of 128 values.
pub(crate) fn q6_k_quant(block: &[u8], index: usize) -> u8 {
    let (half, within) = (index / 128, index % 128);
    let (quarter, lane) = (within / 32, within % 32);
    let low = block[half * 64 + (quarter % 2) * 32 + lane];
    let low = if quarter < 2 { low & 15 } else { low >> 4 };
    let high = (block[128 + half * 32 + lane] >> (2 * quarter)) & 3;
    low | (high << 4)
}

/// Bytes: 128 low nibbles, 64 high pairs, 16 signed scales (each for 16 values), d f16.
fn q6_k(block: &[u8], out: &mut [f32]) {
    let d = half_at(block, 208);
    for (index, value) in out.iter_mut().enumerate() {
        let scale = f32::from(block[192 + index / 16] as i8);
        *value = d * scale * (f32::from(q6_k_quant(block, index)) - 32.0);
    }
}
