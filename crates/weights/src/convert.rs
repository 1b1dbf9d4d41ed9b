//! From the types of a file to what the kernels pack: which types have a kernel, and requantising
//! those that have none to Q8_0. It works on one stretch of rows at a time, so that a large table
//! is never held as floats.

use std::borrow::Cow;

use aisemble_kernels::{BlockFormat, PackedMatrix};
use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{Device, Tensor};
use half::{bf16, f16};

use crate::error::LoadError;
use crate::gguf::{TensorType, TensorView};
use crate::source::{ModelSource, Quantise};

/// Values that are held as floats at once while a matrix is requantised.
const REQUANTISE_VALUES: usize = 1024 * 1024;
/// Values of a Q8_0 block.
const Q8_0_VALUES: usize = 32;

/// The kernels' format of a tensor type; `None` when they have no kernel for it.
pub(crate) fn format_of(kind: TensorType) -> Option<BlockFormat> {
    match kind {
        TensorType::F32 => Some(BlockFormat::F32),
        TensorType::F16 => Some(BlockFormat::F16),
        TensorType::Bf16 => Some(BlockFormat::Bf16),
        TensorType::Q4_0 => Some(BlockFormat::Q4_0),
        TensorType::Q4_1 => Some(BlockFormat::Q4_1),
        TensorType::Q5_0 => Some(BlockFormat::Q5_0),
        TensorType::Q5_1 => Some(BlockFormat::Q5_1),
        TensorType::Q8_0 => Some(BlockFormat::Q8_0),
        TensorType::Q4K => Some(BlockFormat::Q4K),
        TensorType::Q5K => Some(BlockFormat::Q5K),
        TensorType::Q6K => Some(BlockFormat::Q6K),
        TensorType::Q8_1 | TensorType::Q2K | TensorType::Q3K | TensorType::Q8K => None,
    }
}

impl TensorType {
    /// Whether the values are floats, not blocks.
    pub fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F16 | Self::Bf16)
    }

    /// Whether the CPU kernels compute with the type as it is; a matrix of another is requantised
    /// to Q8_0 when it is loaded.
    pub fn has_kernel(self) -> bool {
        format_of(self).is_some()
    }
}

/// A matrix of the model, packed for the kernels.
pub(crate) fn pack(source: &dyn ModelSource, name: &str) -> Result<PackedMatrix, LoadError> {
    let view = source.tensor(name)?;
    let (rows, cols) = matrix_dims(name, &view)?;
    let is_asked = source.quantise() == Quantise::Q8_0 && view.kind.is_float();
    let packed = match format_of(view.kind) {
        // Rows that are not whole blocks cannot be quantised.
        Some(format) if !is_asked || !cols.is_multiple_of(Q8_0_VALUES) => {
            PackedMatrix::pack(format, view.bytes, rows, cols)
        }
        Some(_) | None => {
            if !is_asked {
                tracing::info!(
                    tensor.name = name,
                    from = ?view.kind,
                    to = "Q8_0",
                    "requantised: no kernel computes with the type in the file"
                );
            }
            let bytes = requantise(&view, rows, cols)
                .map_err(|source| LoadError::Candle { name: name.to_owned(), source })?;
            PackedMatrix::pack(BlockFormat::Q8_0, &bytes, rows, cols)
        }
    };
    packed.map_err(|source| LoadError::Pack { name: name.to_owned(), source })
}

pub(crate) fn matrix_dims(name: &str, view: &TensorView<'_>) -> Result<(usize, usize), LoadError> {
    let [rows, cols] = *view.dims else {
        return Err(LoadError::Shape {
            name: name.to_owned(),
            found: view.dims.to_vec(),
            expected: vec![0, 0],
        });
    };
    Ok((rows, cols))
}

/// The tensor as candle's quantised tensor on `device`: a copy of the bytes.
pub(crate) fn qtensor(
    view: &TensorView<'_>,
    dims: &[usize],
    device: &Device,
) -> candle_core::Result<QTensor> {
    let storage = QStorage::from_data(Cow::Borrowed(view.bytes), device, view.kind.candle())?;
    QTensor::new(storage, dims)
}

/// The values as an f32 tensor in memory.
pub(crate) fn widen(view: &TensorView<'_>, dims: &[usize]) -> candle_core::Result<Tensor> {
    // Read byte by byte: in a safetensors file they lie at any address.
    let pairs = |decode: fn([u8; 2]) -> f32| -> Vec<f32> {
        view.bytes.as_chunks::<2>().0.iter().map(|pair| decode(*pair)).collect()
    };
    let floats = match view.kind {
        TensorType::F32 => {
            view.bytes.as_chunks::<4>().0.iter().map(|four| f32::from_le_bytes(*four)).collect()
        }
        TensorType::F16 => pairs(|pair| f16::from_le_bytes(pair).to_f32()),
        TensorType::Bf16 => pairs(|pair| bf16::from_le_bytes(pair).to_f32()),
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
        | TensorType::Q8K => return qtensor(view, dims, &Device::Cpu)?.dequantize(&Device::Cpu),
    };
    Tensor::from_vec(floats, dims, &Device::Cpu)
}

fn requantise(view: &TensorView<'_>, rows: usize, cols: usize) -> candle_core::Result<Vec<u8>> {
    let row_bytes = view.bytes.len() / rows;
    let stretch = (REQUANTISE_VALUES / cols).max(1);
    let mut requantised = Vec::new();
    for bytes in view.bytes.chunks(stretch * row_bytes) {
        let part = TensorView { bytes, ..*view };
        let floats = widen(&part, &[bytes.len() / row_bytes, cols])?;
        requantised.extend_from_slice(&QTensor::quantize(&floats, GgmlDType::Q8_0)?.data()?);
    }
    Ok(requantised)
}
