//! The crate against the real model file and an independent tokenizer.

mod hostile;
mod model_file;
mod real_model;
