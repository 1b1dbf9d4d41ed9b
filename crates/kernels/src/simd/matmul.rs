//! The matrix kernel: one tile of 16 output features times up to 8 rows of activations, for every
//! weight format. It knows the packed layouts (`packed::TileLayout`, `activations`) byte by byte.
//!
//! The order of the additions for one output is the order of the blocks, whatever the number of
//! rows: a row's result does not depend on its neighbours.
#![expect(
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    reason = "reads weights and activations through raw pointers; `Tile` states what is valid"
)]

use super::dispatch;
use super::lanes::Lanes;
use crate::activations::Record;
use crate::cpu::Cpu;
use crate::format::BlockFormat;
use crate::packed::{TILE_ROWS, TileLayout};

/// One call: a tile of weights, a group of rows, and where the results go.
///
/// Whoever makes one promises that `weights` points to a whole tile laid out by `layout`, `rows`
/// to a group of as many rows of `layout.steps` records as the kernel is chosen for, and `out` to
/// `lanes` floats for each of the rows, `out_stride` apart, which nobody else touches meanwhile.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tile {
    pub(crate) weights: *const u8,
    pub(crate) layout: TileLayout,
    pub(crate) rows: *const u8,
    pub(crate) out: *mut f32,
    pub(crate) out_stride: usize,
    /// Output features that exist: 1 to 16.
    pub(crate) lanes: usize,
}

/// How a format adds one step (a block of 32 values, or one value of a float format).
pub(crate) trait Weights {
    /// Bytes of the activations of one row and step.
    const RECORD_BYTES: usize;

    /// # Safety
    /// As [`Tile`]; `step` is within the layout, `lane` is 0 or `S::N`, `x` points to the records
    /// of `M` rows for the step.
    unsafe fn add<S: Lanes, const M: usize>(
        tile: &Tile,
        step: usize,
        lane: usize,
        x: *const u8,
        acc: &mut [S::F; M],
    );
}

#[inline(always)]
unsafe fn run<S: Lanes, W: Weights, const M: usize>(tile: &Tile) {
    let mut lane = 0;
    while lane < tile.lanes {
        let mut acc = [S::splat(0.0); M];
        let mut x = tile.rows;
        for step in 0..tile.layout.steps {
            W::add::<S, M>(tile, step, lane, x, &mut acc);
            x = x.add(W::RECORD_BYTES * M);
        }
        let live = (tile.lanes - lane).min(S::N);
        for (r, &sums) in acc.iter().enumerate() {
            let out = tile.out.add(r * tile.out_stride + lane);
            if live == S::N {
                S::store(out, sums);
            } else {
                let mut all = [0.0f32; TILE_ROWS];
                S::store(all.as_mut_ptr(), sums);
                out.copy_from_nonoverlapping(all.as_ptr(), live);
            }
        }
        lane += S::N;
    }
}

/// The four words of a block's nibbles against `M` rows; both halves of the block into `acc`.
#[inline(always)]
unsafe fn dot_nibbles<S: Lanes, const M: usize>(
    quants: *const u8,
    x: Record<M>,
    acc: &mut [S::I; M],
) {
    for word in 0..4 {
        let (low, high) = S::nibbles(S::load_bytes(quants.add(word * 64)));
        for (r, acc) in acc.iter_mut().enumerate() {
            *acc = S::dot(*acc, low, x.quants(r, word));
            *acc = S::dot(*acc, high, x.quants(r, word + 4));
        }
    }
}

/// 32 values of 4 bits with a scale.
struct Q4_0;
impl Weights for Q4_0 {
    const RECORD_BYTES: usize = Record::<1>::BYTES;

    #[inline(always)]
    unsafe fn add<S: Lanes, const M: usize>(
        tile: &Tile,
        step: usize,
        lane: usize,
        x: *const u8,
        acc: &mut [S::F; M],
    ) {
        let x = Record::<M>(x);
        let mut dots: [S::I; M] = std::array::from_fn(|_| S::zero_i());
        for (r, dots) in dots.iter_mut().enumerate() {
            *dots = S::start::<3>(x.negative_sum(r));
        }
        let quants = tile.weights.add(tile.layout.quants_at + step * 256 + lane * 4);
        dot_nibbles::<S, M>(quants, x, &mut dots);
        let scale = S::load_f16(tile.weights.add(step * 32 + lane * 2).cast());
        for r in 0..M {
            let scale = S::mul(scale, S::splat(*x.scale(r)));
            acc[r] = S::fma(S::to_f32(dots[r]), scale, acc[r]);
        }
    }
}

