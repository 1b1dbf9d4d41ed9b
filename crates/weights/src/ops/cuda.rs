//! The operations on an NVIDIA GPU: launches of `aisemble_cuda`'s kernels on candle's storage. Each
//! function is the `cuda_fwd` of the operation of that name and means what its `cpu_fwd` does; what
//! is checked there by the kernels' callers is checked here before a launch.
//!
//! Everything goes into candle's one stream of the device, so nothing waits for anything but the
//! copy of the logits at the end of a step. What a step's layers share (positions, block tables,
//! angles) is copied to the device once.
//!
//! Compiled, and its kernels run on the CPU by their tests; not yet run on a GPU.
#![expect(unsafe_code, reason = "a launch is a call of foreign code")]

mod uploads;

use std::sync::Arc;

use aisemble_cuda::{
    AttentionArguments, AttentionPlan, GateArguments, Launch, NormArguments, RopeArguments,
    WriteArguments,
};
use aisemble_kernels::{AttentionShape, KvShape, RopeStyle, RopeTable};
use candle_core::backend::BackendStorage as _;
use candle_core::cuda_backend::cudarc::driver::{
    CudaSlice, DevicePtr as _, DeviceRepr, LaunchConfig, PushKernelArg as _,
};
use candle_core::cuda_backend::{CudaStorageSlice, WrapErr as _};
use candle_core::{CudaDevice, CudaStorage, Error, Layout, Result, Shape, bail};

use super::Step;

/// The name under which the device keeps the kernels.
const MODULE: &str = "aisemble";

/// A kernel's arguments, passed by value.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Argument<T>(T);

// SAFETY: the arguments are plain `repr(C)` structs of numbers, as the kernels declare them.
unsafe impl<T: Copy> DeviceRepr for Argument<T> {}

/// # Safety
/// The arguments are those of the kernel, and every address in them is of memory of `device` that
/// is as long as the kernel's documentation says and lives until the launch is in the stream.
unsafe fn launch<T: Copy>(device: &CudaDevice, launch: Launch, arguments: T) -> Result<()> {
    let function = device.get_or_load_custom_func(launch.kernel, MODULE, aisemble_cuda::PTX)?;
    let [x, y, z] = launch.grid;
    let config = LaunchConfig {
        grid_dim: (x, y, z),
        block_dim: (launch.threads, 1, 1),
        shared_mem_bytes: 0,
    };
    let arguments = Argument(arguments);
    let mut builder = function.builder();
    builder.arg(&arguments);
    // SAFETY: the caller's promise.
    unsafe { builder.launch(config) }.w()?;
    Ok(())
}

/// Room for `values` f32 on the device, not written yet.
fn room(device: &CudaDevice, values: usize) -> Result<CudaSlice<f32>> {
    // SAFETY: whoever asks launches a kernel that writes all of it.
    unsafe { device.alloc::<f32>(values) }
}

fn address<T>(slice: &CudaSlice<T>, device: &CudaDevice) -> u64 {
    // One stream does everything in order: there is nothing to wait for at the end of the borrow.
    slice.device_ptr(&device.cuda_stream()).0
}

/// Where the values of a contiguous f32 tensor lie.
fn values(storage: &CudaStorage, layout: &Layout) -> Result<u64> {
    let Some((begin, _)) = layout.contiguous_offsets() else {
        bail!("the tensor is not contiguous");
    };
    let slice = storage.as_cuda_slice::<f32>()?;
    Ok(address(slice, storage.device()) + (begin * size_of::<f32>()) as u64)
}

fn wrapped(slice: CudaSlice<f32>, like: &CudaStorage, layout: &Layout) -> (CudaStorage, Shape) {
    let storage = CudaStorage::wrap_cuda_slice(slice, like.device().clone());
    (storage, layout.shape().clone())
}

fn count(number: usize) -> Result<u32> {
    u32::try_from(number).map_err(Error::wrap)
}

