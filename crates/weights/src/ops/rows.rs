//! Operations on each row by itself: normalisation, rotation, gating, addition.

use std::sync::Arc;

use aisemble_kernels::{Cpu, RopeTable};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, bail};

use super::contiguous;

/// `x / sqrt(mean(x^2) + eps) * weight` for each row. `x` is `[.., width]`, `weight` `[width]`; the
/// result has the shape of `x`.
///
/// # Errors
/// When the widths differ or a tensor is not f32.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
    x.contiguous()?.apply_op2_no_bwd(&weight.contiguous()?, &RmsNorm { eps })
}

struct RmsNorm {
    eps: f32,
}

impl CustomOp2 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (values, weight) = (contiguous(x, x_layout)?, contiguous(weight, weight_layout)?);
        let width = x_layout.dims().last().copied().unwrap_or(0);
        if width == 0 || weight.len() != width || weight_layout.dims().len() != 1 {
            bail!("rms-norm: rows of {width} values, weights {:?}", weight_layout.dims());
        }
        let mut out = vec![0.0; values.len()];
        Cpu::best().rms_norm(values, weight, self.eps, &mut out);
        Ok((CpuStorage::F32(out), x_layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        weight: &CudaStorage,
        weight_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        super::cuda::rms_norm((x, x_layout), (weight, weight_layout), self.eps)
    }
}

/// `silu(gate) * up`, value by value. Both have one shape, which is the result's.
///
/// # Errors
/// When the shapes differ or a tensor is not f32.
pub fn silu_mul(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    gate.contiguous()?.apply_op2_no_bwd(&up.contiguous()?, &SiluMul)
}

struct SiluMul;

impl CustomOp2 for SiluMul {
    fn name(&self) -> &'static str {
        "silu-mul"
    }

    fn cpu_fwd(
        &self,
        gate: &CpuStorage,
        gate_layout: &Layout,
        up: &CpuStorage,
        up_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        if gate_layout.dims() != up_layout.dims() {
            bail!("silu-mul: shapes {:?} and {:?}", gate_layout.dims(), up_layout.dims());
        }
        let gate = contiguous(gate, gate_layout)?;
        let mut out = vec![0.0; gate.len()];
        Cpu::best().silu_mul(gate, contiguous(up, up_layout)?, &mut out);
        Ok((CpuStorage::F32(out), gate_layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        gate: &CudaStorage,
        gate_layout: &Layout,
        up: &CudaStorage,
        up_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let (gate, up) = ((gate, gate_layout), (up, up_layout));
        super::cuda::gated(aisemble_cuda::silu_mul, gate, up)
    }
}

/// `gelu(gate) * up` with the tanh form of GELU, value by value. Both have one shape, which is the
/// result's.
///
/// # Errors
/// When the shapes differ or a tensor is not f32.
pub fn gelu_mul(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    if gate.device().is_cpu() {
        gate.contiguous()?.apply_op2_no_bwd(&up.contiguous()?, &GeluMul)
    } else {
        gate.gelu()?.mul(up)
    }
}

struct GeluMul;

impl CustomOp2 for GeluMul {
    fn name(&self) -> &'static str {
        "gelu-mul"
    }

    fn cpu_fwd(
        &self,
        gate: &CpuStorage,
        gate_layout: &Layout,
        up: &CpuStorage,
        up_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        if gate_layout.dims() != up_layout.dims() {
            bail!("gelu-mul: shapes {:?} and {:?}", gate_layout.dims(), up_layout.dims());
        }
        let gate = contiguous(gate, gate_layout)?;
        let mut out = vec![0.0; gate.len()];
        Cpu::best().gelu_mul(gate, contiguous(up, up_layout)?, &mut out);
        Ok((CpuStorage::F32(out), gate_layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        gate: &CudaStorage,
        gate_layout: &Layout,
        up: &CudaStorage,
        up_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let (gate, up) = ((gate, gate_layout), (up, up_layout));
        super::cuda::gated(aisemble_cuda::gelu_mul, gate, up)
    }
}

/// `x + y` (the residual stream). Both have one shape, which is the result's.
///
/// # Errors
/// When the shapes differ or, on the CPU, a tensor is not f32.
pub fn add(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    if x.device().is_cpu() {
        // candle's own addition would start a second pool of threads, which spins between its
        // calls.
        x.contiguous()?.apply_op2_no_bwd(&y.contiguous()?, &Add)
    } else {
        x.add(y)
    }
}

struct Add;

impl CustomOp2 for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        y: &CpuStorage,
        y_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        if x_layout.dims() != y_layout.dims() {
            bail!("add: shapes {:?} and {:?}", x_layout.dims(), y_layout.dims());
        }
        let mut out = contiguous(x, x_layout)?.to_vec();
        Cpu::best().add_assign(&mut out, contiguous(y, y_layout)?);
        Ok((CpuStorage::F32(out), x_layout.shape().clone()))
    }
}

/// `x + y` with one `y`, `[width]`, for every row of `x`, `[rows, width]`, both in the memory of
/// the CPU. The result has the shape of `x`.
///
/// # Errors
/// When the widths differ or a tensor is not f32.
pub fn add_rows(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op2_no_bwd(&y.contiguous()?, &AddRows)
}

struct AddRows;

impl CustomOp2 for AddRows {
    fn name(&self) -> &'static str {
        "add-rows"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        y: &CpuStorage,
        y_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let y = contiguous(y, y_layout)?;
        if y.is_empty() || x_layout.dims().last() != Some(&y.len()) {
            bail!("add-rows: shapes {:?} and {:?}", x_layout.dims(), y_layout.dims());
        }
        let mut out = contiguous(x, x_layout)?.to_vec();
        let cpu = Cpu::best();
        out.chunks_exact_mut(y.len()).for_each(|row| cpu.add_assign(row, y));
        Ok((CpuStorage::F32(out), x_layout.shape().clone()))
    }
}

/// Turns the heads of `x`, `[rows, heads, head_dim]`, by their positions, `[rows]`. The result has
/// the shape of `x`.
///
/// # Errors
/// When the shapes disagree, a position is not in the table, or `x` is not f32.
pub fn rope(x: &Tensor, positions: &Arc<[u32]>, table: &Arc<RopeTable>) -> Result<Tensor> {
    let (positions, table) = (Arc::clone(positions), Arc::clone(table));
    x.contiguous()?.apply_op1_no_bwd(&Rope { positions, table })
}

struct Rope {
    positions: Arc<[u32]>,
    table: Arc<RopeTable>,
}

impl CustomOp1 for Rope {
    fn name(&self) -> &'static str {
        "rope"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, _heads, head_dim) = layout.shape().dims3()?;
        if rows != self.positions.len() {
            bail!("rope: {rows} rows, {} positions", self.positions.len());
        }
        if head_dim < self.table.rotary_dim() {
            bail!("rope: heads of {head_dim} values, {} turn", self.table.rotary_dim());
        }
        let limit = self.table.positions();
        if let Some(position) = self.positions.iter().find(|&&at| at as usize >= limit) {
            bail!("rope: position {position} is past the table of {limit}");
        }
        let mut out = contiguous(storage, layout)?.to_vec();
        if !out.is_empty() {
            Cpu::best().rope(&self.table, &mut out, head_dim, &self.positions);
        }
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, storage: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        super::cuda::rope((storage, layout), &self.positions, &self.table)
    }
}
