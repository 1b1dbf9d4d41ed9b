//! The crate against the real model file and an independent tokenizer.

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod model_file;
#[cfg(test)]
mod real_model;
