//! Why a layer cannot be built from a file.

use aisemble_kernels::KernelError;

use crate::gguf::{GgufError, TensorType};

/// Why a layer cannot be built from a file.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file does not have what the layer needs.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// A tensor that must be there is not.
    #[error("there is no tensor `{name}`")]
    Missing {
        /// Its name in GGUF.
        name: String,
    },
    /// A tensor has other dimensions than the model's metadata say.
    #[error("tensor `{name}` has shape {found:?}, expected {expected:?}")]
    Shape {
        /// The tensor.
        name: String,
        /// Its dimensions, the outermost first.
        found: Vec<usize>,
        /// What the layer needs, `0` for any.
        expected: Vec<usize>,
    },
    /// A type that cannot be used in this place.
    #[error("tensor `{name}` is stored as {found:?}, which cannot be used here")]
    Type {
        /// The tensor.
        name: String,
        /// Its type.
        found: TensorType,
    },
    /// The kernels refuse the matrix.
    #[error("tensor `{name}` cannot be packed")]
    Pack {
        /// The tensor.
        name: String,
        /// What they said.
        #[source]
        source: KernelError,
    },
    /// candle refuses the tensor.
    #[error("tensor `{name}` cannot be converted")]
    Candle {
        /// The tensor.
        name: String,
        /// What it said.
        #[source]
        source: candle_core::Error,
    },
}
