//! How much a weight file may ask for. Every count, length and depth that a file states is held
//! against one of these before anything is made of it.

/// Bytes of a source file.
pub const SOURCE_BYTES_MAX: u64 = 8 * 1024 * 1024 * 1024;
/// Output bytes for each byte of the source: 8-bit weights become 4 bytes, and shared ones are
/// written once for each name.
pub const EXPANSION_MAX: u64 = 8;
/// Output bytes that any source may have, however small it is.
pub const OUTPUT_BYTES_FREE: u64 = 1024 * 1024;
/// Tensors of a file.
pub const TENSORS_MAX: usize = 100_000;
/// Bytes of a tensor's name.
pub const NAME_BYTES_MAX: usize = 512;
/// Dimensions of a tensor.
pub const RANK_MAX: usize = 8;
/// Bytes of one pickle.
pub const PICKLE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Objects that one pickle makes.
pub const OBJECTS_MAX: usize = 2_000_000;
/// Marks that are open at once in a pickle.
pub const MARKS_MAX: usize = 1000;
/// Dictionaries and lists within each other on the way to a tensor.
pub const NESTING_MAX: usize = 8;
/// Entries looked at on the way to the tensors.
pub const STEPS_MAX: usize = 1_000_000;
/// Storages of a legacy file, and entries of an archive.
pub const STORAGES_MAX: usize = 100_000;
/// Nodes of a graph.
pub const NODES_MAX: usize = 1_000_000;
/// Inputs, outputs or attributes of a node.
pub const NODE_PARTS_MAX: usize = 10_000;
