//! What the files of a safetensors model may ask for; beyond any of these they are refused before
//! anything is allocated for it.

/// Bytes of the header of one file.
pub const HEADER_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Tensors of all files together.
pub const TENSORS_MAX: usize = 16_384;
/// Bytes of a tensor's name.
pub const NAME_BYTES_MAX: usize = 256;
/// Files that the tensors are spread over.
pub const SHARDS_MAX: usize = 512;
/// Bytes of `model.safetensors.index.json`.
pub const INDEX_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Bytes of `config.json`, and of `generation_config.json`.
pub const CONFIG_BYTES_MAX: u64 = 1024 * 1024;
/// Bytes of `tokenizer.json`.
pub const TOKENIZER_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Bytes of `tokenizer_config.json`, which may hold the chat template and every added token.
pub const TOKENIZER_CONFIG_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Bytes of `chat_template.jinja`.
pub const TEMPLATE_BYTES_MAX: u64 = 1024 * 1024;
