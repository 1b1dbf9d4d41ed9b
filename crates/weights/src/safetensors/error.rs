//! Why a folder with safetensors cannot be used: which file, which tensor.

use crate::config::ConfigError;

/// Why a folder with safetensors cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SafetensorsError {
    /// A file that must be there is not.
    #[error("there is no `{file}` in the model's folder")]
    MissingFile {
        /// The file.
        file: String,
    },
    /// A file cannot be read or mapped.
    #[error("`{file}` cannot be read")]
    Read {
        /// The file.
        file: String,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// Something is larger than any honest model's.
    #[error("{what} of `{file}` is {found}, more than the limit of {limit}")]
    Limit {
        /// What.
        what: &'static str,
        /// The file.
        file: String,
        /// How much it is.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// The header of a file is cut off or contradicts itself.
    #[error("`{file}` is not a safetensors file")]
    Container {
        /// The file.
        file: String,
        /// What the reader said.
        #[source]
        source: safetensors::SafeTensorError,
    },
    /// A JSON file is not what it should be.
    #[error("`{file}` cannot be understood")]
    Json {
        /// The file.
        file: String,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// The index names a file that is not a plain name in the same folder.
    #[error("the index names the file {found:?}; it must be a plain name ending in .safetensors")]
    FileName {
        /// What it names.
        found: String,
    },
    /// A tensor is there twice, or not where the index says.
    #[error("tensor `{name}` {reason}")]
    Misplaced {
        /// The tensor.
        name: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// A tensor that no family here has: the model would not be computed as it is meant.
    #[error("tensor `{name}` is not part of a `{architecture}` model as it is known here")]
    UnknownTensor {
        /// The tensor.
        name: String,
        /// The `model_type`.
        architecture: String,
    },
    /// A type of values that is not read.
    #[error("tensor `{name}` is of type {found}; F32, F16 and BF16 are read")]
    Type {
        /// The tensor.
        name: String,
        /// Its type.
        found: String,
    },
    /// `config.json` does not describe a model that can be run.
    #[error("the model's `config.json` cannot be used")]
    Config {
        /// Which key.
        #[source]
        source: ConfigError,
    },
}
