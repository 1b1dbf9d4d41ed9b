//! The paged KV cache of one layer, and causal attention over it. It knows blocks, slots and rows
//! of a step; which sequence owns which block is the scheduler's.

use std::sync::Arc;

use aisemble_kernels::{AttentionRows, AttentionShape, KvShape, Pool};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{
    CpuStorage, CustomOp3, DType, Device, InplaceOp2, Layout, Result, Shape, Tensor, bail,
};
use half::f16;
use half::vec::HalfBitsVecExt as _;

use super::contiguous;

/// Keys and values of one layer for every block. The layout inside a block is the kernels'.
#[derive(Debug, Clone)]
pub struct KvCache {
    shape: KvShape,
    keys: Tensor,
    values: Tensor,
}

impl KvCache {
    /// An empty cache of `f32` or `f16`.
    ///
    /// # Errors
    /// When a dimension of `shape` is zero or not a multiple of its step, another type is asked
    /// for, or there is no memory.
    pub fn new(shape: KvShape, dtype: DType, device: &Device) -> Result<Self> {
        let aligned = shape.block_tokens.is_multiple_of(KvShape::BLOCK_TOKENS_STEP)
            && shape.head_dim.is_multiple_of(KvShape::HEAD_DIM_STEP);
        let dims = [shape.blocks, shape.block_tokens, shape.kv_heads, shape.head_dim];
        let values = dims.iter().try_fold(1_usize, |values, &dim| values.checked_mul(dim));
        if values.is_none_or(|values| values == 0) || !aligned {
            bail!("no KV cache can have the shape {shape:?}");
        }
        if !matches!(dtype, DType::F32 | DType::F16) {
            bail!("a KV cache is f32 or f16, not {dtype:?}");
        }
        let zeros = || zeros(shape.values(), dtype, device);
        Ok(Self { shape, keys: zeros()?, values: zeros()? })
    }

    /// Its dimensions.
    pub fn shape(&self) -> KvShape {
        self.shape
    }
}

/// Zeros whose pages are taken from the operating system only when they are written: a cache is
/// sized for the busiest hour. (candle writes every zero of a half-precision tensor.)
fn zeros(values: usize, dtype: DType, device: &Device) -> Result<Tensor> {
    if dtype == DType::F16 && device.is_cpu() {
        let zeros = vec![0_u16; values].reinterpret_into::<f16>();
        return Tensor::from_vec(zeros, values, device);
    }
    Tensor::zeros(values, dtype, device)
}

/// The rows of one step: decode rows and prefill chunks of any number of sequences. Made once a
/// step, used by every layer.
#[derive(Debug, Clone)]
pub struct Step {
    pub(super) positions: Arc<[u32]>,
    pub(super) sequences: Arc<[u32]>,
    slots: Arc<[u32]>,
    pub(super) block_tables: Arc<[u32]>,
    pub(super) blocks_max: usize,
}

impl Step {
    /// `positions`, `[rows]`: the position of each row in its sequence. `sequences`, `[rows]`:
    /// which of `block_tables` the row uses. `block_tables`: the block numbers of each sequence in
    /// the order of its tokens, up to the block of its last row at least. `shape`: the caches that
    /// the step is for.
    ///
    /// # Errors
    /// When lengths disagree, a row lies past its sequence's blocks, or a block is not in the
    /// cache.
    pub fn new(
        positions: &[u32],
        sequences: &[u32],
        block_tables: &[&[u32]],
        shape: &KvShape,
    ) -> Result<Self> {
        if positions.len() != sequences.len() {
            bail!("{} positions for {} rows", positions.len(), sequences.len());
        }
        let block_tokens = shape.block_tokens.max(1);
        let blocks = block_tables.iter().copied().flatten();
        if let Some(block) = blocks.copied().find(|&block| block as usize >= shape.blocks) {
            bail!("block {block} is not in the cache of {} blocks", shape.blocks);
        }
        let mut slots = Vec::with_capacity(positions.len());
        for (&position, &sequence) in positions.iter().zip(sequences) {
            let at = position as usize / block_tokens;
            let block = block_tables.get(sequence as usize).and_then(|table| table.get(at));
            let Some(&block) = block else {
                bail!("position {position} of sequence {sequence} has no block");
            };
            let slot = block as usize * block_tokens + position as usize % block_tokens;
            slots.push(u32::try_from(slot).map_err(candle_core::Error::wrap)?);
        }
        let blocks_max = block_tables.iter().map(|table| table.len()).max().unwrap_or(0);
        let mut lines = Vec::with_capacity(blocks_max * block_tables.len());
        for table in block_tables {
            lines.extend_from_slice(table);
            // Never read: no row lies there.
            lines.extend(std::iter::repeat_n(0, blocks_max - table.len()));
        }
        Ok(Self {
            positions: positions.into(),
            sequences: sequences.into(),
            slots: slots.into(),
            block_tables: lines.into(),
            blocks_max,
        })
    }

