//! Each operation against the same thing said in plain candle operations, over many shapes.

use std::sync::Arc;

use aisemble_kernels::{AttentionShape, KvShape, Pool, RopeConfig, RopeStyle, RopeTable};
use candle_core::{D, DType, Device, Result, Tensor};
use proptest::prelude::*;

use super::*;

fn random(dims: &[usize], seed: u64) -> Tensor {
    // A small generator of our own: candle's is one for the whole process.
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let values: Vec<f32> = (0..dims.iter().product())
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect();
    Tensor::from_vec(values, dims, &Device::Cpu).unwrap()
}

#[track_caller]
fn close(found: &Tensor, expected: &Tensor, tolerance: f32) {
    assert_eq!(found.dims(), expected.dims());
    let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    for (index, (found, expected)) in values(found).iter().zip(values(expected)).enumerate() {
        let allowed = tolerance * expected.abs().max(1.0);
        assert!((found - expected).abs() <= allowed, "[{index}] {found} and {expected}");
    }
}

fn plain_rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    let scale = (x.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?;
    x.broadcast_div(&scale)?.broadcast_mul(weight)
}

fn plain_silu_mul(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    gate.silu()? * up
}

/// Rotates with cosines and sines computed in double precision.
fn plain_rope(x: &Tensor, positions: &[u32], config: &RopeConfig) -> Result<Tensor> {
    let mut rows = x.to_vec3::<f32>()?;
    let half = config.rotary_dim / 2;
    for (row, &position) in rows.iter_mut().zip(positions) {
        for head in row {
            for pair in 0..half {
                let exponent = -2.0 * pair as f64 / config.rotary_dim as f64;
                let angle = f64::from(position) * f64::from(config.base).powf(exponent)
                    / f64::from(config.linear_scale);
                let (a, b) = match config.style {
                    RopeStyle::Interleaved => (2 * pair, 2 * pair + 1),
                    RopeStyle::Halves => (pair, pair + half),
                };
                let (x, y) = (f64::from(head[a]), f64::from(head[b]));
                head[a] = (x * angle.cos() - y * angle.sin()) as f32;
                head[b] = (x * angle.sin() + y * angle.cos()) as f32;
            }
        }
    }
    let dims = x.dims().to_vec();
    let flat: Vec<f32> = rows.into_iter().flatten().flatten().collect();
    Tensor::from_vec(flat, dims, &Device::Cpu)
}

/// Attention of the last `query` rows of one sequence over all its keys and values,
/// `[tokens, kv_heads, head_dim]`.
fn plain_attention(query: &Tensor, keys: &Tensor, values: &Tensor) -> Result<Tensor> {
    let (rows, heads, head_dim) = query.dims3()?;
    let (tokens, kv_heads, _) = keys.dims3()?;
    let mut outputs = Vec::new();
    for head in 0..heads {
        let of = |tensor: &Tensor| tensor.narrow(1, head / (heads / kv_heads), 1)?.squeeze(1);
        let query = query.narrow(1, head, 1)?.squeeze(1)?.contiguous()?;
        let scores = (query.matmul(&of(keys)?.t()?.contiguous()?)? / (head_dim as f64).sqrt())?;
        let mask: Vec<f32> = (0..rows * tokens)
            .map(|at| {
                let (row, token) = (at / tokens, at % tokens);
                if token > tokens - rows + row { f32::NEG_INFINITY } else { 0.0 }
            })
            .collect();
        let scores = (scores + Tensor::from_vec(mask, (rows, tokens), &Device::Cpu)?)?;
        let max = scores.max_keepdim(D::Minus1)?;
        let weights = scores.broadcast_sub(&max)?.exp()?;
        let weights = weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?;
        outputs.push(weights.matmul(&of(values)?.contiguous()?)?);
    }
    Tensor::stack(&outputs, 1)
}

#[derive(Debug, Clone)]
struct Sequence {
    tokens: usize,
    /// How many of them are rows of the last step; the others came before.
    rows: usize,
}

fn sequences() -> impl Strategy<Value = Vec<Sequence>> {
    let sequence = (1_usize..70)
        .prop_flat_map(|tokens| (Just(tokens), 1..=tokens))
        .prop_map(|(tokens, rows)| Sequence { tokens, rows });
    prop::collection::vec(sequence, 1..4)
}

