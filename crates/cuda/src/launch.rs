//! Which kernel, and how many threads of it.

/// Threads of a block, for operations on rows.
const ROW_THREADS: u32 = 256;
/// Threads of a block of attention: `WARPS` of `cuda/kernels.cu`.
const ATTENTION_THREADS: u32 = 4 * 32;
/// `CHUNK_TOKENS` of `cuda/kernels.cu`.
const CHUNK_TOKENS: u32 = 256;
/// Tokens that a warp takes at a time: a block of the cache must hold a multiple.
const WARP_TOKENS: u32 = 32;
/// The widest head that there is a kernel for.
const HEAD_DIM_MAX: u32 = 256;
/// Query heads that one block of threads takes.
const GROUP_MAX: u32 = 8;

/// One launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Launch {
    /// Name of the kernel.
    pub kernel: &'static str,
    /// Blocks of threads in each dimension; none is 0.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub threads: u32,
}

/// RMS norm of `rows` rows.
#[must_use]
pub fn rms_norm(rows: u32) -> Launch {
    Launch { kernel: "rms_norm", grid: [rows, 1, 1], threads: ROW_THREADS }
}

/// `silu(gate) * up` of so many values. `None` when that is more than a grid holds (5e11).
#[must_use]
pub fn silu_mul(values: u64) -> Option<Launch> {
    each_value("silu_mul", values)
}

/// `gelu(gate) * up`, likewise.
#[must_use]
pub fn gelu_mul(values: u64) -> Option<Launch> {
    each_value("gelu_mul", values)
}

fn each_value(kernel: &'static str, values: u64) -> Option<Launch> {
    let blocks = i32::try_from(values.div_ceil(ROW_THREADS.into())).ok()?;
    Some(Launch { kernel, grid: [blocks.unsigned_abs(), 1, 1], threads: ROW_THREADS })
}

/// Turning the heads of `rows` rows.
#[must_use]
pub fn rope(rows: u32) -> Launch {
    Launch { kernel: "rope", grid: [rows, 1, 1], threads: ROW_THREADS }
}

/// Writing `rows` rows into a cache of f16 or f32.
#[must_use]
pub fn kv_write(rows: u32, is_f16: bool) -> Launch {
    let kernel = if is_f16 { "kv_write_f16" } else { "kv_write_f32" };
    Launch { kernel, grid: [rows, 1, 1], threads: ROW_THREADS }
}

/// How a call of attention is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionPlan {
    /// Tiles of query heads for each key/value head.
    pub tiles: u32,
    /// Chunks of the longest context.
    pub chunks: u32,
    /// f32 values of the intermediate results; 0 when there is one chunk.
    pub partial_values: u64,
    /// The kernel that attends.
    pub attend: Launch,
    /// The kernel that merges the chunks, when there are several.
    pub merge: Option<Launch>,
}

impl AttentionPlan {
    /// For `rows` rows of `heads` query heads over `kv_heads` key/value heads of `head_dim` values,
    /// the longest context having `context_tokens`. `None` when there is no kernel for it: heads
    /// wider than 256, or blocks of the cache that are no multiple of 32 tokens.
    #[must_use]
    pub fn new(
        (rows, context_tokens): (u32, u32),
        (heads, kv_heads, head_dim): (u32, u32, u32),
        block_tokens: u32,
        is_f16: bool,
    ) -> Option<Self> {
        let fits = head_dim > 0 && head_dim <= HEAD_DIM_MAX && kv_heads > 0 && heads > 0;
        if !fits || !heads.is_multiple_of(kv_heads) || !block_tokens.is_multiple_of(WARP_TOKENS) {
            return None;
        }
        let group = heads / kv_heads;
        let together = group.next_power_of_two().min(GROUP_MAX);
        let tiles = group.div_ceil(together);
        let chunks = context_tokens.div_ceil(CHUNK_TOKENS).max(1);
        let kernel = attention_kernel(is_f16, head_dim, together);
        let grid = [rows, kv_heads * tiles, chunks];
        let partials = u64::from(rows) * u64::from(heads) * u64::from(chunks);
        Some(Self {
            tiles,
            chunks,
            partial_values: if chunks > 1 { partials * (u64::from(head_dim) + 2) } else { 0 },
            attend: Launch { kernel, grid, threads: ATTENTION_THREADS },
            merge: (chunks > 1).then_some(Launch {
                kernel: "attention_merge",
                grid: [rows, heads, 1],
                threads: ATTENTION_THREADS,
            }),
        })
    }
}

