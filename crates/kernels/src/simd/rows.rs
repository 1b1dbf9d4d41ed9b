//! The row operations: normalisation, rotation, gating, softmax, sums. Any length; the last,
//! partial vector goes through a buffer.
#![expect(
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    reason = "loads and stores vectors through raw pointers; lengths are checked by `Cpu`"
)]

use super::dispatch;
use super::lanes::Lanes;
use crate::reference;
use crate::rope::{RopeStyle, RopeTable};

/// The widest vector.
const N_MAX: usize = 16;
/// Below this, `e^x` is not a normal number; it counts as zero.
const EXP_LOW: f32 = -87.336_54;
/// Above this, `e^x` is taken to be `e^88.37`.
const EXP_HIGH: f32 = 88.37;

/// Up to a vector of `x` from `at`, the rest `fill`.
#[inline(always)]
pub(crate) unsafe fn load_some<S: Lanes>(x: &[f32], at: usize, fill: f32) -> S::F {
    if at + S::N <= x.len() {
        return S::load(x.as_ptr().add(at));
    }
    let mut all = [fill; N_MAX];
    all[..x.len() - at].copy_from_slice(&x[at..]);
    S::load(all.as_ptr())
}

#[inline(always)]
pub(crate) unsafe fn store_some<S: Lanes>(x: &mut [f32], at: usize, v: S::F) {
    if at + S::N <= x.len() {
        S::store(x.as_mut_ptr().add(at), v);
        return;
    }
    let mut all = [0.0; N_MAX];
    S::store(all.as_mut_ptr(), v);
    let len = x.len() - at;
    x[at..].copy_from_slice(&all[..len]);
}

/// `e^x` with a relative error below 2e-7 between `EXP_LOW` and `EXP_HIGH`; zero below, constant
/// above, NaN for NaN. The polynomial is that of Cephes' `expf`.
#[inline(always)]
pub(crate) unsafe fn exp<S: Lanes>(x: S::F) -> S::F {
    let bounded = S::min(S::splat(EXP_HIGH), S::max(S::splat(EXP_LOW), x));
    let n = S::round(S::mul(bounded, S::splat(std::f32::consts::LOG2_E)));
    let whole = S::to_f32(n);
    let r = S::fma(whole, S::splat(-0.693_359_4), bounded);
    let r = S::fma(whole, S::splat(2.121_944_4e-4), r);
    let mut p = S::splat(1.987_569_1e-4);
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_66, 0.5] {
        p = S::fma(p, r, S::splat(c));
    }
    let y = S::add(S::fma(S::mul(r, r), p, r), S::splat(1.0));
    S::zero_below(x, S::splat(EXP_LOW), S::mul(y, S::exp2i(n)))
}

#[inline(always)]
unsafe fn rms_norm_row<S: Lanes>(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let mut squares = [S::splat(0.0); 2];
    for (turn, at) in (0..x.len()).step_by(S::N).enumerate() {
        let v = load_some::<S>(x, at, 0.0);
        squares[turn % 2] = S::fma(v, v, squares[turn % 2]);
    }
    let mean = S::sum(S::add(squares[0], squares[1])) / x.len() as f32;
    let scale = S::splat(1.0 / (mean + eps).sqrt());
    for at in (0..x.len()).step_by(S::N) {
        let v = S::mul(load_some::<S>(x, at, 0.0), scale);
        store_some::<S>(out, at, S::mul(v, load_some::<S>(weight, at, 0.0)));
    }
}

#[inline(always)]
unsafe fn silu_mul_all<S: Lanes>(gate: &[f32], up: &[f32], out: &mut [f32]) {
    for at in (0..gate.len()).step_by(S::N) {
        let x = load_some::<S>(gate, at, 0.0);
        let under = S::add(S::splat(1.0), exp::<S>(S::sub(S::splat(0.0), x)));
        let y = S::mul(S::div(x, under), load_some::<S>(up, at, 0.0));
        store_some::<S>(out, at, y);
    }
}

#[inline(always)]
unsafe fn gelu_mul_all<S: Lanes>(gate: &[f32], up: &[f32], out: &mut [f32]) {
    // x / (1 + e^-2u) = x / 2 (1 + tanh u), u = sqrt(2 / pi) (x + 0.044715 x^3).
    let (linear, cubic) = (S::splat(-1.595_769), S::splat(-0.071_354_814));
    for at in (0..gate.len()).step_by(S::N) {
        let x = load_some::<S>(gate, at, 0.0);
        let exponent = S::mul(x, S::fma(cubic, S::mul(x, x), linear));
        let under = S::add(S::splat(1.0), exp::<S>(exponent));
        let y = S::mul(S::div(x, under), load_some::<S>(up, at, 0.0));
        store_some::<S>(out, at, y);
    }
}

