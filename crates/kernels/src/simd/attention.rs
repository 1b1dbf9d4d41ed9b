//! The attention kernel: some query vectors of one key/value head over one chunk of cached tokens.
//! It gives the unnormalised result with its maximum and sum, for `attention` to merge.
//!
//! For one query vector the order of all additions is the order of the dimensions, then of the
//! tokens in the chunk, whichever vectors are computed together.
#![expect(
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    reason = "reads the cache through raw pointers; `Chunk` states what is valid"
)]

use std::ops::Range;

use super::dispatch;
use super::lanes::Lanes;
use super::rows::exp;
use crate::kv::{KvElement, KvShape};

/// Tokens of a chunk at most: the unit in which long contexts are divided, always at multiples of
/// it, so that the division does not depend on who computes.
pub(crate) const CHUNK_TOKENS: usize = 256;
/// Tokens that lie together in any block.
pub(crate) const RUN: usize = KvShape::BLOCK_TOKENS_STEP;

/// One call.
///
/// Whoever makes one promises that `keys` and `values` point, for each run of 16 tokens that
/// `tokens` touches, to the run's keys (`head_dim` rows of 16, `key_stride` apart) and values
/// (16 rows of `head_dim`); that `query` is `[head_dim][vectors]`, `seen` has one range for each
/// vector within `tokens`, and `scores`, `out` have room for `[vectors][CHUNK_TOKENS]` and
/// `[vectors][head_dim]`. `head_dim` is a multiple of 16.
#[derive(Debug)]
pub(crate) struct Chunk<'a, T> {
    pub(crate) keys: &'a [*const T],
    pub(crate) values: &'a [*const T],
    pub(crate) key_stride: usize,
    pub(crate) head_dim: usize,
    pub(crate) query: &'a [f32],
    /// Tokens of the chunk that any vector sees.
    pub(crate) tokens: Range<usize>,
    /// Tokens of the chunk that each vector sees; may be empty.
    pub(crate) seen: &'a [Range<usize>],
    pub(crate) softcap: Option<f32>,
}

/// Results of a call, for each vector.
#[derive(Debug)]
pub(crate) struct Partial<'a> {
    pub(crate) scores: &'a mut [f32],
    /// `[vectors][head_dim]`: sum of e^(score - largest) x value.
    pub(crate) out: &'a mut [f32],
    /// Largest score; minus infinity when the vector sees nothing.
    pub(crate) largest: &'a mut [f32],
    /// Sum of e^(score - largest).
    pub(crate) sum: &'a mut [f32],
}

#[inline(always)]
unsafe fn load<S: Lanes, T: KvElement>(p: *const T) -> S::F {
    if T::IS_F16 { S::load_f16(p.cast()) } else { S::load(p.cast()) }
}

/// Memory that is needed soon, asked for while the scores of some tokens are computed. Blocks lie
/// anywhere, and the processor's own prefetching ends where one ends: without this, most of the
/// time of a long context is spent waiting at the beginnings of blocks.
struct Ahead<T> {
    /// The keys of the next group's runs, a line of which serves two adjacent runs.
    keys: [*const T; 2],
    key_stride: usize,
    /// The values of this group's tokens: line after line.
    values: [*const T; 2],
    head_dim: usize,
}

/// Values of a cache line.
const fn line<T>() -> usize {
    64 / size_of::<T>()
}

impl<T: KvElement> Ahead<T> {
    /// For `groups` vectors of tokens from `token`.
    #[inline(always)]
    unsafe fn of<S: Lanes>(chunk: &Chunk<'_, T>, token: usize, groups: usize) -> Self {
        let runs = (groups * S::N).div_ceil(RUN);
        let (run, end) = (token / RUN, chunk.tokens.end.div_ceil(RUN));
        // Past the end the last run is asked for again, which costs next to nothing.
        let at = |run: usize| run.min(end - 1);
        let keys = [chunk.keys[at(run + runs)], chunk.keys[at(run + runs + runs / 2)]];
        let values = [chunk.values[run], chunk.values[at(run + runs / 2)]];
        Self { keys, key_stride: chunk.key_stride, values, head_dim: chunk.head_dim }
    }