pub(super) fn rms_norm(
    (x, x_layout): (&CudaStorage, &Layout),
    (weight, weight_layout): (&CudaStorage, &Layout),
    eps: f32,
) -> Result<(CudaStorage, Shape)> {
    let width = x_layout.dims().last().copied().unwrap_or(0);
    if width == 0 || weight_layout.dims() != [width] || x_layout.shape().elem_count() == 0 {
        bail!("rms-norm: {:?} and weights {:?}", x_layout.dims(), weight_layout.dims());
    }
    let (device, values_in_all) = (x.device(), x_layout.shape().elem_count());
    let out = room(device, values_in_all)?;
    let arguments = NormArguments {
        out: address(&out, device),
        x: values(x, x_layout)?,
        weight: values(weight, weight_layout)?,
        width: count(width)?,
        eps,
    };
    // SAFETY: `out` and `x` have rows of `width`, `weight` is one.
    unsafe { launch(device, aisemble_cuda::rms_norm(count(values_in_all / width)?), arguments) }?;
    Ok(wrapped(out, x, x_layout))
}

/// How many values a gate has, to how they are launched.
pub(super) type GateLaunch = fn(u64) -> Option<Launch>;

pub(super) fn gated(
    kind: GateLaunch,
    (gate, gate_layout): (&CudaStorage, &Layout),
    (up, up_layout): (&CudaStorage, &Layout),
) -> Result<(CudaStorage, Shape)> {
    if gate_layout.dims() != up_layout.dims() || gate_layout.shape().elem_count() == 0 {
        bail!("a gate of {:?} for {:?}", gate_layout.dims(), up_layout.dims());
    }
    let (device, count) = (gate.device(), gate_layout.shape().elem_count());
    let out = room(device, count)?;
    let arguments = GateArguments {
        out: address(&out, device),
        gate: values(gate, gate_layout)?,
        up: values(up, up_layout)?,
        values: count as u64,
    };
    let Some(how) = kind(count as u64) else { bail!("a gate of {count} values is too large") };
    // SAFETY: all three have `count` values.
    unsafe { launch(device, how, arguments) }?;
    Ok(wrapped(out, gate, gate_layout))
}

pub(super) fn rope(
    (x, layout): (&CudaStorage, &Layout),
    positions: &Arc<[u32]>,
    table: &Arc<RopeTable>,
) -> Result<(CudaStorage, Shape)> {
    let (rows, heads, head_dim) = layout.shape().dims3()?;
    let past = positions.iter().find(|&&at| at as usize >= table.positions());
    if rows == 0 || heads == 0 || rows != positions.len() || head_dim < table.rotary_dim() {
        bail!("rope: {:?} for {} positions", layout.dims(), positions.len());
    }
    if let Some(position) = past {
        bail!("rope: position {position} is past the table of {}", table.positions());
    }
    let device = x.device();
    let out = room(device, layout.shape().elem_count())?;
    let (on_device, angles) =
        (uploads::numbers(device, positions)?, uploads::angles(device, table)?);
    let arguments = RopeArguments {
        out: address(&out, device),
        x: values(x, layout)?,
        positions: address(&on_device, device),
        cos: address(&angles.cos, device),
        sin: address(&angles.sin, device),
        heads: count(heads)?,
        head_dim: count(head_dim)?,
        pairs: count(table.rotary_dim() / 2)?,
        halves: u32::from(table.style() == RopeStyle::Halves),
    };
    // SAFETY: every position is in the table, and there is one for each row.
    unsafe { launch(device, aisemble_cuda::rope(count(rows)?), arguments) }?;
    Ok(wrapped(out, x, layout))
}

/// Where a cache lies, and whether it is f16.
fn cells(cache: &CudaStorage, layout: &Layout, shape: &KvShape) -> Result<(u64, bool)> {
    let (begin, end) = match layout.contiguous_offsets() {
        Some((begin, end)) if end - begin == shape.values() => (begin, end),
        Some(_) | None => bail!("a KV cache of {:?} for {shape:?}", layout.dims()),
    };
    debug_assert!(begin < end, "a cache has blocks");
    let device = cache.device();
    if let CudaStorageSlice::F16(slice) = &cache.slice {
        return Ok((address(slice, device) + 2 * begin as u64, true));
    }
    Ok((address(cache.as_cuda_slice::<f32>()?, device) + 4 * begin as u64, false))
}