/// Fills the cache in two steps, as a server does, and attends in the second.
fn attend(
    sequences: &[Sequence],
    (shape, dtype): (AttentionShape, DType),
    pool: &Arc<Pool>,
) -> (Tensor, Tensor) {
    let kv = shape.kv;
    // Blocks are dealt round robin from the end, so that no sequence has them in a row.
    let mut tables = vec![Vec::new(); sequences.len()];
    let mut free = (0..kv.blocks as u32).rev();
    for at in 0..5 {
        for (table, sequence) in tables.iter_mut().zip(sequences) {
            if at * kv.block_tokens < sequence.tokens {
                table.push(free.next().unwrap());
            }
        }
    }
    let tables: Vec<&[u32]> = tables.iter().map(Vec::as_slice).collect();
    let cache = KvCache::new(kv, dtype, &Device::Cpu).unwrap();
    let inputs: Vec<_> = (0..)
        .zip(sequences)
        .map(|(seed, sequence)| {
            let dims = [sequence.tokens, kv.kv_heads, kv.head_dim];
            let query = random(&[sequence.rows, shape.heads, kv.head_dim], seed + 300);
            (query, random(&dims, seed + 100), random(&dims, seed + 200))
        })
        .collect();
    let part = |which: fn(&Sequence) -> (usize, usize)| {
        let (mut positions, mut owners) = (Vec::new(), Vec::new());
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        for ((index, sequence), (_, k, v)) in (0..).zip(sequences).zip(&inputs) {
            let (begin, len) = which(sequence);
            if len > 0 {
                positions.extend((begin..begin + len).map(|at| at as u32));
                owners.extend(std::iter::repeat_n(index, len));
                keys.push(k.narrow(0, begin, len).unwrap());
                values.push(v.narrow(0, begin, len).unwrap());
            }
        }
        let step = Step::new(&positions, &owners, &tables, &kv).unwrap();
        if !keys.is_empty() {
            let (k, v) = (Tensor::cat(&keys, 0).unwrap(), Tensor::cat(&values, 0).unwrap());
            kv_write(&cache, &k, &v, &step).unwrap();
        }
        step
    };
    part(|sequence| (0, sequence.tokens - sequence.rows));
    let step = part(|sequence| (sequence.tokens - sequence.rows, sequence.rows));
    let queries: Vec<_> = inputs.iter().map(|(query, _, _)| query).collect();
    let query = Tensor::cat(&queries, 0).unwrap();
    let found = paged_attention(pool, &shape, &query, &cache, &step).unwrap();
    let plain: Vec<_> = inputs.iter().map(|(q, k, v)| plain_attention(q, k, v).unwrap()).collect();
    (found, Tensor::cat(&plain, 0).unwrap())
}

fn attention_shape(kv_heads: usize, groups: usize, head_dim: usize) -> AttentionShape {
    let kv = KvShape { blocks: 16, block_tokens: 16, kv_heads, head_dim };
    let scale = 1.0 / (head_dim as f32).sqrt();
    AttentionShape { kv, heads: kv_heads * groups, scale, window: None, softcap: None }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn rms_norm_is_what_it_says(rows in 0_usize..5, width in 1_usize..200, seed in 0_u64..99) {
        let (x, weight) = (random(&[rows, width], seed), random(&[width], seed.wrapping_add(1)));
        let plain = plain_rms_norm(&x, &weight, 1e-5).unwrap();
        close(&rms_norm(&x, &weight, 1e-5).unwrap(), &plain, 1e-5);
        // A view that does not begin at the beginning.
        if rows > 1 {
            let rest = |tensor: &Tensor| tensor.narrow(0, 1, rows - 1).unwrap();
            close(&rms_norm(&rest(&x), &weight, 1e-5).unwrap(), &rest(&plain), 1e-5);
        }
    }

    #[test]
    fn silu_mul_is_what_it_says(rows in 0_usize..5, width in 1_usize..200, seed in 0_u64..99) {
        let gate = random(&[rows, width], seed);
        let up = random(&[rows, width], seed.wrapping_add(1));
        let plain = plain_silu_mul(&gate, &up).unwrap();
        close(&silu_mul(&gate, &up).unwrap(), &plain, 1e-5);
    }

    #[test]
    fn gelu_mul_and_a_row_added_to_each_are_what_they_say(
        rows in 0_usize..5,
        width in 1_usize..70,
        seed in any::<u64>(),
    ) {
        let gate = random(&[rows, width], seed);
        let up = random(&[rows, width], seed.wrapping_add(1));
        close(&gelu_mul(&gate, &up).unwrap(), &(gate.gelu().unwrap() * &up).unwrap(), 1e-5);
        let bias = random(&[width], seed.wrapping_add(2));
        close(&add_rows(&gate, &bias).unwrap(), &gate.broadcast_add(&bias).unwrap(), 1e-6);
        prop_assert!(add_rows(&gate, &random(&[width + 1], seed)).is_err());
    }

    #[test]
    fn rope_is_what_it_says(
        positions in prop::collection::vec(0_u32..500, 0..6),
        heads in 1_usize..4,
        pairs in 1_usize..33,
        rest in 0_usize..3,
        halves in any::<bool>(),
        linear_scale in prop::sample::select(vec![1.0_f32, 4.0]),
    ) {
        let style = if halves { RopeStyle::Halves } else { RopeStyle::Interleaved };
        let config = RopeConfig {
            style,
            rotary_dim: 2 * pairs,
            base: 10_000.0,
            linear_scale,
            frequency_factors: Vec::new(),
            positions: 500,
        };
        let x = random(&[positions.len(), heads, 2 * pairs + 2 * rest], 5);
        let plain = plain_rope(&x, &positions, &config).unwrap();
        let table = Arc::new(RopeTable::new(&config));
        close(&rope(&x, &positions.into(), &table).unwrap(), &plain, 2e-4);
    }

    #[test]
    fn paged_attention_is_what_it_says(
        sequences in sequences(),
        kv_heads in 1_usize..3,
        groups in 1_usize..4,
        wide in any::<bool>(),
        threads in 1_usize..3,
    ) {
        let pool = Arc::new(Pool::new(Some(threads)).unwrap());
        let shape = attention_shape(kv_heads, groups, if wide { 64 } else { 16 });
        let (found, plain) = attend(&sequences, (shape, DType::F32), &pool);
        close(&found, &plain, 1e-4);
        let (found, plain) = attend(&sequences, (shape, DType::F16), &pool);
        close(&found, &plain, 4e-3);
    }
}

