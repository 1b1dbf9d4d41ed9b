//! The inference before the first request: it faults the weights in, and its output is checked, so
//! that a service which computes nonsense (a bad file, a kernel that is wrong on this CPU) never
//! becomes ready.
//!
//! Checked of any model: all outputs are finite, and a picture gives the same bits alone and beside
//! another one (of a hub's networks: nearly the same values, as their products of matrices are cut
//! differently in a batch). Of a file that is known: the numbers themselves.

use aisemble_weights::candle;
use aisemble_weights::kernels::Pool;

use crate::catalog::Model;
use crate::compute::Map;
use crate::models::{Architecture, Network};

/// How far the mean and the largest value of a known file's output may be off, as a share: other
/// orders of summation, on other processors, change less.
const TOLERANCE: f32 = 1e-3;

/// A file and what it must say of [`input`]: mean and largest value of its first output.
struct Known {
    sha256: &'static str,
    mean: f32,
    most: f32,
}

/// The default files. The numbers are ONNX Runtime's for the same graph and input
/// (`tests/reference/reference.py --warm-up`).
const KNOWN: [Known; 5] = [
    // efficientnet-lite0
    Known {
        sha256: "b5682d400b918ab40e78e6e3997b957bcb528179b9bc323265713621b57e6175",
        mean: -0.052_140,
        most: 4.298_165,
    },
    // centerface
    Known {
        sha256: "c714c3d30bc89e789fc9ecd00091a6f06504496b1f662c534f0dcd52df8539e9",
        mean: 0.169_642,
        most: 3.050_906,
    },
    // ssdlite-person
    Known {
        sha256: "e78b48385e46bacf98ff7682e4011fd5a79ee38e8a53f07a5b969589c2ac9bbc",
        mean: 0.084_917,
        most: 7.187_702,
    },
    // craft-mlt-25k
    Known {
        sha256: "79e71a8a384e04458e025ed3cb02631a2f5bc8ac7fd46f646dc4fdc2d5990830",
        mean: 0.000_649,
        most: 0.010_443,
    },
    // crnn-english-g2
    Known {
        sha256: "27783e8551f7e583bc1eebd8970865760823fd07e294060149ddda762da20aff",
        mean: -5.162_496,
        most: 23.999_855,
    },
];

/// The model must not serve.
#[derive(Debug, thiserror::Error)]
pub enum WarmupError {
    /// Some outputs are NaN or infinite.
    #[error("{count} of {total} outputs are not finite")]
    NotFinite {
        /// How many.
        count: usize,
        /// Of how many.
        total: usize,
    },
    /// The same input gave another output.
    #[error("the same picture gave other outputs in a batch of two")]
    Unstable,
    /// The network does not take what its files say.
    #[error("the network cannot be computed")]
    Failed {
        /// Why.
        #[from]
        source: candle::Error,
    },
    /// The output of a known file is wrong.
    #[error(
        "the outputs' mean is {mean} and their largest {most}; the file is known to give \
         {expected_mean} and {expected_most}"
    )]
    Wrong {
        /// The mean that was found.
        mean: f32,
        /// The largest output that was found.
        most: f32,
        /// The mean that the file gives.
        expected_mean: f32,
        /// The largest output that the file gives.
        expected_most: f32,
    },
}

/// Runs the warm-up of a model.
///
/// # Errors
/// [`WarmupError`]: the service must not become ready.
pub fn check(model: &Model, pool: &Pool) -> Result<(), WarmupError> {
    let (one, other) = (input(model, 1), input(model, 2));
    let alone = model.network.forward(pool, &one)?;
    let more = more(&model.network, &alone)?;
    let values = || alone.iter().chain(&more).flat_map(|map| &map.data);
    let count = values().filter(|value| !value.is_finite()).count();
    if count > 0 {
        return Err(WarmupError::NotFinite { count, total: values().count() });
    }
    if let Some(both) = Map::stack(&[&other, &one]) {
        let both = model.network.forward(pool, &both)?;
        let exact = model.architecture.family().is_none();
        let equal = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || !exact && near(*a, *b);
        let same = |(alone, both): (&Map, &Map)| {
            let second = both.picture(1);
            alone.data.iter().zip(second).all(equal)
        };
        if !alone.iter().zip(&both).all(same) {
            return Err(WarmupError::Unstable);
        }
    }
    let (mean, most) = summary(&alone[0].data);
    match KNOWN.iter().find(|known| known.sha256 == model.sha256) {
        Some(known) if !near(mean, known.mean) || !near(most, known.most) => {
            let (expected_mean, expected_most) = (known.mean, known.most);
            Err(WarmupError::Wrong { mean, most, expected_mean, expected_most })
        }
        Some(_) | None => {
            tracing::debug!(model.name = model.name, mean, most, "warm");
            Ok(())
        }
    }
}

/// What a network does besides looking at pictures: a label's vector, the first token of a caption.
fn more(network: &Network, looked: &[Map]) -> candle::Result<Vec<Map>> {
    let Network::Hub(network) = network else { return Ok(Vec::new()) };
    if let Some(pair) = network.pair() {
        let tokens = pair.words.tokens("a").map_err(candle::Error::wrap)?;
        return network.texts(&[&tokens]);
    }
    if let (Some(captioner), Some(states)) = (network.captioner(), looked.first()) {
        network.advance(&mut captioner.begin(states)?, 1)?;
    }
    Ok(Vec::new())
}

fn near(found: f32, expected: f32) -> bool {
    (found - expected).abs() <= TOLERANCE * (1.0 + expected.abs())
}

/// Mean and largest value.
fn summary(values: &[f32]) -> (f32, f32) {
    let sum: f64 = values.iter().map(|value| f64::from(*value)).sum();
    let most = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    ((sum / values.len().max(1) as f64) as f32, most)
}

/// An input that is the same everywhere: multiples of a prime, from -1 to 1 (CenterFace: 0 to 255).
fn input(model: &Model, seed: usize) -> Map {
    let side_of_hub =
        if let Network::Hub(network) = &model.network { network.prepare().side() } else { 0 };
    let (side, channels, low, high) = match model.architecture {
        Architecture::EfficientNetLite0 => (224, 3, -1.0, 1.0),
        Architecture::CenterFace => (96, 3, 0.0, 255.0),
        Architecture::SsdLite => (300, 3, -1.0, 1.0),
        Architecture::Craft => (64, 3, -1.0, 1.0),
        Architecture::Crnn => (64, 1, -1.0, 1.0),
        Architecture::Vit
        | Architecture::Dinov2
        | Architecture::Resnet
        | Architecture::MobileNetV4
        | Architecture::Clip
        | Architecture::Siglip
        | Architecture::Blip => (side_of_hub, 3, -1.0, 1.0),
    };
    let value = |at: usize| {
        let share = ((at * 37 + seed * 101) % 251) as f32 / 250.0;
        low + (high - low) * share
    };
    let data = (0..side * side * channels).map(value).collect();
    Map::new((1, side, side, channels), data)
}