pub(super) fn kv_write(
    (cache, cache_layout): (&CudaStorage, &Layout),
    (rows, rows_layout): (&CudaStorage, &Layout),
    (shape, slots): (&KvShape, &Arc<[u32]>),
    is_keys: bool,
) -> Result<()> {
    let fits = rows_layout.dims() == [slots.len(), shape.kv_heads, shape.head_dim];
    if !fits || slots.is_empty() || slots.iter().any(|&slot| slot as usize >= shape.slots()) {
        bail!("kv-write: rows {:?} for {} slots of {shape:?}", rows_layout.dims(), slots.len());
    }
    let device = rows.device();
    let ((cache, is_f16), on_device) =
        (cells(cache, cache_layout, shape)?, uploads::numbers(device, slots)?);
    let arguments = WriteArguments {
        cache,
        rows: values(rows, rows_layout)?,
        slots: address(&on_device, device),
        kv_heads: count(shape.kv_heads)?,
        head_dim: count(shape.head_dim)?,
        block_tokens: count(shape.block_tokens)?,
        is_keys: is_keys.into(),
    };
    // SAFETY: every slot is in the cache; no two rows of a step have the same one.
    unsafe { launch(device, aisemble_cuda::kv_write(count(slots.len())?, is_f16), arguments) }
}

/// The step has been checked against the cache: no row reads past its blocks.
pub(super) fn attention(
    (shape, step): (&AttentionShape, &Step),
    (query, query_layout): (&CudaStorage, &Layout),
    (keys, keys_layout): (&CudaStorage, &Layout),
    (v, v_layout): (&CudaStorage, &Layout),
) -> Result<(CudaStorage, Shape)> {
    let (device, kv) = (query.device(), &shape.kv);
    let Some(context) = step.positions.iter().max() else { bail!("attention: no rows") };
    let (keys, is_f16) = cells(keys, keys_layout, kv)?;
    let (cells_of_values, is_f16_too) = cells(v, v_layout, kv)?;
    let heads = (count(shape.heads)?, count(kv.kv_heads)?, count(kv.head_dim)?);
    let sizes = (count(step.rows())?, context + 1);
    let plan = AttentionPlan::new(sizes, heads, count(kv.block_tokens)?, is_f16);
    let Some(plan) = plan.filter(|_| is_f16 == is_f16_too) else {
        bail!("attention: no CUDA kernel for {shape:?}");
    };
    let out = room(device, query_layout.shape().elem_count())?;
    // One value where none is needed: an empty piece of memory has no address.
    let partials = room(device, (plan.partial_values as usize).max(1))?;
    let positions = uploads::numbers(device, &step.positions)?;
    let sequences = uploads::numbers(device, &step.sequences)?;
    let block_tables = uploads::numbers(device, &step.block_tables)?;
    let arguments = AttentionArguments {
        out: address(&out, device),
        query: values(query, query_layout)?,
        keys,
        values: cells_of_values,
        positions: address(&positions, device),
        sequences: address(&sequences, device),
        block_tables: address(&block_tables, device),
        partials: address(&partials, device),
        heads: heads.0,
        kv_heads: heads.1,
        head_dim: heads.2,
        block_tokens: count(kv.block_tokens)?,
        blocks_max: count(step.blocks_max)?,
        window: shape.window.map_or(Ok(0), |window| count(window.get()))?,
        tiles: plan.tiles,
        chunks: plan.chunks,
        scale: shape.scale,
        softcap: shape.softcap.unwrap_or(0.0),
    };
    // SAFETY: `check` has compared the step with the cache; `partials` is as long as the plan says.
    unsafe { launch(device, plan.attend, arguments) }?;
    if let Some(merge) = plan.merge {
        // SAFETY: as above.
        unsafe { launch(device, merge, arguments) }?;
    }
    Ok(wrapped(out, query, query_layout))
}
