//! Weights out of a safetensors file: the digest is checked before anything is parsed, each tensor
//! has the shape that its layer needs, and batch normalisation becomes part of the convolution
//! before it.
//!
//! It knows files and layers, not networks.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use aisemble_weights::candle::safetensors::SliceSafetensors;
use aisemble_weights::candle::{self, DType, Device};
use aisemble_weights::digest::{self, DigestError};

use crate::compute::{Activation, Conv, ConvShape};

/// Bytes of a weights file.
const FILE_BYTES_MAX: u64 = 8 * 1024 * 1024 * 1024;
/// Values of one tensor.
const TENSOR_VALUES_MAX: usize = 1 << 30;

/// Why weights cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The file is not the one that is pinned, or cannot be read.
    #[error("the file cannot be used")]
    File {
        /// Why.
        #[from]
        source: DigestError,
    },
    /// The file was opened and cannot be read to its end.
    #[error("{} cannot be read", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is larger than any model that is served here.
    #[error("{} has {bytes} bytes; at most {FILE_BYTES_MAX} are loaded", path.display())]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// It is no safetensors file, or a tensor is missing or of a type that is not read.
    #[error("the tensor {name:?} cannot be loaded")]
    Tensor {
        /// The tensor, or empty for the file as a whole.
        name: String,
        /// Why.
        #[source]
        source: candle::Error,
    },
    /// A tensor has another shape than the network.
    #[error("the tensor {name:?} has the shape {found:?} instead of {expected:?}")]
    Shape {
        /// The tensor.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// What the network needs.
        expected: Vec<usize>,
    },
    /// A tensor is larger than any that is served.
    #[error(
        "the tensor {name:?} has the shape {shape:?}; at most {TENSOR_VALUES_MAX} values are loaded"
    )]
    TooManyValues {
        /// The tensor.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// A tensor holds what no weight is.
    #[error("the tensor {name:?} holds values that are not finite")]
    NotFinite {
        /// The tensor.
        name: String,
    },
}

/// The bytes of a file that has the pinned digest.
///
/// # Errors
/// [`WeightsError`].
pub fn read_verified(
    path: &Path,
    sha256: &str,
    progress: impl FnMut(u64, u64),
) -> Result<Vec<u8>, WeightsError> {
    let mut file = digest::open_verified(path, sha256, progress)?;
    let read = |source| WeightsError::Read { path: path.to_owned(), source };
    let bytes = file.metadata().map_err(read)?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(WeightsError::TooLarge { path: path.to_owned(), bytes });
    }
    let mut content = Vec::with_capacity(bytes as usize);
    file.read_to_end(&mut content).map_err(read)?;
    Ok(content)
}

/// The tensors of a file.
pub struct Tensors<'a> {
    file: SliceSafetensors<'a>,
}

impl std::fmt::Debug for Tensors<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tensors").field("tensors", &self.file.tensors().len()).finish()
    }
}

/// Batch normalisation to fold: where its four tensors are, and the epsilon.
#[derive(Debug, Clone, Copy)]
pub struct BatchNorm<'a> {
    /// Names of scale, shift, mean and variance.
    pub names: [&'a str; 4],
    /// Added to the variance.
    pub epsilon: f32,
}

impl<'a> Tensors<'a> {
    /// Reads the header.
    ///
    /// # Errors
    /// [`WeightsError::Tensor`] when the bytes are no safetensors file.
    pub fn new(bytes: &'a [u8]) -> Result<Self, WeightsError> {
        let named = |source| WeightsError::Tensor { name: String::new(), source };
        Ok(Self { file: SliceSafetensors::new(bytes).map_err(named)? })
    }

