//! Why a tokenizer cannot be built, and why a text cannot be encoded.

use crate::gguf::GgufError;

/// Why a tokenizer cannot be built from a file.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// A key is missing or has another type.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// A JSON file is not what it should be.
    #[error("`{file}` cannot be understood")]
    Json {
        /// The file.
        file: &'static str,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// A kind of tokenizer that is not implemented.
    #[error("`{key}` is `{found}`, which is not supported; supported: {supported}")]
    Unsupported {
        /// The key.
        key: &'static str,
        /// What the file says.
        found: String,
        /// What would do.
        supported: &'static str,
    },
    /// An entry of an array is wrong.
    #[error("entry {index} of `{key}` is invalid: {reason}")]
    Entry {
        /// The key.
        key: &'static str,
        /// Position in the array.
        index: usize,
        /// What is wrong.
        reason: &'static str,
    },
    /// Arrays that must have one length do not.
    #[error("`{key}` has {found} entries, the vocabulary {expected}")]
    Length {
        /// The key.
        key: &'static str,
        /// Its entries.
        found: usize,
        /// Tokens.
        expected: usize,
    },
    /// A special id is not in the vocabulary.
    #[error("`{key}` is {id}, the vocabulary has {vocabulary} tokens")]
    IdRange {
        /// The key.
        key: &'static str,
        /// The id.
        id: u64,
        /// Tokens.
        vocabulary: usize,
    },
    /// The merges contradict the vocabulary.
    #[error("the merges do not fit the vocabulary")]
    Merges {
        /// What the `tokenizers` crate said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The special tokens are too many or too long to look for.
    #[error("the special tokens cannot be indexed")]
    Special {
        /// What the automaton's builder said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Why a text cannot be encoded.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// The text is too long.
    #[error("the text has {bytes} bytes, at most {bytes_max} can be encoded")]
    TooLong {
        /// Its length, bytes.
        bytes: usize,
        /// The limit, bytes.
        bytes_max: usize,
    },
    /// The merges failed.
    #[error("the text cannot be encoded")]
    Merge {
        /// What the `tokenizers` crate said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
