//! CPU compute kernels on plain slices: quantised matrix products, attention over a paged KV
//! cache, and the small row operations of a transformer, each for the best instruction set that
//! the machine has ([`Isa`]), on a thread pool of its own ([`Pool`]).
//!
//! It knows slices and shapes. It must not know tensors, models, files, devices or configuration;
//! it imports no other crate of ours. Nothing here opens a file or makes a thread after
//! [`Pool::new`], so it works inside the strictest sandbox.
//!
//! The layers, from the bottom: `simd` (one generic source, compiled once for each instruction
//! set; the only place with `unsafe` arithmetic) -> `packed`, `activations` (memory layouts) ->
//! [`Cpu`] (row operations on the calling thread) -> [`Pool`] (the same over several threads,
//! matrix products and attention). [`reference`](mod@reference) says in plain code what each kernel
//! computes. `unsafe` elsewhere only lends memory to threads (`pool`, `disjoint`) or obtains it
//! (`arena`, `aligned`).

pub mod reference;

mod activations;
mod aligned;
mod arena;
mod attention;
mod cpu;
mod dense;
mod disjoint;
mod encoder;
mod error;
mod format;
mod isa;
mod kv;
mod matmul;
mod packed;
mod pool;
mod pool_rows;
mod repack;
mod rope;
mod scratch;
mod simd;

pub use attention::{AttentionRows, AttentionShape};
pub use cpu::Cpu;
pub use dense::{Activation, DenseMatrix};
pub use encoder::EncoderAttention;
pub use error::KernelError;
pub use format::BlockFormat;
pub use isa::Isa;
pub use kv::{KvElement, KvShape};
pub use matmul::Product;
pub use packed::PackedMatrix;
pub use pool::Pool;
pub use rope::{RopeConfig, RopeStyle, RopeTable};
