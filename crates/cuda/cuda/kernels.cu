// The kernels of the decoder that candle does not have: row operations of the same meaning as the
// CPU's, and attention over the paged KV cache in the CPU's own layout. Their arguments are one
// struct each, declared alike in src/arguments.rs; how many threads they want is in src/launch.rs.
#include "device.cuh"

struct NormArguments {
    float *out;
    const float *x;
    const float *weight;
    u32 width;
    float eps;
};

struct GateArguments {
    float *out;
    const float *gate;
    const float *up;
    u64 values;
};

struct RopeArguments {
    float *out;
    const float *x;
    const u32 *positions;
    const float *cos;
    const float *sin;
    u32 heads;
    u32 head_dim;
    u32 pairs;
    u32 halves;
};

struct WriteArguments {
    void *cache;
    const float *rows;
    const u32 *slots;
    u32 kv_heads;
    u32 head_dim;
    u32 block_tokens;
    u32 is_keys;
};

struct AttentionArguments {
    float *out;
    const float *query;
    const void *keys;
    const void *values;
    const u32 *positions;
    const u32 *sequences;
    const u32 *block_tables;
    float *partials;
    u32 heads;
    u32 kv_heads;
    u32 head_dim;
    u32 block_tokens;
    u32 blocks_max;
    u32 window; // 0 = none
    u32 tiles;  // of query heads, for each key/value head
    u32 chunks; // of the longest context
    float scale;
    float softcap; // 0 = none
};

// One block of threads a row.
extern "C" __global__ void rms_norm(NormArguments a) {
    __shared__ float sums[8];
    const float *x = a.x + (u64)blockIdx.x * a.width;
    float *out = a.out + (u64)blockIdx.x * a.width;
    float sum = 0.0f;
    for (u32 i = threadIdx.x; i < a.width; i += blockDim.x) sum += x[i] * x[i];
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
    sync_block();
    float total = 0.0f;
    for (u32 warp = 0; warp < blockDim.x / 32; warp++) total += sums[warp];
    float scale = 1.0f / sqrtf(total / (float)a.width + a.eps);
    for (u32 i = threadIdx.x; i < a.width; i += blockDim.x) out[i] = x[i] * scale * a.weight[i];
}

// silu(gate) * up
extern "C" __global__ void silu_mul(GateArguments a) {
    u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= a.values) return;
    float gate = a.gate[i];
    a.out[i] = gate / (1.0f + expf(-gate)) * a.up[i];
}

// gelu(gate) * up, in the tanh form
extern "C" __global__ void gelu_mul(GateArguments a) {
    u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= a.values) return;
    float x = a.gate[i];
    float u = 0.7978845608028654f * (x + 0.044715f * x * x * x);
    a.out[i] = 0.5f * x * (1.0f + tanhf(u)) * a.up[i];
}

// One block of threads a row: all heads of it turn by the same angles.
extern "C" __global__ void rope(RopeArguments a) {
    u64 row = (u64)blockIdx.x * a.heads * a.head_dim;
    const float *cos = a.cos + (u64)a.positions[blockIdx.x] * a.pairs;
    const float *sin = a.sin + (u64)a.positions[blockIdx.x] * a.pairs;
    for (u32 i = threadIdx.x; i < a.heads * a.pairs; i += blockDim.x) {
        u32 head = i / a.pairs, pair = i % a.pairs;
        u64 first = row + (u64)head * a.head_dim + (a.halves ? pair : 2 * pair);
        u64 second = first + (a.halves ? a.pairs : 1);
        float x = a.x[first], y = a.x[second];
        a.out[first] = x * cos[pair] - y * sin[pair];
        a.out[second] = x * sin[pair] + y * cos[pair];
    }
    u32 rest = a.head_dim - 2 * a.pairs;
    for (u32 i = threadIdx.x; i < a.heads * rest; i += blockDim.x) {
        u64 at = row + (u64)(i / rest) * a.head_dim + 2 * a.pairs + i % rest;
        a.out[at] = a.x[at];
    }
}

