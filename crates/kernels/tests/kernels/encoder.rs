//! Float products, layer normalisation, gated GELU and whole-sequence attention, compared with the
//! formulas in double precision on every instruction set, alone and on several threads.

use std::ops::Range;

use aisemble_kernels::{Activation, DenseMatrix, EncoderAttention, KernelError};
use proptest::prelude::*;

use crate::samples::{Source, assert_close, pools};

/// The error function by its Taylor series, which converges for all x; the terms' rounding grows
/// with x, and beyond 4 it is 1 to 8 digits.
fn erf(x: f64) -> f64 {
    if x.abs() > 4.0 {
        return x.signum();
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..100 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

fn activate(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::None => x,
        Activation::Gelu => x * 0.5 * (1.0 + erf(x / 2f64.sqrt())),
        Activation::GeluTanh => {
            let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
            x * 0.5 * (1.0 + u.tanh())
        }
        Activation::Relu => x.max(0.0),
    }
}

fn activation() -> impl Strategy<Value = Activation> {
    use Activation::{Gelu, GeluTanh, None, Relu};
    proptest::sample::select(vec![None, Gelu, GeluTanh, Relu])
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn dense_products_agree_with_the_formula(
        rows in 1usize..100,
        cols in 1usize..70,
        m in 1usize..40,
        with_bias: bool,
        activation in activation(),
        seed: u64,
    ) {
        let mut source = Source(seed);
        let weights = source.floats(rows * cols);
        let bias = if with_bias { source.floats(rows) } else { Vec::new() };
        let x = source.floats(m * cols);
        let matrix = DenseMatrix::pack(&weights, &bias, rows, cols).unwrap();
        let mut expected = Vec::new();
        for x in x.chunks_exact(cols) {
            for (row, w) in weights.chunks_exact(cols).enumerate() {
                let sum = dot(x, w) + bias.get(row).map_or(0.0, |bias| f64::from(*bias));
                expected.push(activate(activation, sum) as f32);
            }
        }
        for pool in pools() {
            let mut out = vec![f32::NAN; m * rows];
            pool.dense(&x, &matrix, activation, &mut out);
            assert_close(&out, &expected, cols as f32 * 1e-5, &format!("{:?}", pool.cpu()));
            // A row does not depend on its neighbours.
            let mut one = vec![f32::NAN; rows];
            pool.dense(&x[..cols], &matrix, activation, &mut one);
            prop_assert_eq!(&one, &out[..rows]);
        }
    }

    #[test]
    fn rows_are_normalised(width in 1usize..80, m in 1usize..9, add: bool, seed: u64) {
        let mut source = Source(seed);
        let x = source.floats(m * width);
        let y = if add { source.floats(m * width) } else { Vec::new() };
        let (weight, bias) = (source.floats(width), source.floats(width));
        let mut expected = Vec::new();
        for (row, x) in x.chunks_exact(width).enumerate() {
            let sum: Vec<f64> = (0..width)
                .map(|i| f64::from(x[i]) + y.get(row * width + i).map_or(0.0, |y| f64::from(*y)))
                .collect();
            let mean = sum.iter().sum::<f64>() / width as f64;
            let variance = sum.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / width as f64;
            for (i, v) in sum.iter().enumerate() {
                let unit = (v - mean) / (variance + 1e-5).sqrt();
                expected.push((unit * f64::from(weight[i]) + f64::from(bias[i])) as f32);
            }
        }
        for pool in pools() {
            let mut out = x.clone();
            pool.add_layer_norm(&mut out, &y, (&weight, &bias), 1e-5);
            assert_close(&out, &expected, 1e-3, &format!("{:?}", pool.cpu()));
        }
    }

    #[test]
    fn biases_are_added(
        width in 1usize..50,
        m in 1usize..6,
        activation in activation(),
        seed: u64,
    ) {
        let mut source = Source(seed);
        let (x, bias) = (source.floats(m * width), source.floats(width));
        let sum = |(at, x): (usize, &f32)| f64::from(*x) + f64::from(bias[at % width]);
        let expected: Vec<f32> =
            x.iter().enumerate().map(sum).map(|sum| activate(activation, sum) as f32).collect();
        for pool in pools() {
            let mut out = x.clone();
            pool.add_bias(&mut out, width, &bias, activation);
            assert_close(&out, &expected, 1e-5, &format!("{:?}", pool.cpu()));
        }
    }

    #[test]
    fn gates_are_applied(width in 1usize..50, m in 1usize..6, seed: u64) {
        let x = Source(seed).floats(m * 2 * width);
        let expected: Vec<f32> = x
            .chunks_exact(2 * width)
            .flat_map(|row| (0..width).map(|i| {
                let gate = activate(Activation::Gelu, f64::from(row[i]));
                (gate * f64::from(row[width + i])) as f32
            }))
            .collect();
        for pool in pools() {
            let mut out = vec![f32::NAN; m * width];
            pool.gelu_gate(&x, width, &mut out);
            assert_close(&out, &expected, 1e-5, &format!("{:?}", pool.cpu()));
        }
    }

    #[test]
    fn every_token_sees_its_sequence_and_no_other(
        lengths in proptest::collection::vec(1usize..70, 1..5),
        heads in 1usize..4,
        units in 1usize..6,
        reach in proptest::option::of(0usize..20),
        seed: u64,
    ) {
        let shape = EncoderAttention { heads, head_dim: units * 16, reach };
        let mut next = 0;
        let sequences: Vec<Range<usize>> = lengths.iter().map(|length| {
            next += length;
            next - length..next
        }).collect();
        let floats = Source(seed).floats(next * 3 * heads * shape.head_dim);
        let qkv: Vec<f32> = floats.iter().map(|v| v / 3.0).collect();
        let expected = attention(&qkv, &sequences, shape);
        for pool in pools() {
            let mut out = vec![f32::NAN; next * heads * shape.head_dim];
            pool.encoder_attention(&qkv, &sequences, shape, &mut out);
            assert_close(&out, &expected, 1e-5, &format!("{:?}", pool.cpu()));
        }
    }
}

fn attention(qkv: &[f32], sequences: &[Range<usize>], shape: EncoderAttention) -> Vec<f32> {
    let EncoderAttention { heads, head_dim, reach } = shape;
    let part = |token: usize, part: usize, head: usize| {
        &qkv[((token * 3 + part) * heads + head) * head_dim..][..head_dim]
    };
    let mut out = Vec::new();
    for sequence in sequences {
        for token in sequence.clone() {
            for head in 0..heads {
                let seen =
                    |other: &usize| reach.is_none_or(|reach| token.abs_diff(*other) <= reach);
                let others: Vec<usize> = sequence.clone().filter(seen).collect();
                let weights: Vec<f64> = others
                    .iter()
                    .map(|other| dot(part(token, 0, head), part(*other, 1, head)))
                    .map(|score| (score / (head_dim as f64).sqrt()).exp())
                    .collect();
                let total: f64 = weights.iter().sum();
                for d in 0..head_dim {
                    let values = others.iter().map(|other| f64::from(part(*other, 2, head)[d]));
                    let mixed: f64 = values.zip(&weights).map(|(v, w)| v * w).sum();
                    out.push((mixed / total) as f32);
                }
            }
        }
    }
    out
}

#[test]
fn a_matrix_of_another_shape_is_refused() {
    let refused = |weights: &[f32], bias: &[f32], rows, cols| {
        let error = DenseMatrix::pack(weights, bias, rows, cols).unwrap_err();
        assert!(matches!(error, KernelError::Dimensions { .. }));
    };
    refused(&[], &[], 0, 3);
    refused(&[1.0; 6], &[], 2, 4);
    refused(&[1.0; 6], &[1.0], 2, 3);
    refused(&[1.0; 6], &[], usize::MAX, 3);
}
