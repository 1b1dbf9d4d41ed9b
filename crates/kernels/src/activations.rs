//! How activations lie in memory while they meet packed weights: groups of up to 8 rows, whose
//! records for one block of 32 values are adjacent, so that a kernel walks one pointer. It knows
//! nothing of weights.
#![expect(unsafe_code, reason = "records are addressed by raw pointers inside the SIMD kernels")]

use crate::aligned::AlignedBytes;
use crate::cpu::Cpu;
use crate::simd::quantise::{RowToQuantise, quantise_row};

/// Values in a block of activations.
pub(crate) const BLOCK: usize = 32;

/// The records of `M` rows for one block:
/// quants `[M][32] i8`, then `[M]` each of scale, half-rounded sum, minus scaled sum (f32), minus
/// sum, minus sum of the first half, minus sum of the last half (i32).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record<const M: usize>(pub(crate) *const u8);

/// Bytes of one row's record.
const RECORD_BYTES: usize = BLOCK + 6 * 4;

impl<const M: usize> Record<M> {
    pub(crate) const BYTES: usize = RECORD_BYTES * M;

    #[inline(always)]
    const fn field(self, field: usize, row: usize) -> *const u8 {
        self.0.wrapping_add(BLOCK * M + (field * M + row) * 4)
    }

    /// Four quants of a row: `word` 0 to 7.
    #[inline(always)]
    pub(crate) const fn quants(self, row: usize, word: usize) -> *const i32 {
        self.0.wrapping_add(row * BLOCK + word * 4).cast()
    }

    /// # Safety
    /// The record is valid and outlives the reference; so for the others.
    #[inline(always)]
    pub(crate) const unsafe fn scale<'a>(self, row: usize) -> &'a f32 {
        // SAFETY: inside the record; records start on multiples of 4 bytes.
        unsafe { &*self.field(0, row).cast() }
    }

    /// # Safety
    /// As [`Record::scale`].
    #[inline(always)]
    pub(crate) const unsafe fn half_sum<'a>(self, row: usize) -> &'a f32 {
        // SAFETY: as in `scale`.
        unsafe { &*self.field(1, row).cast() }
    }

    /// # Safety
    /// As [`Record::scale`].
    #[inline(always)]
    pub(crate) const unsafe fn negative_scaled_sum<'a>(self, row: usize) -> &'a f32 {
        // SAFETY: as in `scale`.
        unsafe { &*self.field(2, row).cast() }
    }

    /// Minus the sum of the row's quants.
    #[inline(always)]
    pub(crate) const fn negative_sum(self, row: usize) -> *const i32 {
        self.field(3, row).cast()
    }

    /// Minus the sum of the row's first (0) or last (1) 16 quants.
    #[inline(always)]
    pub(crate) const fn negative_half(self, row: usize, half: usize) -> *const i32 {
        self.field(4 + half, row).cast()
    }
}

/// One row's record while it is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RecordMut {
    at: *mut u8,
    group: usize,
    row: usize,
}

impl RecordMut {
    /// The record of row `row` of a group of `group` rows for block `block`.
    #[inline(always)]
    pub(crate) const fn new(records: *mut u8, block: usize, group: usize, row: usize) -> Self {
        Self { at: records.wrapping_add(block * group * RECORD_BYTES), group, row }
    }

    #[inline(always)]
    pub(crate) const fn quants(self) -> *mut i8 {
        self.at.wrapping_add(self.row * BLOCK).cast()
    }

    /// Writes all but the quants: the scale and the scaled sum, both rounded to half floats, and
    /// the sums of the two halves of the block.
    ///
    /// # Safety
    /// The record is valid for writing.
    #[inline(always)]
    pub(crate) unsafe fn finish(self, rounded: (f32, f32), sums: [i32; 2]) {
        let total = sums[0].wrapping_add(sums[1]);
        let fields = [
            rounded.0.to_bits(),
            rounded.1.to_bits(),
            (-(rounded.0 * total as f32)).to_bits(),
            total.wrapping_neg() as u32,
            sums[0].wrapping_neg() as u32,
            sums[1].wrapping_neg() as u32,
        ];
        for (field, bits) in fields.into_iter().enumerate() {
            let offset = BLOCK * self.group + (field * self.group + self.row) * 4;
            // SAFETY: inside the record; records start on multiples of 4 bytes.
            unsafe { self.at.wrapping_add(offset).cast::<u32>().write(bits) };
        }
    }
}

