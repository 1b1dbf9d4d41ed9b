//! Foreign weight files to safetensors: PyTorch checkpoints of both formats, ONNX models, frozen
//! TensorFlow graphs. It reads them as data and never runs, imports or looks up anything that they
//! name. The same source gives the same bytes, so a catalogue can pin the digest of the result.
//!
//! It must not know where a file comes from or who will load the result, and touches no file
//! itself.

mod budget;
mod error;
pub mod limits;
mod onnx;
mod pickle;
mod protobuf;
mod safetensors;
mod tensor;
mod tf_graph;
mod torch;

use sha2::{Digest as _, Sha256};

use budget::Budget;
pub use error::ConvertError;
pub use safetensors::Safetensors;
pub use tensor::{Element, Precision, Tensor};

/// Raised when the same source would give other bytes than before; it stands in the header.
const CONVERTER: &str = "aisemble-convert 1";

/// A foreign format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// A PyTorch archive (`.pth`, `.pt`, `.bin`): torch 1.6 and newer.
    Torch,
    /// A PyTorch file of the format before that, with the same endings.
    TorchLegacy,
    /// An ONNX model with its data inside.
    Onnx,
    /// A frozen TensorFlow graph (`.pb`).
    TfGraph,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 4] = [Self::Torch, Self::TorchLegacy, Self::Onnx, Self::TfGraph];

    /// Its name in catalogues and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Torch => "torch",
            Self::TorchLegacy => "torch-legacy",
            Self::Onnx => "onnx",
            Self::TfGraph => "tf-graph",
        }
    }

    /// The format of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.as_str() == name)
    }

    /// The format that the first bytes of a file speak for. A TensorFlow graph has no mark of its
    /// own and is told by its ending, which this crate does not see.
    #[must_use]
    pub fn detect(source: &[u8]) -> Option<Self> {
        if source.starts_with(b"PK\x03\x04") {
            return Some(Self::Torch);
        }
        if torch::is_legacy(source) {
            return Some(Self::TorchLegacy);
        }
        onnx::is_onnx(source).then_some(Self::Onnx)
    }
}

/// Converts a file that has been read whole.
///
/// Integers stay what they are; floats of any width become `precision`. Names are the source's own.
/// The header's metadata says the source's format and SHA-256.
///
/// # Errors
/// When the file is not of the format, damaged, holds something that no weight file needs, or is
/// beyond a [limit](limits).
pub fn convert(
    source: &[u8],
    format: Format,
    precision: Precision,
) -> Result<Safetensors<'_>, ConvertError> {
    if source.len() as u64 > limits::SOURCE_BYTES_MAX {
        let limit = limits::SOURCE_BYTES_MAX;
        return Err(ConvertError::Limit { what: "bytes of the file", limit });
    }
    let mut budget = Budget::for_source(source.len());
    let mut tensors = match format {
        Format::Torch => torch::read_archive(source, &mut budget)?,
        Format::TorchLegacy => torch::read_legacy(source, &mut budget)?,
        Format::Onnx => onnx::read(source, &mut budget)?,
        Format::TfGraph => tf_graph::read(source, &mut budget)?,
    };
    if tensors.is_empty() {
        return Err(ConvertError::Empty);
    }
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    if let Some(pair) = tensors.windows(2).find(|pair| pair[0].name == pair[1].name) {
        return Err(ConvertError::tensor(&pair[0].name, "it is there twice"));
    }
    if tensors.iter().any(|tensor| tensor.name == "__metadata__") {
        return Err(ConvertError::tensor("__metadata__", "safetensors keeps this name for itself"));
    }
    let tensors = tensors
        .into_iter()
        .map(|tensor| tensor.with_precision(precision))
        .collect::<Result<_, _>>()?;
    let digest = Sha256::digest(source).iter().map(|byte| format!("{byte:02x}")).collect();
    let metadata = vec![
        ("format", "pt".to_owned()),
        ("source_format", format.as_str().to_owned()),
        ("source_sha256", digest),
        ("converter", CONVERTER.to_owned()),
    ];
    Ok(Safetensors::new(tensors, metadata))
}
