//! Causal attention over a paged KV cache: shapes, checks and the partition of work. It knows
//! block tables, not sequences' owners.

use std::num::NonZeroUsize;
use std::sync::PoisonError;

use crate::attention::step::{ALONE_WORK_MAX, Plan, Step};
use crate::disjoint::Disjoint;
use crate::kv::{KvElement, KvShape};
use crate::pool::Pool;

mod step;

/// What is constant over the layers of a model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionShape {
    /// The cache.
    pub kv: KvShape,
    /// Query heads: a multiple of `kv.kv_heads`.
    pub heads: usize,
    /// Factor on the scores, usually `1 / sqrt(head_dim)`.
    pub scale: f32,
    /// Tokens that a row sees at most, itself included; `None` for all before it.
    pub window: Option<NonZeroUsize>,
    /// `cap * tanh(score / cap)` on the scores (Gemma 2); `None` for none.
    pub softcap: Option<f32>,
}

/// The rows of one step: decode rows and prefill chunks of any number of sequences, in any order.
/// Adjacent rows of one sequence with consecutive positions share the reading of its keys.
#[derive(Debug, Clone, Copy)]
pub struct AttentionRows<'a> {
    /// `[rows, heads, head_dim]`, rotated already.
    pub query: &'a [f32],
    /// `[rows]`: which line of `block_tables` each row uses.
    pub sequences: &'a [u32],
    /// `[rows]`: the row's position; it sees the tokens `0..=position` of its sequence, whose keys
    /// and values are in the cache already (its own included).
    pub positions: &'a [u32],
    /// `[sequences, blocks_max]`: block numbers in the order of the tokens; entries past the last
    /// token that a row sees are not read.
    pub block_tables: &'a [u32],
    /// Length of a line of `block_tables`.
    pub blocks_max: usize,
}

impl AttentionRows<'_> {
    /// # Panics
    /// When lengths disagree with `shape`, or a table entry that will be read is no block.
    fn check(&self, shape: &AttentionShape) {
        let kv = shape.kv;
        kv.check();
        let rows = self.positions.len();
        assert!(shape.heads > 0 && shape.heads.is_multiple_of(kv.kv_heads), "heads per kv head");
        assert_eq!(self.sequences.len(), rows, "a sequence for each row");
        assert_eq!(self.query.len(), rows * shape.heads * kv.head_dim, "query length");
        assert!(
            self.block_tables.is_empty() || self.blocks_max > 0,
            "block tables of {} a line",
            self.blocks_max
        );
        for (&sequence, &position) in self.sequences.iter().zip(self.positions) {
            let needed = position as usize / kv.block_tokens + 1;
            assert!(needed <= self.blocks_max, "position {position} is past the block table");
            let start = sequence as usize * self.blocks_max;
            assert!(start + needed <= self.block_tables.len(), "sequence {sequence} has no table");
            let line = &self.block_tables[start..start + needed];
            assert!(line.iter().all(|&block| (block as usize) < kv.blocks), "a block of the cache");
        }
    }
}

impl Pool {
    /// Causal attention of every row over its sequence's `keys` and `values` (each
    /// [`KvShape::values`] long), into `out`, `[rows, heads, head_dim]`. A row's result does not
    /// depend on which other rows are in the step, nor on the number of threads.
    ///
    /// # Panics
    /// When lengths disagree or an index is outside the cache.
    pub fn paged_attention<T: KvElement>(
        &self,
        shape: &AttentionShape,
        rows: &AttentionRows<'_>,
        (keys, values): (&[T], &[T]),
        out: &mut [f32],
    ) {
        rows.check(shape);
        assert_eq!(keys.len(), shape.kv.values(), "key cache length");
        assert_eq!(values.len(), shape.kv.values(), "value cache length");
        assert_eq!(out.len(), rows.query.len(), "out length");
        if rows.positions.is_empty() {
            return;
        }
        let mut scratch = self.scratch().lock().unwrap_or_else(PoisonError::into_inner);
        let plan = Plan::new(shape, rows, self.threads());
        let step = Step { cpu: self.cpu(), shape, rows, keys, values };
        let out = Disjoint::new(out);
        if plan.splits {
            step.run_split(self, &plan, &mut scratch.partials, out);
        } else {
            let items = plan.items(shape);
            let chunk = if plan.work <= ALONE_WORK_MAX { items } else { 1 };
            self.for_chunks(items, chunk, &|range| {
                range.for_each(|item| step.run_whole(&plan, item, out));
            });
        }
    }
}
