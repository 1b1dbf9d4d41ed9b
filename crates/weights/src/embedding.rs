//! The table of token embeddings, kept as the file stores it; rows are widened when they are
//! looked up. It knows ids and rows, not tokens.

use std::sync::Arc;

use aisemble_kernels::{PackedMatrix, Pool};
use candle_core::{Device, Result, Tensor, bail};

use crate::convert;
use crate::device_matrix::DeviceMatrix;
use crate::error::LoadError;
use crate::linear::Linear;
use crate::source::ModelSource;

/// A table `[vocabulary, width]`.
#[derive(Clone)]
pub struct Embedding {
    table: Table,
    vocabulary: usize,
    width: usize,
    /// Factor on the rows that are looked up.
    scale: f32,
}

#[derive(Clone)]
enum Table {
    Packed { matrix: Arc<PackedMatrix>, pool: Arc<Pool> },
    Candle { matmul: Arc<DeviceMatrix>, device: Device },
}

impl std::fmt::Debug for Embedding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Embedding[{}, {}]", self.vocabulary, self.width)
    }
}

impl Embedding {
    /// Loads the table `name` (`token_embd.weight`).
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
        let (vocabulary, width) = convert::matrix_dims(name, &view)?;
        let table = if device.is_cpu() {
            let matrix = Arc::new(convert::pack(source, name)?);
            Table::Packed { matrix, pool: Arc::clone(pool) }
        } else {
            let matmul = Arc::new(DeviceMatrix::load(name, &view, device)?);
            Table::Candle { matmul, device: device.clone() }
        };
        Ok(Self { table, vocabulary, width, scale: 1.0 })
    }

    /// The same table with a factor on the rows that are looked up; as output layer it has none.
    pub fn scaled(self, scale: f32) -> Self {
        Self { scale, ..self }
    }

    /// Ids that the table has.
    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// Values of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The rows of `ids` as `[ids.len(), width]`, f32.
    ///
    /// # Errors
    /// When an id is not in the table.
    pub fn rows(&self, ids: &[u32]) -> Result<Tensor> {
        if let Some(id) = ids.iter().find(|&&id| id as usize >= self.vocabulary) {
            bail!("token id {id} is outside the vocabulary of {}", self.vocabulary);
        }
        match &self.table {
            Table::Packed { matrix, .. } => {
                let mut rows = vec![0.0; ids.len() * self.width];
                for (row, &id) in rows.chunks_exact_mut(self.width).zip(ids) {
                    matrix.dequantise_row(id as usize, row);
                    if self.scale != 1.0 {
                        row.iter_mut().for_each(|value| *value *= self.scale);
                    }
                }
                Tensor::from_vec(rows, (ids.len(), self.width), &Device::Cpu)
            }
            Table::Candle { matmul, device } => {
                let rows = matmul.rows(&Tensor::new(ids, device)?)?;
                if self.scale == 1.0 { Ok(rows) } else { rows.affine(f64::from(self.scale), 0.0) }
            }
        }
    }

    /// The same table as the output layer (tied weights): shared, not copied.
    pub fn as_linear(&self) -> Linear {
        match &self.table {
            Table::Packed { matrix, pool } => {
                Linear::from_packed(Arc::clone(matrix), Arc::clone(pool))
            }
            Table::Candle { matmul, .. } => {
                Linear::from_candle(Arc::clone(matmul), (self.vocabulary, self.width))
            }
        }
    }
}
