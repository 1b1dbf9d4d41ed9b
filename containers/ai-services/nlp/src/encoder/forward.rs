//! From token ids to a vector for each token: embeddings, layers, the last normalisation.

use std::ops::Range;
use std::sync::Arc;

use aisemble_weights::kernels::{KernelError, Pool, RopeConfig, RopeStyle, RopeTable};

use super::family::Family;
use super::layer::{Buffers, Norm, Pass, PostNormLayer, PreNormLayer, Turning, norm};
use super::linear::Linear;
use super::names::{Names, Place};
use super::shape::{Rotary, Shape};
use crate::config::Precision;
use crate::tensors::{TensorError, TensorFile};

/// Why an encoder cannot be made of a file.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A tensor is not there or not as it must be.
    #[error("a tensor is not as the model needs it")]
    Tensor {
        /// Which, and how.
        #[from]
        source: TensorError,
    },
    /// A matrix cannot be packed.
    #[error("a matrix cannot be packed")]
    Pack {
        /// Why.
        #[from]
        source: KernelError,
    },
    /// The model has no head for any task.
    #[error("{found}; a head for {known} is served")]
    Head {
        /// What it is.
        found: String,
        /// What is served.
        known: &'static str,
    },
}

/// Token ids of sequences, one after the other.
#[derive(Debug, Clone, Default)]
pub struct Sequences {
    ids: Vec<u32>,
    types: Vec<u8>,
    positions: Vec<u32>,
    ranges: Vec<Range<usize>>,
}

impl Sequences {
    /// Adds a sequence. `second_from`: where its second text begins (its token type is 1).
    pub fn push(&mut self, ids: &[u32], second_from: Option<usize>) {
        let start = self.ids.len();
        self.ids.extend_from_slice(ids);
        let second = second_from.unwrap_or(usize::MAX);
        self.types.extend((0..ids.len()).map(|at| u8::from(at >= second)));
        self.positions.extend(0..ids.len() as u32);
        self.ranges.push(start..self.ids.len());
    }

    /// Tokens of all sequences.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// The tokens of each sequence.
    #[must_use]
    pub fn ranges(&self) -> &[Range<usize>] {
        &self.ranges
    }

    /// Of each token, its place in its sequence.
    #[must_use]
    pub fn positions(&self) -> &[u32] {
        &self.positions
    }
}

/// A file while an encoder is made of it.
#[derive(Debug)]
pub struct Loader<'a> {
    /// The tensors.
    pub file: &'a TensorFile,
    /// Their names.
    pub names: &'a Names,
    /// What weights are computed in.
    pub precision: Precision,
}

impl Loader<'_> {
    /// Linear layers of the same inputs as one: each `[rows, cols]`.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn linear(&self, places: &[Place], rows: usize, cols: usize) -> Result<Linear, LoadError> {
        let (mut weights, mut biases) =
            (Vec::with_capacity(places.len() * rows * cols), Vec::new());
        for Place { weight, bias, transposed } in places {
            if *transposed {
                let values = self.file.floats(weight, &[cols, rows])?;
                for row in 0..rows {
                    weights.extend((0..cols).map(|col| values[col * rows + row]));
                }
            } else {
                weights.extend(self.file.floats(weight, &[rows, cols])?);
            }
            if self.file.has(bias) {
                biases.extend(self.file.floats(bias, &[rows])?);
            }
        }
        let shape = (places.len() * rows, cols);
        if !biases.is_empty() && biases.len() != shape.0 {
            let name = places.first().map(|place| place.bias.clone()).unwrap_or_default();
            return Err(TensorError::Missing { name }.into());
        }
        Ok(Linear::pack(&weights, biases, shape, self.precision)?)
    }
}

/// Tables that token vectors start from.
#[derive(Debug)]
struct Embeddings {
    /// `[vocabulary, hidden]`.
    words: Vec<f32>,
    /// `[positions, hidden]`, the first used one at the front; empty with rotary positions.
    positions: Vec<f32>,
    /// `[types, hidden]`; empty without.
    types: Vec<f32>,
    norm: Norm,
}

#[derive(Debug)]
enum Layers {
    PostNorm(Vec<PostNormLayer>),
    PreNorm { layers: Vec<PreNormLayer>, turning: Turning, last: Norm },
}

/// An encoder, ready to compute.
#[derive(Debug)]
pub struct Encoder {
    shape: Shape,
    embeddings: Embeddings,
    layers: Layers,
    pool: Arc<Pool>,
}

impl Encoder {
    /// Reads and packs the weights.
    ///
    /// # Errors
    /// [`LoadError`] names the tensor.
    pub fn load(loader: &Loader<'_>, shape: Shape, pool: Arc<Pool>) -> Result<Self, LoadError> {
        let embeddings = Embeddings::load(loader, &shape)?;
        let layers = match shape.rotary {
            None => Layers::PostNorm(
                (0..shape.layers)
                    .map(|at| PostNormLayer::load(loader, &shape, at))
                    .collect::<Result<_, _>>()?,
            ),
            Some(rotary) => Self::pre_norm(loader, &shape, rotary)?,
        };
        Ok(Self { shape, embeddings, layers, pool })
    }

