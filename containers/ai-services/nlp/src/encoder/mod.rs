//! Encoders: BERT, DistilBERT, RoBERTa and XLM-RoBERTa, ModernBERT. Written once; a [`Shape`] says
//! how they differ, [`names`] under which names their files keep what.
//!
//! Sequences are packed one after the other without padding. Every operation is one of
//! `aisemble_weights::kernels` on plain slices; there are no tensors. It must not know texts,
//! requests or heads.

mod family;
mod forward;
pub mod inferred;
mod layer;
mod linear;
pub mod names;
mod shape;
#[cfg(test)]
mod tests;

pub use family::Family;
pub use forward::{Encoder, LoadError, Loader, Sequences};
pub use linear::Linear;
pub use shape::{ConfigJson, Shape, ShapeError};

pub use layer::Norm;
pub(crate) use layer::norm;
