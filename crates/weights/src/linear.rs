//! Linear layers with weights as the file stores them. On the CPU the weights are packed once for
//! the kernels; on a GPU candle keeps and multiplies them. It knows matrices, not models.

use std::sync::Arc;

use aisemble_kernels::{PackedMatrix, Pool, Product};
use candle_core::{CpuStorage, CustomOp1, Device, Layout, Result, Shape, Tensor, bail};

use crate::convert;
use crate::device_matrix::DeviceMatrix;
use crate::error::LoadError;
use crate::ops::{self, contiguous};
use crate::source::ModelSource;

/// `y = x W^T + b`, weights `[out, in]`.
#[derive(Debug, Clone)]
pub struct Linear {
    weights: Weights,
    /// `[out]`, f32.
    bias: Option<Tensor>,
    in_features: usize,
    out_features: usize,
}

#[derive(Clone)]
enum Weights {
    Packed { matrix: Arc<PackedMatrix>, pool: Arc<Pool> },
    Candle(Arc<DeviceMatrix>),
}

impl std::fmt::Debug for Weights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Packed { matrix, .. } => write!(f, "Packed({:?})", matrix.format()),
            Self::Candle(_) => write!(f, "Candle"),
        }
    }
}

impl Linear {
    /// Loads the matrix `name` (`blk.0.attn_q.weight`) and, when the file has it, the bias beside
    /// it (`blk.0.attn_q.bias`). Types without a kernel are requantised to Q8_0, and the log says
    /// so.
    ///
    /// # Errors
    /// [`LoadError`] when the tensor is missing or not a matrix.
    pub fn load(
        source: &dyn ModelSource,
        name: &str,
        device: &Device,
        pool: &Arc<Pool>,
    ) -> std::result::Result<Self, LoadError> {
        let view = source.tensor(name)?;
        let (out_features, in_features) = convert::matrix_dims(name, &view)?;
        let weights = if device.is_cpu() {
            let matrix = Arc::new(convert::pack(source, name)?);
            Weights::Packed { matrix, pool: Arc::clone(pool) }
        } else {
            Weights::Candle(Arc::new(DeviceMatrix::load(name, &view, device)?))
        };
        let bias = match name.strip_suffix(".weight").map(|stem| format!("{stem}.bias")) {
            Some(bias) if source.has_tensor(&bias) => {
                Some(vector(source, &bias, out_features, device)?)
            }
            Some(_) | None => None,
        };
        Ok(Self { weights, bias, in_features, out_features })
    }

    /// As [`load`](Self::load), and checks the shape against the model's metadata.
    ///
    /// # Errors
    /// [`LoadError::Shape`] besides those of [`load`](Self::load).
    pub fn load_shaped(
        source: &dyn ModelSource,
        (name, out_features, in_features): (&str, usize, usize),
        device: &Device,
        pool: &Arc<Pool>,
    ) -> std::result::Result<Self, LoadError> {
        let found = source.tensor(name)?.dims.to_vec();
        let expected = vec![out_features, in_features];
        if found != expected {
            return Err(LoadError::Shape { name: name.to_owned(), found, expected });
        }
        Self::load(source, name, device, pool)
    }

    /// A layer over a matrix that is packed already and shared, for example a tied embedding table.
    pub(crate) fn from_packed(matrix: Arc<PackedMatrix>, pool: Arc<Pool>) -> Self {
        let (out_features, in_features) = (matrix.rows(), matrix.cols());
        Self { weights: Weights::Packed { matrix, pool }, bias: None, in_features, out_features }
    }

    pub(crate) fn from_candle(matmul: Arc<DeviceMatrix>, (rows, cols): (usize, usize)) -> Self {
        let weights = Weights::Candle(matmul);
        Self { weights, bias: None, in_features: cols, out_features: rows }
    }

    /// Width of the input.
    pub fn in_features(&self) -> usize {
        self.in_features
    }

    /// Width of the output.
    pub fn out_features(&self) -> usize {
        self.out_features
    }

    /// Bytes of the weights in memory, when they are packed for the CPU.
    pub fn resident_bytes(&self) -> usize {
        match &self.weights {
            Weights::Packed { matrix, .. } => matrix.resident_bytes(),
            Weights::Candle(_) => 0,
        }
    }

