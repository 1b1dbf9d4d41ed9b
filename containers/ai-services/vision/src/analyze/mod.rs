//! What is done with one picture: decoded and prepared, computed on, and its answers put together.
//!
//! It knows tasks and answers; it must not know gRPC's streams or how batches are made.

mod caption;
mod image;
mod plan;
mod text;
mod zero_shot;

pub(crate) use image::refused;
pub use image::{Analyzed, Timings, analyze};
pub use plan::Plan;
pub use zero_shot::ZeroShot;
