//! The row operations on the calling thread, for a proven instruction set. It checks lengths and
//! hands over; it knows nothing of threads.
#![expect(unsafe_code, reason = "calls the vector kernels, after checking lengths")]

use crate::error::KernelError;
use crate::isa::Isa;
use crate::rope::RopeTable;
use crate::simd::rows;

/// Values that are searched at once, without a branch for each.
const SEARCH: usize = 256;

/// Proof that this machine has an instruction set, and the row operations compiled for it.
///
/// All of them accept any values: NaN and infinities give NaN and infinities, never a panic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cpu {
    isa: Isa,
}

impl Cpu {
    /// The best instruction set of this machine.
    #[must_use]
    pub fn best() -> Self {
        Self { isa: Isa::best() }
    }

    /// A given instruction set, for tests and measurements.
    ///
    /// # Errors
    /// [`KernelError::IsaMissing`] when this machine does not have it.
    pub fn with_isa(isa: Isa) -> Result<Self, KernelError> {
        if isa.is_available() { Ok(Self { isa }) } else { Err(KernelError::IsaMissing { isa }) }
    }

    /// The instruction set.
    #[must_use]
    pub const fn isa(self) -> Isa {
        self.isa
    }

    /// `out = x / sqrt(mean(x^2) + eps) * weight` for each row of `weight.len()` values.
    ///
    /// # Panics
    /// When lengths disagree.
    pub fn rms_norm(self, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        check_rows(x.len(), weight.len());
        assert_eq!(x.len(), out.len(), "out length");
        for (x, out) in x.chunks_exact(weight.len()).zip(out.chunks_exact_mut(weight.len())) {
            // SAFETY: `self` proves the instruction set; the lengths agree.
            unsafe { rows::rms_norm(self, x, weight, eps, out) };
        }
    }

    /// Turns `x`, `[positions.len(), heads, head_dim]`, in place; row `i` is at `positions[i]`.
    ///
    /// # Panics
    /// When lengths disagree, a position is not in the table or a head is shorter than the table's
    /// rotary dimension.
    pub fn rope(self, table: &RopeTable, x: &mut [f32], head_dim: usize, positions: &[u32]) {
        check_rows(x.len(), head_dim);
        if positions.is_empty() {
            assert!(x.is_empty(), "no positions");
            return;
        }
        check_rows(x.len(), head_dim * positions.len());
        assert!(table.rotary_dim() <= head_dim, "the rotary dimension is within the head");
        let width = x.len() / positions.len();
        for (row, &position) in x.chunks_exact_mut(width.max(1)).zip(positions) {
            for head in row.chunks_exact_mut(head_dim) {
                // SAFETY: `self` proves the instruction set; the head is long enough.
                unsafe { rows::rope(self, table, head, position as usize) };
            }
        }
    }

    /// `out = silu(gate) * up`, where `silu(x) = x / (1 + e^-x)`.
    ///
    /// # Panics
    /// When lengths disagree.
    pub fn silu_mul(self, gate: &[f32], up: &[f32], out: &mut [f32]) {
        assert_eq!(gate.len(), up.len(), "up length");
        assert_eq!(gate.len(), out.len(), "out length");
        // SAFETY: `self` proves the instruction set; the lengths agree.
        unsafe { rows::silu_mul(self, gate, up, out) };
    }

    /// `out = gelu(gate) * up` with the tanh form of GELU (Gemma).
    ///
    /// # Panics
    /// When lengths disagree.
    pub fn gelu_mul(self, gate: &[f32], up: &[f32], out: &mut [f32]) {
        assert_eq!(gate.len(), up.len(), "up length");
        assert_eq!(gate.len(), out.len(), "out length");
        // SAFETY: `self` proves the instruction set; the lengths agree.
        unsafe { rows::gelu_mul(self, gate, up, out) };
    }

    /// `e^(x - max) / sum` of one row, in place. An empty row stays empty.
    pub fn softmax(self, x: &mut [f32]) {
        // SAFETY: `self` proves the instruction set.
        unsafe { rows::softmax(self, x) };
    }

    /// `x += y`.
    ///
    /// # Panics
    /// When lengths disagree.
    pub fn add_assign(self, x: &mut [f32], y: &[f32]) {
        assert_eq!(x.len(), y.len(), "length");
        // SAFETY: `self` proves the instruction set; the lengths agree.
        unsafe { rows::add_assign(self, x, y) };
    }

    /// Index of the largest value, the first of equals; NaN never wins; `None` when no value is
    /// comparable.
    #[must_use]
    pub fn argmax(self, x: &[f32]) -> Option<usize> {
        // SAFETY: `self` proves the instruction set.
        let largest = unsafe { rows::largest(self, x) };
        for (index, chunk) in x.chunks(SEARCH).enumerate() {
            if chunk.iter().fold(false, |found, value| found | (*value == largest)) {
                let within = chunk.iter().position(|value| *value == largest)?;
                return Some(index * SEARCH + within);
            }
        }
        None
    }
}

fn check_rows(len: usize, width: usize) {
    assert!(width > 0 && len.is_multiple_of(width), "{len} values are whole rows of {width}");
}
