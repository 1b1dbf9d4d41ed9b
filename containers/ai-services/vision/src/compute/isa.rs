//! The instruction set that the kernels are run with.

/// A set of vector instructions, and the tile of results that fits its registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isa {
    /// 16 values a vector, 32 registers.
    Avx512,
    /// 8 values a vector, 16 registers, fused multiply-add.
    Avx2,
    /// What the compiler makes of plain code.
    Plain,
}

impl Isa {
    /// The best one of this machine.
    #[must_use]
    pub fn best() -> Self {
        Self::available()[0]
    }

    /// All that this machine has, best first.
    #[must_use]
    pub fn available() -> Vec<Self> {
        let mut all = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if std::arch::is_x86_feature_detected!("avx512f") {
                all.push(Self::Avx512);
            }
            if std::arch::is_x86_feature_detected!("avx2")
                && std::arch::is_x86_feature_detected!("fma")
            {
                all.push(Self::Avx2);
            }
        }
        all.push(Self::Plain);
        all
    }

    /// Values of a vector.
    #[must_use]
    pub fn width(self) -> usize {
        match self {
            Self::Avx512 => 16,
            Self::Avx2 => 8,
            Self::Plain => 4,
        }
    }

    /// Rows of a tile at most.
    #[must_use]
    pub fn rows(self) -> usize {
        match self {
            Self::Avx512 => 8,
            Self::Avx2 | Self::Plain => 4,
        }
    }
}
