//! The layout of the paged KV cache on the CPU: fixed-size blocks of tokens, addressed by block
//! number. It knows shapes and elements; which sequence owns which block is the scheduler's.
//!
//! Keys are kept as `[block][kv head][dim][token]` and values as `[block][kv head][token][dim]`:
//! the scores of 16 tokens then come from plain vertical multiply-adds, without a reduction, and
//! each (block, head) is one contiguous run. A block is one contiguous run of both caches, so that
//! copying or dropping it is one `memcpy` or nothing.

use half::f16;
use half::slice::HalfFloatSliceExt as _;

/// Dimensions of a KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvShape {
    /// Blocks in the cache.
    pub blocks: usize,
    /// Tokens in a block: a multiple of [`KvShape::BLOCK_TOKENS_STEP`].
    pub block_tokens: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Values in a head: a multiple of [`KvShape::HEAD_DIM_STEP`].
    pub head_dim: usize,
}

impl KvShape {
    /// `block_tokens` is a multiple of this.
    pub const BLOCK_TOKENS_STEP: usize = 16;
    /// `head_dim` is a multiple of this.
    pub const HEAD_DIM_STEP: usize = 16;

    /// Values of one block of one cache (keys or values).
    #[must_use]
    pub const fn block_values(&self) -> usize {
        self.block_tokens * self.kv_heads * self.head_dim
    }

    /// Values of one whole cache (keys or values).
    #[must_use]
    pub const fn values(&self) -> usize {
        self.blocks * self.block_values()
    }

    /// Slots (tokens) of the cache; slot = block x `block_tokens` + offset in the block.
    #[must_use]
    pub const fn slots(&self) -> usize {
        self.blocks * self.block_tokens
    }

    /// # Panics
    /// When a dimension is zero or not a multiple of its step.
    pub(crate) fn check(&self) {
        assert!(self.kv_heads > 0 && self.blocks > 0, "an empty KV cache: {self:?}");
        assert!(
            self.block_tokens > 0 && self.block_tokens.is_multiple_of(Self::BLOCK_TOKENS_STEP),
            "block_tokens is a multiple of {}: {self:?}",
            Self::BLOCK_TOKENS_STEP
        );
        assert!(
            self.head_dim > 0 && self.head_dim.is_multiple_of(Self::HEAD_DIM_STEP),
            "head_dim is a multiple of {}: {self:?}",
            Self::HEAD_DIM_STEP
        );
    }

    /// Where a value of a key lies: `(slot, head, dim)`.
    #[must_use]
    pub const fn key_index(&self, slot: usize, head: usize, dim: usize) -> usize {
        let (block, token) = (slot / self.block_tokens, slot % self.block_tokens);
        ((block * self.kv_heads + head) * self.head_dim + dim) * self.block_tokens + token
    }

    /// Where a value of a value lies: `(slot, head, dim)`.
    #[must_use]
    pub const fn value_index(&self, slot: usize, head: usize, dim: usize) -> usize {
        let (block, token) = (slot / self.block_tokens, slot % self.block_tokens);
        ((block * self.kv_heads + head) * self.block_tokens + token) * self.head_dim + dim
    }

    /// Writes keys `[rows, kv_heads, head_dim]` into `cache` ([`KvShape::values`] long), row `i`
    /// to `slots[i]`.
    ///
    /// # Panics
    /// When lengths disagree or a slot is outside the cache.
    pub fn write_keys<T: KvElement>(&self, cache: &mut [T], rows: &[f32], slots: &[u32]) {
        self.check_write(cache.len(), rows.len(), slots);
        for (row, &slot) in rows.chunks_exact(self.kv_heads * self.head_dim).zip(slots) {
            for (head, values) in row.chunks_exact(self.head_dim).enumerate() {
                let start = self.key_index(slot as usize, head, 0);
                let mut run = cache[start..].iter_mut().step_by(self.block_tokens);
                for values in values.chunks_exact(Self::HEAD_DIM_STEP) {
                    let mut rounded = [T::default(); Self::HEAD_DIM_STEP];
                    T::from_f32_slice(values, &mut rounded);
                    run.by_ref().zip(rounded).for_each(|(cell, value)| *cell = value);
                }
            }
        }
    }

    /// Writes values `[rows, kv_heads, head_dim]` into `cache` ([`KvShape::values`] long), row `i`
    /// to `slots[i]`.
    ///
    /// # Panics
    /// When lengths disagree or a slot is outside the cache.
    pub fn write_values<T: KvElement>(&self, cache: &mut [T], rows: &[f32], slots: &[u32]) {
        self.check_write(cache.len(), rows.len(), slots);
        for (row, &slot) in rows.chunks_exact(self.kv_heads * self.head_dim).zip(slots) {
            for (head, values) in row.chunks_exact(self.head_dim).enumerate() {
                let start = self.value_index(slot as usize, head, 0);
                T::from_f32_slice(values, &mut cache[start..start + self.head_dim]);
            }
        }
    }

    fn check_write(&self, cache: usize, rows: usize, slots: &[u32]) {
        self.check();
        assert_eq!(cache, self.values(), "cache length");
        assert_eq!(rows, slots.len() * self.kv_heads * self.head_dim, "rows length");
        for &slot in slots {
            assert!((slot as usize) < self.slots(), "slot {slot} of {}", self.slots());
        }
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for half::f16 {}
}

/// What a KV cache is made of: `f32` or [`half::f16`].
pub trait KvElement: Copy + Default + Send + Sync + sealed::Sealed + 'static {
    /// Whether the element is a half float.
    const IS_F16: bool;
    /// Rounds to the element (nearest even).
    fn from_f32(value: f32) -> Self;
    /// Rounds equally many values.
    ///
    /// # Panics
    /// When lengths disagree.
    fn from_f32_slice(from: &[f32], to: &mut [Self]);
    /// Widens.
    fn to_f32(self) -> f32;
}

impl KvElement for f32 {
    const IS_F16: bool = false;
    fn from_f32(value: f32) -> Self {
        value
    }
    fn from_f32_slice(from: &[f32], to: &mut [Self]) {
        to.copy_from_slice(from);
    }
    fn to_f32(self) -> f32 {
        self
    }
}

impl KvElement for f16 {
    const IS_F16: bool = true;
    fn from_f32(value: f32) -> Self {
        Self::from_f32(value)
    }
    fn from_f32_slice(from: &[f32], to: &mut [Self]) {
        to.convert_from_f32_slice(from);
    }
    fn to_f32(self) -> f32 {
        self.to_f32()
    }
}
