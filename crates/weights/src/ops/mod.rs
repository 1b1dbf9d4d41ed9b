//! The operations of a transformer on candle tensors. Each is one candle custom op: `cpu_fwd` runs
//! the kernels of `aisemble_kernels` on the tensor's slice, so decoders have one code path for
//! every device. It knows tensors and shapes, not models.
//!
//! Wrong shapes and indices are errors here; the kernels behind may then rely on them.

mod attention;
#[cfg(feature = "cuda")]
mod cuda;
mod rope_tables;
mod rows;

#[cfg(test)]
mod tests;

pub use attention::{KvCache, Step, kv_write, paged_attention};
pub use rope_tables::RopeTables;
pub use rows::{add, add_rows, gelu_mul, rms_norm, rope, silu_mul};

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, Layout, Result, bail};

/// The values of a contiguous f32 tensor.
pub(crate) fn contiguous<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let Some((begin, end)) = layout.contiguous_offsets() else {
        bail!("the tensor is not contiguous");
    };
    let CpuStorage::F32(values) = storage else {
        bail!("expected f32, found {:?}", storage.dtype());
    };
    Ok(&values[begin..end])
}