fn attention_kernel(is_f16: bool, head_dim: u32, together: u32) -> &'static str {
    let width = usize::from(head_dim > 64) + usize::from(head_dim > 128);
    let names = if is_f16 { &ATTENTION_F16 } else { &ATTENTION_F32 };
    names[width][together.ilog2() as usize]
}

/// By width (64, 128, 256) and by query heads together (1, 2, 4, 8).
type Names = [[&'static str; 4]; 3];

const ATTENTION_F32: Names = [
    [
        "attention_f32_w64_g1",
        "attention_f32_w64_g2",
        "attention_f32_w64_g4",
        "attention_f32_w64_g8",
    ],
    [
        "attention_f32_w128_g1",
        "attention_f32_w128_g2",
        "attention_f32_w128_g4",
        "attention_f32_w128_g8",
    ],
    [
        "attention_f32_w256_g1",
        "attention_f32_w256_g2",
        "attention_f32_w256_g4",
        "attention_f32_w256_g8",
    ],
];

const ATTENTION_F16: Names = [
    [
        "attention_f16_w64_g1",
        "attention_f16_w64_g2",
        "attention_f16_w64_g4",
        "attention_f16_w64_g8",
    ],
    [
        "attention_f16_w128_g1",
        "attention_f16_w128_g2",
        "attention_f16_w128_g4",
        "attention_f16_w128_g8",
    ],
    [
        "attention_f16_w256_g1",
        "attention_f16_w256_g2",
        "attention_f16_w256_g4",
        "attention_f16_w256_g8",
    ],
];

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(heads: (u32, u32, u32), context: u32) -> AttentionPlan {
        AttentionPlan::new((3, context), heads, 32, true).unwrap()
    }

    #[test]
    fn query_heads_of_one_key_head_go_together_up_to_eight() {
        let check = |heads, kernel: &str, tiles| {
            let plan = plan(heads, 10);
            assert_eq!((plan.attend.kernel, plan.tiles), (kernel, tiles), "{heads:?}");
        };
        check((9, 3, 64), "attention_f16_w64_g4", 1);
        check((32, 8, 128), "attention_f16_w128_g4", 1);
        check((14, 2, 64), "attention_f16_w64_g8", 1);
        check((32, 2, 80), "attention_f16_w128_g8", 2);
        check((4, 1, 256), "attention_f16_w256_g4", 1);
        check((8, 8, 16), "attention_f16_w64_g1", 1);
    }

    #[test]
    fn a_long_context_is_divided_and_merged() {
        let short = plan((8, 8, 64), 256);
        assert_eq!((short.chunks, short.partial_values, short.merge), (1, 0, None));
        let long = plan((8, 8, 64), 257);
        assert_eq!((long.chunks, long.partial_values), (2, 3 * 8 * 2 * 66));
        assert_eq!(long.merge.unwrap().grid, [3, 8, 1]);
    }

    #[test]
    fn what_there_is_no_kernel_for_is_refused() {
        let refused = |heads, block_tokens| AttentionPlan::new((1, 1), heads, block_tokens, true);
        assert_eq!(refused((8, 8, 272), 32), None);
        assert_eq!(refused((8, 3, 64), 32), None);
        assert_eq!(refused((8, 8, 64), 48), None);
        assert_eq!(refused((0, 0, 64), 32), None);
        assert_eq!(silu_mul(u64::MAX), None);
    }
}