/// 32 values of 4 bits with a scale and a minimum.
struct Q4_1;
impl Weights for Q4_1 {
    const RECORD_BYTES: usize = Record::<1>::BYTES;

    #[inline(always)]
    unsafe fn add<S: Lanes, const M: usize>(
        tile: &Tile,
        step: usize,
        lane: usize,
        x: *const u8,
        acc: &mut [S::F; M],
    ) {
        let x = Record::<M>(x);
        let mut dots = [S::zero_i(); M];
        let quants = tile.weights.add(tile.layout.quants_at + step * 256 + lane * 4);
        dot_nibbles::<S, M>(quants, x, &mut dots);
        let scale = S::load_f16(tile.weights.add(step * 64 + lane * 2).cast());
        let minimum = S::load_f16(tile.weights.add(step * 64 + 32 + lane * 2).cast());
        for r in 0..M {
            let scale = S::mul(scale, S::splat(*x.scale(r)));
            acc[r] = S::fma(minimum, S::splat(*x.half_sum(r)), acc[r]);
            acc[r] = S::fma(S::to_f32(dots[r]), scale, acc[r]);
        }
    }
}

/// As [`dot_nibbles`] for values of 5 bits: the fifth bits are in a plane behind the nibbles.
#[inline(always)]
unsafe fn dot_fives<S: Lanes, const M: usize>(
    quants: *const u8,
    x: Record<M>,
    acc: &mut [S::I; M],
) {
    let fifths = S::load_bytes(quants.add(256));
    let fifths = [
        (S::bit_to_bit4::<0>(fifths), S::bit_to_bit4::<4>(fifths)),
        (S::bit_to_bit4::<1>(fifths), S::bit_to_bit4::<5>(fifths)),
        (S::bit_to_bit4::<2>(fifths), S::bit_to_bit4::<6>(fifths)),
        (S::bit_to_bit4::<3>(fifths), S::bit_to_bit4::<7>(fifths)),
    ];
    for (word, (fifth_low, fifth_high)) in fifths.into_iter().enumerate() {
        let (low, high) = S::nibbles(S::load_bytes(quants.add(word * 64)));
        let (low, high) = (S::or(low, fifth_low), S::or(high, fifth_high));
        for (r, acc) in acc.iter_mut().enumerate() {
            *acc = S::dot(*acc, low, x.quants(r, word));
            *acc = S::dot(*acc, high, x.quants(r, word + 4));
        }
    }
}

/// 32 values of 5 bits with a scale; stored as `q + 16`.
struct Q5_0;
impl Weights for Q5_0 {
    const RECORD_BYTES: usize = Record::<1>::BYTES;

    #[inline(always)]
    unsafe fn add<S: Lanes, const M: usize>(
        tile: &Tile,
        step: usize,
        lane: usize,
        x: *const u8,
        acc: &mut [S::F; M],
    ) {
        let x = Record::<M>(x);
        let mut dots: [S::I; M] = std::array::from_fn(|_| S::zero_i());
        for (r, dots) in dots.iter_mut().enumerate() {
            *dots = S::start::<4>(x.negative_sum(r));
        }
        let quants = tile.weights.add(tile.layout.quants_at + step * 320 + lane * 4);
        dot_fives::<S, M>(quants, x, &mut dots);
        let scale = S::load_f16(tile.weights.add(step * 32 + lane * 2).cast());
        for r in 0..M {
            let scale = S::mul(scale, S::splat(*x.scale(r)));
            acc[r] = S::fma(S::to_f32(dots[r]), scale, acc[r]);
        }
    }
}

/// 32 values of 5 bits with a scale and a minimum.
struct Q5_1;
impl Weights for Q5_1 {
    const RECORD_BYTES: usize = Record::<1>::BYTES;

    #[inline(always)]
    unsafe fn add<S: Lanes, const M: usize>(
        tile: &Tile,
        step: usize,
        lane: usize,
        x: *const u8,
        acc: &mut [S::F; M],
    ) {
        let x = Record::<M>(x);
        let mut dots = [S::zero_i(); M];
        let quants = tile.weights.add(tile.layout.quants_at + step * 320 + lane * 4);
        dot_fives::<S, M>(quants, x, &mut dots);
        let scale = S::load_f16(tile.weights.add(step * 64 + lane * 2).cast());
        let minimum = S::load_f16(tile.weights.add(step * 64 + 32 + lane * 2).cast());
        for r in 0..M {
            let scale = S::mul(scale, S::splat(*x.scale(r)));
            acc[r] = S::fma(minimum, S::splat(*x.half_sum(r)), acc[r]);
            acc[r] = S::fma(S::to_f32(dots[r]), scale, acc[r]);
        }
    }
}

