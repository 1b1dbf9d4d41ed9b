//! The inference before the first request: its output is checked, so that a service which computes
//! nonsense (a bad file, a kernel that is wrong on this CPU) never becomes ready.
//!
//! Checked of any model: all outputs are finite, and a text gives the same alone and between
//! others.
//! Of a file that is known: what it must say.

use crate::encoder::Sequences;
use crate::heads::{Output, normalise};
use crate::model::LoadedModel;

/// A text, and others to stand beside it.
const TEXT: &str = "A man is playing a guitar on the stage.";
const OTHERS: [&str; 2] =
    ["It rains.", "The committee met on Thursday to discuss the annual budget."];
/// How far values may differ that another order of additions gave.
const TOLERANCE: f32 = 1e-4;

/// A file and the leading values of its embedding of [`TEXT`].
struct Known {
    sha256: &'static str,
    vector: [f32; 4],
}

/// all-MiniLM-L6-v2; the values are those of `tests/data/minilm.json` (see docs/nlp.md).
const KNOWN: [Known; 1] = [Known {
    sha256: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    vector: [0.020_047_3, 0.036_182_9, -0.020_583_9, -0.079_203_2],
}];

/// The model must not serve.
#[derive(Debug, thiserror::Error)]
pub enum WarmupError {
    /// The probe cannot be tokenized.
    #[error("the probe cannot be tokenized")]
    Text {
        /// Why.
        #[from]
        source: crate::text::TextError,
    },
    /// Some values are NaN or infinite.
    #[error("some outputs are not finite")]
    NotFinite,
    /// A text gave another output among others than alone.
    #[error("a text gives another output beside others: {alone} and {beside}")]
    Unstable {
        /// A value of it.
        alone: f32,
        /// The same among others.
        beside: f32,
    },
    /// The output of a known file is wrong.
    #[error("the embedding begins with {found:?}; the file is known to give {expected:?}")]
    Wrong {
        /// What it gave.
        found: Vec<f32>,
        /// What it must give.
        expected: Vec<f32>,
    },
}

/// Runs the warm-up.
///
/// # Errors
/// [`WarmupError`]: the service must not become ready.
pub fn check(model: &LoadedModel) -> Result<(), WarmupError> {
    let alone = outputs(model, &[TEXT])?;
    let beside = outputs(model, &[OTHERS[0], TEXT, OTHERS[1]])?;
    let (alone, beside) = match (alone.into_iter().next(), beside.into_iter().nth(1)) {
        (Some(alone), Some(beside)) => (values(alone), values(beside)),
        (_, _) => return Err(WarmupError::NotFinite),
    };
    if alone.iter().chain(&beside).any(|value| !value.is_finite()) {
        return Err(WarmupError::NotFinite);
    }
    let apart = alone.iter().zip(&beside).find(|(a, b)| (*a - *b).abs() > TOLERANCE);
    if let Some((alone, beside)) = apart {
        return Err(WarmupError::Unstable { alone: *alone, beside: *beside });
    }
    let known = KNOWN.iter().find(|known| known.sha256 == model.sha256);
    let exact = model.info.quantization == "F32";
    if let Some(known) = known.filter(|_| exact && model.does(crate::model::Task::Embed)) {
        let mut vector = alone;
        normalise(&mut vector);
        let wrong = vector.iter().zip(known.vector).any(|(a, b)| (a - b).abs() > TOLERANCE);
        if wrong {
            let (found, expected) = (vector.into_iter().take(4).collect(), known.vector.to_vec());
            return Err(WarmupError::Wrong { found, expected });
        }
    }
    Ok(())
}

fn outputs(model: &LoadedModel, texts: &[&str]) -> Result<Vec<Output>, WarmupError> {
    let mut sequences = Sequences::default();
    for text in texts {
        let encoded = model.text.encode(text)?;
        let (ids, _) = model.text.sequence(&encoded.ids(0..encoded.tokens.len()));
        sequences.push(&ids[..ids.len().min(model.window_tokens)], None);
    }
    let hidden = model.encoder.forward(&sequences);
    Ok(model.head.outputs(&model.encoder, &hidden, &sequences))
}

fn values(output: Output) -> Vec<f32> {
    match output {
        Output::Vector(values) | Output::Labels(values) | Output::Tokens(values) => values,
        Output::Terms(terms) => terms.into_iter().map(|(_, weight)| weight).collect(),
        Output::Relevance(score) => vec![score],
    }
}
