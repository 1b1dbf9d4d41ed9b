//! What is done with one picture: decoded and prepared, computed on, and its answers put together.
//!
//! It knows tasks and answers; it must not know gRPC's streams or how batches are made.

mod image;
mod plan;
mod text;

pub(crate) use image::refused;
pub use image::{Analyzed, Timings, analyze};
pub use plan::Plan;
