//! Attention over a paged cache.

use std::num::NonZeroUsize;

use aisemble_kernels::{AttentionRows, AttentionShape, KvElement, KvShape, Pool, reference};
use half::f16;
use proptest::prelude::*;

use crate::samples::{Source, assert_close, pools};

/// Rows of several sequences over a shuffled block table, with the cache that they need.
struct Scene<T> {
    shape: AttentionShape,
    query: Vec<f32>,
    sequences: Vec<u32>,
    positions: Vec<u32>,
    tables: Vec<u32>,
    blocks_max: usize,
    keys: Vec<T>,
    values: Vec<T>,
}

/// What a scene is made of: `(first position, rows)` of each sequence.
#[derive(Debug, Clone)]
struct Recipe {
    chunks: Vec<(u32, u32)>,
    block_tokens: usize,
    kv_heads: usize,
    group: usize,
    head_dim: usize,
    window: Option<usize>,
    softcap: Option<f32>,
    seed: u64,
}

fn recipe() -> impl Strategy<Value = Recipe> {
    (
        proptest::collection::vec((0u32..600, 1u32..12), 1..4),
        proptest::sample::select(vec![16usize, 32]),
        1usize..4,
        proptest::sample::select(vec![1usize, 2, 3, 5, 8, 30]),
        proptest::sample::select(vec![16usize, 64, 80]),
        proptest::option::of(1usize..400),
        proptest::option::of(5.0f32..50.0),
        any::<u64>(),
    )
        .prop_map(
            |(chunks, block_tokens, kv_heads, group, head_dim, window, softcap, seed)| Recipe {
                chunks,
                block_tokens,
                kv_heads,
                group,
                head_dim,
                window,
                softcap,
                seed,
            },
        )
}

impl<T: KvElement> Scene<T> {
    fn new(recipe: &Recipe) -> Self {
        let mut source = Source(recipe.seed);
        let block_tokens = recipe.block_tokens;
        let needed = |&(first, rows): &(u32, u32)| (first + rows) as usize;
        let longest = recipe.chunks.iter().map(needed).max().unwrap();
        let blocks_max = longest.div_ceil(block_tokens);
        let blocks = blocks_max * recipe.chunks.len() + 1;
        let (kv_heads, head_dim) = (recipe.kv_heads, recipe.head_dim);
        let kv = KvShape { blocks, block_tokens, kv_heads, head_dim };
        let heads = recipe.kv_heads * recipe.group;
        let window = recipe.window.and_then(NonZeroUsize::new);
        let scale = 1.0 / (head_dim as f32).sqrt();
        let shape = AttentionShape { kv, heads, scale, window, softcap: recipe.softcap };
        let mut free: Vec<u32> = (0..blocks as u32).collect();
        for index in (1..free.len()).rev() {
            free.swap(index, source.next() as usize % (index + 1));
        }
        // Unused entries and unused slots must never be read: bad numbers and NaN.
        let mut tables = vec![u32::MAX; recipe.chunks.len() * blocks_max];
        let mut keys = vec![T::from_f32(f32::NAN); kv.values()];
        let mut values = keys.clone();
        let (mut sequences, mut positions) = (Vec::new(), Vec::new());
        for (sequence, &(first, rows)) in recipe.chunks.iter().enumerate() {
            let tokens = (first + rows) as usize;
            for entry in &mut tables[sequence * blocks_max..][..tokens.div_ceil(block_tokens)] {
                *entry = free.pop().unwrap();
            }
            let slots: Vec<u32> = (0..tokens)
                .map(|t| {
                    let block = tables[sequence * blocks_max + t / block_tokens];
                    block * block_tokens as u32 + (t % block_tokens) as u32
                })
                .collect();
            kv.write_keys(&mut keys, &source.floats(tokens * kv_heads * head_dim), &slots);
            kv.write_values(&mut values, &source.floats(tokens * kv_heads * head_dim), &slots);
            for row in 0..rows {
                sequences.push(sequence as u32);
                positions.push(first + row);
            }
        }
        let query = source.floats(positions.len() * heads * head_dim);
        Self { shape, query, sequences, positions, tables, blocks_max, keys, values }
    }

    fn rows(&self) -> AttentionRows<'_> {
        AttentionRows {
            query: &self.query,
            sequences: &self.sequences,
            positions: &self.positions,
            block_tables: &self.tables,
            blocks_max: self.blocks_max,
        }
    }

    fn run(&self, pool: &Pool) -> Vec<f32> {
        let mut out = vec![f32::NAN; self.query.len()];
        pool.paged_attention(&self.shape, &self.rows(), (&self.keys, &self.values), &mut out);
        out
    }

    fn check(&self) {
        let width = self.shape.heads * self.shape.kv.head_dim;
        let rows = self.rows();
        let expected: Vec<f32> = (0..self.positions.len() * self.shape.heads)
            .flat_map(|index| {
                let at = (index / self.shape.heads, index % self.shape.heads);
                reference::attention_row(&self.shape, &rows, (&self.keys, &self.values), at)
            })
            .collect();
        for pool in pools() {
            let what = format!("{:?} {} threads", pool.cpu(), pool.threads());
            let all = self.run(pool);
            assert_close(&all, &expected, 2e-5, &what);
            // A row alone gives the same to the last bit.
            for row in [0, self.positions.len() / 2, self.positions.len() - 1] {
                let alone = AttentionRows {
                    query: &self.query[row * width..][..width],
                    sequences: &self.sequences[row..=row],
                    positions: &self.positions[row..=row],
                    ..rows
                };
                let mut out = vec![0.0; width];
                let cache = (&self.keys[..], &self.values[..]);
                pool.paged_attention(&self.shape, &alone, cache, &mut out);
                assert_eq!(out, all[row * width..][..width], "{what}: row {row}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn attention_agrees_with_the_reference_f32(recipe in recipe()) {
        Scene::<f32>::new(&recipe).check();
    }

    #[test]
    fn attention_agrees_with_the_reference_f16(recipe in recipe()) {
        Scene::<f16>::new(&recipe).check();
    }
}

#[test]
fn the_number_of_threads_does_not_change_a_bit_of_a_long_context() {
    let recipe = Recipe {
        chunks: vec![(2100, 1)],
        block_tokens: 16,
        kv_heads: 3,
        group: 3,
        head_dim: 64,
        window: None,
        softcap: None,
        seed: 7,
    };
    let scene = Scene::<f16>::new(&recipe);
    for pools in pools().chunks(3) {
        let one = scene.run(&pools[0]);
        assert!(pools.iter().all(|pool| scene.run(pool) == one));
    }
}

#[test]
fn no_rows_are_nothing_to_do() {
    let recipe = Recipe {
        chunks: vec![(0, 1)],
        block_tokens: 16,
        kv_heads: 1,
        group: 1,
        head_dim: 16,
        window: None,
        softcap: None,
        seed: 1,
    };
    let scene = Scene::<f32>::new(&recipe);
    let rows = AttentionRows { query: &[], sequences: &[], positions: &[], ..scene.rows() };
    for pool in pools() {
        pool.paged_attention(&scene.shape, &rows, (&scene.keys, &scene.values), &mut []);
    }
}
