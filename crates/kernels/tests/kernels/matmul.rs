//! Packing and matrix products.

use aisemble_kernels::{BlockFormat, KernelError, PackedMatrix, Product, reference};
use proptest::prelude::*;

use crate::samples::{Source, assert_close, pools};

fn format() -> impl Strategy<Value = BlockFormat> {
    proptest::sample::select(BlockFormat::ALL.to_vec())
}

/// Columns of up to `units` blocks; formats without blocks get any number.
fn cols(format: BlockFormat, units: usize) -> usize {
    if format.block_values() == 1 { units * 7 + units % 3 } else { units * format.block_values() }
}

/// The largest possible rounding error of a result: a few units in the last place of the sum of
/// the magnitudes that were added.
fn tolerance(format: BlockFormat, bytes: &[u8], cols: usize, x: &[f32]) -> f32 {
    let mut weights = vec![0.0; cols];
    let largest = x.iter().fold(0.0f32, |max, x| max.max(x.abs()));
    let mut most = 0.0f32;
    for row in bytes.chunks_exact(format.row_bytes(cols).unwrap()) {
        reference::dequantise_row(format, row, &mut weights);
        // Scale x quant and the minimum are added apart and partly cancel: four times.
        most = most.max(weights.iter().map(|w| w.abs() * 4.0 + 1.0).sum());
    }
    most * largest * 1e-6
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn matmul_agrees_with_the_reference(
        format in format(),
        rows in 1usize..70,
        units in 1usize..7,
        m in 1usize..20,
        seed: u64,
    ) {
        let mut source = Source(seed);
        let cols = cols(format, units);
        let bytes = source.weights(format, rows, cols);
        let x = source.floats(m * cols);
        let packed = PackedMatrix::pack(format, &bytes, rows, cols).unwrap();
        let expected = reference::matmul(format, &bytes, cols, &x);
        let tolerance = tolerance(format, &bytes, cols, &x);
        for pool in pools() {
            let mut out = vec![f32::NAN; m * rows];
            pool.matmul(&x, m, &packed, &mut out);
            let what = format!("{format:?} {:?} {} threads", pool.cpu(), pool.threads());
            assert_close(&out, &expected, tolerance, &what);
        }
    }

    #[test]
    fn a_row_does_not_depend_on_its_neighbours(
        format in format(),
        rows in 1usize..40,
        units in 1usize..5,
        m in 2usize..30,
        seed: u64,
    ) {
        let mut source = Source(seed);
        let cols = cols(format, units);
        let bytes = source.weights(format, rows, cols);
        let x = source.floats(m * cols);
        let packed = PackedMatrix::pack(format, &bytes, rows, cols).unwrap();
        for pool in pools() {
            let mut all = vec![0.0; m * rows];
            pool.matmul(&x, m, &packed, &mut all);
            let mut one = vec![0.0; rows];
            for r in 0..m {
                pool.matmul(&x[r * cols..][..cols], 1, &packed, &mut one);
                prop_assert_eq!(&one, &all[r * rows..][..rows]);
            }
        }
    }

    #[test]
    fn a_group_gives_what_its_products_give(
        sizes in proptest::collection::vec(1usize..50, 0..4),
        m in 0usize..10,
        seed: u64,
    ) {
        let mut source = Source(seed);
        let cols = 256;
        let formats = [BlockFormat::Q4K, BlockFormat::Q6K, BlockFormat::Q8_0, BlockFormat::Q4_1];
        let packed: Vec<PackedMatrix> = sizes
            .iter()
            .zip(formats)
            .map(|(&rows, format)| {
                let bytes = source.weights(format, rows, cols);
                PackedMatrix::pack(format, &bytes, rows, cols).unwrap()
            })
            .collect();
        let x = source.floats(m * cols);
        for pool in pools() {
            let mut outs: Vec<Vec<f32>> = sizes.iter().map(|rows| vec![0.0; m * rows]).collect();
            let mut products: Vec<Product<'_>> = packed
                .iter()
                .zip(&mut outs)
                .map(|(weights, out)| Product { weights, out })
                .collect();
            pool.matmul_group(&x, m, &mut products);
            for (weights, out) in packed.iter().zip(&outs) {
                let mut alone = vec![0.0; out.len()];
                pool.matmul(&x, m, weights, &mut alone);
                prop_assert_eq!(out, &alone);
            }
        }
    }

    #[test]
    fn packing_keeps_every_weight(
        format in format(),
        rows in 1usize..40,
        units in 1usize..4,
        seed: u64,
    ) {
        let cols = cols(format, units);
        let bytes = Source(seed).weights(format, rows, cols);
        let packed = PackedMatrix::pack(format, &bytes, rows, cols).unwrap();
        let row_bytes = format.row_bytes(cols).unwrap();
        let (mut found, mut expected) = (vec![0.0; cols], vec![0.0; cols]);
        for (row, bytes) in bytes.chunks_exact(row_bytes).enumerate() {
            packed.dequantise_row(row, &mut found);
            reference::dequantise_row(format, bytes, &mut expected);
            prop_assert_eq!(&found, &expected);
        }
    }

    #[test]
    fn any_bytes_and_any_activations_are_computed_without_a_panic(
        format in format(),
        rows in 1usize..20,
        m in 1usize..6,
        odd in proptest::collection::vec(
            proptest::sample::select(vec![f32::NAN, f32::INFINITY, f32::MIN, f32::MAX, 1e-42]),
            1..6,
        ),
        seed: u64,
    ) {
        let mut source = Source(seed);
        let cols = cols(format, 2);
        let bytes = source.bytes(format.row_bytes(cols).unwrap() * rows);
        let mut x = source.floats(m * cols);
        for value in odd {
            let at = source.next() as usize % x.len();
            x[at] = value;
        }
        let packed = PackedMatrix::pack(format, &bytes, rows, cols).unwrap();
        for pool in pools() {
            pool.matmul(&x, m, &packed, &mut vec![0.0; m * rows]);
        }
        packed.dequantise_row(rows - 1, &mut vec![0.0; cols]);
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused(
        format in format(),
        rows in 0usize..5,
        cols in 0usize..600,
        len in 0usize..4000,
    ) {
        let expected = format.row_bytes(cols).map(|row| row * rows);
        let fits = rows > 0 && cols > 0 && expected == Some(len);
        let packed = PackedMatrix::pack(format, &vec![0; len], rows, cols);
        prop_assert_eq!(packed.is_ok(), fits);
    }
}

#[test]
fn sizes_past_the_address_space_are_refused() {
    let error = PackedMatrix::pack(BlockFormat::Q8_0, &[], usize::MAX, 64).unwrap_err();
    assert_eq!(error, KernelError::Dimensions { rows: usize::MAX, cols: 64 });
    let error = PackedMatrix::pack(BlockFormat::Q4K, &[0; 144], 1, 32).unwrap_err();
    let format = BlockFormat::Q4K;
    assert_eq!(error, KernelError::PartialBlock { format, cols: 32, block: 256 });
}

#[test]
fn the_packed_model_is_about_as_large_as_the_file() {
    let expect = [
        (BlockFormat::Q4_1, 1.0),
        (BlockFormat::Q8_0, 1.0),
        (BlockFormat::Q6K, 1.0),
        (BlockFormat::Q4K, 1.03),
    ];
    for (format, most) in expect {
        let (rows, cols) = (64, 1536);
        let bytes = Source(1).weights(format, rows, cols);
        let packed = PackedMatrix::pack(format, &bytes, rows, cols).unwrap();
        let ratio = packed.resident_bytes() as f64 / bytes.len() as f64;
        assert!(ratio <= most, "{format:?}: {ratio}");
    }
}
