//! One call of attention: which rows go together, which parts of long contexts are computed
//! apart, and how the parts are merged. The arithmetic of a part is in `simd::attention`.
//!
//! A context is always divided at multiples of [`CHUNK_TOKENS`] and its parts are merged in order,
//! whether one thread computes them one after the other or several at once: the result is the
//! same to the last bit.
#![expect(unsafe_code, reason = "calls the attention kernel; writes disjoint parts of the result")]

use std::cell::RefCell;
use std::ops::Range;

use super::{AttentionRows, AttentionShape};
use crate::cpu::Cpu;
use crate::disjoint::Disjoint;
use crate::kv::KvElement;
use crate::pool::Pool;
use crate::simd::attention::{CHUNK_TOKENS, Chunk, Partial, RUN, attend};

/// Query vectors of a tile, where heads allow: enough to share the reading of keys and values.
const TILE_VECTORS: usize = 24;
/// Multiply-adds that one thread does faster than waking another.
pub(super) const ALONE_WORK_MAX: usize = 128 * 1024;

/// Adjacent rows of one sequence with consecutive positions.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowTile {
    first: usize,
    rows: usize,
}

/// How a call is divided.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) tiles: Vec<RowTile>,
    /// Whether the chunks of a context are computed apart.
    pub(super) splits: bool,
    /// Multiply-adds in all.
    pub(super) work: usize,
    /// Chunks of the longest context.
    chunks_max: usize,
    /// Query heads for each key/value head.
    group: usize,
    /// Query vectors of the largest tile.
    vectors_max: usize,
}

impl Plan {
    pub(super) fn new(shape: &AttentionShape, rows: &AttentionRows<'_>, threads: usize) -> Self {
        let group = shape.heads / shape.kv.kv_heads;
        let tile_rows = (TILE_VECTORS / group).max(1);
        let mut tiles: Vec<RowTile> = Vec::new();
        for row in 0..rows.positions.len() {
            let joins = tiles.last().is_some_and(|tile| {
                tile.rows < tile_rows
                    && rows.sequences[row] == rows.sequences[row - 1]
                    && rows.positions[row - 1].checked_add(1) == Some(rows.positions[row])
            });
            match tiles.last_mut() {
                Some(tile) if joins => tile.rows += 1,
                _ => tiles.push(RowTile { first: row, rows: 1 }),
            }
        }
        let tokens = rows.positions.iter().map(|position| *position as usize + 1);
        let chunks_max = tokens.clone().max().unwrap_or(0).div_ceil(CHUNK_TOKENS);
        let seen = tokens.map(|tokens| shape.window.map_or(tokens, |w| tokens.min(w.get())));
        let work = seen.sum::<usize>() * shape.heads * shape.kv.head_dim * 2;
        let vectors_max = tiles.iter().map(|tile| tile.rows).max().unwrap_or(0) * group;
        let few = tiles.len() * shape.kv.kv_heads < 4 * threads;
        let splits = threads > 1 && few && chunks_max > 1 && work > ALONE_WORK_MAX;
        Self { tiles, splits, work, chunks_max, group, vectors_max }
    }

    /// Tiles times key/value heads.
    pub(super) fn items(&self, shape: &AttentionShape) -> usize {
        self.tiles.len() * shape.kv.kv_heads
    }

    fn item(&self, shape: &AttentionShape, index: usize) -> Item {
        let tile = self.tiles[index / shape.kv.kv_heads];
        let kv_head = index % shape.kv.kv_heads;
        Item { tile, kv_head, group: self.group, vectors: tile.rows * self.group }
    }
}

/// One tile and one key/value head.
#[derive(Debug, Clone, Copy)]
struct Item {
    tile: RowTile,
    kv_head: usize,
    group: usize,
    /// Query vectors: rows x heads of the group.
    vectors: usize,
}

impl Item {
    /// Row and query head of a vector.
    fn place(self, vector: usize) -> (usize, usize) {
        let head = self.kv_head * self.group + vector % self.group;
        (self.tile.first + vector / self.group, head)
    }
}

/// The inputs of a call.
#[derive(Debug)]
pub(super) struct Step<'a, T> {
    pub(super) cpu: Cpu,
    pub(super) shape: &'a AttentionShape,
    pub(super) rows: &'a AttentionRows<'a>,
    pub(super) keys: &'a [T],
    pub(super) values: &'a [T],
}