    #[inline(always)]
    unsafe fn prefetch<S: Lanes>(&self, dim: usize) {
        for keys in self.keys {
            S::prefetch(keys.wrapping_add(dim * self.key_stride).cast());
        }
        // Two runs of values lie behind each other: as many lines as dimensions, for half floats.
        let lines = 2 * RUN * self.head_dim / line::<T>() / self.head_dim;
        for values in self.values {
            for at in 0..lines {
                let line_at = (dim * lines + at) * line::<T>();
                S::prefetch(values.wrapping_add(line_at).cast());
            }
        }
    }
}

/// Scores of `M` vectors from `first` against `G` vectors of tokens from `token`.
#[inline(always)]
unsafe fn dots<S: Lanes, T: KvElement, const M: usize, const G: usize>(
    chunk: &Chunk<'_, T>,
    first: usize,
    token: usize,
    scores: &mut [f32],
) {
    let vectors = chunk.seen.len();
    let keys: [*const T; G] = std::array::from_fn(|g| {
        let at = token + g * S::N;
        chunk.keys[at / RUN].wrapping_add(at % RUN)
    });
    let mut acc = [[S::splat(0.0); G]; M];
    let mut query = chunk.query.as_ptr().add(first);
    let ahead = Ahead::<T>::of::<S>(chunk, token, G);
    for dim in 0..chunk.head_dim {
        ahead.prefetch::<S>(dim);
        let k: [S::F; G] =
            std::array::from_fn(|g| load::<S, T>(keys[g].add(dim * chunk.key_stride)));
        for (r, acc) in acc.iter_mut().enumerate() {
            let q = S::splat(*query.add(r));
            for g in 0..G {
                acc[g] = S::fma(q, k[g], acc[g]);
            }
        }
        query = query.wrapping_add(vectors);
    }
    for (r, acc) in acc.iter().enumerate() {
        for (g, &acc) in acc.iter().enumerate() {
            S::store(scores.as_mut_ptr().add((first + r) * CHUNK_TOKENS + token + g * S::N), acc);
        }
    }
}

/// All scores of `M` vectors from `first`.
#[inline(always)]
unsafe fn score<S: Lanes, T: KvElement, const M: usize>(
    chunk: &Chunk<'_, T>,
    first: usize,
    scores: &mut [f32],
) {
    let mut token = chunk.tokens.start / S::N * S::N;
    let wide = if S::N == 16 && M <= 4 { 4 } else { 2 };
    while token < chunk.tokens.end {
        let left = (chunk.tokens.end - token).div_ceil(S::N);
        if wide == 4 && left >= 4 {
            dots::<S, T, M, 4>(chunk, first, token, scores);
            token += 4 * S::N;
        } else if left >= 2 && (S::N == 16 || M <= 4) {
            dots::<S, T, M, 2>(chunk, first, token, scores);
            token += 2 * S::N;
        } else {
            dots::<S, T, M, 1>(chunk, first, token, scores);
            token += S::N;
        }
    }
}

/// Scores of one vector to weights, with their largest score and sum.
#[inline(always)]
unsafe fn weigh<S: Lanes, T: KvElement>(
    chunk: &Chunk<'_, T>,
    seen: &Range<usize>,
    scores: &mut [f32],
) -> (f32, f32) {
    let start = chunk.tokens.start / S::N * S::N;
    let end = chunk.tokens.end.next_multiple_of(S::N);
    if seen.is_empty() {
        scores[start..end].fill(0.0);
        return (f32::NEG_INFINITY, 0.0);
    }
    let p = scores.as_mut_ptr();
    if let Some(cap) = chunk.softcap {
        for at in (start..end).step_by(S::N) {
            S::store(p.add(at), softcap::<S>(S::load(p.add(at)), cap));
        }
    }
    scores[start..seen.start].fill(f32::NEG_INFINITY);
    scores[seen.end..end].fill(f32::NEG_INFINITY);
    let p = scores.as_mut_ptr();
    let mut largest = S::splat(f32::NEG_INFINITY);
    for at in (start..end).step_by(S::N) {
        largest = S::max(S::load(p.add(at)), largest);
    }
    let largest = S::max_lane(largest);
    let shift = S::splat(largest);
    let mut sum = S::splat(0.0);
    for at in (start..end).step_by(S::N) {
        let weight = exp::<S>(S::sub(S::load(p.add(at)), shift));
        sum = S::add(sum, weight);
        S::store(p.add(at), weight);
    }
    (largest, S::sum(sum))
}