/// A group of rows that one kernel call takes together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Group {
    /// Its first row.
    pub(crate) start: usize,
    /// Its rows: a power of two.
    pub(crate) rows: usize,
}

/// `m` rows as groups of `rows_max` (a power of two), the rest in smaller powers of two.
pub(crate) fn groups(m: usize, rows_max: usize) -> impl Iterator<Item = Group> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let left = m - start;
        if left == 0 {
            return None;
        }
        let rows = if left >= rows_max { rows_max } else { 1 << left.ilog2() };
        let group = Group { start, rows };
        start += rows;
        Some(group)
    })
}

/// Rows of activations, arranged for the kernels. Reused from call to call.
#[derive(Debug, Default)]
pub(crate) struct Activations {
    bytes: AlignedBytes,
    row_bytes: usize,
}

impl Activations {
    /// Makes room for `m` rows of `cols` values.
    pub(crate) fn reserve(&mut self, m: usize, cols: usize, quantised: bool) {
        self.row_bytes = if quantised { cols / BLOCK * RECORD_BYTES } else { cols * 4 };
        self.bytes.grow(m * self.row_bytes);
    }

    /// Where the records are written; see [`ActivationsWriter`].
    pub(crate) fn writer(&mut self, cols: usize, quantised: bool) -> ActivationsWriter {
        let len = self.bytes.len();
        let row_bytes = self.row_bytes;
        ActivationsWriter { base: self.bytes.as_mut_ptr(), len, row_bytes, cols, quantised }
    }

    /// The records of the group.
    pub(crate) fn group(&self, group: Group) -> &[u8] {
        &self.bytes.as_slice()[group.start * self.row_bytes..][..group.rows * self.row_bytes]
    }
}

/// Writes groups from several threads at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ActivationsWriter {
    base: *mut u8,
    len: usize,
    row_bytes: usize,
    cols: usize,
    quantised: bool,
}

// SAFETY: the pointer is only used by `write`, whose callers keep groups apart.
unsafe impl Sync for ActivationsWriter {}

impl ActivationsWriter {
    /// Arranges the rows of one group; `x` is all rows, `[m, cols]`.
    ///
    /// # Safety
    /// The [`Activations`] is alive and not otherwise used, and no other thread writes this group
    /// or one that overlaps it meanwhile.
    pub(crate) unsafe fn write(&self, cpu: Cpu, x: &[f32], group: Group) {
        assert!((group.start + group.rows) * self.row_bytes <= self.len, "group within reserve");
        let rows = &x[group.start * self.cols..(group.start + group.rows) * self.cols];
        let records = self.base.wrapping_add(group.start * self.row_bytes);
        for (row, x) in rows.chunks_exact(self.cols).enumerate() {
            if self.quantised {
                let job = RowToQuantise {
                    x: x.as_ptr(),
                    blocks: self.cols / BLOCK,
                    records,
                    group: group.rows,
                    row,
                };
                // SAFETY: `x` is a row of `cols` values, the group's records are inside the
                // buffer (asserted), and nobody else writes them.
                unsafe { quantise_row(cpu, &job) };
            } else {
                for (k, value) in x.iter().enumerate() {
                    let at = records.wrapping_add((k * group.rows + row) * 4);
                    // SAFETY: inside the group's records (asserted), 4-byte aligned.
                    unsafe { at.cast::<f32>().write(*value) };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_cover_every_row_once() {
        for max in [1, 2, 4, 8] {
            for m in 0..40 {
                let mut next = 0;
                for group in groups(m, max) {
                    assert_eq!(group.start, next);
                    assert!(group.rows <= max && group.rows.is_power_of_two());
                    next += group.rows;
                }
                assert_eq!(next, m);
            }
        }
    }
}
