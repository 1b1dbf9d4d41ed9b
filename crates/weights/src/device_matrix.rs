//! A matrix as a GPU keeps it: quantised blocks as in the file, halves as halves; candle multiplies
//! both. The CPU has packed matrices instead, but candle's operations are the same on every device,
//! so the tests run these on the CPU. It knows one matrix, not layers.

use candle_core::quantized::QMatMul;
use candle_core::{DType, Device, Module as _, Result, Tensor};
use half::{bf16, f16};

use crate::convert;
use crate::error::LoadError;
use crate::gguf::{TensorType, TensorView};

/// `[rows, cols]` on a device.
#[derive(Debug, Clone)]
pub(crate) enum DeviceMatrix {
    /// Blocks of quantised weights, or f32.
    Blocks(QMatMul),
    /// f16 or bf16.
    Halves(Tensor),
}

impl DeviceMatrix {
    /// Copies the matrix to `device`.
    pub(crate) fn load(
        name: &str,
        view: &TensorView<'_>,
        device: &Device,
    ) -> std::result::Result<Self, LoadError> {
        Self::copied(view, device)
            .map_err(|source| LoadError::Candle { name: name.to_owned(), source })
    }

    fn copied(view: &TensorView<'_>, device: &Device) -> Result<Self> {
        // Read byte by byte: in a safetensors file they lie at any address.
        let pairs = || view.bytes.as_chunks::<2>().0.iter();
        match view.kind {
            TensorType::F16 => {
                let values: Vec<f16> = pairs().map(|pair| f16::from_le_bytes(*pair)).collect();
                Ok(Self::Halves(Tensor::from_vec(values, view.dims, device)?))
            }
            TensorType::Bf16 => {
                let values: Vec<bf16> = pairs().map(|pair| bf16::from_le_bytes(*pair)).collect();
                Ok(Self::Halves(Tensor::from_vec(values, view.dims, device)?))
            }
            TensorType::F32 => {
                let values = convert::widen(view, view.dims)?.to_device(device)?;
                Ok(Self::Blocks(QMatMul::Tensor(values)))
            }
            TensorType::Q4_0
            | TensorType::Q4_1
            | TensorType::Q5_0
            | TensorType::Q5_1
            | TensorType::Q8_0
            | TensorType::Q8_1
            | TensorType::Q2K
            | TensorType::Q3K
            | TensorType::Q4K
            | TensorType::Q5K
            | TensorType::Q6K
            | TensorType::Q8K => {
                let blocks = convert::qtensor(view, view.dims, device)?;
                Ok(Self::Blocks(QMatMul::from_qtensor(blocks)?))
            }
        }
    }

    /// `x W^T` in f32; `x` is `[rows, cols]`, f32. Halves are multiplied as such and summed as the
    /// device does: cuBLAS in single precision.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Blocks(matrix) => matrix.forward(x),
            Self::Halves(matrix) => {
                x.to_dtype(matrix.dtype())?.matmul(&matrix.t()?)?.to_dtype(DType::F32)
            }
        }
    }

    /// The rows of `ids` in f32.
    pub(crate) fn rows(&self, ids: &Tensor) -> Result<Tensor> {
        match self {
            Self::Blocks(matrix) => matrix.embedding(ids),
            Self::Halves(matrix) => matrix.index_select(ids, 0)?.to_dtype(DType::F32),
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::quantized::QTensor;

    use super::*;

    const ROWS: usize = 5;
    const COLS: usize = 256;

    fn wave(len: usize, seed: f32) -> Tensor {
        let values: Vec<f32> = (0..len).map(|at| (at as f32 * 0.37 + seed).sin()).collect();
        Tensor::from_vec(values, len, &Device::Cpu).unwrap()
    }

    fn bytes(floats: &Tensor, kind: TensorType) -> Vec<u8> {
        let floats = floats.reshape((ROWS, COLS)).unwrap();
        QTensor::quantize(&floats, kind.candle()).unwrap().data().unwrap().into_owned()
    }

    /// Products and rows of a matrix of `kind`, and what its values give in plain f32.
    fn check(kind: TensorType, tolerance: f32) {
        // One byte before it: no value lies where its type would have it.
        let mut padded = vec![0];
        padded.extend(bytes(&wave(ROWS * COLS, 0.5), kind));
        let plain_bytes = &padded[1..];
        let dims = [ROWS, COLS];
        let aligned = plain_bytes.to_vec();
        // Blocks come out of memory that candle aligns itself.
        let halves = matches!(kind, TensorType::F16 | TensorType::Bf16 | TensorType::F32);
        let used = if halves { plain_bytes } else { &aligned };
        let view = TensorView { kind, dims: &dims, bytes: used };
        let matrix = DeviceMatrix::load("w", &view, &Device::Cpu).unwrap();
        let plain = convert::qtensor(&TensorView { bytes: &aligned, ..view }, &dims, &Device::Cpu);
        let plain = plain.unwrap().dequantize(&Device::Cpu).unwrap();
        let x = wave(3 * COLS, 0.1).reshape((3, COLS)).unwrap();
        let close = |found: Tensor, expected: Tensor, tolerance: f32| {
            assert_eq!((found.dims(), found.dtype()), (expected.dims(), DType::F32));
            let apart = (found - expected).unwrap().abs().unwrap().flatten_all().unwrap();
            let apart = apart.to_vec1::<f32>().unwrap().into_iter().fold(0.0, f32::max);
            assert!(apart <= tolerance, "{kind:?}: {apart} apart");
        };
        let ids = Tensor::new(&[4_u32, 0], &Device::Cpu).unwrap();
        let rows = plain.index_select(&ids, 0).unwrap();
        close(matrix.rows(&ids).unwrap(), rows, 1e-6);
        if kind != TensorType::Bf16 {
            let products = x.matmul(&plain.t().unwrap()).unwrap();
            close(matrix.forward(&x).unwrap(), products, tolerance);
        }
    }

    #[test]
    fn every_type_of_a_file_multiplies_and_looks_up_on_a_device_as_in_plain_arithmetic() {
        check(TensorType::F32, 1e-4);
        // Halves of both sides: 2^-11 of each of 256 products, as a random walk with a margin.
        check(TensorType::F16, 0.05);
        check(TensorType::Bf16, 0.0);
        // Activations rounded to 8 bits.
        for kind in [TensorType::Q4_0, TensorType::Q4_1, TensorType::Q8_0, TensorType::Q6K] {
            check(kind, 0.3);
        }
    }
}
