//! The seam to model files and to candle: reading GGUF without trusting it, digests, tokenizers,
//! the shape of a model, and the layers and operations that decoders and encoders are made of.
//!
//! It knows files, tensors and devices. It must not know requests, sampling, sequences' owners,
//! gRPC or HTTP; it imports `aisemble_kernels` and no other crate of ours.
//!
//! From a file to a decoder: [`digest::open_verified`] -> [`GgufFile::from_file`] ->
//! [`ModelConfig::from_gguf`], [`Tokenizer::from_gguf`], [`Linear::load`], [`Embedding::load`],
//! [`ops`]; then the file is dropped: what was packed stays, once.

mod config;
mod convert;
mod device;
mod device_matrix;
pub mod digest;
mod embedding;
mod error;
mod family;
pub mod gguf;
#[cfg(test)]
mod layer_tests;
mod linear;
pub mod ops;
pub mod safetensors;
mod source;
pub mod tokenizer;

pub use crate::safetensors::{SafetensorsError, SafetensorsModel};
pub use config::{ConfigError, ModelConfig, RopeScaling, Window};
pub use device::{ChosenDevice, DeviceError, device, gpu_memory_bytes, gpu_uuid};
pub use embedding::Embedding;
pub use error::LoadError;
pub use family::{Family, Gate};
pub use gguf::{GgufError, GgufFile};
pub use linear::{Linear, rope_factors, vector};
pub use source::{ModelSource, Quantise};
pub use tokenizer::{Tokenizer, TokenizerError};

// What a decoder needs of the kernels and of candle, so that it names this crate only.
pub use aisemble_kernels as kernels;
pub use candle_core as candle;