    /// Whether the file has a tensor of this name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.file.get(name).is_ok()
    }

    /// The shape of a tensor.
    ///
    /// # Errors
    /// [`WeightsError::Tensor`] when it is missing.
    pub fn shape(&self, name: &str) -> Result<Vec<usize>, WeightsError> {
        let named = |source| WeightsError::Tensor { name: name.to_owned(), source };
        Ok(self.file.get(name).map_err(named)?.shape().to_vec())
    }

    /// Names of all tensors.
    pub(crate) fn names(&self) -> impl Iterator<Item = String> {
        self.file.tensors().into_iter().map(|(name, _)| name)
    }

    /// A tensor as floats, of whatever shape.
    ///
    /// # Errors
    /// [`WeightsError`] when it is of a type that is not read, too large, or not finite.
    pub(crate) fn tensor(&self, name: &str) -> Result<candle::Tensor, WeightsError> {
        let named = |source| WeightsError::Tensor { name: name.to_owned(), source };
        let found = self.shape(name)?;
        let values = found.iter().try_fold(1_usize, |all, side| all.checked_mul(*side));
        if values.is_none_or(|values| values > TENSOR_VALUES_MAX) {
            return Err(WeightsError::TooManyValues { name: name.to_owned(), shape: found });
        }
        let loaded = self.file.load(name, &Device::Cpu).and_then(|of| of.to_dtype(DType::F32));
        let tensor = loaded.map_err(named)?;
        let flat: Vec<f32> = tensor.flatten_all().and_then(|of| of.to_vec1()).map_err(named)?;
        if flat.iter().any(|value| !value.is_finite()) {
            return Err(WeightsError::NotFinite { name: name.to_owned() });
        }
        Ok(tensor)
    }

    /// The values of a tensor of this shape, row-major.
    ///
    /// # Errors
    /// [`WeightsError`] when it is missing, of another shape, or not finite.
    pub fn values(&self, name: &str, expected: &[usize]) -> Result<Vec<f32>, WeightsError> {
        let named = |source| WeightsError::Tensor { name: name.to_owned(), source };
        let found = self.shape(name)?;
        let values: usize = expected.iter().product();
        if found != expected || values > TENSOR_VALUES_MAX {
            let (name, expected) = (name.to_owned(), expected.to_vec());
            return Err(WeightsError::Shape { name, found, expected });
        }
        let values: Vec<f32> = self
            .file
            .load(name, &Device::Cpu)
            .and_then(|tensor| tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1())
            .map_err(named)?;
        if values.iter().any(|value| !value.is_finite()) {
            return Err(WeightsError::NotFinite { name: name.to_owned() });
        }
        Ok(values)
    }

    /// A convolution from weights as PyTorch and ONNX lay them out; `bias` is a name or empty.
    ///
    /// # Errors
    /// As [`values`](Self::values).
    #[expect(clippy::too_many_arguments, reason = "the parts of one layer")]
    pub fn conv(
        &self,
        shape: ConvShape,
        weights: &str,
        bias: &str,
        norm: Option<BatchNorm<'_>>,
        activation: Activation,
    ) -> Result<Conv, WeightsError> {
        let per_output = if shape.depthwise { 1 } else { shape.input };
        let dims = [shape.output, per_output, shape.kernel.0, shape.kernel.1];
        let weights = self.values(weights, &dims)?;
        let bias = if bias.is_empty() { Vec::new() } else { self.values(bias, &[shape.output])? };
        self.folded(shape, weights, bias, norm, activation)
    }

    /// A convolution from weights as TensorFlow lays them out: rows, columns, input, output;
    /// depthwise rows, columns, channels, 1.
    ///
    /// # Errors
    /// As [`values`](Self::values).
    #[expect(clippy::too_many_arguments, reason = "the parts of one layer")]
    pub fn conv_tensorflow(
        &self,
        shape: ConvShape,
        weights: &str,
        bias: &str,
        norm: Option<BatchNorm<'_>>,
        activation: Activation,
    ) -> Result<Conv, WeightsError> {
        let (rows, columns) = shape.kernel;
        let (input, output) =
            if shape.depthwise { (1, shape.output) } else { (shape.input, shape.output) };
        let dims = if shape.depthwise {
            [rows, columns, output, 1]
        } else {
            [rows, columns, input, output]
        };
        let given = self.values(weights, &dims)?;
        let mut turned = Vec::with_capacity(given.len());
        for o in 0..output {
            for i in 0..input {
                // Depthwise has one of both, so the two layouts are the same one here.
                turned.extend((0..rows * columns).map(|tap| given[(tap * input + i) * output + o]));
            }
        }
        let bias = if bias.is_empty() { Vec::new() } else { self.values(bias, &[shape.output])? };
        self.folded(shape, turned, bias, norm, activation)
    }

    /// A linear layer `[output, input]` as a 1 x 1 convolution.
    ///
    /// # Errors
    /// As [`values`](Self::values).
    pub fn linear(
        &self,
        (input, output): (usize, usize),
        weights: &str,
        bias: &str,
    ) -> Result<Conv, WeightsError> {
        let weights = self.values(weights, &[output, input])?;
        let bias = if bias.is_empty() { Vec::new() } else { self.values(bias, &[output])? };
        Ok(Conv::new(ConvShape::pointwise(input, output), &weights, &bias, Activation::None))
    }

    /// `y = scale * (conv(x) - mean) / sqrt(variance + epsilon) + shift` as one convolution.
    #[expect(clippy::too_many_arguments, reason = "the parts of one layer")]
    fn folded(
        &self,
        shape: ConvShape,
        mut weights: Vec<f32>,
        mut bias: Vec<f32>,
        norm: Option<BatchNorm<'_>>,
        activation: Activation,
    ) -> Result<Conv, WeightsError> {
        if let Some(norm) = norm {
            let factors = self.fold_factors(norm, shape.output)?;
            bias.resize(shape.output, 0.0);
            let per_output = weights.len() / shape.output;
            let outputs = weights.chunks_exact_mut(per_output).zip(&mut bias).zip(factors);
            for ((weights, bias), (factor, mean, shift)) in outputs {
                for weight in weights {
                    *weight *= factor;
                }
                *bias = (*bias - mean) * factor + shift;
            }
        }
        Ok(Conv::new(shape, &weights, &bias, activation))
    }

    /// Factor, mean and shift of each channel.
    pub(crate) fn fold_factors(
        &self,
        norm: BatchNorm<'_>,
        channels: usize,
    ) -> Result<Vec<(f32, f32, f32)>, WeightsError> {
        let [scale, shift, mean, variance] = norm.names;
        let scale = self.values(scale, &[channels])?;
        let shift = self.values(shift, &[channels])?;
        let mean = self.values(mean, &[channels])?;
        let variance = self.values(variance, &[channels])?;
        let factor = |(scale, variance): (f32, f32)| scale / (variance + norm.epsilon).sqrt();
        let factors = scale.into_iter().zip(variance).map(factor);
        Ok(factors
            .zip(mean)
            .zip(shift)
            .map(|((factor, mean), shift)| (factor, mean, shift))
            .collect())
    }
}