#[inline(always)]
unsafe fn softmax_row<S: Lanes>(x: &mut [f32]) {
    let largest = S::splat(largest_of::<S>(x));
    let mut sum = S::splat(0.0);
    for at in (0..x.len()).step_by(S::N) {
        let y = exp::<S>(S::sub(load_some::<S>(x, at, f32::NEG_INFINITY), largest));
        sum = S::add(sum, y);
        store_some::<S>(x, at, y);
    }
    let scale = S::splat(1.0 / S::sum(sum));
    for at in (0..x.len()).step_by(S::N) {
        store_some::<S>(x, at, S::mul(load_some::<S>(x, at, 0.0), scale));
    }
}

/// The largest value that is not NaN; minus infinity when there is none.
#[inline(always)]
unsafe fn largest_of<S: Lanes>(x: &[f32]) -> f32 {
    let mut largest = [S::splat(f32::NEG_INFINITY); 4];
    for (turn, at) in (0..x.len()).step_by(S::N).enumerate() {
        let v = load_some::<S>(x, at, f32::NEG_INFINITY);
        largest[turn % 4] = S::max(v, largest[turn % 4]);
    }
    let [a, b, c, d] = largest;
    S::max_lane(S::max(S::max(a, b), S::max(c, d)))
}

#[inline(always)]
unsafe fn add_all<S: Lanes>(x: &mut [f32], y: &[f32]) {
    for at in (0..x.len()).step_by(S::N) {
        let sum = S::add(load_some::<S>(x, at, 0.0), load_some::<S>(y, at, 0.0));
        store_some::<S>(x, at, sum);
    }
}

#[inline(always)]
unsafe fn rope_head<S: Lanes>(table: &RopeTable, head: &mut [f32], position: usize) {
    let (cos, sin) = table.at(position);
    let pairs = cos.len();
    let x = head.as_mut_ptr();
    let mut done = 0;
    match table.style() {
        RopeStyle::Interleaved => {
            while done + S::N / 2 <= pairs {
                let v = S::load(x.add(2 * done));
                let c = S::load_doubled(cos.as_ptr().add(done));
                let s = S::load_doubled(sin.as_ptr().add(done));
                let turned = S::negate_even(S::mul(S::swap_pairs(v), s));
                S::store(x.add(2 * done), S::fma(v, c, turned));
                done += S::N / 2;
            }
        }
        RopeStyle::Halves => {
            while done + S::N <= pairs {
                let (a, b) = (S::load(x.add(done)), S::load(x.add(done + pairs)));
                let c = S::load(cos.as_ptr().add(done));
                let s = S::load(sin.as_ptr().add(done));
                let minus_s = S::sub(S::splat(0.0), s);
                S::store(x.add(done), S::fma(a, c, S::mul(b, minus_s)));
                S::store(x.add(done + pairs), S::fma(b, c, S::mul(a, s)));
                done += S::N;
            }
        }
    }
    reference::rope_pairs(table, head, position, done);
}

dispatch! {
    /// # Safety
    /// The slices are equally long.
    fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) = rms_norm_row
}
dispatch! {
    /// # Safety
    /// The slices are equally long.
    fn silu_mul(gate: &[f32], up: &[f32], out: &mut [f32]) = silu_mul_all
}
dispatch! {
    /// # Safety
    /// The slices are equally long.
    fn gelu_mul(gate: &[f32], up: &[f32], out: &mut [f32]) = gelu_mul_all
}
dispatch! {
    /// # Safety
    /// None beyond the proof in `cpu`.
    fn softmax(x: &mut [f32]) = softmax_row
}
dispatch! {
    /// # Safety
    /// None beyond the proof in `cpu`.
    fn largest(x: &[f32]) -> f32 = largest_of
}
dispatch! {
    /// # Safety
    /// The slices are equally long.
    fn add_assign(x: &mut [f32], y: &[f32]) = add_all
}
dispatch! {
    /// # Safety
    /// The head is at least the table's rotary dimension long.
    fn rope(table: &RopeTable, head: &mut [f32], position: usize) = rope_head
}
