//! The two inner loops: a tile of a convolution that mixes channels, and one that does not
//! (depthwise), each once for every instruction set.
#![expect(unsafe_code, reason = "reads the input through pointers and runs vector instructions")]

use super::isa::Isa;
#[cfg(target_arch = "x86_64")]
use super::lanes::{Avx2, Avx512};
use super::lanes::{Lanes, Plain};

/// Rows of a depthwise tile.
pub(super) const DEPTHWISE_ROWS: usize = 4;
/// Vectors of a panel at most: with [`Isa::rows`] as many sums as there are registers for.
pub(super) const VECTORS: usize = 3;

/// One tile: `rows` output pixels times up to [`VECTORS`] vectors of output channels.
pub(super) struct Tile<'a> {
    /// Where each pixel's input begins, `taps * rows`, tap by tap.
    pub(super) inputs: &'a [*const f32],
    /// Output pixels.
    pub(super) rows: usize,
    /// Input channels (dense), or channels of this tile (depthwise).
    pub(super) channels: usize,
    /// Dense: `taps * channels` rows of the panel's width. Depthwise: `taps` rows of
    /// `weights_stride`.
    pub(super) weights: *const f32,
    /// Values from one tap's weights to the next one's, depthwise only.
    pub(super) weights_stride: usize,
    /// One a channel of the panel.
    pub(super) bias: *const f32,
    /// Where the first pixel's results go.
    pub(super) out: *mut f32,
    /// Values from one pixel's results to the next one's, of `out` and of `residual`.
    pub(super) out_stride: usize,
    /// Added before the limits; null = nothing.
    pub(super) residual: *const f32,
    /// Results of a pixel that exist: fewer than the panel is wide in the last one.
    pub(super) columns: usize,
    /// Limits of the results.
    pub(super) limits: (f32, f32),
}

