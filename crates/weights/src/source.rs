//! Where a decoder comes from: its shape, its tokenizer, and its tensors by the names that GGUF
//! gives them, whatever container they lie in.

use crate::config::{ConfigError, ModelConfig};
use crate::error::LoadError;
use crate::gguf::{GgufFile, TensorView};
use crate::tokenizer::{Tokenizer, TokenizerError};

/// What becomes of float matrices when they are loaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Quantise {
    /// They stay what they are.
    #[default]
    None,
    /// Blocks of 32 values of 8 bits with a scale.
    Q8_0,
}

/// A model's files, opened and proved to be what they say.
pub trait ModelSource {
    /// The shape of the decoder.
    ///
    /// # Errors
    /// [`ConfigError`] names the key that cannot be used.
    fn config(&self) -> Result<ModelConfig, ConfigError>;

    /// The tokenizer.
    ///
    /// # Errors
    /// [`TokenizerError`] when it is not there, contradicts itself, or is none that is implemented.
    fn tokenizer(&self) -> Result<Tokenizer, TokenizerError>;

    /// A tensor by its GGUF name.
    ///
    /// # Errors
    /// [`LoadError`] when it is not there.
    fn tensor(&self, name: &str) -> Result<TensorView<'_>, LoadError>;

    /// Whether there is a tensor of this GGUF name.
    fn has_tensor(&self, name: &str) -> bool;

    /// GGUF names of all tensors, sorted.
    fn tensor_names(&self) -> Vec<&str>;

    /// What becomes of float matrices when they are loaded.
    fn quantise(&self) -> Quantise;

    /// Bytes of the files with tensors.
    fn file_bytes(&self) -> u64;

    /// The container: `gguf`, `safetensors`.
    fn format(&self) -> &'static str;
}

impl ModelSource for GgufFile {
    fn config(&self) -> Result<ModelConfig, ConfigError> {
        ModelConfig::from_gguf(self)
    }

    fn tokenizer(&self) -> Result<Tokenizer, TokenizerError> {
        Tokenizer::from_gguf(self)
    }

    fn tensor(&self, name: &str) -> Result<TensorView<'_>, LoadError> {
        Ok(Self::tensor(self, name)?)
    }

    fn has_tensor(&self, name: &str) -> bool {
        Self::has_tensor(self, name)
    }

    fn tensor_names(&self) -> Vec<&str> {
        Self::tensor_names(self).collect()
    }

    fn quantise(&self) -> Quantise {
        Quantise::None
    }

    fn file_bytes(&self) -> u64 {
        Self::file_bytes(self)
    }

    fn format(&self) -> &'static str {
        "gguf"
    }
}