/// `cap * tanh(x / cap)`.
#[inline(always)]
unsafe fn softcap<S: Lanes>(x: S::F, cap: f32) -> S::F {
    let e = exp::<S>(S::mul(x, S::splat(-2.0 / cap)));
    let one = S::splat(1.0);
    S::mul(S::splat(cap), S::div(S::sub(one, e), S::add(one, e)))
}

/// The weighted sum of `D` vectors of the values' dimensions from `dim`, for `M` vectors.
#[inline(always)]
unsafe fn blend<S: Lanes, T: KvElement, const M: usize, const D: usize>(
    chunk: &Chunk<'_, T>,
    first: usize,
    dim: usize,
    partial: &mut Partial<'_>,
) {
    let mut acc = [[S::splat(0.0); D]; M];
    let weights = partial.scores.as_ptr().add(first * CHUNK_TOKENS);
    let mut token = chunk.tokens.start;
    while token < chunk.tokens.end {
        let run = token / RUN;
        let end = chunk.tokens.end.min((run + 1) * RUN);
        let mut value = chunk.values[run].add(token % RUN * chunk.head_dim + dim);
        for token in token..end {
            let v: [S::F; D] = std::array::from_fn(|d| load::<S, T>(value.add(d * S::N)));
            for (r, acc) in acc.iter_mut().enumerate() {
                let weight = S::splat(*weights.add(r * CHUNK_TOKENS + token));
                for d in 0..D {
                    acc[d] = S::fma(weight, v[d], acc[d]);
                }
            }
            value = value.wrapping_add(chunk.head_dim);
        }
        token = end;
    }
    for (r, acc) in acc.iter().enumerate() {
        for (d, &acc) in acc.iter().enumerate() {
            let at = (first + r) * chunk.head_dim + dim + d * S::N;
            S::store(partial.out.as_mut_ptr().add(at), acc);
        }
    }
}

/// Scores, weights and weighted sum of `M` vectors from `first`.
#[inline(always)]
unsafe fn attend_some<S: Lanes, T: KvElement, const M: usize>(
    chunk: &Chunk<'_, T>,
    first: usize,
    partial: &mut Partial<'_>,
) {
    score::<S, T, M>(chunk, first, partial.scores);
    for vector in first..first + M {
        let scores = &mut partial.scores[vector * CHUNK_TOKENS..][..CHUNK_TOKENS];
        let (largest, sum) = weigh::<S, T>(chunk, &chunk.seen[vector], scores);
        partial.largest[vector] = largest;
        partial.sum[vector] = sum;
    }
    let mut dim = 0;
    while dim < chunk.head_dim {
        let left = (chunk.head_dim - dim) / S::N;
        if S::N == 16 && M <= 4 && left >= 4 {
            blend::<S, T, M, 4>(chunk, first, dim, partial);
            dim += 4 * S::N;
        } else if left >= 2 && (S::N == 16 || M <= 4) {
            blend::<S, T, M, 2>(chunk, first, dim, partial);
            dim += 2 * S::N;
        } else {
            blend::<S, T, M, 1>(chunk, first, dim, partial);
            dim += S::N;
        }
    }
}

dispatch! {
    /// # Safety
    /// As [`Chunk`]; `M` vectors from `first` exist.
    fn attend_vectors[T: KvElement, const M: usize][T, M](
        chunk: &Chunk<'_, T>,
        first: usize,
        partial: &mut Partial<'_>,
    ) = attend_some
}

/// Attends all vectors of the chunk.
///
/// # Safety
/// As [`Chunk`].
pub(crate) unsafe fn attend<T: KvElement>(
    cpu: crate::cpu::Cpu,
    chunk: &Chunk<'_, T>,
    partial: &mut Partial<'_>,
) {
    let vectors = chunk.seen.len();
    let mut first = 0;
    while first < vectors {
        first += match vectors - first {
            1 => {
                attend_vectors::<T, 1>(cpu, chunk, first, partial);
                1
            }
            2 => {
                attend_vectors::<T, 2>(cpu, chunk, first, partial);
                2
            }
            3 => {
                attend_vectors::<T, 3>(cpu, chunk, first, partial);
                3
            }
            4..8 => {
                attend_vectors::<T, 4>(cpu, chunk, first, partial);
                4
            }
            _ => {
                attend_vectors::<T, 8>(cpu, chunk, first, partial);
                8
            }
        };
    }
}
