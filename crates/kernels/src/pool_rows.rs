//! The row operations of [`Cpu`](crate::Cpu) over all threads of a pool, for the many rows of a
//! prefill; few rows stay on the calling thread. The same results to the last bit.
#![expect(unsafe_code, reason = "several threads write disjoint rows of one slice")]

use crate::disjoint::Disjoint;
use crate::pool::Pool;
use crate::rope::RopeTable;

/// Values up to which the calling thread is done before another one would be awake.
const ALONE_VALUES_MAX: usize = 32 * 1024;
/// Values of a chunk at least.
const CHUNK_VALUES: usize = 8 * 1024;

impl Pool {
    /// [`Cpu::rms_norm`](crate::Cpu::rms_norm) over all threads.
    ///
    /// # Panics
    /// When lengths disagree.
    pub fn rms_norm(&self, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        assert_eq!(x.len(), out.len(), "out length");
        let cpu = self.cpu();
        self.rows(out, weight.len(), &|start, out| {
            cpu.rms_norm(&x[start..start + out.len()], weight, eps, out);
        });
    }

    /// [`Cpu::rope`](crate::Cpu::rope) over all threads.
    ///
    /// # Panics
    /// As there.
    pub fn rope(&self, table: &RopeTable, x: &mut [f32], head_dim: usize, positions: &[u32]) {
        let cpu = self.cpu();
        if positions.is_empty() {
            cpu.rope(table, x, head_dim, positions);
            return;
        }
        let width = x.len() / positions.len();
        assert_eq!(width * positions.len(), x.len(), "a position for each row");
        self.rows(x, width, &|start, x| {
            let first = start / width;
            cpu.rope(table, x, head_dim, &positions[first..first + x.len() / width]);
        });
    }

    /// [`Cpu::silu_mul`](crate::Cpu::silu_mul) over all threads.
    ///
    /// # Panics
    /// When lengths disagree.
    pub fn silu_mul(&self, gate: &[f32], up: &[f32], out: &mut [f32]) {
        assert_eq!(gate.len(), up.len(), "up length");
        assert_eq!(gate.len(), out.len(), "out length");
        let cpu = self.cpu();
        self.rows(out, 1, &|start, out| {
            let part = start..start + out.len();
            cpu.silu_mul(&gate[part.clone()], &up[part], out);
        });
    }

    /// [`Cpu::gelu_mul`](crate::Cpu::gelu_mul) over all threads.
    ///
    /// # Panics
    /// When lengths disagree.
    pub fn gelu_mul(&self, gate: &[f32], up: &[f32], out: &mut [f32]) {
        assert_eq!(gate.len(), up.len(), "up length");
        assert_eq!(gate.len(), out.len(), "out length");
        let cpu = self.cpu();
        self.rows(out, 1, &|start, out| {
            let part = start..start + out.len();
            cpu.gelu_mul(&gate[part.clone()], &up[part], out);
        });
    }

    /// [`Cpu::add_assign`](crate::Cpu::add_assign) over all threads.
    ///
    /// # Panics
    /// When lengths disagree.
    pub fn add_assign(&self, x: &mut [f32], y: &[f32]) {
        assert_eq!(x.len(), y.len(), "length");
        let cpu = self.cpu();
        self.rows(x, 1, &|start, x| cpu.add_assign(x, &y[start..start + x.len()]));
    }

    /// Calls `work` with the start of each run of whole rows of `width` values, and the run.
    pub(crate) fn rows(
        &self,
        out: &mut [f32],
        width: usize,
        work: &(dyn Fn(usize, &mut [f32]) + Sync),
    ) {
        if out.len() <= ALONE_VALUES_MAX || width == 0 {
            work(0, out);
            return;
        }
        let count = out.len() / width;
        assert_eq!(count * width, out.len(), "whole rows of {width}");
        let out = Disjoint::new(out);
        self.for_chunks(count, (CHUNK_VALUES / width).max(1), &|range| {
            // SAFETY: the ranges do not overlap.
            let rows = unsafe { out.part(range.start * width, range.len() * width) };
            work(range.start * width, rows);
        });
    }
}