    /// Rows of the step.
    pub fn rows(&self) -> usize {
        self.positions.len()
    }

    /// The position of each row, as [`rope`](super::rope) wants them.
    pub fn positions(&self) -> &Arc<[u32]> {
        &self.positions
    }

    /// Where each row's key and value are written: block x block tokens + offset in the block.
    pub fn slots(&self) -> &[u32] {
        &self.slots
    }
}

/// Writes the keys (rotated already) and values of the step's rows, `[rows, kv_heads, head_dim]`
/// each, f32, into the cache, in place.
///
/// # Errors
/// When the shapes disagree or the step is for a larger cache.
pub fn kv_write(cache: &KvCache, keys: &Tensor, values: &Tensor, step: &Step) -> Result<()> {
    let shape = cache.shape;
    let slots = Arc::clone(&step.slots);
    cache.keys.inplace_op2(&keys.contiguous()?, &KvWrite { shape, slots, side: Side::Keys })?;
    let slots = Arc::clone(&step.slots);
    cache.values.inplace_op2(&values.contiguous()?, &KvWrite { shape, slots, side: Side::Values })
}

#[derive(Clone, Copy)]
enum Side {
    Keys,
    Values,
}

struct KvWrite {
    shape: KvShape,
    slots: Arc<[u32]>,
    side: Side,
}

impl InplaceOp2 for KvWrite {
    fn name(&self) -> &'static str {
        "kv-write"
    }

    fn cpu_fwd(
        &self,
        cache: &mut CpuStorage,
        cache_layout: &Layout,
        rows: &CpuStorage,
        rows_layout: &Layout,
    ) -> Result<()> {
        let (shape, slots) = (&self.shape, &*self.slots);
        if rows_layout.dims() != [slots.len(), shape.kv_heads, shape.head_dim] {
            bail!("kv-write: rows {:?} for {} slots", rows_layout.dims(), slots.len());
        }
        if slots.iter().any(|&slot| slot as usize >= shape.slots()) {
            bail!("kv-write: a slot outside the cache of {}", shape.slots());
        }
        let rows = contiguous(rows, rows_layout)?;
        let (begin, end) = whole(cache_layout, shape)?;
        match (cache, self.side) {
            (CpuStorage::F32(cells), Side::Keys) => {
                shape.write_keys(&mut cells[begin..end], rows, slots);
            }
            (CpuStorage::F32(cells), Side::Values) => {
                shape.write_values(&mut cells[begin..end], rows, slots);
            }
            (CpuStorage::F16(cells), Side::Keys) => {
                shape.write_keys(&mut cells[begin..end], rows, slots);
            }
            (CpuStorage::F16(cells), Side::Values) => {
                shape.write_values(&mut cells[begin..end], rows, slots);
            }
            _ => bail!("kv-write: a KV cache is f32 or f16"),
        }
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        cache: &mut CudaStorage,
        cache_layout: &Layout,
        rows: &CudaStorage,
        rows_layout: &Layout,
    ) -> Result<()> {
        let is_keys = matches!(self.side, Side::Keys);
        let (cache, rows) = ((&*cache, cache_layout), (rows, rows_layout));
        super::cuda::kv_write(cache, rows, (&self.shape, &self.slots), is_keys)
    }
}

