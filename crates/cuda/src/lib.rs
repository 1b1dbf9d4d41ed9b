//! CUDA kernels of our own: what a decoder needs beyond candle's (row operations, writing the
//! paged KV cache, attention over it). The source is `cuda/`; this crate says what arguments they
//! take and how they are launched. It knows no CUDA library and starts nothing: whoever has a
//! device does.
//!
//! The kernels mean what `aisemble-kernels` computes on the CPU, in the same memory layout. Tests
//! compile them for the CPU, run them thread by thread with these arguments and launches, and
//! compare the two; that proves their arithmetic and their indices, not their speed, and not nvcc.

mod arguments;
mod launch;

pub use arguments::{
    AttentionArguments, GateArguments, NormArguments, RopeArguments, WriteArguments,
};
pub use launch::{AttentionPlan, Launch, gelu_mul, kv_write, rms_norm, rope, silu_mul};

/// The kernels for the driver to compile when it loads them.
#[cfg(feature = "ptx")]
pub const PTX: &str = include_str!(concat!(env!("OUT_DIR"), "/kernels.ptx"));
