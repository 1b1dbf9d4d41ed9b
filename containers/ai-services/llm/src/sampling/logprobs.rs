//! Log-probabilities of the model itself: the log-softmax of the logits before bias, penalties and
//! temperature, as the OpenAI API reports them. It knows logits, not what was asked of sampling.

/// A token and the natural logarithm of its probability.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenLogprob {
    /// The token.
    pub token: u32,
    /// At most 0. -9999 for a token whose logit is not a number or minus infinity.
    pub logprob: f32,
}

/// What OpenAI reports for a token that has no probability to speak of; JSON has no infinity.
pub(super) const IMPOSSIBLE: f32 = -9999.0;

/// The log-probability of `token`, and the `top` likeliest in falling order (equals by token).
#[must_use]
pub fn top_logprobs(logits: &[f32], token: u32, top: usize) -> (TokenLogprob, Vec<TokenLogprob>) {
    let normaliser = log_sum_exp(logits);
    let of = |token: u32| {
        let logit = logits.get(token as usize).copied().filter(|logit| logit.is_finite());
        let logprob =
            logit.map_or(IMPOSSIBLE, |logit| (f64::from(logit) - normaliser).min(0.0) as f32);
        TokenLogprob { token, logprob }
    };
    let chosen = of(token);
    let mut order: Vec<u32> = Vec::new();
    if top > 0 {
        order = (0..logits.len() as u32).filter(|t| logits[*t as usize].is_finite()).collect();
        let by_logit =
            |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
        if top < order.len() {
            order.select_nth_unstable_by(top - 1, by_logit);
            order.truncate(top);
        }
        order.sort_unstable_by(by_logit);
    }
    (chosen, order.into_iter().map(of).collect())
}

fn log_sum_exp(logits: &[f32]) -> f64 {
    let finite = || logits.iter().copied().filter(|logit| logit.is_finite());
    let largest = finite().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = finite().map(|logit| f64::from((logit - largest).exp())).sum();
    f64::from(largest) + sum.ln()
}
