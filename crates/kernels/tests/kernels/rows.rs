//! Row operations.

use aisemble_kernels::{RopeConfig, RopeStyle, RopeTable, reference};
use proptest::prelude::*;

use crate::samples::{Source, assert_close, cpus, pools};

/// Values that no kernel may stumble over.
fn odd() -> impl Strategy<Value = f32> {
    prop_oneof![
        4 => any::<f32>(),
        1 => proptest::sample::select(vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0]),
    ]
}

/// Equal within a relative error, NaN like NaN.
fn assert_same(found: &[f32], expected: &[f32], relative: f32, what: &str) {
    assert_eq!(found.len(), expected.len());
    for (index, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let close = (found - expected).abs() <= relative * expected.abs() + 1e-37;
        let alike = found == expected || (found.is_nan() && expected.is_nan());
        assert!(close || alike, "{what}: {found} is not {expected} at {index}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn rms_norm(width in 1usize..200, rows in 0usize..4, seed: u64) {
        let mut source = Source(seed);
        let (x, weight) = (source.floats(rows * width), source.floats(width));
        let mut expected = vec![0.0; x.len()];
        for (x, out) in x.chunks(width).zip(expected.chunks_mut(width)) {
            reference::rms_norm(x, &weight, 1e-5, out);
        }
        for cpu in cpus() {
            let mut out = vec![0.0; x.len()];
            cpu.rms_norm(&x, &weight, 1e-5, &mut out);
            assert_same(&out, &expected, 2e-6, &format!("{cpu:?}"));
        }
    }

    #[test]
    fn rope(
        pairs in 1usize..40,
        rest in 0usize..5,
        heads in 1usize..4,
        positions in proptest::collection::vec(0u32..64, 0..5),
        interleaved: bool,
        scaled: bool,
        seed: u64,
    ) {
        let mut source = Source(seed);
        let table = RopeTable::new(&RopeConfig {
            style: if interleaved { RopeStyle::Interleaved } else { RopeStyle::Halves },
            rotary_dim: 2 * pairs,
            base: 10_000.0,
            linear_scale: 1.0,
            frequency_factors: if scaled { vec![1.5; pairs] } else { Vec::new() },
            positions: 64,
        });
        let head_dim = 2 * pairs + rest;
        let x = source.floats(positions.len() * heads * head_dim);
        let mut expected = x.clone();
        for (index, head) in expected.chunks_mut(head_dim).enumerate() {
            reference::rope(&table, head, positions[index / heads] as usize);
        }
        for cpu in cpus() {
            let mut turned = x.clone();
            cpu.rope(&table, &mut turned, head_dim, &positions);
            assert_close(&turned, &expected, 2e-6, &format!("{cpu:?}"));
        }
    }

    #[test]
    fn silu_and_gelu(len in 0usize..100, seed: u64) {
        let mut source = Source(seed);
        let mut gate = source.floats(len);
        gate.iter_mut().for_each(|x| *x *= 10.0);
        let up = source.floats(len);
        let silu: Vec<f32> = gate.iter().zip(&up).map(|(g, u)| reference::silu(*g) * u).collect();
        let gelu: Vec<f32> = gate.iter().zip(&up).map(|(g, u)| reference::gelu(*g) * u).collect();
        for cpu in cpus() {
            let mut out = vec![0.0; len];
            cpu.silu_mul(&gate, &up, &mut out);
            assert_same(&out, &silu, 2e-6, &format!("silu {cpu:?}"));
            cpu.gelu_mul(&gate, &up, &mut out);
            assert_close(&out, &gelu, 2e-5, &format!("gelu {cpu:?}"));
        }
    }

    #[test]
    fn softmax(len in 0usize..300, spread in 0.0f32..200.0, seed: u64) {
        let mut x = Source(seed).floats(len);
        x.iter_mut().for_each(|x| *x *= spread);
        let mut expected = x.clone();
        reference::softmax(&mut expected);
        for cpu in cpus() {
            let mut found = x.clone();
            cpu.softmax(&mut found);
            assert_close(&found, &expected, 1e-6, &format!("{cpu:?}"));
            let sum: f32 = found.iter().sum();
            prop_assert!(len == 0 || (sum - 1.0).abs() < 1e-5);
        }
    }

    #[test]
    fn add_assign(pairs in proptest::collection::vec((odd(), odd()), 0..80)) {
        let (x, y): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
        let expected: Vec<f32> = x.iter().zip(&y).map(|(x, y)| x + y).collect();
        for cpu in cpus() {
            let mut sum = x.clone();
            cpu.add_assign(&mut sum, &y);
            assert_same(&sum, &expected, 0.0, &format!("{cpu:?}"));
        }
    }

    #[test]
    fn argmax_is_the_first_largest_number(
        x in prop_oneof![
            proptest::collection::vec(odd(), 0..700),
            proptest::collection::vec(proptest::sample::select(vec![1.0, 2.0, f32::NAN]), 0..40),
        ],
    ) {
        let mut expected: Option<usize> = None;
        for (index, value) in x.iter().enumerate() {
            if !value.is_nan() && expected.is_none_or(|best| *value > x[best]) {
                expected = Some(index);
            }
        }
        for cpu in cpus() {
            prop_assert_eq!(cpu.argmax(&x), expected, "{:?}", cpu);
        }
    }

    #[test]
    fn a_pool_gives_what_one_thread_gives(rows in 0usize..90, seed: u64) {
        let mut source = Source(seed);
        let width = 576;
        let positions: Vec<u32> = (0..rows as u32).collect();
        let (x, y) = (source.floats(rows * width), source.floats(rows * width));
        let weight = source.floats(width);
        let table = RopeTable::new(&RopeConfig {
            style: RopeStyle::Interleaved,
            rotary_dim: 64,
            base: 10_000.0,
            linear_scale: 1.0,
            frequency_factors: Vec::new(),
            positions: 90,
        });
        for pool in pools() {
            let cpu = pool.cpu();
            let (mut found, mut expected) = (x.clone(), x.clone());
            pool.rms_norm(&x, &weight, 1e-5, &mut found);
            cpu.rms_norm(&x, &weight, 1e-5, &mut expected);
            prop_assert_eq!(&found, &expected);
            pool.rope(&table, &mut found, 64, &positions);
            cpu.rope(&table, &mut expected, 64, &positions);
            prop_assert_eq!(&found, &expected);
            pool.add_assign(&mut found, &y);
            cpu.add_assign(&mut expected, &y);
            prop_assert_eq!(&found, &expected);
            pool.silu_mul(&x, &y, &mut found);
            cpu.silu_mul(&x, &y, &mut expected);
            prop_assert_eq!(&found, &expected);
            pool.gelu_mul(&x, &y, &mut found);
            cpu.gelu_mul(&x, &y, &mut expected);
            prop_assert_eq!(&found, &expected);
        }
    }

    #[test]
    fn odd_values_do_not_panic(x in proptest::collection::vec(odd(), 1..70)) {
        for cpu in cpus() {
            let mut out = vec![0.0; x.len()];
            cpu.rms_norm(&x, &x, 1e-5, &mut out);
            cpu.silu_mul(&x, &x, &mut out);
            cpu.gelu_mul(&x, &x, &mut out);
            cpu.softmax(&mut x.clone());
        }
    }
}

#[test]
fn softmax_shows_nan_and_ignores_minus_infinity() {
    for cpu in cpus() {
        let mut x = [1.0, f32::NAN, 2.0];
        cpu.softmax(&mut x);
        assert!(x.iter().all(|x| x.is_nan()), "{cpu:?}: {x:?}");
        let mut x = [f32::NEG_INFINITY, 3.0, 3.0];
        cpu.softmax(&mut x);
        assert_eq!(x, [0.0, 0.5, 0.5], "{cpu:?}");
    }
}