    fn pre_norm(loader: &Loader<'_>, shape: &Shape, rotary: Rotary) -> Result<Layers, LoadError> {
        let layers = (0..shape.layers).map(|at| {
            let global = at.is_multiple_of(rotary.global_every);
            PreNormLayer::load(loader, shape, at, (!global).then_some(rotary.local_reach))
        });
        let layers = layers.collect::<Result<_, _>>()?;
        let table = |base| {
            RopeTable::new(&RopeConfig {
                style: RopeStyle::Halves,
                rotary_dim: shape.hidden / shape.heads,
                base,
                linear_scale: 1.0,
                frequency_factors: Vec::new(),
                positions: shape.positions,
            })
        };
        let turning =
            Turning { global: table(rotary.global_base), local: table(rotary.local_base) };
        let last = norm(loader, &loader.names.inner("final_norm"), shape.hidden)?;
        Ok(Layers::PreNorm { layers, turning, last })
    }

    /// Its sizes.
    #[must_use]
    pub const fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The threads that it computes on.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The word embeddings, `[vocabulary, hidden]`: tied decoders use them.
    #[must_use]
    pub fn words(&self) -> &[f32] {
        &self.embeddings.words
    }

    /// A vector for each token, `[tokens, hidden]`.
    ///
    /// # Panics
    /// When an id is not in the vocabulary or a sequence is longer than the positions.
    #[must_use]
    pub fn forward(&self, sequences: &Sequences) -> Vec<f32> {
        let mut x = self.embeddings.start(&self.shape, sequences);
        self.embeddings.norm.add(&self.pool, &mut x, &[], self.shape.eps);
        let mut buffers = Buffers::default();
        buffers.reserve(sequences.tokens(), &self.shape);
        let pass = Pass { pool: &self.pool, shape: &self.shape, sequences };
        match &self.layers {
            Layers::PostNorm(layers) => {
                for layer in layers {
                    layer.forward(pass, &mut x, &mut buffers);
                }
            }
            Layers::PreNorm { layers, turning, last } => {
                for layer in layers {
                    layer.forward(pass, turning, &mut x, &mut buffers);
                }
                last.add(&self.pool, &mut x, &[], self.shape.eps);
            }
        }
        x
    }
}

impl Embeddings {
    fn load(loader: &Loader<'_>, shape: &Shape) -> Result<Self, LoadError> {
        let (file, names) = (loader.file, loader.names);
        let hidden = shape.hidden;
        let table = |name: &str, rows| file.floats(&names.inner(name), &[rows, hidden]);
        if shape.family == Family::ModernBert {
            return Ok(Self {
                words: table("embeddings.tok_embeddings.weight", shape.vocabulary)?,
                positions: Vec::new(),
                types: Vec::new(),
                norm: norm(loader, &names.inner("embeddings.norm"), hidden)?,
            });
        }
        let types = names.inner("embeddings.token_type_embeddings.weight");
        let types = if file.has(&types) {
            let rows = file.shape(&types)?.first().copied().unwrap_or(0);
            file.floats(&types, &[rows, hidden])?
        } else {
            Vec::new()
        };
        let rows = shape.first_position + shape.positions;
        let mut positions = table("embeddings.position_embeddings.weight", rows)?;
        positions.drain(..shape.first_position * hidden);
        Ok(Self {
            words: table("embeddings.word_embeddings.weight", shape.vocabulary)?,
            positions,
            types,
            norm: norm(loader, &names.inner("embeddings.LayerNorm"), hidden)?,
        })
    }

    /// The sums of the tables' rows.
    fn start(&self, shape: &Shape, sequences: &Sequences) -> Vec<f32> {
        let hidden = shape.hidden;
        let mut x = Vec::with_capacity(sequences.tokens() * hidden);
        for (index, id) in sequences.ids.iter().enumerate() {
            let from = x.len();
            x.extend_from_slice(&self.words[*id as usize * hidden..][..hidden]);
            let row = &mut x[from..];
            if !self.positions.is_empty() {
                let position = sequences.positions[index] as usize;
                add(row, &self.positions[position * hidden..][..hidden]);
            }
            if !self.types.is_empty() {
                // RoBERTa has one type for both texts.
                let last = self.types.len() / hidden - 1;
                let kind = usize::from(sequences.types[index]).min(last);
                add(row, &self.types[kind * hidden..][..hidden]);
            }
        }
        x
    }
}

fn add(row: &mut [f32], values: &[f32]) {
    for (row, value) in row.iter_mut().zip(values) {
        *row += value;
    }
}