/// Computes a tile of a convolution over all channels. The panel has as many vectors as `columns`
/// needs.
///
/// # Safety
/// `isa` is available. Each input pointer has `channels` values; weights, bias, `out` and
/// `residual` have what the fields say.
pub(super) unsafe fn dense(isa: Isa, tile: &Tile<'_>) {
    debug_assert!(tile.rows >= 1 && tile.rows <= isa.rows());
    debug_assert!(tile.inputs.len().is_multiple_of(tile.rows));
    // SAFETY: the caller's contract, handed on.
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => dense_avx512(tile),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => dense_avx2(tile),
            _ => by_columns::<Plain>(tile),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn dense_avx512(tile: &Tile<'_>) {
    // SAFETY: as `dense`; the set is on.
    unsafe { by_columns::<Avx512>(tile) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn dense_avx2(tile: &Tile<'_>) {
    // SAFETY: as `dense`; the set is on.
    unsafe { by_columns::<Avx2>(tile) }
}

#[inline(always)]
unsafe fn by_columns<L: Lanes>(tile: &Tile<'_>) {
    // SAFETY: as `dense`.
    unsafe {
        match tile.columns.div_ceil(L::WIDTH) {
            1 => by_rows::<L, 1>(tile),
            2 => by_rows::<L, 2>(tile),
            _ => by_rows::<L, VECTORS>(tile),
        }
    }
}

#[inline(always)]
unsafe fn by_rows<L: Lanes, const V: usize>(tile: &Tile<'_>) {
    // SAFETY: as `dense`.
    unsafe {
        match tile.rows {
            1 => dense_rows::<L, 1, V>(tile),
            2 => dense_rows::<L, 2, V>(tile),
            3 => dense_rows::<L, 3, V>(tile),
            4 => dense_rows::<L, 4, V>(tile),
            5 => dense_rows::<L, 5, V>(tile),
            6 => dense_rows::<L, 6, V>(tile),
            7 => dense_rows::<L, 7, V>(tile),
            _ => dense_rows::<L, 8, V>(tile),
        }
    }
}

#[inline(always)]
unsafe fn dense_rows<L: Lanes, const M: usize, const V: usize>(tile: &Tile<'_>) {
    // SAFETY: as `dense`; every index below is inside what its contract promises.
    unsafe {
        let mut sums = [[L::splat(0.0); V]; M];
        for row in &mut sums {
            for (v, sum) in row.iter_mut().enumerate() {
                *sum = L::load(tile.bias.add(v * L::WIDTH));
            }
        }
        let mut weights = tile.weights;
        for tap in tile.inputs.chunks_exact(M) {
            let inputs: [*const f32; M] = std::array::from_fn(|m| *tap.get_unchecked(m));
            for channel in 0..tile.channels {
                let w: [L; V] = std::array::from_fn(|v| L::load(weights.add(v * L::WIDTH)));
                weights = weights.add(V * L::WIDTH);
                for (row, input) in sums.iter_mut().zip(inputs) {
                    let x = L::splat(*input.add(channel));
                    for (sum, w) in row.iter_mut().zip(w) {
                        *sum = x.mul_add(w, *sum);
                    }
                }
            }
        }
        finish::<L, M, V>(tile, sums);
    }
}

/// Adds the residual, keeps to the limits, and stores what exists.
#[inline(always)]
unsafe fn finish<L: Lanes, const M: usize, const V: usize>(tile: &Tile<'_>, sums: [[L; V]; M]) {
    // SAFETY: as `dense`: `columns` values behind each row of `out` and `residual`.
    unsafe {
        if tile.columns == V * L::WIDTH {
            finish_columns::<L, M, V, false>(tile, sums);
        } else {
            finish_columns::<L, M, V, true>(tile, sums);
        }
    }
}

/// The same, knowing whether the last vector is there in `PART` only. The loops are short and have
/// no branches but those on constants, so that they are unrolled and the sums stay in registers.
#[inline(always)]
unsafe fn finish_columns<L: Lanes, const M: usize, const V: usize, const PART: bool>(
    tile: &Tile<'_>,
    mut sums: [[L; V]; M],
) {
    let last = tile.columns - (V - 1) * L::WIDTH;
    // SAFETY: as `dense`: `columns` values behind each row of `out` and `residual`, of which `last`
    // belong to the last vector.
    unsafe {
        if !tile.residual.is_null() {
            for (m, row) in sums.iter_mut().enumerate() {
                for (v, sum) in row.iter_mut().enumerate() {
                    let at = tile.residual.add(m * tile.out_stride + v * L::WIDTH);
                    let part = PART && v + 1 == V;
                    let more = if part { L::load_part(at, last) } else { L::load(at) };
                    *sum = sum.add(more);
                }
            }
        }
        let (low, high) = (L::splat(tile.limits.0), L::splat(tile.limits.1));
        for (m, row) in sums.into_iter().enumerate() {
            for (v, sum) in row.into_iter().enumerate() {
                let at = tile.out.add(m * tile.out_stride + v * L::WIDTH);
                let sum = sum.clamp(low, high);
                if PART && v + 1 == V {
                    sum.store_part(at, last);
                } else {
                    sum.store(at);
                }
            }
        }
    }
}

/// Computes `rows` (at most [`DEPTHWISE_ROWS`]) pixels of a depthwise convolution over all of
/// `channels`, which are also the output's.
///
/// # Safety
/// As [`dense`], with `channels` values behind bias, `out` and `residual` too.
pub(super) unsafe fn depthwise(isa: Isa, tile: &Tile<'_>) {
    debug_assert!(tile.rows >= 1 && tile.rows <= DEPTHWISE_ROWS);
    // SAFETY: the caller's contract, handed on.
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => depthwise_avx512(tile),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => depthwise_avx2(tile),
            _ => depthwise_by_rows::<Plain>(tile),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn depthwise_avx512(tile: &Tile<'_>) {
    // SAFETY: as `depthwise`; the set is on.
    unsafe { depthwise_by_rows::<Avx512>(tile) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn depthwise_avx2(tile: &Tile<'_>) {
    // SAFETY: as `depthwise`; the set is on.
    unsafe { depthwise_by_rows::<Avx2>(tile) }
}

#[inline(always)]
unsafe fn depthwise_by_rows<L: Lanes>(tile: &Tile<'_>) {
    // SAFETY: as `depthwise`.
    unsafe {
        match tile.rows {
            1 => depthwise_rows::<L, 1>(tile),
            2 => depthwise_rows::<L, 2>(tile),
            3 => depthwise_rows::<L, 3>(tile),
            _ => depthwise_rows::<L, DEPTHWISE_ROWS>(tile),
        }
    }
}

#[inline(always)]
unsafe fn depthwise_rows<L: Lanes, const M: usize>(tile: &Tile<'_>) {
    // SAFETY: as `depthwise`.
    unsafe {
        let mut at = 0;
        while at + 2 * L::WIDTH <= tile.channels {
            depthwise_block::<L, M, 2>(tile, at);
            at += 2 * L::WIDTH;
        }
        while at + L::WIDTH <= tile.channels {
            depthwise_block::<L, M, 1>(tile, at);
            at += L::WIDTH;
        }
        for channel in at..tile.channels {
            for m in 0..M {
                let mut sum = *tile.bias.add(channel);
                for (tap, inputs) in tile.inputs.chunks_exact(M).enumerate() {
                    let weight = *tile.weights.add(tap * tile.weights_stride + channel);
                    sum += *inputs.get_unchecked(m).add(channel) * weight;
                }
                let to = m * tile.out_stride + channel;
                if !tile.residual.is_null() {
                    sum += *tile.residual.add(to);
                }
                *tile.out.add(to) = sum.max(tile.limits.0).min(tile.limits.1);
            }
        }
    }
}

#[inline(always)]
unsafe fn depthwise_block<L: Lanes, const M: usize, const V: usize>(tile: &Tile<'_>, at: usize) {
    // SAFETY: as `depthwise`; `at + V * WIDTH` is at most `channels`.
    unsafe {
        let mut sums = [[L::splat(0.0); V]; M];
        for row in &mut sums {
            for (v, sum) in row.iter_mut().enumerate() {
                *sum = L::load(tile.bias.add(at + v * L::WIDTH));
            }
        }
        let mut weights = tile.weights.add(at);
        for inputs in tile.inputs.chunks_exact(M) {
            let w: [L; V] = std::array::from_fn(|v| L::load(weights.add(v * L::WIDTH)));
            weights = weights.add(tile.weights_stride);
            for (m, row) in sums.iter_mut().enumerate() {
                let input = inputs.get_unchecked(m).add(at);
                for (v, sum) in row.iter_mut().enumerate() {
                    *sum = L::load(input.add(v * L::WIDTH)).mul_add(w[v], *sum);
                }
            }
        }
        let none = tile.residual.is_null();
        let block = Tile {
            out: tile.out.add(at),
            residual: if none { tile.residual } else { tile.residual.add(at) },
            columns: V * L::WIDTH,
            ..*tile
        };
        finish::<L, M, V>(&block, sums);
    }
}
