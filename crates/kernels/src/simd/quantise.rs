//! Rounding activations to 8 bits: writes the records that `simd::matmul` reads.
#![expect(
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    reason = "writes activation records through raw pointers, valid by `RowToQuantise`"
)]

use super::dispatch;
use super::lanes::Lanes;
use crate::activations::{BLOCK, RecordMut};

/// One row of activations and where its records go.
///
/// Whoever makes one promises that `x` points to `blocks` x 32 floats and `records` to the records
/// of a group of `group` rows, of which this is row `row`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowToQuantise {
    pub(crate) x: *const f32,
    pub(crate) blocks: usize,
    pub(crate) records: *mut u8,
    pub(crate) group: usize,
    pub(crate) row: usize,
}

#[inline(always)]
unsafe fn quantise<S: Lanes>(job: &RowToQuantise) {
    for block in 0..job.blocks {
        let x = job.x.add(block * BLOCK);
        let mut largest = S::splat(0.0);
        for i in (0..BLOCK).step_by(S::N) {
            largest = S::max(largest, S::abs(S::load(x.add(i))));
        }
        let largest = S::max_lane(largest);
        let scale = largest / 127.0;
        let inverse = S::splat(if largest == 0.0 { 0.0 } else { 127.0 / largest });
        let record = RecordMut::new(job.records, block, job.group, job.row);
        let mut halves = [0i32; 2];
        for (half, sum) in halves.iter_mut().enumerate() {
            let mut sums = S::zero_i();
            for i in (half * 16..half * 16 + 16).step_by(S::N) {
                let quants = S::round(S::mul(S::load(x.add(i)), inverse));
                S::store_i8(record.quants().add(i), quants);
                sums = S::add_i(sums, quants);
            }
            *sum = S::sum_i(sums);
        }
        let total = halves[0].wrapping_add(halves[1]);
        record.finish(S::half_pair(scale, scale * total as f32), halves);
    }
}

dispatch! {
    /// # Safety
    /// As [`RowToQuantise`].
    fn quantise_row(job: &RowToQuantise) = quantise
}
