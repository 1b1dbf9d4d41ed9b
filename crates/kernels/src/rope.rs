//! Rotary position embedding: the table of cosines and sines, made once at load. It knows angles
//! and positions, not heads or models; the rotation itself is [`crate::Cpu::rope`].

/// Which two values of a head turn together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopeStyle {
    /// `2i` and `2i + 1` (Llama weights in GGUF; "norm" in llama.cpp).
    Interleaved,
    /// `i` and `i + rotary / 2` (NeoX: Qwen, Gemma, weights from safetensors).
    Halves,
}

/// What the angles are made of.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeConfig {
    /// Which values turn together.
    pub style: RopeStyle,
    /// Leading values of a head that turn (even); the rest stays.
    pub rotary_dim: usize,
    /// The base frequency (10000, 100000, ...).
    pub base: f32,
    /// The position is divided by this (linear scaling); 1 for none.
    pub linear_scale: f32,
    /// Divides the frequency of each pair (Llama 3's `rope_freqs`); empty for none, else
    /// `rotary_dim / 2` values.
    pub frequency_factors: Vec<f32>,
    /// Positions in the table.
    pub positions: usize,
}

/// Cosine and sine for each position and pair.
#[derive(Debug, Clone)]
pub struct RopeTable {
    style: RopeStyle,
    pairs: usize,
    positions: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl RopeTable {
    /// Computes the table. The angles are formed in single precision by repeated multiplication,
    /// as llama.cpp's `rope` does, so that long contexts agree with it.
    ///
    /// # Panics
    /// When `rotary_dim` is odd or `frequency_factors` has another length than 0 or
    /// `rotary_dim / 2`.
    #[must_use]
    pub fn new(config: &RopeConfig) -> Self {
        assert!(config.rotary_dim.is_multiple_of(2), "rotary_dim is even");
        let pairs = config.rotary_dim / 2;
        let factors = &config.frequency_factors;
        assert!(factors.is_empty() || factors.len() == pairs, "one frequency factor a pair");
        let step = config.base.powf(-2.0 / config.rotary_dim as f32);
        let mut cos = Vec::with_capacity(config.positions * pairs);
        let mut sin = Vec::with_capacity(config.positions * pairs);
        for position in 0..config.positions {
            let mut theta = position as f32 / config.linear_scale;
            for pair in 0..pairs {
                let angle = theta / factors.get(pair).copied().unwrap_or(1.0);
                cos.push(angle.cos());
                sin.push(angle.sin());
                theta *= step;
            }
        }
        Self { style: config.style, pairs, positions: config.positions, cos, sin }
    }

    /// Which values turn together.
    #[must_use]
    pub const fn style(&self) -> RopeStyle {
        self.style
    }

    /// Values of a head that turn.
    #[must_use]
    pub const fn rotary_dim(&self) -> usize {
        self.pairs * 2
    }

    /// Positions in the table: a position at or past this panics when it is used.
    #[must_use]
    pub const fn positions(&self) -> usize {
        self.positions
    }

    /// Cosines and sines of one position, one for each pair.
    ///
    /// # Panics
    /// When the position is not in the table.
    #[must_use]
    pub fn at(&self, position: usize) -> (&[f32], &[f32]) {
        assert!(position < self.positions, "position {position} of {}", self.positions);
        let range = position * self.pairs..(position + 1) * self.pairs;
        (&self.cos[range.clone()], &self.sin[range])
    }
}
