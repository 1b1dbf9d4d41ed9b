//! What is made of the outputs of windows: results of texts. It knows outputs and texts, not models
//! or gRPC.

pub mod assemble;
pub mod entities;
pub mod merge;
pub mod redact;
