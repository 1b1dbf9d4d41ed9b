//! The rotary tables of a model: one, or one more for layers with a window and a base of their own.
//! It knows the shape of a model; the rotation itself is an operation on rows.

use std::sync::Arc;

use aisemble_kernels::{RopeConfig, RopeTable};
use candle_core::{Result, bail};

use crate::config::{ModelConfig, RopeScaling};

/// The tables of a model.
#[derive(Debug, Clone)]
pub struct RopeTables {
    full: Arc<RopeTable>,
    windowed: Option<Arc<RopeTable>>,
}

impl RopeTables {
    /// Tables of `positions` positions. `frequency_factors`:
    /// [`rope_factors`](crate::rope_factors).
    ///
    /// # Errors
    /// When the factors are not `rope_dim / 2` values.
    pub fn new(config: &ModelConfig, positions: usize, factors: Vec<f32>) -> Result<Self> {
        let pairs = config.rope_dim / 2;
        if !factors.is_empty() && factors.len() != pairs {
            bail!("rope: {} frequency factors for {pairs} pairs", factors.len());
        }
        let (linear_scale, frequency_factors) = match config.rope_scaling {
            RopeScaling::None => (1.0, factors),
            RopeScaling::Linear { factor } => (factor, factors),
            RopeScaling::Llama3 { .. } => (1.0, llama3_factors(config)),
        };
        let plain = |base| RopeConfig {
            style: config.rope_style,
            rotary_dim: config.rope_dim,
            base,
            linear_scale: 1.0,
            frequency_factors: Vec::new(),
            positions,
        };
        let full = RopeConfig { linear_scale, frequency_factors, ..plain(config.rope_base) };
        let windowed = config.rope_windowed().map(|base| Arc::new(RopeTable::new(&plain(base))));
        Ok(Self { full: Arc::new(RopeTable::new(&full)), windowed })
    }

    /// Positions in the tables.
    pub fn positions(&self) -> usize {
        self.full.positions()
    }

    /// The table of a layer.
    pub fn of(&self, windowed: bool) -> &Arc<RopeTable> {
        self.windowed.as_ref().filter(|_| windowed).unwrap_or(&self.full)
    }
}

/// What each pair's frequency is divided by.
///
/// Source: `_compute_llama3_parameters` of Hugging Face `transformers` (modeling_rope_utils.py).
fn llama3_factors(config: &ModelConfig) -> Vec<f32> {
    let RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } =
        config.rope_scaling
    else {
        return Vec::new();
    };
    let pair = |pair: usize| {
        let exponent = -2.0 * pair as f32 / config.rope_dim as f32;
        let turns = original_context * config.rope_base.powf(exponent) / std::f32::consts::TAU;
        if turns < low_freq_factor {
            factor
        } else if turns > high_freq_factor {
            1.0
        } else {
            let smooth = (turns - low_freq_factor) / (high_freq_factor - low_freq_factor);
            1.0 / ((1.0 - smooth) / factor + smooth)
        }
    };
    (0..config.rope_dim / 2).map(pair).collect()
}