    /// `x` is `[rows, in]`, f32; the result `[rows, out]`, f32.
    ///
    /// # Errors
    /// When the shape or type of `x` is another.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let out = match &self.weights {
            Weights::Packed { matrix, pool } => {
                x.contiguous()?.apply_op1_no_bwd(&PackedProducts { matrices: &[matrix], pool })?
            }
            Weights::Candle(matmul) => matmul.forward(x)?,
        };
        let out = match &self.weights {
            Weights::Packed { .. } => out.reshape((x.dim(0)?, self.out_features))?,
            Weights::Candle(_) => out,
        };
        self.add_bias(out)
    }

    /// Several layers of the same input at once (query, key, value; gate, up): on the CPU the input
    /// is rounded once and the threads meet once. Results as of [`forward`](Self::forward), in
    /// order.
    ///
    /// # Errors
    /// When the layers have different input widths, or as [`forward`](Self::forward).
    pub fn forward_group(layers: &[&Self], x: &Tensor) -> Result<Vec<Tensor>> {
        let mut matrices = Vec::with_capacity(layers.len());
        let mut shared_pool = None;
        for layer in layers {
            if let Weights::Packed { matrix, pool } = &layer.weights {
                matrices.push(matrix);
                shared_pool = Some(pool);
            }
        }
        let Some(pool) = shared_pool.filter(|_| matrices.len() == layers.len()) else {
            return layers.iter().map(|layer| layer.forward(x)).collect();
        };
        let rows = x.dim(0)?;
        let all =
            x.contiguous()?.apply_op1_no_bwd(&PackedProducts { matrices: &matrices, pool })?;
        let mut at = 0;
        let mut outputs = Vec::with_capacity(layers.len());
        for layer in layers {
            let len = rows * layer.out_features;
            let out = all.narrow(0, at, len)?.reshape((rows, layer.out_features))?;
            outputs.push(layer.add_bias(out)?);
            at += len;
        }
        Ok(outputs)
    }

    fn add_bias(&self, out: Tensor) -> Result<Tensor> {
        match &self.bias {
            Some(bias) if out.device().is_cpu() => ops::add_rows(&out, bias),
            Some(bias) => out.broadcast_add(bias),
            None => Ok(out),
        }
    }
}

/// The products of one input with several matrices, one after the other in one flat result.
struct PackedProducts<'a> {
    matrices: &'a [&'a Arc<PackedMatrix>],
    pool: &'a Pool,
}

impl CustomOp1 for PackedProducts<'_> {
    fn name(&self) -> &'static str {
        "packed-matmul"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = contiguous(storage, layout)?;
        let (rows, cols) = layout.shape().dims2()?;
        if let Some(matrix) = self.matrices.iter().find(|matrix| matrix.cols() != cols) {
            bail!("the input is {cols} wide, the weights {}", matrix.cols());
        }
        let total: usize = self.matrices.iter().map(|matrix| matrix.rows() * rows).sum();
        let mut all = vec![0.0; total];
        let mut rest = all.as_mut_slice();
        let mut products = Vec::with_capacity(self.matrices.len());
        for matrix in self.matrices {
            let (out, behind) = rest.split_at_mut(matrix.rows() * rows);
            rest = behind;
            products.push(Product { weights: matrix, out });
        }
        if rows > 0 {
            self.pool.matmul_group(x, rows, &mut products);
        }
        Ok((CpuStorage::F32(all), Shape::from(total)))
    }
}

/// A vector of the file as an f32 tensor `[len]` on `device`: norm weights, biases, frequency
/// factors.
///
/// # Errors
/// [`LoadError`] when it is missing, or not a vector of `len` values.
pub fn vector(
    source: &dyn ModelSource,
    name: &str,
    len: usize,
    device: &Device,
) -> std::result::Result<Tensor, LoadError> {
    let view = source.tensor(name)?;
    if view.dims != [len] {
        let (found, expected) = (view.dims.to_vec(), vec![len]);
        return Err(LoadError::Shape { name: name.to_owned(), found, expected });
    }
    convert::widen(&view, view.dims)
        .and_then(|tensor| tensor.to_device(device))
        .map_err(|source| LoadError::Candle { name: name.to_owned(), source })
}

/// Llama 3's frequency factors: the values of `rope_freqs.weight`, empty when the file has none.
///
/// # Errors
/// [`LoadError`] when they are not one for each pair of the `rope_dim` values that turn.
pub fn rope_factors(
    source: &dyn ModelSource,
    rope_dim: usize,
) -> std::result::Result<Vec<f32>, LoadError> {
    const NAME: &str = "rope_freqs.weight";
    if !source.has_tensor(NAME) {
        return Ok(Vec::new());
    }
    vector(source, NAME, rope_dim / 2, &Device::Cpu)?
        .to_vec1()
        .map_err(|source| LoadError::Candle { name: NAME.to_owned(), source })
}
