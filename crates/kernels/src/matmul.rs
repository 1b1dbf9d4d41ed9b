//! Products of activations with packed weights: shapes, checks and the partition of work. The
//! arithmetic is in `simd::matmul`.
#![expect(unsafe_code, reason = "calls the matrix kernel, which takes raw pointers")]

use std::ops::Range;
use std::sync::PoisonError;

use crate::activations::{Activations, Group, groups};
use crate::cpu::Cpu;
use crate::disjoint::Disjoint;
use crate::packed::{PackedMatrix, TILE_ROWS};
use crate::pool::Pool;
use crate::simd::matmul::{Tile, group_rows_max, multiply};

/// Activations up to this many values are arranged by the caller alone: waking the others would
/// take longer.
const ALONE_VALUES_MAX: usize = 16 * 1024;
/// Rows of activations that are multiplied with one range of weights before the next rows: they
/// and the weights' tile stay in the second-level cache.
const PASS_ROWS: usize = 256;
/// Chunks that each thread gets on average, so that an interrupted thread delays little.
const CHUNKS_PER_THREAD: usize = 6;
/// Bytes of weights in a chunk at least, so that taking one costs nothing beside it.
const CHUNK_BYTES_MIN: usize = 16 * 1024;

/// One of several products with the same activations ([`Pool::matmul_group`]).
#[derive(Debug)]
pub struct Product<'a> {
    /// The weights.
    pub weights: &'a PackedMatrix,
    /// `[m, weights.rows()]`, overwritten.
    pub out: &'a mut [f32],
}

/// A product whose result several threads write.
struct Part<'a> {
    weights: &'a PackedMatrix,
    out: Disjoint<'a>,
    /// Tiles of all products before this one.
    first_tile: usize,
}

impl Pool {
    /// `out = x W^T`: `x` is `[m, w.cols()]`, `out` is `[m, w.rows()]`. A row's result does not
    /// depend on the other rows, on `m`, nor on the number of threads.
    ///
    /// # Panics
    /// When lengths disagree.
    pub fn matmul(&self, x: &[f32], m: usize, w: &PackedMatrix, out: &mut [f32]) {
        self.matmul_group(x, m, &mut [Product { weights: w, out }]);
    }

    /// Several products of the same `x` at once (query/key/value, gate/up): it is rounded once
    /// and the threads meet once.
    ///
    /// # Panics
    /// When lengths disagree, or the matrices have different `cols` or are not all quantised or
    /// all floats.
    pub fn matmul_group(&self, x: &[f32], m: usize, products: &mut [Product<'_>]) {
        let Some(first) = products.first() else { return };
        let (cols, quantised) = (first.weights.cols(), first.weights.format().is_quantised());
        assert_eq!(x.len(), m * cols, "x length");
        let mut parts = Vec::with_capacity(products.len());
        let mut tiles = 0;
        let mut bytes = 0;
        for Product { weights, out } in products {
            assert_eq!(weights.cols(), cols, "products of the same activations");
            assert_eq!(weights.format().is_quantised(), quantised, "products of the same kind");
            assert_eq!(out.len(), m * weights.rows(), "out length");
            parts.push(Part { weights, out: Disjoint::new(out), first_tile: tiles });
            tiles += weights.tiles();
            bytes += weights.resident_bytes();
        }
        if m == 0 {
            return;
        }
        let mut scratch = self.scratch().lock().unwrap_or_else(PoisonError::into_inner);
        self.arrange(x, cols, quantised, &mut scratch.activations);
        let activations = &scratch.activations;
        let least = (CHUNK_BYTES_MIN * tiles).div_ceil(bytes * m);
        let chunk = tiles.div_ceil(self.threads() * CHUNKS_PER_THREAD).max(least).min(tiles);
        let cpu = self.cpu();
        self.for_chunks(tiles, chunk, &|range| {
            for part in &parts {
                let first = part.first_tile;
                let end = range.end.min(first + part.weights.tiles());
                let start = range.start.max(first);
                if start < end {
                    multiply_tiles(cpu, part, activations, m, start - first..end - first);
                }
            }
        });
    }

    /// Arranges `x` for the kernel, with all threads when it is long.
    fn arrange(&self, x: &[f32], cols: usize, quantised: bool, to: &mut Activations) {
        let m = x.len() / cols;
        to.reserve(m, cols, quantised);
        let writer = to.writer(cols, quantised);
        let cpu = self.cpu();
        let all: Vec<Group> = groups(m, group_rows_max(cpu)).collect();
        let chunk = if x.len() <= ALONE_VALUES_MAX { all.len() } else { 4 };
        self.for_chunks(all.len(), chunk, &|range| {
            for &group in &all[range] {
                // SAFETY: `to` is borrowed exclusively here, and each group is visited once.
                unsafe { writer.write(cpu, x, group) };
            }
        });
    }
}

/// All `m` rows times the tiles in `range`.
fn multiply_tiles(cpu: Cpu, part: &Part<'_>, x: &Activations, m: usize, range: Range<usize>) {
    let weights = part.weights;
    let rows_max = group_rows_max(cpu);
    debug_assert!(PASS_ROWS.is_multiple_of(rows_max));
    for pass in (0..m).step_by(PASS_ROWS) {
        let pass_rows = (m - pass).min(PASS_ROWS);
        for index in range.clone() {
            let column = index * TILE_ROWS;
            for group in groups(pass_rows, rows_max) {
                let group = Group { start: pass + group.start, rows: group.rows };
                let tile = Tile {
                    weights: weights.tile(index).as_ptr(),
                    layout: weights.layout(),
                    rows: x.group(group).as_ptr(),
                    out: part.out.at(group.start * weights.rows() + column),
                    out_stride: weights.rows(),
                    lanes: (weights.rows() - column).min(TILE_ROWS),
                };
                // SAFETY: the tile and the group are whole (both slices are checked), the group
                // holds records of this format's kind for `cols` values, and the columns of this
                // tile are written by this call alone, since each tile is visited once.
                unsafe { multiply(cpu, weights.format(), group.rows, &tile) };
            }
        }
    }
}
