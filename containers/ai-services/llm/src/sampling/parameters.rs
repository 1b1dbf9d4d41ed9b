//! What a caller asks of sampling, checked once at the edge. It knows the ranges that the API
//! promises, not how they are used.

use aisemble_protocol::{ApiError, limits, v1};

/// Sampling of one request. Every value is finite and in its range.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingParameters {
    /// 0 = the likeliest token always; at most 2.
    pub temperature: f32,
    /// Among the k likeliest; 0 = off.
    pub top_k: usize,
    /// Among the likeliest that make up this probability; 1 = off.
    pub top_p: f32,
    /// Not those less likely than this share of the likeliest; 0 = off.
    pub min_p: f32,
    /// Among the tokens whose information is the closest to what is expected, that make up this
    /// probability; 1 = off.
    pub typical_p: f32,
    /// Divides positive and multiplies negative logits of tokens seen before; 1 = off.
    pub repetition_penalty: f32,
    /// Subtracted from tokens of the output; 0 = off.
    pub presence_penalty: f32,
    /// Subtracted for each time that a token is in the output; 0 = off.
    pub frequency_penalty: f32,
    /// Token and what is added to its logit, each token once.
    pub logit_bias: Vec<(u32, f32)>,
    /// Decides the draws.
    pub seed: u64,
}

/// Which log-probabilities a caller wants with each token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogprobsWanted {
    /// None.
    No,
    /// The chosen token's, and this many of the likeliest (may be 0).
    Top(usize),
}

impl SamplingParameters {
    /// Greedy, without penalties: what the warm-up and the reference comparison use.
    #[must_use]
    pub fn greedy() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            typical_p: 1.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            seed: 0,
        }
    }

    /// Checks a request's sampling. An absent message is the API's default; in a present one 0
    /// means off for `top_p`, `typical_p` and `repetition_penalty`, which protobuf cannot tell from
    /// absent.
    ///
    /// # Errors
    /// `invalid_request` naming the field and its range.
    pub fn checked(
        sampling: Option<&v1::Sampling>,
        vocabulary: usize,
        seed_drawn: u64,
    ) -> Result<Self, ApiError> {
        let Some(given) = sampling else {
            return Ok(Self { temperature: 0.7, seed: seed_drawn, ..Self::greedy() });
        };
        let or_off = |value: f32| if value == 0.0 { 1.0 } else { value };
        Ok(Self {
            temperature: within("temperature", given.temperature, 0.0, 2.0)?,
            top_k: given.top_k as usize,
            top_p: within("top_p", or_off(given.top_p), f32::MIN_POSITIVE, 1.0)?,
            min_p: within("min_p", given.min_p, 0.0, 1.0)?,
            typical_p: within("typical_p", or_off(given.typical_p), f32::MIN_POSITIVE, 1.0)?,
            repetition_penalty: within(
                "repetition_penalty",
                or_off(given.repetition_penalty),
                f32::MIN_POSITIVE,
                10.0,
            )?,
            presence_penalty: within("presence_penalty", given.presence_penalty, -2.0, 2.0)?,
            frequency_penalty: within("frequency_penalty", given.frequency_penalty, -2.0, 2.0)?,
            logit_bias: logit_bias(given, vocabulary)?,
            seed: given.seed.unwrap_or(seed_drawn),
        })
    }

    /// Whether the logits are changed before the choice.
    #[must_use]
    pub fn changes_logits(&self) -> bool {
        !self.logit_bias.is_empty() || self.penalises()
    }

    /// Whether tokens seen before are treated otherwise.
    #[must_use]
    pub fn penalises(&self) -> bool {
        self.repetition_penalty != 1.0
            || self.presence_penalty != 0.0
            || self.frequency_penalty != 0.0
    }
}

fn logit_bias(given: &v1::Sampling, vocabulary: usize) -> Result<Vec<(u32, f32)>, ApiError> {
    let (entries, limit) = (given.logit_bias.len(), limits::LOGIT_BIAS_MAX);
    if entries > limit {
        return Err(ApiError::invalid(
            "logit_bias",
            format!("logit_bias has {entries} entries; at most {limit} are taken"),
        ));
    }
    let mut biases = Vec::with_capacity(entries);
    for (&token, &bias) in &given.logit_bias {
        if token as usize >= vocabulary {
            return Err(ApiError::invalid(
                "logit_bias",
                format!("logit_bias names token {token}; the vocabulary has {vocabulary} tokens"),
            ));
        }
        biases.push((token, within("logit_bias", bias, -100.0, 100.0)?));
    }
    biases.sort_unstable_by_key(|(token, _)| *token);
    Ok(biases)
}

fn within(param: &str, value: f32, low: f32, high: f32) -> Result<f32, ApiError> {
    if value.is_finite() && value >= low && value <= high {
        return Ok(value);
    }
    let low =
        if low == f32::MIN_POSITIVE { "above 0".to_owned() } else { format!("{low} or more") };
    Err(ApiError::invalid(
        param,
        format!("{param} is {value}; it must be {low} and at most {high}"),
    ))
}
