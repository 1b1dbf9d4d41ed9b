//! The arguments of the kernels, one struct each, field by field as `cuda/kernels.cu` declares
//! them. Addresses are the device's. What a shape must fulfil is checked by whoever launches.

/// Of [`rms_norm`](crate::rms_norm).
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct NormArguments {
    /// `[rows, width]`, f32.
    pub out: u64,
    /// `[rows, width]`, f32.
    pub x: u64,
    /// `[width]`, f32.
    pub weight: u64,
    /// Values of a row.
    pub width: u32,
    /// Added to the mean square.
    pub eps: f32,
}

/// Of [`silu_mul`](crate::silu_mul) and [`gelu_mul`](crate::gelu_mul).
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct GateArguments {
    /// `[values]`, f32.
    pub out: u64,
    /// `[values]`, f32.
    pub gate: u64,
    /// `[values]`, f32.
    pub up: u64,
    /// How many.
    pub values: u64,
}

/// Of [`rope`](crate::rope).
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct RopeArguments {
    /// `[rows, heads, head_dim]`, f32.
    pub out: u64,
    /// `[rows, heads, head_dim]`, f32.
    pub x: u64,
    /// `[rows]`, u32.
    pub positions: u64,
    /// `[positions of the table, pairs]`, f32.
    pub cos: u64,
    /// `[positions of the table, pairs]`, f32.
    pub sin: u64,
    /// Heads of a row.
    pub heads: u32,
    /// Values of a head.
    pub head_dim: u32,
    /// Pairs that turn: twice as many values, at most `head_dim`.
    pub pairs: u32,
    /// 1: `i` turns with `i + pairs`; 0: `2i` with `2i + 1`.
    pub halves: u32,
}

/// Of [`kv_write`](crate::kv_write).
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct WriteArguments {
    /// The cache of keys or of values.
    pub cache: u64,
    /// `[rows, kv_heads, head_dim]`, f32.
    pub rows: u64,
    /// `[rows]`, u32: block x block tokens + offset in the block.
    pub slots: u64,
    /// Key/value heads.
    pub kv_heads: u32,
    /// Values of a head.
    pub head_dim: u32,
    /// Tokens of a block.
    pub block_tokens: u32,
    /// 1 for keys, 0 for values: they lie differently.
    pub is_keys: u32,
}

/// Of the kernels of [`AttentionPlan`](crate::AttentionPlan).
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct AttentionArguments {
    /// `[rows, heads, head_dim]`, f32.
    pub out: u64,
    /// `[rows, heads, head_dim]`, f32, rotated.
    pub query: u64,
    /// The cache.
    pub keys: u64,
    /// The cache.
    pub values: u64,
    /// `[rows]`, u32.
    pub positions: u64,
    /// `[rows]`, u32: the line of `block_tables`.
    pub sequences: u64,
    /// `[sequences, blocks_max]`, u32.
    pub block_tables: u64,
    /// [`partial_values`](crate::AttentionPlan::partial_values) f32; not used when that is 0.
    pub partials: u64,
    /// Query heads.
    pub heads: u32,
    /// Key/value heads.
    pub kv_heads: u32,
    /// Values of a head.
    pub head_dim: u32,
    /// Tokens of a block.
    pub block_tokens: u32,
    /// Length of a line of `block_tables`.
    pub blocks_max: u32,
    /// Tokens that a row sees at most; 0 for all.
    pub window: u32,
    /// As the plan says.
    pub tiles: u32,
    /// As the plan says.
    pub chunks: u32,
    /// Factor on the scores.
    pub scale: f32,
    /// `cap * tanh(score / cap)`; 0 for none.
    pub softcap: f32,
}
