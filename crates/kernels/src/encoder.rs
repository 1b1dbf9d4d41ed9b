//! What encoders need beside products: layer normalisation, gated GELU, and attention of whole
//! sequences in which every token sees every other (or those near it).
//!
//! Sequences are packed one after the other, none is padded. It knows shapes and the partition of
//! work; the arithmetic is in `simd`.
#![expect(unsafe_code, reason = "calls the vector kernels, after checking lengths")]

use std::cell::RefCell;
use std::ops::Range;

use crate::cpu::Cpu;
use crate::dense::Activation;
use crate::disjoint::Disjoint;
use crate::pool::Pool;
use crate::simd::dense::{PANEL, Panel, multiply_panel};
use crate::simd::encoder;

/// Queries that attend at the same time: their scores stay in the second-level cache.
const QUERY_ROWS: usize = 48;
/// Columns of half a panel; a head is whole ones.
const COLUMNS: usize = 16;

/// The heads of one attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncoderAttention {
    /// Heads; queries, keys and values have as many.
    pub heads: usize,
    /// Values of a head: a multiple of 16.
    pub head_dim: usize,
    /// Tokens that a token sees to each side; `None` = the whole sequence.
    pub reach: Option<usize>,
}

#[derive(Debug, Default)]
struct Scratch {
    keys: Vec<f32>,
    scores: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Pool {
    /// `x = (x + y - mean) / sqrt(variance + eps) * weight + bias` for each row of `weight.len()`
    /// values. `y` and `bias` may be empty: nothing is added.
    ///
    /// # Panics
    /// When lengths disagree.
    pub fn add_layer_norm(&self, x: &mut [f32], y: &[f32], norm: (&[f32], &[f32]), eps: f32) {
        let (weight, bias) = norm;
        assert!(y.is_empty() || y.len() == x.len(), "y length");
        assert!(bias.is_empty() || bias.len() == weight.len(), "bias length");
        assert!(!weight.is_empty() && x.len().is_multiple_of(weight.len()), "whole rows");
        let (cpu, width) = (self.cpu(), weight.len());
        self.rows(x, width, &|start, x| {
            for (row, x) in x.chunks_exact_mut(width).enumerate() {
                if !y.is_empty() {
                    cpu.add_assign(x, &y[start + row * width..][..width]);
                }
                // SAFETY: the row, the weight and the bias are equally long.
                unsafe { encoder::layer_norm(cpu, x, weight, bias, eps) };
            }
        });
    }

    /// `x = activation(x + bias)` for each row of `width` values; `bias` may be empty.
    ///
    /// # Panics
    /// When lengths disagree.
    pub fn add_bias(&self, x: &mut [f32], width: usize, bias: &[f32], activation: Activation) {
        assert!(bias.is_empty() || bias.len() == width, "bias length");
        assert!(width > 0 && x.len().is_multiple_of(width), "whole rows");
        let cpu = self.cpu();
        self.rows(x, width, &|_, x| {
            for row in x.chunks_exact_mut(width) {
                // SAFETY: the bias is as long as the row, or empty.
                unsafe { encoder::add_bias(cpu, row, bias, activation) };
            }
        });
    }

    /// `out = gelu(gate) * up` with the error function; `x` is `[m, 2 * width]`: in each row the
    /// gate, then `up`. `out` is `[m, width]`.
    ///
    /// # Panics
    /// When lengths disagree.
    pub fn gelu_gate(&self, x: &[f32], width: usize, out: &mut [f32]) {
        assert_eq!(x.len(), 2 * out.len(), "x length");
        assert!(width > 0 && out.len().is_multiple_of(width), "whole rows");
        let cpu = self.cpu();
        self.rows(out, width, &|start, out| {
            for (row, out) in out.chunks_exact_mut(width).enumerate() {
                let x = &x[2 * (start + row * width)..][..2 * width];
                // SAFETY: all three are `width` long.
                unsafe { encoder::gelu_gate(cpu, &x[..width], &x[width..], out) };
            }
        });
    }

    /// Attention over packed sequences. `qkv` is `[tokens, 3, heads, head_dim]`, `out` is
    /// `[tokens, heads, head_dim]`, `sequences` are the ranges of tokens: each starts where the one
    /// before ends. Scores are scaled by `1 / sqrt(head_dim)`.
    ///
    /// # Panics
    /// When lengths disagree, the sequences do not make up the tokens, or `head_dim` is not a
    /// multiple of 16.
    pub fn encoder_attention(
        &self,
        qkv: &[f32],
        sequences: &[Range<usize>],
        shape: EncoderAttention,
        out: &mut [f32],
    ) {
        let EncoderAttention { heads, head_dim, .. } = shape;
        assert!(heads > 0 && head_dim > 0 && head_dim.is_multiple_of(COLUMNS), "head_dim");
        let tokens = sequences.last().map_or(0, |last| last.end);
        let mut next = 0;
        for sequence in sequences {
            assert!(sequence.start == next && sequence.end >= next, "sequences are adjacent");
            next = sequence.end;
        }
        assert_eq!(qkv.len(), tokens * 3 * heads * head_dim, "qkv length");
        assert_eq!(out.len(), tokens * heads * head_dim, "out length");
        let out = Disjoint::new(out);
        let cpu = self.cpu();
        let units = sequences.len() * heads;
        let chunk = if tokens <= QUERY_ROWS { units.max(1) } else { 1 };
        self.for_chunks(units, chunk, &|range| {
            SCRATCH.with_borrow_mut(|scratch| {
                for unit in range {
                    let head = Head {
                        cpu,
                        qkv,
                        sequence: sequences[unit / heads].clone(),
                        index: unit % heads,
                        shape,
                    };
                    if !head.sequence.is_empty() {
                        head.attend(scratch, &out);
                    }
                }
            });
        });
    }
}

/// One head of one sequence.
struct Head<'a> {
    cpu: Cpu,
    qkv: &'a [f32],
    sequence: Range<usize>,
    index: usize,
    shape: EncoderAttention,
}