// Keys lie as [block][kv head][dim][token], values as [block][kv head][token][dim].
template <typename T> __device__ void kv_write(const WriteArguments &a) {
    u32 slot = a.slots[blockIdx.x];
    u64 block = slot / a.block_tokens, token = slot % a.block_tokens;
    const float *row = a.rows + (u64)blockIdx.x * a.kv_heads * a.head_dim;
    T *cache = (T *)a.cache;
    for (u32 i = threadIdx.x; i < a.kv_heads * a.head_dim; i += blockDim.x) {
        u32 head = i / a.head_dim, dim = i % a.head_dim;
        u64 run = (block * a.kv_heads + head) * a.head_dim * a.block_tokens;
        u64 at = a.is_keys ? run + (u64)dim * a.block_tokens + token : run + token * a.head_dim + dim;
        store(cache + at, row[i]);
    }
}
extern "C" __global__ void kv_write_f32(WriteArguments a) { kv_write<float>(a); }
extern "C" __global__ void kv_write_f16(WriteArguments a) { kv_write<u16>(a); }

// Tokens that one block of threads attends to; a longer context is divided at multiples of it and
// merged, whatever else is in the step, so that the batch does not change a row's result.
#define CHUNK_TOKENS 256u
#define WARPS 4u
#define NOTHING (-INFINITY)

// Attention of one row: the GROUP query heads of a tile share what is read of their key/value head.
// A warp takes 32 tokens at a time: for the scores a lane is a token, for the weighted sum of the
// values a lane is LANES dimensions. (Online softmax: Milakov and Gimelshein 2018; the division of
// long contexts: Dao et al. 2023, "Flash-Decoding for long-context inference".)
template <typename T, int LANES, int GROUP> __device__ void attend(const AttentionArguments &a) {
    constexpr u32 WIDTH = LANES * 32;
    __shared__ float query[GROUP * WIDTH];
    __shared__ float weights[WARPS][GROUP][32];
    __shared__ float sums[WARPS][GROUP * WIDTH];
    __shared__ float maxima[WARPS][GROUP], totals[WARPS][GROUP];

    u32 row = blockIdx.x, chunk = blockIdx.z;
    u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    u32 group = a.heads / a.kv_heads;
    u32 kv_head = blockIdx.y / a.tiles, first = blockIdx.y % a.tiles * GROUP;
    u32 here = group - first < GROUP ? group - first : GROUP;
    u64 head = (u64)row * a.heads + kv_head * group + first;

    u32 end = a.positions[row] + 1;
    u32 begin = a.window && end > a.window ? end - a.window : 0;
    u32 low = chunk * CHUNK_TOKENS > begin ? chunk * CHUNK_TOKENS : begin;
    u32 high = (chunk + 1) * CHUNK_TOKENS < end ? (chunk + 1) * CHUNK_TOKENS : end;

    for (u32 i = threadIdx.x; i < GROUP * WIDTH; i += blockDim.x) {
        u32 of = i / WIDTH, dim = i % WIDTH;
        bool is_there = of < here && dim < a.head_dim;
        query[i] = is_there ? a.query[(head + of) * a.head_dim + dim] : 0.0f;
    }
    sync_block();

    float best[GROUP], total[GROUP], sum[GROUP][LANES];
    for (int g = 0; g < GROUP; g++) {
        best[g] = NOTHING;
        total[g] = 0.0f;
        for (int j = 0; j < LANES; j++) sum[g][j] = 0.0f;
    }
    const u32 *table = a.block_tables + (u64)a.sequences[row] * a.blocks_max;
    for (u32 start = (low / 32 + warp) * 32; start < high; start += WARPS * 32) {
        u64 run = ((u64)table[start / a.block_tokens] * a.kv_heads + kv_head) * a.head_dim * a.block_tokens;
        u32 offset = start % a.block_tokens, token = start + lane;
        const T *keys = (const T *)a.keys + run + offset + lane;
        float score[GROUP];
        for (int g = 0; g < GROUP; g++) score[g] = 0.0f;
#pragma unroll 8
        for (u32 dim = 0; dim < a.head_dim; dim++) {
            float key = load(keys + (u64)dim * a.block_tokens);
            for (int g = 0; g < GROUP; g++) score[g] += query[g * WIDTH + dim] * key;
        }
        bool is_seen = token >= low && token < high;
        for (int g = 0; g < GROUP; g++) {
            float s = score[g] * a.scale;
            if (a.softcap > 0.0f) s = a.softcap * tanhf(s / a.softcap);
            float newest = fmaxf(best[g], warp_max(is_seen ? s : NOTHING));
            float weight = is_seen ? expf(s - newest) : 0.0f;
            float shrink = expf(best[g] - newest); // of what came before; 0 the first time
            best[g] = newest;
            total[g] = total[g] * shrink + warp_sum(weight);
            weights[warp][g][lane] = weight;
            for (int j = 0; j < LANES; j++) sum[g][j] *= shrink;
        }
        sync_warp();
        // Cells outside are never read: they may hold anything.
        u32 from = start > low ? 0 : low - start, to = high - start < 32 ? high - start : 32;
        const T *values = (const T *)a.values + run + (u64)offset * a.head_dim;
        for (u32 t = from; t < to; t++) {
            for (int j = 0; j < LANES; j++) {
                u32 dim = j * 32 + lane;
                float value = dim < a.head_dim ? load(values + (u64)t * a.head_dim + dim) : 0.0f;
                for (int g = 0; g < GROUP; g++) sum[g][j] += weights[warp][g][t] * value;
            }
        }
        sync_warp();
    }
    for (int g = 0; g < GROUP; g++) {
        if (lane == 0) {
            maxima[warp][g] = best[g];
            totals[warp][g] = total[g];
        }
        for (int j = 0; j < LANES; j++) sums[warp][g * WIDTH + j * 32 + lane] = sum[g][j];
    }
    sync_block();

    for (u32 i = threadIdx.x; i < here * WIDTH; i += blockDim.x) {
        u32 g = i / WIDTH, dim = i % WIDTH;
        if (dim >= a.head_dim) continue;
        float max = NOTHING, all = 0.0f, value = 0.0f;
        for (u32 w = 0; w < WARPS; w++) max = fmaxf(max, maxima[w][g]);
        for (u32 w = 0; w < WARPS; w++) {
            if (maxima[w][g] == NOTHING) continue;
            float share = expf(maxima[w][g] - max);
            all += totals[w][g] * share;
            value += sums[w][i] * share;
        }
        if (a.chunks == 1) {
            a.out[(head + g) * a.head_dim + dim] = value / all;
            continue;
        }
        float *partial = a.partials + ((head + g) * a.chunks + chunk) * (a.head_dim + 2);
        partial[dim] = value;
        if (dim == 0) {
            partial[a.head_dim] = max;
            partial[a.head_dim + 1] = all;
        }
    }
}