/// 32 values of 8 bits with a scale; stored as `q + 128`.
struct Q8_0;
impl Weights for Q8_0 {
    const RECORD_BYTES: usize = Record::<1>::BYTES;

    #[inline(always)]
    unsafe fn add<S: Lanes, const M: usize>(
        tile: &Tile,
        step: usize,
        lane: usize,
        x: *const u8,
        acc: &mut [S::F; M],
    ) {
        let x = Record::<M>(x);
        let mut dots = [S::zero_i(); M];
        for (r, dots) in dots.iter_mut().enumerate() {
            *dots = S::start_signed(x.negative_sum(r));
        }
        let quants = tile.weights.add(tile.layout.quants_at + step * 512 + lane * 4);
        for word in 0..8 {
            let w = S::load_bytes(quants.add(word * 64));
            for (r, dots) in dots.iter_mut().enumerate() {
                *dots = S::dot_signed(*dots, w, x.quants(r, word));
            }
        }
        let scale = S::load_f16(tile.weights.add(step * 32 + lane * 2).cast());
        for r in 0..M {
            let scale = S::mul(scale, S::splat(*x.scale(r)));
            acc[r] = S::fma(S::to_f32(dots[r]), scale, acc[r]);
        }
    }
}

/// Scales and minima of a block of 32 inside one of 256 (`Q4_K`, `Q5_K`), and its dots, into `acc`.
#[inline(always)]
unsafe fn add_scaled<S: Lanes, const M: usize>(
    tile: &Tile,
    (step, lane): (usize, usize),
    x: Record<M>,
    dots: &[S::I; M],
    acc: &mut [S::F; M],
) {
    let parts = tile.weights.add(step * 32 + lane);
    let wholes = tile.weights.add(tile.layout.supers_at + step / 8 * 64 + lane * 2);
    let scale = S::mul(S::load_f16(wholes.cast()), S::load_u8(parts));
    let minimum = S::mul(S::load_f16(wholes.add(32).cast()), S::load_u8(parts.add(16)));
    for r in 0..M {
        let scale = S::mul(scale, S::splat(*x.scale(r)));
        acc[r] = S::fma(minimum, S::splat(*x.negative_scaled_sum(r)), acc[r]);
        acc[r] = S::fma(S::to_f32(dots[r]), scale, acc[r]);
    }
}

/// Blocks of 256 values of 4 or 5 bits, with a scale and a minimum of 6 bits for each 32.
macro_rules! super_block_weights {
    ($name:ident, $step_bytes:literal, $dot:ident) => {
        struct $name;
        impl Weights for $name {
            const RECORD_BYTES: usize = Record::<1>::BYTES;

            #[inline(always)]
            unsafe fn add<S: Lanes, const M: usize>(
                tile: &Tile,
                step: usize,
                lane: usize,
                x: *const u8,
                acc: &mut [S::F; M],
            ) {
                let x = Record::<M>(x);
                let mut dots = [S::zero_i(); M];
                let at = tile.layout.quants_at + step * $step_bytes + lane * 4;
                $dot::<S, M>(tile.weights.add(at), x, &mut dots);
                add_scaled::<S, M>(tile, (step, lane), x, &dots, acc);
            }
        }
    };
}
super_block_weights!(Q4K, 256, dot_nibbles);
super_block_weights!(Q5K, 320, dot_fives);

/// Blocks of 256 values of 6 bits, with a signed 8-bit scale for each 16; stored as `q + 32`, the
/// low four bits as nibbles, the high two in a plane of their own.
struct Q6K;
impl Weights for Q6K {
    const RECORD_BYTES: usize = Record::<1>::BYTES;