impl Head<'_> {
    /// Values from one token to the next.
    const fn stride(&self) -> usize {
        3 * self.shape.heads * self.shape.head_dim
    }

    /// Where query (0), key (1) or value (2) of a token of the sequence starts.
    const fn at(&self, part: usize, token: usize) -> usize {
        let head = part * self.shape.heads + self.index;
        (self.sequence.start + token) * self.stride() + head * self.shape.head_dim
    }

    /// Tokens of the sequence in whole half panels.
    fn padded(&self) -> usize {
        self.sequence.len().next_multiple_of(COLUMNS)
    }

    fn attend(&self, scratch: &mut Scratch, out: &Disjoint<'_>) {
        let (tokens, padded) = (self.sequence.len(), self.padded());
        self.transpose_keys(&mut scratch.keys);
        let rows = tokens.min(QUERY_ROWS);
        if scratch.scores.len() < rows * padded {
            scratch.scores.resize(rows * padded, 0.0);
        }
        let scores = &mut scratch.scores[..rows * padded];
        for first in (0..tokens).step_by(QUERY_ROWS) {
            let queries = first..(first + QUERY_ROWS).min(tokens);
            self.score(&scratch.keys, queries.clone(), scores);
            for (query, scores) in queries.clone().zip(scores.chunks_exact_mut(padded)) {
                let seen = self.seen(query);
                scores[..seen.start].fill(0.0);
                scores[seen.end..].fill(0.0);
                self.cpu.softmax(&mut scores[seen]);
            }
            self.mix(scores, queries, out);
        }
    }

    /// The tokens that a token sees.
    fn seen(&self, token: usize) -> Range<usize> {
        let tokens = self.sequence.len();
        match self.shape.reach {
            None => 0..tokens,
            Some(reach) => token.saturating_sub(reach)..(token + reach + 1).min(tokens),
        }
    }

    /// Keys as panels of 32 tokens (the last may have 16), scaled.
    fn transpose_keys(&self, keys: &mut Vec<f32>) {
        let (head_dim, padded) = (self.shape.head_dim, self.padded());
        keys.clear();
        keys.resize(padded * head_dim, 0.0);
        let scale = 1.0 / (head_dim as f32).sqrt();
        for token in 0..self.sequence.len() {
            let first = token / PANEL * PANEL;
            let width = (padded - first).min(PANEL);
            let panel = &mut keys[first * head_dim..];
            let key = &self.qkv[self.at(1, token)..][..head_dim];
            for (d, value) in key.iter().enumerate() {
                panel[d * width + token % PANEL] = value * scale;
            }
        }
    }

    /// `scores[query, token]`.
    fn score(&self, keys: &[f32], queries: Range<usize>, scores: &mut [f32]) {
        let (head_dim, padded, rows) = (self.shape.head_dim, self.padded(), queries.len());
        let queries = self.at(0, queries.start);
        assert!(queries + (rows - 1) * self.stride() + head_dim <= self.qkv.len());
        assert!(keys.len() >= padded * head_dim && scores.len() >= rows * padded);
        for start in (0..padded).step_by(PANEL) {
            let width = (padded - start).min(PANEL);
            let panel = Panel {
                x: self.qkv[queries..].as_ptr(),
                x_stride: self.stride(),
                w: keys[start * head_dim..].as_ptr(),
                w_stride: width,
                steps: head_dim,
                bias: std::ptr::null(),
                out: scores[start..].as_mut_ptr(),
                out_stride: padded,
                live: width,
                half: width < PANEL,
                activation: Activation::None,
            };
            // SAFETY: the queries of `rows` tokens and the keys of whole panels are there, and
            // `scores` has `rows` rows of `padded` values (asserted above).
            unsafe { multiply_panel(self.cpu, rows, panel) };
        }
    }

    /// `out` = scores times values.
    fn mix(&self, scores: &[f32], queries: Range<usize>, out: &Disjoint<'_>) {
        let EncoderAttention { heads, head_dim, .. } = self.shape;
        let (tokens, padded, rows) = (self.sequence.len(), self.padded(), queries.len());
        assert!(scores.len() >= rows * padded && rows * padded >= tokens);
        assert!(self.at(2, tokens - 1) + head_dim <= self.qkv.len());
        let width = heads * head_dim;
        for start in (0..head_dim).step_by(PANEL) {
            let live = (head_dim - start).min(PANEL);
            let row = self.sequence.start + queries.start;
            let at = row * width + self.index * head_dim + start;
            let last = out.at(at + (rows - 1) * width + live - 1);
            debug_assert!(!last.is_null());
            let panel = Panel {
                x: scores.as_ptr(),
                x_stride: padded,
                w: self.qkv[self.at(2, 0) + start..].as_ptr(),
                w_stride: self.stride(),
                steps: tokens,
                bias: std::ptr::null(),
                out: out.at(at),
                out_stride: width,
                live,
                half: live < PANEL,
                activation: Activation::None,
            };
            // SAFETY: the scores of `rows` queries, the values of all tokens and the results are
            // within their slices (asserted); this head's columns are written here alone.
            unsafe { multiply_panel(self.cpu, rows, panel) };
        }
    }
}
