//! The blocks of the KV cache: a free list, reservations, and the table of one sequence.
//!
//! A sequence reserves at admission all that it may ever need and takes blocks as it grows, so a
//! running sequence never finds the cache full: there is nothing to preempt. It knows block numbers
//! only, not what is stored in them.

/// All blocks of the cache.
#[derive(Debug)]
pub struct BlockPool {
    free: Vec<u32>,
    /// Of the free ones, how many are promised to sequences that run.
    promised: usize,
    total: usize,
    block_tokens: usize,
}

/// The blocks of one sequence, in the order of its tokens. Given back with [`BlockPool::release`].
#[derive(Debug)]
pub struct BlockTable {
    blocks: Vec<u32>,
    promised_left: usize,
}

impl BlockTable {
    /// Numbers of the blocks: token `t` lies in `blocks()[t / block_tokens]`.
    #[must_use]
    pub fn blocks(&self) -> &[u32] {
        &self.blocks
    }
}

impl BlockPool {
    /// `total` blocks of `block_tokens` tokens each, all free.
    ///
    /// # Panics
    /// When either is zero or `total` does not fit a block number; both come from checked config.
    #[must_use]
    pub fn new(total: usize, block_tokens: usize) -> Self {
        assert!(total > 0 && block_tokens > 0, "a cache has blocks, and a block has tokens");
        let count = u32::try_from(total).unwrap_or(u32::MAX);
        assert!(count < u32::MAX, "block numbers are 32 bits wide");
        // The lowest number is taken first: a quiet service touches few pages of the cache.
        Self { free: (0..count).rev().collect(), promised: 0, total, block_tokens }
    }

    /// Tokens of a block.
    #[must_use]
    pub fn block_tokens(&self) -> usize {
        self.block_tokens
    }

    /// Blocks that `tokens` tokens lie in.
    #[must_use]
    pub fn blocks_for(&self, tokens: usize) -> usize {
        tokens.div_ceil(self.block_tokens)
    }

    /// Blocks in all.
    #[must_use]
    pub fn total(&self) -> usize {
        self.total
    }

    /// Blocks that sequences hold.
    #[must_use]
    pub fn used(&self) -> usize {
        self.total - self.free.len()
    }

    /// Blocks that a new sequence may reserve.
    #[must_use]
    pub fn unpromised(&self) -> usize {
        self.free.len() - self.promised
    }

    /// A table that may grow to `blocks` blocks; `None` when so many are not to be had now.
    #[must_use]
    pub fn reserve(&mut self, blocks: usize) -> Option<BlockTable> {
        if blocks > self.unpromised() {
            return None;
        }
        self.promised += blocks;
        Some(BlockTable { blocks: Vec::with_capacity(blocks), promised_left: blocks })
    }

    /// Makes `table` long enough for `tokens` tokens.
    ///
    /// # Panics
    /// When that is more than the table has reserved: a defect of the scheduler.
    pub fn grow(&mut self, table: &mut BlockTable, tokens: usize) {
        while table.blocks.len() < self.blocks_for(tokens) {
            assert!(table.promised_left > 0, "a sequence outgrew its reservation");
            let block = self.free.pop();
            assert!(block.is_some(), "a promised block was not there");
            table.blocks.extend(block);
            table.promised_left -= 1;
            self.promised -= 1;
        }
    }

    /// Takes the blocks and what is left of the reservation back.
    ///
    /// # Panics
    /// When more blocks come back than there are: a table of another pool.
    pub fn release(&mut self, table: BlockTable) {
        self.promised -= table.promised_left;
        self.free.extend(table.blocks.into_iter().rev());
        assert!(self.free.len() <= self.total, "more blocks came back than there are");
    }
}