/// What one thread needs for one tile and key/value head; kept from call to call.
#[derive(Debug, Default)]
struct Workspace {
    query: Vec<f32>,
    scores: Vec<f32>,
    state: Vec<f32>,
    partial: Vec<f32>,
    seen: Vec<Range<usize>>,
}

thread_local! {
    static WORKSPACE: RefCell<Workspace> = RefCell::new(Workspace::default());
}

/// Merged or partial results of a tile in one slice: sums `[vectors][head_dim]`, then the largest
/// scores `[vectors]`, then the sums of the weights `[vectors]`.
const fn state_len(vectors: usize, head_dim: usize) -> usize {
    vectors * (head_dim + 2)
}

impl<T: KvElement> Step<'_, T> {
    /// All chunks of one tile and key/value head, into the result.
    pub(super) fn run_whole(&self, plan: &Plan, item: usize, out: Disjoint<'_>) {
        let item = plan.item(self.shape, item);
        let len = state_len(item.vectors, self.shape.kv.head_dim);
        WORKSPACE.with_borrow_mut(|space| {
            self.arrange_query(item, &mut space.query);
            let mut state = std::mem::take(&mut space.state);
            let mut partial = std::mem::take(&mut space.partial);
            state.resize(state.len().max(len), 0.0);
            partial.resize(partial.len().max(len), 0.0);
            let chunks = self.chunks(item.tile);
            for chunk in chunks.clone() {
                let into = if chunk == chunks.start { &mut state } else { &mut partial };
                self.run_chunk(item, chunk, space, &mut into[..len]);
                if chunk > chunks.start {
                    merge(&mut state[..len], &partial[..len], item.vectors);
                }
            }
            self.finish(item, &state[..len], out);
            space.state = state;
            space.partial = partial;
        });
    }

    /// The chunks of every tile and key/value head apart, then their merging.
    pub(super) fn run_split(
        &self,
        pool: &Pool,
        plan: &Plan,
        partials: &mut Vec<f32>,
        out: Disjoint<'_>,
    ) {
        let items = plan.items(self.shape);
        let width = state_len(plan.vectors_max, self.shape.kv.head_dim);
        let needed = items * plan.chunks_max * width;
        partials.resize(partials.len().max(needed), 0.0);
        let parts = Disjoint::new(partials);
        pool.for_chunks(items * plan.chunks_max, 1, &|range| {
            for index in range {
                let (item, chunk) = (index / plan.chunks_max, index % plan.chunks_max);
                let item = plan.item(self.shape, item);
                if !self.chunks(item.tile).contains(&chunk) {
                    continue;
                }
                let len = state_len(item.vectors, self.shape.kv.head_dim);
                // SAFETY: each index has its own `width` values, and is visited once.
                let partial = unsafe { parts.part(index * width, len) };
                WORKSPACE.with_borrow_mut(|space| {
                    self.arrange_query(item, &mut space.query);
                    self.run_chunk(item, chunk, space, partial);
                });
            }
        });
        for index in 0..items {
            let item = plan.item(self.shape, index);
            let chunks = self.chunks(item.tile);
            let len = state_len(item.vectors, self.shape.kv.head_dim);
            let at = |chunk: usize| (index * plan.chunks_max + chunk) * width;
            let (head, tail) = partials.split_at_mut(at(chunks.start) + len);
            let state = &mut head[at(chunks.start)..];
            for chunk in chunks.start + 1..chunks.end {
                let next = &tail[at(chunk) - at(chunks.start) - len..][..len];
                merge(state, next, item.vectors);
            }
            self.finish(item, state, out);
        }
    }

    /// Tokens that row `row` sees.
    fn seen(&self, row: usize) -> Range<usize> {
        let end = self.rows.positions[row] as usize + 1;
        self.shape.window.map_or(0, |window| end.saturating_sub(window.get()))..end
    }

    /// Chunks that any row of the tile sees.
    fn chunks(&self, tile: RowTile) -> Range<usize> {
        let end = self.seen(tile.first + tile.rows - 1).end;
        self.seen(tile.first).start / CHUNK_TOKENS..end.div_ceil(CHUNK_TOKENS)
    }

    /// The item's queries, scaled, as `[head_dim][vectors]`.
    fn arrange_query(&self, item: Item, query: &mut Vec<f32>) {
        let dim = self.shape.kv.head_dim;
        query.resize(dim * item.vectors, 0.0);
        for vector in 0..item.vectors {
            let (row, head) = item.place(vector);
            let values = &self.rows.query[(row * self.shape.heads + head) * dim..][..dim];
            for (d, value) in values.iter().enumerate() {
                query[d * item.vectors + vector] = value * self.shape.scale;
            }
        }
    }

    /// One chunk of one item, into `partial` (see [`state_len`]).
    fn run_chunk(&self, item: Item, chunk: usize, space: &mut Workspace, partial: &mut [f32]) {
        let kv = self.shape.kv;
        let (tile, vectors, start) = (item.tile, item.vectors, chunk * CHUNK_TOKENS);
        let within = |seen: Range<usize>| {
            let clip = |token: usize| token.clamp(start, start + CHUNK_TOKENS) - start;
            clip(seen.start)..clip(seen.end)
        };
        space.seen.clear();
        for vector in 0..vectors {
            space.seen.push(within(self.seen(item.place(vector).0)));
        }
        let first = within(self.seen(tile.first)).start;
        let tokens = first..within(self.seen(tile.first + tile.rows - 1)).end;
        let mut keys = [std::ptr::null::<T>(); CHUNK_TOKENS / RUN];
        let mut values = keys;
        let sequence = self.rows.sequences[tile.first] as usize;
        let table = &self.rows.block_tables[sequence * self.rows.blocks_max..];
        for run in tokens.start / RUN..tokens.end.div_ceil(RUN) {
            let token = start + run * RUN;
            let block = table[token / kv.block_tokens] as usize;
            let slot = block * kv.block_tokens + token % kv.block_tokens;
            keys[run] = &raw const self.keys[kv.key_index(slot, item.kv_head, 0)];
            values[run] = &raw const self.values[kv.value_index(slot, item.kv_head, 0)];
        }
        space.scores.resize(space.scores.len().max(vectors * CHUNK_TOKENS), 0.0);
        let (out, rest) = partial.split_at_mut(vectors * kv.head_dim);
        let (largest, sum) = rest.split_at_mut(vectors);
        let job = Chunk {
            keys: &keys,
            values: &values,
            key_stride: kv.block_tokens,
            head_dim: kv.head_dim,
            query: &space.query,
            tokens,
            seen: &space.seen,
            softcap: self.shape.softcap,
        };
        let mut result = Partial { scores: &mut space.scores, out, largest, sum };
        // SAFETY: each run's pointers are the start of 16 tokens inside one block of the cache
        // (the table was checked), whose rows lie `block_tokens` and `head_dim` apart; the slices
        // have the lengths that `Chunk` states.
        unsafe { attend(self.cpu, &job, &mut result) };
    }

    /// Divides by the sums and writes the result.
    fn finish(&self, item: Item, state: &[f32], out: Disjoint<'_>) {
        let (dim, vectors) = (self.shape.kv.head_dim, item.vectors);
        let sums = &state[vectors * (dim + 1)..];
        for (vector, values) in state[..vectors * dim].chunks_exact(dim).enumerate() {
            let (row, head) = item.place(vector);
            // SAFETY: each (row, head) belongs to one tile and key/value head.
            let out = unsafe { out.part((row * self.shape.heads + head) * dim, dim) };
            for (out, value) in out.iter_mut().zip(values) {
                *out = value / sums[vector];
            }
        }
    }
}

/// Adds the results of the next chunk: both are brought to the larger of the two maxima.
fn merge(state: &mut [f32], next: &[f32], vectors: usize) {
    let dim = state.len() / vectors - 2;
    let (out, rest) = state.split_at_mut(vectors * dim);
    let (largest, sum) = rest.split_at_mut(vectors);
    let (next_out, next_rest) = next.split_at(vectors * dim);
    for vector in 0..vectors {
        let (next_largest, next_sum) = (next_rest[vector], next_rest[vectors + vector]);
        if next_largest == f32::NEG_INFINITY && next_sum == 0.0 {
            continue;
        }
        let top = largest[vector].max(next_largest);
        let old = if sum[vector] == 0.0 { 0.0 } else { (largest[vector] - top).exp() };
        let new = (next_largest - top).exp();
        let values = vector * dim..(vector + 1) * dim;
        for (out, next) in out[values.clone()].iter_mut().zip(&next_out[values]) {
            *out = *out * old + next * new;
        }
        sum[vector] = sum[vector] * old + next_sum * new;
        largest[vector] = top;
    }
}