    #[inline(always)]
    unsafe fn add<S: Lanes, const M: usize>(
        tile: &Tile,
        step: usize,
        lane: usize,
        x: *const u8,
        acc: &mut [S::F; M],
    ) {
        let x = Record::<M>(x);
        let (mut first, mut last) = ([S::zero_i(); M], [S::zero_i(); M]);
        for r in 0..M {
            first[r] = S::start::<5>(x.negative_half(r, 0));
            last[r] = S::start::<5>(x.negative_half(r, 1));
        }
        let quants = tile.weights.add(tile.layout.quants_at + step * 384 + lane * 4);
        for double in 0..2 {
            let high = S::load_bytes(quants.add(256 + double * 64));
            let high = [
                (S::pair_to_bit4::<0>(high), S::pair_to_bit4::<2>(high)),
                (S::pair_to_bit4::<4>(high), S::pair_to_bit4::<6>(high)),
            ];
            for (odd, (high_first, high_last)) in high.into_iter().enumerate() {
                let word = double * 2 + odd;
                let (a, b) = S::nibbles(S::load_bytes(quants.add(word * 64)));
                let (a, b) = (S::or(a, high_first), S::or(b, high_last));
                for r in 0..M {
                    first[r] = S::dot(first[r], a, x.quants(r, word));
                    last[r] = S::dot(last[r], b, x.quants(r, word + 4));
                }
            }
        }
        let parts = tile.weights.add(step * 32 + lane);
        let wholes = tile.weights.add(tile.layout.supers_at + step / 8 * 32 + lane * 2);
        let whole = S::load_f16(wholes.cast());
        let scale_first = S::load_i8(parts.cast());
        let scale_last = S::load_i8(parts.add(16).cast());
        for r in 0..M {
            let sum = S::mul(S::to_f32(first[r]), scale_first);
            let sum = S::fma(S::to_f32(last[r]), scale_last, sum);
            acc[r] = S::fma(sum, S::mul(whole, S::splat(*x.scale(r))), acc[r]);
        }
    }
}

/// One input feature of a float format; the records are the activations themselves.
macro_rules! float_weights {
    ($name:ident, $bytes:literal, $load:ident) => {
        struct $name;
        impl Weights for $name {
            const RECORD_BYTES: usize = 4;

            #[inline(always)]
            unsafe fn add<S: Lanes, const M: usize>(
                tile: &Tile,
                step: usize,
                lane: usize,
                x: *const u8,
                acc: &mut [S::F; M],
            ) {
                let at = tile.layout.quants_at + (step * TILE_ROWS + lane) * $bytes;
                let w = S::$load(tile.weights.add(at).cast());
                let x: *const f32 = x.cast();
                for (r, acc) in acc.iter_mut().enumerate() {
                    *acc = S::fma(w, S::splat(*x.add(r)), *acc);
                }
            }
        }
    };
}
float_weights!(F32, 4, load);
float_weights!(F16, 2, load_f16);
float_weights!(Bf16, 2, load_bf16);

dispatch! {
    /// # Safety
    /// As [`Tile`], for `M` rows of the format `W`.
    fn run_tile[W: Weights, const M: usize][W, M](tile: &Tile) = run
}

/// # Safety
/// As [`Tile`], for `rows` rows.
#[inline]
unsafe fn run_rows<W: Weights>(cpu: Cpu, rows: usize, tile: &Tile) {
    match rows {
        1 => run_tile::<W, 1>(cpu, tile),
        2 => run_tile::<W, 2>(cpu, tile),
        4 => run_tile::<W, 4>(cpu, tile),
        8 => run_tile::<W, 8>(cpu, tile),
        other => unreachable!("groups have 1, 2, 4 or 8 rows, not {other}"),
    }
}

/// Computes one tile for a group of `rows` (1, 2, 4 or 8) rows.
///
/// # Safety
/// As [`Tile`]; `format` is what the tile is packed from.
pub(crate) unsafe fn multiply(cpu: Cpu, format: BlockFormat, rows: usize, tile: &Tile) {
    match format {
        BlockFormat::F32 => run_rows::<F32>(cpu, rows, tile),
        BlockFormat::F16 => run_rows::<F16>(cpu, rows, tile),
        BlockFormat::Bf16 => run_rows::<Bf16>(cpu, rows, tile),
        BlockFormat::Q4_0 => run_rows::<Q4_0>(cpu, rows, tile),
        BlockFormat::Q4_1 => run_rows::<Q4_1>(cpu, rows, tile),
        BlockFormat::Q5_0 => run_rows::<Q5_0>(cpu, rows, tile),
        BlockFormat::Q5_1 => run_rows::<Q5_1>(cpu, rows, tile),
        BlockFormat::Q8_0 => run_rows::<Q8_0>(cpu, rows, tile),
        BlockFormat::Q4K => run_rows::<Q4K>(cpu, rows, tile),
        BlockFormat::Q5K => run_rows::<Q5K>(cpu, rows, tile),
        BlockFormat::Q6K => run_rows::<Q6K>(cpu, rows, tile),
    }
}

/// Rows of the largest group that the instruction set's registers hold.
pub(crate) fn group_rows_max(cpu: Cpu) -> usize {
    match cpu.isa() {
        crate::isa::Isa::Avx512Vnni => 8,
        crate::isa::Isa::AvxVnni | crate::isa::Isa::Avx2 | crate::isa::Isa::Scalar => 4,
    }
}
