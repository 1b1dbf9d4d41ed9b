//! The row operations in plain loops, with double precision where a sum is formed.

use crate::attention::{AttentionRows, AttentionShape};
use crate::kv::KvElement;
use crate::rope::{RopeStyle, RopeTable};

/// `x / sqrt(mean(x^2) + eps) * weight` of one row.
pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let squares: f64 = x.iter().map(|value| f64::from(*value) * f64::from(*value)).sum();
    let scale = 1.0 / ((squares / x.len() as f64) as f32 + eps).sqrt();
    for ((out, value), weight) in out.iter_mut().zip(x).zip(weight) {
        *out = value * scale * weight;
    }
}

/// Turns one head to `position`, in place.
///
/// # Panics
/// When the head is shorter than the table's rotary dimension.
pub fn rope(table: &RopeTable, head: &mut [f32], position: usize) {
    rope_pairs(table, head, position, 0);
}

/// Turns the pairs from `first` on.
pub(crate) fn rope_pairs(table: &RopeTable, head: &mut [f32], position: usize, first: usize) {
    let (cos, sin) = table.at(position);
    for (pair, (&cos, &sin)) in cos.iter().zip(sin).enumerate().skip(first) {
        let (a, b) = match table.style() {
            RopeStyle::Interleaved => (2 * pair, 2 * pair + 1),
            RopeStyle::Halves => (pair, pair + table.rotary_dim() / 2),
        };
        (head[a], head[b]) = (head[a] * cos - head[b] * sin, head[a] * sin + head[b] * cos);
    }
}

/// `x / (1 + e^-x)`.
#[must_use]
pub fn silu(x: f32) -> f32 {
    x / (1.0 + (-x).exp())
}

/// `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))`.
#[must_use]
pub fn gelu(x: f32) -> f32 {
    let x = f64::from(x);
    let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
    (x / 2.0 * (1.0 + u.tanh())) as f32
}

/// `e^(x - max) / sum` of one row, in place.
pub fn softmax(x: &mut [f32]) {
    let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0f64;
    for value in x.iter_mut() {
        *value = (*value - max).exp();
        sum += f64::from(*value);
    }
    for value in x {
        *value = (f64::from(*value) / sum) as f32;
    }
}

/// Attention of row `row` and query head `head` over its sequence's keys and values.
///
/// # Panics
/// When indices are outside the slices.
#[must_use]
pub fn attention_row<T: KvElement>(
    shape: &AttentionShape,
    rows: &AttentionRows<'_>,
    cache: (&[T], &[T]),
    (row, head): (usize, usize),
) -> Vec<f32> {
    let kv = shape.kv;
    let query = &rows.query[(row * shape.heads + head) * kv.head_dim..][..kv.head_dim];
    let kv_head = head / (shape.heads / kv.kv_heads);
    let position = rows.positions[row] as usize;
    let first = shape.window.map_or(0, |window| (position + 1).saturating_sub(window.get()));
    let table = &rows.block_tables[rows.sequences[row] as usize * rows.blocks_max..];
    let slot =
        |t: usize| table[t / kv.block_tokens] as usize * kv.block_tokens + t % kv.block_tokens;
    let mut scores: Vec<f32> = (first..=position)
        .map(|t| {
            let dot: f64 = (0..kv.head_dim)
                .map(|d| {
                    let key = cache.0[kv.key_index(slot(t), kv_head, d)].to_f32();
                    f64::from(query[d]) * f64::from(key)
                })
                .sum();
            let score = dot as f32 * shape.scale;
            shape.softcap.map_or(score, |cap| cap * (score / cap).tanh())
        })
        .collect();
    softmax(&mut scores);
    (0..kv.head_dim)
        .map(|d| {
            let sum: f64 = (first..=position)
                .zip(&scores)
                .map(|(t, p)| {
                    let value = cache.1[kv.value_index(slot(t), kv_head, d)].to_f32();
                    f64::from(*p) * f64::from(value)
                })
                .sum();
            sum as f32
        })
        .collect()
}
