//! Random inputs and the tolerances of the comparison.

use aisemble_kernels::{BlockFormat, Cpu, Isa, Pool};
use half::f16;

/// A small generator (SplitMix64), so that large inputs cost proptest one number.
pub(crate) struct Source(pub(crate) u64);

impl Source {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in -1 to 1.
    pub(crate) fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    pub(crate) fn floats(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.unit() * 3.0).collect()
    }

    /// Any bytes at all.
    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }

    /// Weights as in a file, with scales of a sensible size.
    pub(crate) fn weights(&mut self, format: BlockFormat, rows: usize, cols: usize) -> Vec<u8> {
        let mut bytes = self.bytes(format.row_bytes(cols).unwrap() * rows);
        for block in bytes.chunks_exact_mut(format.block_bytes()) {
            let mut small = || f16::from_f32(self.unit() * 0.05).to_le_bytes();
            match format {
                BlockFormat::F32 => block.copy_from_slice(&self.unit().to_le_bytes()),
                BlockFormat::F16 => block.copy_from_slice(&small()),
                BlockFormat::Bf16 => {
                    let value = half::bf16::from_f32(self.unit());
                    block.copy_from_slice(&value.to_le_bytes());
                }
                BlockFormat::Q4_0 | BlockFormat::Q5_0 | BlockFormat::Q8_0 => {
                    block[..2].copy_from_slice(&small());
                }
                BlockFormat::Q4_1 | BlockFormat::Q5_1 | BlockFormat::Q4K | BlockFormat::Q5K => {
                    block[..2].copy_from_slice(&small());
                    block[2..4].copy_from_slice(&small());
                }
                BlockFormat::Q6K => block[208..].copy_from_slice(&small()),
            }
        }
        bytes
    }
}

/// Every instruction set of this machine.
pub(crate) fn cpus() -> impl Iterator<Item = Cpu> {
    Isa::ALL.into_iter().filter_map(|isa| Cpu::with_isa(isa).ok())
}

/// A pool for every instruction set and 1 to 3 threads, made once.
pub(crate) fn pools() -> &'static [Pool] {
    static POOLS: std::sync::OnceLock<Vec<Pool>> = std::sync::OnceLock::new();
    POOLS.get_or_init(|| {
        cpus().flat_map(|cpu| (1..=3).map(move |n| Pool::with_cpu(Some(n), cpu).unwrap())).collect()
    })
}

/// Asserts `|found - expected| <= tolerance` for all.
pub(crate) fn assert_close(found: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}: length");
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        let difference = (found - expected).abs();
        assert!(difference <= tolerance, "{what}: {found} is not {expected} at {index}");
    }
}
