//! Linear layers and embeddings of every tensor type against candle's own dequantised products.

use std::sync::Arc;

use aisemble_kernels::Pool;
use candle_core::quantized::QTensor;
use candle_core::{Device, Tensor};
use proptest::prelude::*;

use crate::gguf::TensorType;
use crate::gguf::sample::Sample;
use crate::{Embedding, Linear, LoadError, rope_factors, vector};

const MATRIX_TYPES: [TensorType; 12] = [
    TensorType::F32,
    TensorType::F16,
    TensorType::Bf16,
    TensorType::Q4_0,
    TensorType::Q4_1,
    TensorType::Q5_0,
    TensorType::Q5_1,
    TensorType::Q8_0,
    TensorType::Q2K,
    TensorType::Q4K,
    TensorType::Q5K,
    TensorType::Q6K,
];

fn wave(len: usize, seed: f32) -> Vec<f32> {
    (0..len).map(|at| (at as f32 * 0.37 + seed).sin()).collect()
}

fn pool() -> Arc<Pool> {
    Arc::new(Pool::new(Some(1)).unwrap())
}

/// A quantised matrix: its encoded bytes, and what they mean.
fn matrix(kind: TensorType, rows: usize, cols: usize) -> (Vec<u8>, Tensor) {
    let floats = Tensor::from_vec(wave(rows * cols, 0.5), (rows, cols), &Device::Cpu).unwrap();
    let quantised = QTensor::quantize(&floats, kind.candle()).unwrap();
    (quantised.data().unwrap().into_owned(), quantised.dequantize(&Device::Cpu).unwrap())
}

#[track_caller]
fn close(found: &Tensor, expected: &Tensor, tolerance: f32) {
    assert_eq!(found.dims(), expected.dims());
    let difference = (found - expected).unwrap().abs().unwrap().flatten_all().unwrap();
    let largest = difference.to_vec1::<f32>().unwrap().into_iter().fold(0.0, f32::max);
    assert!(largest <= tolerance, "{largest} is more than {tolerance}");
}

/// What rounding the activations to 8 bits (and, without a kernel, the weights once more) may
/// cost: half a step of 1/127 in each of `cols` products, as a random walk with a margin.
fn tolerance(kind: TensorType, cols: usize) -> f32 {
    let floats = matches!(kind, TensorType::F32 | TensorType::F16 | TensorType::Bf16);
    if floats { 1e-3 } else { 0.02 * (cols as f32).sqrt() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn products_are_those_of_the_dequantised_weights(
        kind in prop::sample::select(MATRIX_TYPES.to_vec()),
        out in 1_usize..40,
        blocks in 1_usize..3,
        rows in 0_usize..6,
        biased in any::<bool>(),
    ) {
        let cols = 256 * blocks;
        let (bytes, weights) = matrix(kind, out, cols);
        let bias = wave(out, 2.0);
        let mut sample = Sample::default().tensor("l.weight", &[out, cols], kind, &bytes);
        if biased {
            sample = sample.f32_tensor("l.bias", &[out], &bias);
        }
        let layer = Linear::load(&sample.open(), "l.weight", &Device::Cpu, &pool()).unwrap();
        prop_assert_eq!((layer.in_features(), layer.out_features()), (cols, out));
        let x = Tensor::from_vec(wave(rows * cols, 1.5), (rows, cols), &Device::Cpu).unwrap();
        let mut expected = x.matmul(&weights.t().unwrap()).unwrap();
        if biased {
            expected = expected.broadcast_add(&Tensor::new(bias, &Device::Cpu).unwrap()).unwrap();
        }
        close(&layer.forward(&x).unwrap(), &expected, tolerance(kind, cols));
    }
}

#[test]
fn a_group_gives_what_each_layer_gives() {
    let (first, _) = matrix(TensorType::Q8_0, 5, 64);
    let (second, _) = matrix(TensorType::Q4_1, 7, 64);
    let gguf = Sample::default()
        .tensor("a.weight", &[5, 64], TensorType::Q8_0, &first)
        .tensor("b.weight", &[7, 64], TensorType::Q4_1, &second)
        .f32_tensor("b.bias", &[7], &wave(7, 0.0))
        .open();
    let pool = pool();
    let load = |name| Linear::load(&gguf, name, &Device::Cpu, &pool).unwrap();
    let layers = [load("a.weight"), load("b.weight")];
    let x = Tensor::from_vec(wave(3 * 64, 1.0), (3, 64), &Device::Cpu).unwrap();
    let group = Linear::forward_group(&[&layers[0], &layers[1]], &x).unwrap();
    for (layer, found) in layers.iter().zip(group) {
        close(&found, &layer.forward(&x).unwrap(), 0.0);
    }
    assert!(Linear::forward_group(&[], &x).unwrap().is_empty());
    assert!(layers[0].forward(&x.t().unwrap()).is_err());
}

#[test]
fn embedding_rows_are_the_weights_and_the_tied_layer_shares_them() {
    for kind in [TensorType::F16, TensorType::Q8_0, TensorType::Q5_0] {
        let (bytes, weights) = matrix(kind, 9, 64);
        let gguf = Sample::default().tensor("t", &[9, 64], kind, &bytes).open();
        let table = Embedding::load(&gguf, "t", &Device::Cpu, &pool()).unwrap();
        let ids = [8_u32, 0, 8];
        let expected = weights.index_select(&Tensor::new(&ids, &Device::Cpu).unwrap(), 0).unwrap();
        close(&table.rows(&ids).unwrap(), &expected, 0.01);
        assert_eq!(table.rows(&[]).unwrap().dims(), [0, 64]);
        assert!(table.rows(&[9]).is_err());
        let tied = table.as_linear();
        assert_eq!((tied.in_features(), tied.out_features()), (64, 9));
    }
}

#[test]
fn tensors_of_other_shapes_are_named() {
    let gguf = Sample::default()
        .f32_tensor("v", &[4], &[1.0; 4])
        .f32_tensor("m", &[2, 4], &[1.0; 8])
        .f32_tensor("rope_freqs.weight", &[4], &[1.0, 2.0, 4.0, 8.0])
        .open();
    let pool = pool();
    let load = |name| Linear::load(&gguf, name, &Device::Cpu, &pool);
    assert!(matches!(load("v"), Err(LoadError::Shape { .. })));
    assert!(matches!(load("none"), Err(LoadError::Gguf(_))));
    let shaped = Linear::load_shaped(&gguf, ("m", 4, 2), &Device::Cpu, &pool);
    assert_eq!(shaped.unwrap_err().to_string(), "tensor `m` has shape [2, 4], expected [4, 2]");
    assert!(vector(&gguf, "v", 4, &Device::Cpu).is_ok());
    assert!(matches!(vector(&gguf, "v", 5, &Device::Cpu), Err(LoadError::Shape { .. })));
    assert_eq!(rope_factors(&gguf, 8).unwrap(), [1.0, 2.0, 4.0, 8.0]);
    assert!(rope_factors(&gguf, 6).is_err());
}
