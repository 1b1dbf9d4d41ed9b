//! A linear layer in the precision that it is computed in.

use aisemble_weights::kernels::{
    Activation, BlockFormat, DenseMatrix, KernelError, PackedMatrix, Pool,
};
use half::f16;

use crate::config::Precision;

/// Values of a block of 8-bit weights.
const BLOCK: usize = 32;

/// Weights and bias of a layer, packed for the kernels.
#[derive(Debug)]
pub enum Linear {
    /// Single precision.
    Float(DenseMatrix),
    /// 8-bit blocks; the bias is added afterwards.
    Quantised {
        /// The weights.
        weights: PackedMatrix,
        /// The bias; may be empty.
        bias: Vec<f32>,
    },
}

impl Linear {
    /// Packs `weights`, `[rows, cols]`, and `bias`, `[rows]` or empty. Columns that are not whole
    /// blocks stay in single precision.
    ///
    /// # Errors
    /// When lengths disagree.
    pub fn pack(
        weights: &[f32],
        bias: Vec<f32>,
        (rows, cols): (usize, usize),
        precision: Precision,
    ) -> Result<Self, KernelError> {
        match precision {
            Precision::Q8 if cols.is_multiple_of(BLOCK) => {
                let bytes = quantise(weights);
                let weights = PackedMatrix::pack(BlockFormat::Q8_0, &bytes, rows, cols)?;
                Ok(Self::Quantised { weights, bias })
            }
            Precision::F32 | Precision::Q8 => {
                Ok(Self::Float(DenseMatrix::pack(weights, &bias, rows, cols)?))
            }
        }
    }

    /// Output features.
    #[must_use]
    pub fn rows(&self) -> usize {
        match self {
            Self::Float(matrix) => matrix.rows(),
            Self::Quantised { weights, .. } => weights.rows(),
        }
    }

    /// `out = activation(x W^T + b)` for each row of `x`.
    ///
    /// # Panics
    /// When lengths disagree.
    pub fn apply(&self, pool: &Pool, x: &[f32], activation: Activation, out: &mut [f32]) {
        match self {
            Self::Float(matrix) => pool.dense(x, matrix, activation, out),
            Self::Quantised { weights, bias } => {
                pool.matmul(x, x.len() / weights.cols(), weights, out);
                pool.add_bias(out, weights.rows(), bias, activation);
            }
        }
    }
}

/// Blocks of 32 values as `Q8_0`: a half-float scale and 32 signed bytes.
fn quantise(weights: &[f32]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(weights.len() / BLOCK * (BLOCK + 2));
    for block in weights.chunks_exact(BLOCK) {
        let largest = block.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
        let scale = f16::from_f32(largest / 127.0);
        bytes.extend_from_slice(&scale.to_le_bytes());
        let scale = scale.to_f32();
        let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
        let quants = block.iter().map(|value| (value * inverse).round().clamp(-127.0, 127.0));
        bytes.extend(quants.map(|quant| (quant as i8) as u8));
    }
    bytes
}