// Merges the chunks of one row and head.
extern "C" __global__ void attention_merge(AttentionArguments a) {
    u64 head = (u64)blockIdx.x * a.heads + blockIdx.y;
    const float *partials = a.partials + head * a.chunks * (a.head_dim + 2);
    float max = NOTHING;
    for (u32 c = 0; c < a.chunks; c++) max = fmaxf(max, partials[c * (a.head_dim + 2) + a.head_dim]);
    for (u32 dim = threadIdx.x; dim < a.head_dim; dim += blockDim.x) {
        float all = 0.0f, value = 0.0f;
        for (u32 c = 0; c < a.chunks; c++) {
            const float *partial = partials + c * (a.head_dim + 2);
            if (partial[a.head_dim] == NOTHING) continue; // past the row, or before its window
            float share = expf(partial[a.head_dim] - max);
            all += partial[a.head_dim + 1] * share;
            value += partial[dim] * share;
        }
        a.out[head * a.head_dim + dim] = value / all;
    }
}

// attention_{type}_w{head dimension at most}_g{query heads at most}
#define ATTENTION(NAME, TYPE, LANES, GROUP)                                                            \
    extern "C" __global__ void NAME(AttentionArguments a) { attend<TYPE, LANES, GROUP>(a); }
#define ATTENTION_GROUPS(NAME, TYPE, LANES)                                                            \
    ATTENTION(NAME##_g1, TYPE, LANES, 1)                                                               \
    ATTENTION(NAME##_g2, TYPE, LANES, 2)                                                               \
    ATTENTION(NAME##_g4, TYPE, LANES, 4)                                                               \
    ATTENTION(NAME##_g8, TYPE, LANES, 8)
#define ATTENTION_WIDTHS(NAME, TYPE)                                                                   \
    ATTENTION_GROUPS(NAME##_w64, TYPE, 2)                                                              \
    ATTENTION_GROUPS(NAME##_w128, TYPE, 4)                                                             \
    ATTENTION_GROUPS(NAME##_w256, TYPE, 8)
ATTENTION_WIDTHS(attention_f32, float)
ATTENTION_WIDTHS(attention_f16, u16)