#[test]
fn wrong_shapes_are_errors_not_panics() {
    let pool = Arc::new(Pool::new(Some(1)).unwrap());
    let (x, y) = (random(&[2, 32], 1), random(&[2, 16], 2));
    assert!(rms_norm(&x, &random(&[16], 3), 1e-5).is_err());
    assert!(rms_norm(&x, &x, 1e-5).is_err());
    assert!(rms_norm(&x.to_dtype(DType::F16).unwrap(), &random(&[32], 3), 1e-5).is_err());
    assert!(silu_mul(&x, &y).is_err());
    assert!(gelu_mul(&x, &y).is_err());
    let shape = attention_shape(1, 2, 16);
    let cache = KvCache::new(shape.kv, DType::F32, &Device::Cpu).unwrap();
    let step = Step::new(&[0, 1], &[0, 0], &[&[3]], &shape.kv).unwrap();
    assert_eq!(step.slots(), [48, 49]);
    let rows = random(&[2, 1, 16], 4);
    assert!(kv_write(&cache, &rows, &rows, &step).is_ok());
    assert!(kv_write(&cache, &random(&[1, 1, 16], 4), &rows, &step).is_err());
    assert!(kv_write(&cache, &x, &x, &step).is_err());
    assert!(paged_attention(&pool, &shape, &random(&[2, 2, 16], 5), &cache, &step).is_ok());
    assert!(paged_attention(&pool, &shape, &random(&[1, 2, 16], 5), &cache, &step).is_err());
    assert!(paged_attention(&pool, &shape, &random(&[2, 1, 16], 5), &cache, &step).is_err());
    let other = attention_shape(2, 1, 16);
    assert!(paged_attention(&pool, &other, &random(&[2, 2, 16], 5), &cache, &step).is_err());
    let larger = KvShape { blocks: 1_000, ..shape.kv };
    let step = Step::new(&[0, 1], &[0, 0], &[&[999]], &larger).unwrap();
    assert!(kv_write(&cache, &rows, &rows, &step).is_err());
    assert!(paged_attention(&pool, &shape, &random(&[2, 2, 16], 5), &cache, &step).is_err());
}

#[test]
fn a_step_has_a_block_for_each_row() {
    let kv = attention_shape(1, 1, 16).kv;
    assert!(Step::new(&[0], &[0], &[&[0]], &kv).is_ok());
    assert!(Step::new(&[0], &[0, 0], &[&[0]], &kv).is_err());
    assert!(Step::new(&[16], &[0], &[&[0]], &kv).is_err());
    assert!(Step::new(&[0], &[1], &[&[0]], &kv).is_err());
    assert!(Step::new(&[0], &[0], &[&[16]], &kv).is_err());
    assert_eq!(Step::new(&[], &[], &[], &kv).unwrap().rows(), 0);
}

#[test]
fn a_cache_has_whole_steps_of_f32_or_f16() {
    let kv = attention_shape(1, 1, 16).kv;
    assert!(KvCache::new(KvShape { head_dim: 8, ..kv }, DType::F32, &Device::Cpu).is_err());
    assert!(KvCache::new(KvShape { blocks: 0, ..kv }, DType::F32, &Device::Cpu).is_err());
    assert!(KvCache::new(KvShape { blocks: usize::MAX, ..kv }, DType::F32, &Device::Cpu).is_err());
    assert!(KvCache::new(kv, DType::U8, &Device::Cpu).is_err());
}
