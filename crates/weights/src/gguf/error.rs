//! Why a GGUF file is refused: which field, where in the file, what was expected.

use std::path::PathBuf;

/// Why a GGUF file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// The file cannot be opened or mapped.
    #[error("cannot open the model file {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// The first four bytes are not `GGUF`.
    #[error("not a GGUF file: it begins with {found:02x?}")]
    Magic {
        /// The bytes found, fewer than four when the file is shorter.
        found: Vec<u8>,
    },
    /// A version that this reader does not know.
    #[error("GGUF version {found} is not supported (2 and 3 are){}", big_endian(*found))]
    Version {
        /// The version field.
        found: u32,
    },
    /// The file ends inside a field.
    #[error("the file is cut off: {field} at byte {offset} needs {needed} bytes, {left} are left")]
    Truncated {
        /// The field.
        field: String,
        /// Where it begins.
        offset: u64,
        /// Bytes that it takes.
        needed: u64,
        /// Bytes up to the end of the file.
        left: u64,
    },
    /// A number in the header is larger than any honest file has.
    #[error("{field} at byte {offset} is {found}, more than the limit of {limit}")]
    Limit {
        /// The field.
        field: String,
        /// Where it lies.
        offset: u64,
        /// The number found.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// A field has a value that makes no sense.
    #[error("{field} at byte {offset} is invalid: {reason}")]
    Invalid {
        /// The field.
        field: String,
        /// Where it lies.
        offset: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// Two metadata keys or two tensors with one name.
    #[error("{what} `{name}` at byte {offset} is there twice")]
    Duplicate {
        /// `metadata key` or `tensor`.
        what: &'static str,
        /// The name.
        name: String,
        /// Where the second one lies.
        offset: u64,
    },
    /// A tensor type that this reader does not know.
    #[error("tensor `{name}` has type number {found}, which is not supported")]
    TensorType {
        /// The tensor.
        name: String,
        /// The number in the file.
        found: u32,
    },
    /// A metadata entry that must be there is not.
    #[error("the metadata has no `{key}`")]
    MissingKey {
        /// The key.
        key: String,
    },
    /// A metadata entry has another type than it must have.
    #[error("metadata `{key}` is {found}, expected {expected}")]
    ValueType {
        /// The key.
        key: String,
        /// The type that is needed.
        expected: &'static str,
        /// The type in the file.
        found: &'static str,
    },
    /// A tensor that must be there is not.
    #[error("the file has no tensor `{name}`")]
    MissingTensor {
        /// The tensor.
        name: String,
    },
}

fn big_endian(version: u32) -> &'static str {
    if version != 0 && version.swap_bytes() <= 3 { ": the file is big-endian" } else { "" }
}
