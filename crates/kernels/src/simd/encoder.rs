//! The row operations of encoders: layer normalisation, gated GELU, and what attention needs
//! beside products.
#![expect(
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    reason = "loads and stores vectors through raw pointers; lengths are checked by `encoder`"
)]

use super::dense::{activate, gelu};
use super::dispatch;
use super::lanes::Lanes;
use super::rows::{load_some, store_some};
use crate::dense::Activation;

#[inline(always)]
unsafe fn layer_norm_row<S: Lanes>(x: &mut [f32], weight: &[f32], bias: &[f32], eps: f32) {
    let mut sum = S::splat(0.0);
    for at in (0..x.len()).step_by(S::N) {
        sum = S::add(sum, load_some::<S>(x, at, 0.0));
    }
    let mean = S::sum(sum) / x.len() as f32;
    let mut squares = S::splat(0.0);
    for at in (0..x.len()).step_by(S::N) {
        // Lanes beyond the row hold the mean, so that they add nothing.
        let v = S::sub(load_some::<S>(x, at, mean), S::splat(mean));
        squares = S::fma(v, v, squares);
    }
    let scale = 1.0 / (S::sum(squares) / x.len() as f32 + eps).sqrt();
    for at in (0..x.len()).step_by(S::N) {
        let v = S::mul(S::sub(load_some::<S>(x, at, 0.0), S::splat(mean)), S::splat(scale));
        let bias = if bias.is_empty() { S::splat(0.0) } else { load_some::<S>(bias, at, 0.0) };
        store_some::<S>(x, at, S::fma(v, load_some::<S>(weight, at, 0.0), bias));
    }
}

#[inline(always)]
unsafe fn gelu_gate_all<S: Lanes>(gate: &[f32], up: &[f32], out: &mut [f32]) {
    for at in (0..gate.len()).step_by(S::N) {
        let value = gelu::<S>(load_some::<S>(gate, at, 0.0));
        store_some::<S>(out, at, S::mul(value, load_some::<S>(up, at, 0.0)));
    }
}

#[inline(always)]
unsafe fn add_bias_row<S: Lanes>(x: &mut [f32], bias: &[f32], activation: Activation) {
    for at in (0..x.len()).step_by(S::N) {
        let mut value = load_some::<S>(x, at, 0.0);
        if !bias.is_empty() {
            value = S::add(value, load_some::<S>(bias, at, 0.0));
        }
        store_some::<S>(x, at, activate::<S>(activation, value));
    }
}

dispatch! {
    /// # Safety
    /// `bias` is as long as `x`, or empty.
    fn add_bias(x: &mut [f32], bias: &[f32], activation: Activation) = add_bias_row
}
dispatch! {
    /// # Safety
    /// `weight` is as long as `x`, `bias` too or empty.
    fn layer_norm(x: &mut [f32], weight: &[f32], bias: &[f32], eps: f32) = layer_norm_row
}
dispatch! {
    /// # Safety
    /// The slices are equally long.
    fn gelu_gate(gate: &[f32], up: &[f32], out: &mut [f32]) = gelu_gate_all
}
