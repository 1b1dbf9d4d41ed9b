//! What is made of token vectors: one vector, weights of terms, labels of a text, a relevance, or
//! labels of tokens. It knows vectors, not texts or requests.

mod load;
mod stage;

use std::ops::Range;

use aisemble_weights::kernels::{Activation, Pool};

use crate::encoder::{Encoder, Linear, Sequences};

pub use load::{HeadFiles, load, load_linear};
pub use stage::Stage;

/// Rows of a decoder over the vocabulary at once: its logits take 4 bytes a row and term.
const DECODER_ROWS: usize = 24;

/// How token vectors become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// The mean of all, special tokens included.
    Mean,
    /// The first.
    Cls,
    /// The last.
    Last,
}

impl Pooling {
    /// The pooling of that name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "mean" => Some(Self::Mean),
            "cls" => Some(Self::Cls),
            "last" => Some(Self::Last),
            _ => None,
        }
    }

    /// One vector of `tokens`, `[n, width]`, n at least 1.
    #[must_use]
    pub fn apply(self, tokens: &[f32], width: usize) -> Vec<f32> {
        match self {
            Self::Cls => tokens[..width].to_vec(),
            Self::Last => tokens[tokens.len() - width..].to_vec(),
            Self::Mean => {
                let mut sum = vec![0.0f32; width];
                for token in tokens.chunks_exact(width) {
                    for (sum, value) in sum.iter_mut().zip(token) {
                        *sum += value;
                    }
                }
                let count = (tokens.len() / width) as f32;
                for sum in &mut sum {
                    *sum /= count;
                }
                sum
            }
        }
    }
}

/// What a head gives for one window.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// A vector, not normalised.
    Vector(Vec<f32>),
    /// Ids, ascending, and their weights, above 0.
    Terms(Vec<(u32, f32)>),
    /// The probability of each label.
    Labels(Vec<f32>),
    /// 0 to 1.
    Relevance(f32),
    /// `[tokens, labels]`: of each token the probability of each label.
    Tokens(Vec<f32>),
}

/// Whether labels exclude each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exclusive {
    /// One of them: the probabilities add up to 1.
    Yes,
    /// Any of them.
    No,
}

/// A head.
#[derive(Debug)]
pub enum Head {
    /// One vector.
    Dense {
        /// How.
        pooling: Pooling,
    },
    /// Weights of the vocabulary's terms: `ln(1 + max(0, largest logit of any token))`.
    Sparse {
        /// Before the decoder.
        stages: Vec<Stage>,
        /// To the vocabulary.
        decoder: Linear,
    },
    /// Labels of a text.
    Labels {
        /// How token vectors become one.
        pooling: Pooling,
        /// Normalised to length 1 first (heads on embeddings).
        unit: bool,
        /// Before the last layer.
        stages: Vec<Stage>,
        /// To the labels.
        out: Linear,
        /// How scores become probabilities.
        exclusive: Exclusive,
    },
    /// How well a text answers another.
    Relevance {
        /// How token vectors become one.
        pooling: Pooling,
        /// Before the last layer.
        stages: Vec<Stage>,
        /// To one value.
        out: Linear,
    },
    /// Labels of tokens.
    Tokens {
        /// Before the last layer.
        stages: Vec<Stage>,
        /// To the labels.
        out: Linear,
    },
}