fn whole(layout: &Layout, shape: &KvShape) -> Result<(usize, usize)> {
    match layout.contiguous_offsets() {
        Some((begin, end)) if end - begin == shape.values() => Ok((begin, end)),
        Some(_) | None => bail!("a KV cache of {:?} for {shape:?}", layout.dims()),
    }
}

/// Causal attention of each row over its sequence's tokens, its own included: those must be in the
/// cache ([`kv_write`] of the same step comes first). `query` is `[rows, heads, head_dim]`, f32,
/// rotated already; the result has the same shape.
///
/// # Errors
/// When the shapes disagree.
pub fn paged_attention(
    pool: &Arc<Pool>,
    shape: &AttentionShape,
    query: &Tensor,
    cache: &KvCache,
    step: &Step,
) -> Result<Tensor> {
    if shape.kv != cache.shape {
        bail!("attention over {:?} in a cache of {:?}", shape.kv, cache.shape);
    }
    let op = PagedAttention { shape: *shape, step: step.clone(), pool: Arc::clone(pool) };
    query.contiguous()?.apply_op3_no_bwd(&cache.keys, &cache.values, &op)
}

struct PagedAttention {
    shape: AttentionShape,
    step: Step,
    pool: Arc<Pool>,
}

impl PagedAttention {
    fn check(&self, query: &Layout) -> Result<()> {
        let (shape, step) = (&self.shape, &self.step);
        if query.dims() != [step.rows(), shape.heads, shape.kv.head_dim] {
            bail!("attention: query {:?} for {} rows of {shape:?}", query.dims(), step.rows());
        }
        if shape.heads == 0 || !shape.heads.is_multiple_of(shape.kv.kv_heads) {
            bail!("attention: {} heads over {} kv heads", shape.heads, shape.kv.kv_heads);
        }
        let needed = |position: u32| position as usize / shape.kv.block_tokens + 1;
        let outside = step.block_tables.iter().any(|&block| block as usize >= shape.kv.blocks);
        if outside || step.positions.iter().any(|&at| needed(at) > step.blocks_max) {
            bail!("attention: the step is for another cache");
        }
        Ok(())
    }
}

impl CustomOp3 for PagedAttention {
    fn name(&self) -> &'static str {
        "paged-attention"
    }

    fn cpu_fwd(
        &self,
        query: &CpuStorage,
        query_layout: &Layout,
        keys: &CpuStorage,
        keys_layout: &Layout,
        values: &CpuStorage,
        values_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.check(query_layout)?;
        let step = &self.step;
        let rows = AttentionRows {
            query: contiguous(query, query_layout)?,
            sequences: &step.sequences,
            positions: &step.positions,
            block_tables: &step.block_tables,
            blocks_max: step.blocks_max,
        };
        let mut out = vec![0.0; rows.query.len()];
        let (k, v) = (whole(keys_layout, &self.shape.kv)?, whole(values_layout, &self.shape.kv)?);
        match (keys, values) {
            (CpuStorage::F32(keys), CpuStorage::F32(values)) => {
                let cache = (&keys[k.0..k.1], &values[v.0..v.1]);
                self.pool.paged_attention(&self.shape, &rows, cache, &mut out);
            }
            (CpuStorage::F16(keys), CpuStorage::F16(values)) => {
                let cache = (&keys[k.0..k.1], &values[v.0..v.1]);
                self.pool.paged_attention(&self.shape, &rows, cache, &mut out);
            }
            _ => bail!("attention: a KV cache is f32 or f16"),
        }
        Ok((CpuStorage::F32(out), query_layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        query: &CudaStorage,
        query_layout: &Layout,
        keys: &CudaStorage,
        keys_layout: &Layout,
        values: &CudaStorage,
        values_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.check(query_layout)?;
        let (keys, values) = ((keys, keys_layout), (values, values_layout));
        super::cuda::attention((&self.shape, &self.step), (query, query_layout), keys, values)
    }
}
