//! Networks of a model hub: a folder with `model.safetensors`, `config.json`,
//! `preprocessor_config.json` and, for those that know words, `tokenizer.json`. The layers are
//! candle-transformers'; what is here says which tensor is which layer's, how a picture becomes an
//! input as the folder's own files want it, and what comes out.
//!
//! It must not know requests, batches or gRPC.

mod caption;
mod classifier;
mod config;
mod convolutional;
mod network;
mod pair;
mod positions;
mod prepare;
mod tensors;
mod transformer;
mod words;

pub use caption::{Caption, Captioner};
pub use classifier::Classifier;
pub use config::ConfigError;
pub(crate) use network::{CONFIG, PREPROCESSOR, TOKENIZER};
pub use network::{Family, Files, Hub, HubError};
pub use pair::{Pair, Scoring};
pub use prepare::{Prepare, PrepareError};
pub use words::{Words, WordsError};