impl Head {
    /// One output a sequence; `hidden` is the encoder's result for the same sequences.
    #[must_use]
    pub fn outputs(&self, encoder: &Encoder, hidden: &[f32], sequences: &Sequences) -> Vec<Output> {
        let (pool, shape) = (encoder.pool(), encoder.shape());
        let of =
            |range: &Range<usize>| &hidden[range.start * shape.hidden..range.end * shape.hidden];
        let pooled = |pooling: Pooling, unit: bool| {
            let mut rows = Vec::with_capacity(sequences.ranges().len() * shape.hidden);
            for range in sequences.ranges() {
                let mut row = pooling.apply(of(range), shape.hidden);
                if unit {
                    normalise(&mut row);
                }
                rows.extend(row);
            }
            rows
        };
        match self {
            Self::Dense { pooling } => sequences
                .ranges()
                .iter()
                .map(|range| Output::Vector(pooling.apply(of(range), shape.hidden)))
                .collect(),
            Self::Sparse { stages, decoder } => {
                let x = stage::run(pool, stages, hidden.to_vec(), sequences.tokens(), shape.eps);
                let width = x.len() / sequences.tokens().max(1);
                let terms = |range: &Range<usize>| {
                    terms(pool, decoder, &x[range.start * width..range.end * width], width)
                };
                sequences.ranges().iter().map(|range| Output::Terms(terms(range))).collect()
            }
            Self::Labels { pooling, unit, stages, out, exclusive } => {
                let m = sequences.ranges().len();
                let x = stage::run(pool, stages, pooled(*pooling, *unit), m, shape.eps);
                let mut scores = scores(pool, out, &x, m);
                scores
                    .chunks_exact_mut(out.rows())
                    .map(|scores| {
                        probabilities(pool, scores, *exclusive);
                        Output::Labels(scores.to_vec())
                    })
                    .collect()
            }
            Self::Relevance { pooling, stages, out } => {
                let m = sequences.ranges().len();
                let x = stage::run(pool, stages, pooled(*pooling, false), m, shape.eps);
                let scores = scores(pool, out, &x, m);
                scores.into_iter().map(|score| Output::Relevance(sigmoid(score))).collect()
            }
            Self::Tokens { stages, out } => {
                let m = sequences.tokens();
                let x = stage::run(pool, stages, hidden.to_vec(), m, shape.eps);
                let mut scores = scores(pool, out, &x, m);
                for scores in scores.chunks_exact_mut(out.rows()) {
                    probabilities(pool, scores, Exclusive::Yes);
                }
                let of = |range: &Range<usize>| {
                    scores[range.start * out.rows()..range.end * out.rows()].to_vec()
                };
                sequences.ranges().iter().map(|range| Output::Tokens(of(range))).collect()
            }
        }
    }
}

fn scores(pool: &Pool, out: &Linear, x: &[f32], m: usize) -> Vec<f32> {
    let mut scores = vec![0.0; m * out.rows()];
    out.apply(pool, x, Activation::None, &mut scores);
    scores
}

fn probabilities(pool: &Pool, scores: &mut [f32], exclusive: Exclusive) {
    match exclusive {
        Exclusive::Yes => pool.cpu().softmax(scores),
        Exclusive::No => scores.iter_mut().for_each(|score| *score = sigmoid(*score)),
    }
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// To length 1; a vector of zeros stays.
pub(crate) fn normalise(vector: &mut [f32]) {
    let length = vector.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt() as f32;
    if length > 0.0 {
        for value in vector {
            *value /= length;
        }
    }
}

/// The terms of one sequence from its decoder inputs, `[n, width]`.
fn terms(pool: &Pool, decoder: &Linear, x: &[f32], width: usize) -> Vec<(u32, f32)> {
    let vocabulary = decoder.rows();
    let mut largest = vec![0.0f32; vocabulary];
    let mut logits = vec![0.0f32; DECODER_ROWS * vocabulary];
    for rows in x.chunks(DECODER_ROWS * width) {
        let m = rows.len() / width;
        let logits = &mut logits[..m * vocabulary];
        decoder.apply(pool, rows, Activation::None, logits);
        for row in logits.chunks_exact(vocabulary) {
            for (largest, logit) in largest.iter_mut().zip(row) {
                *largest = largest.max(*logit);
            }
        }
    }
    let terms = largest.into_iter().enumerate().filter(|(_, logit)| *logit > 0.0);
    terms.map(|(id, logit)| (id as u32, logit.ln_1p())).collect()
}
