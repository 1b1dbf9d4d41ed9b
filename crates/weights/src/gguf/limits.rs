//! What a GGUF header may ask for. A header beyond any of these is refused before anything is
//! allocated for it; the largest published models stay far below.

/// Tensors of a file.
pub const TENSORS_MAX: u64 = 16_384;
/// Metadata entries of a file.
pub const METADATA_ENTRIES_MAX: u64 = 4_096;
/// Bytes of a metadata key.
pub const KEY_BYTES_MAX: u64 = 1_024;
/// Bytes of a tensor name.
pub const TENSOR_NAME_BYTES_MAX: u64 = 256;
/// Bytes of a string value (chat templates are the long ones).
pub const STRING_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Elements of an array (vocabularies and merges are the long ones).
pub const ARRAY_LEN_MAX: u64 = 4 * 1024 * 1024;
/// Arrays inside arrays.
pub const ARRAY_NESTING_MAX: u32 = 2;
/// Dimensions of a tensor.
pub const DIMENSIONS_MAX: u32 = 4;
/// `general.alignment`, bytes; a power of two of at least [`ALIGNMENT_MIN`].
pub const ALIGNMENT_MAX: u64 = 4_096;
/// Smaller alignments would let tensors start at odd addresses.
pub const ALIGNMENT_MIN: u64 = 8;
/// Alignment of a file that names none.
pub const ALIGNMENT_DEFAULT: u64 = 32;
