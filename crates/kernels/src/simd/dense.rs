//! The float matrix kernel: up to 12 rows times two vectors of columns, sums in registers. It
//! knows pointers and strides; `dense` and `encoder` know shapes.
//!
//! One output's additions are in the order of the inputs, whatever the number of rows: a row's
//! result does not depend on its neighbours.
#![expect(
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    reason = "reads and writes through raw pointers; `Panel` states what is valid"
)]

use super::dispatch;
use super::lanes::Lanes;
use super::rows::exp;
use crate::cpu::Cpu;
use crate::dense::Activation;

/// Columns of a panel of weights.
pub(crate) const PANEL: usize = 32;

/// One call: rows of `x` times a panel of `PANEL` columns.
///
/// Whoever makes one promises that `x` has `steps` values for each row, `x_stride` apart; `w`
/// points to `PANEL` (or, with `half`, 16) readable floats for each of `steps` steps, `w_stride`
/// apart; `bias` is null or as wide; `out` has `live` floats for each row, `out_stride` apart,
/// which nobody else touches meanwhile; `live` is at most the width.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Panel {
    pub(crate) x: *const f32,
    pub(crate) x_stride: usize,
    pub(crate) w: *const f32,
    pub(crate) w_stride: usize,
    pub(crate) steps: usize,
    pub(crate) bias: *const f32,
    pub(crate) out: *mut f32,
    pub(crate) out_stride: usize,
    pub(crate) live: usize,
    /// Half a panel: 16 columns.
    pub(crate) half: bool,
    pub(crate) activation: Activation,
}

/// `x Phi(x)`: `max(x, 0) - |x| erfc(|x| / sqrt 2) / 2`, with Abramowitz and Stegun's 7.1.26 for
/// `erfc` (absolute error below 2e-7).
#[inline(always)]
pub(crate) unsafe fn gelu<S: Lanes>(x: S::F) -> S::F {
    let magnitude = S::abs(x);
    let z = S::mul(magnitude, S::splat(std::f32::consts::FRAC_1_SQRT_2));
    let one = S::splat(1.0);
    let t = S::div(one, S::fma(z, S::splat(0.327_591_1), one));
    let mut p = S::splat(1.061_405_4);
    for c in [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6] {
        p = S::fma(p, t, S::splat(c));
    }
    let tail = S::mul(S::mul(p, t), exp::<S>(S::sub(S::splat(0.0), S::mul(z, z))));
    let half = S::mul(S::mul(magnitude, S::splat(-0.5)), tail);
    S::add(S::max(S::splat(0.0), x), half)
}

/// The tanh form: `x / (1 + e^-2u)`, `u = sqrt(2 / pi) (x + 0.044715 x^3)`.
#[inline(always)]
unsafe fn gelu_tanh<S: Lanes>(x: S::F) -> S::F {
    let (linear, cubic) = (S::splat(-1.595_769), S::splat(-0.071_354_814));
    let exponent = S::mul(x, S::fma(cubic, S::mul(x, x), linear));
    S::div(x, S::add(S::splat(1.0), exp::<S>(exponent)))
}

#[inline(always)]
pub(crate) unsafe fn activate<S: Lanes>(activation: Activation, x: S::F) -> S::F {
    match activation {
        Activation::None => x,
        Activation::Gelu => gelu::<S>(x),
        Activation::GeluTanh => gelu_tanh::<S>(x),
        Activation::Relu => S::max(x, S::splat(0.0)),
    }
}

/// `M` rows times `V` vectors of columns from `lane` on.
#[inline(always)]
unsafe fn run_lanes<S: Lanes, const M: usize, const V: usize>(panel: &Panel, lane: usize) {
    let mut acc = [[S::splat(0.0); V]; M];
    if !panel.bias.is_null() {
        for v in 0..V {
            let bias = S::load(panel.bias.add(lane + v * S::N));
            for row in &mut acc {
                row[v] = bias;
            }
        }
    }
    let mut w = panel.w.add(lane);
    let mut x = panel.x;
    for _ in 0..panel.steps {
        let weights: [S::F; V] = std::array::from_fn(|v| S::load(w.add(v * S::N)));
        for (r, row) in acc.iter_mut().enumerate() {
            let value = S::splat(*x.add(r * panel.x_stride));
            for v in 0..V {
                row[v] = S::fma(weights[v], value, row[v]);
            }
        }
        w = w.add(panel.w_stride);
        x = x.add(1);
    }
    for (r, row) in acc.iter().enumerate() {
        for (v, &sums) in row.iter().enumerate() {
            let at = lane + v * S::N;
            if at >= panel.live {
                continue;
            }
            let out = panel.out.add(r * panel.out_stride + at);
            let sums = activate::<S>(panel.activation, sums);
            if at + S::N <= panel.live {
                S::store(out, sums);
            } else {
                let mut all = [0.0f32; 16];
                S::store(all.as_mut_ptr(), sums);
                out.copy_from_nonoverlapping(all.as_ptr(), panel.live - at);
            }
        }
    }
}

#[inline(always)]
unsafe fn run<S: Lanes, const M: usize>(panel: &Panel) {
    let width = if panel.half { PANEL / 2 } else { PANEL };
    let mut lane = 0;
    while lane < width && lane < panel.live {
        if lane + 2 * S::N <= width {
            run_lanes::<S, M, 2>(panel, lane);
            lane += 2 * S::N;
        } else {
            run_lanes::<S, M, 1>(panel, lane);
            lane += S::N;
        }
    }
}

dispatch! {
    /// # Safety
    /// As [`Panel`], for `M` rows.
    fn run_panel[const M: usize][M](panel: &Panel) = run
}

/// Rows of the largest group that the instruction set's registers hold.
pub(crate) fn rows_max(cpu: Cpu) -> usize {
    match cpu.isa() {
        crate::isa::Isa::Avx512Vnni => 12,
        crate::isa::Isa::AvxVnni | crate::isa::Isa::Avx2 | crate::isa::Isa::Scalar => 6,
    }
}

/// Multiplies `rows` rows with one panel, as many at a time as the registers hold.
///
/// # Safety
/// As [`Panel`], for `rows` rows.
pub(crate) unsafe fn multiply_panel(cpu: Cpu, rows: usize, mut panel: Panel) {
    let most = rows_max(cpu);
    let mut left = rows;
    while left > 0 {
        let take = left.min(most);
        let done = match take {
            1 => {
                run_panel::<1>(cpu, &panel);
                1
            }
            2 => {
                run_panel::<2>(cpu, &panel);
                2
            }
            3 => {
                run_panel::<3>(cpu, &panel);
                3
            }
            4 | 5 => {
                run_panel::<4>(cpu, &panel);
                4
            }
            6 | 7 => {
                run_panel::<6>(cpu, &panel);
                6
            }
            8..=11 => {
                run_panel::<8>(cpu, &panel);
                8
            }
            _ => {
                run_panel::<12>(cpu, &panel);
                12
            }
        };
        left -= done;
        panel.x = panel.x.wrapping_add(done * panel.x_stride);
        panel.out = panel.out.wrapping_add(done * panel.out_stride);
    }
}
