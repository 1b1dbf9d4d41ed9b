//! Products of activations with packed weights: shapes, checks and the partition of work.

use crate::packed::PackedMatrix;
use crate::pool::Pool;

/// One of several products with the same activations ([`Pool::matmul_group`]).
#[derive(Debug)]
pub struct Product<'a> {
    /// The weights.
    pub weights: &'a PackedMatrix,
    /// `[m, weights.rows()]`, overwritten.
    pub out: &'a mut [f32],
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
    /// When lengths disagree or the matrices have different `cols`.
    pub fn matmul_group(&self, x: &[f32], m: usize, products: &mut [Product<'_>]) {
        for product in products {
            let (rows, cols) = (product.weights.rows(), product.weights.cols());
            assert_eq!(x.len(), m * cols, "x length");
            assert_eq!(product.out.len(), m * rows, "out length");
            let mut weights = vec![0.0; cols];
            for n in 0..rows {
                product.weights.dequantise_row(n, &mut weights);
                for r in 0..m {
                    let x = &x[r * cols..][..cols];
                    product.out[r * rows + n] = x.iter().zip(&weights).map(|(x, w)| x * w).sum();
                }
            }
        }
    }
}
