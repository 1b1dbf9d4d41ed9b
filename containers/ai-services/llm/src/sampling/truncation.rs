//! The candidates of a draw: temperature, top-k, top-p, min-p, typical-p, and the draw itself.
//! Everything is ordered by weight and then by token, so equal weights never depend on how a sort
//! moves them.

use super::parameters::SamplingParameters;

/// A token whose weight is below e^-24 of the likeliest's is never drawn. All of them together have
/// less than 4e-6 of the mass even in a vocabulary of 100,000 tokens; leaving them out saves most
/// of the exponentials of a step.
const NEGLIGIBLE_NATS: f32 = 24.0;
/// Logits that are looked at together.
const RUN: usize = 64;
/// Candidates that are sorted first when looking for the top-p set; doubled until it is found.
const SORTED_FIRST: usize = 64;

/// A token that may be drawn, and its weight relative to the likeliest, in (0, 1].
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Candidate {
    pub(super) token: u32,
    pub(super) weight: f32,
}

fn by_weight(a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
    b.weight.total_cmp(&a.weight).then(a.token.cmp(&b.token))
}

/// Fills `candidates` with the tokens that may be drawn. Logits that are not finite are left out;
/// when none is left the list is empty.
pub(super) fn truncate(
    parameters: &SamplingParameters,
    logits: &[f32],
    candidates: &mut Vec<Candidate>,
) {
    candidates.clear();
    // NaN never is the larger; infinities count as the least, so that both loops have no branch.
    let finite = |logit: f32| if logit.is_finite() { logit } else { f32::NEG_INFINITY };
    let largest = logits.iter().fold(f32::NEG_INFINITY, |most, logit| most.max(finite(*logit)));
    if largest == f32::NEG_INFINITY {
        return;
    }
    let floor = largest - NEGLIGIBLE_NATS * parameters.temperature;
    for (index, run) in logits.chunks(RUN).enumerate() {
        // In most runs of a large vocabulary nothing is likely enough.
        if !run.iter().fold(false, |any, logit| any | (finite(*logit) >= floor)) {
            continue;
        }
        for (at, &logit) in run.iter().enumerate() {
            if logit >= floor && logit.is_finite() {
                let weight = ((logit - largest) / parameters.temperature).exp();
                candidates.push(Candidate { token: (index * RUN + at) as u32, weight });
            }
        }
    }
    if parameters.top_k > 0 && parameters.top_k < candidates.len() {
        candidates.select_nth_unstable_by(parameters.top_k - 1, by_weight);
        candidates.truncate(parameters.top_k);
    }
    if parameters.top_p < 1.0 {
        keep_top_p(parameters.top_p, candidates);
    }
    if parameters.min_p > 0.0 {
        // The likeliest has weight 1, so the share is the weight itself.
        candidates.retain(|candidate| candidate.weight >= parameters.min_p);
    }
    if parameters.typical_p < 1.0 {
        keep_typical(parameters.typical_p, candidates);
    }
    // The draw walks the list: its order must not depend on the selections above.
    candidates.sort_unstable_by_key(|candidate| candidate.token);
}

/// Keeps the smallest set of the likeliest whose probability reaches `top_p`; at least one.
fn keep_top_p(top_p: f32, candidates: &mut Vec<Candidate>) {
    // Summed in the order of tokens, so that the total does not depend on the selection before.
    candidates.sort_unstable_by_key(|candidate| candidate.token);
    let total: f64 = candidates.iter().map(|candidate| f64::from(candidate.weight)).sum();
    let wanted = f64::from(top_p) * total;
    let mut sorted = SORTED_FIRST.min(candidates.len());
    loop {
        if sorted < candidates.len() {
            candidates.select_nth_unstable_by(sorted - 1, by_weight);
        }
        candidates[..sorted].sort_unstable_by(by_weight);
        let mut sum = 0.0;
        for kept in 0..sorted {
            sum += f64::from(candidates[kept].weight);
            if sum >= wanted {
                candidates.truncate(kept + 1);
                return;
            }
        }
        if sorted == candidates.len() {
            return;
        }
        sorted = (sorted * 2).min(candidates.len());
    }
}

/// Keeps the smallest set of the tokens whose information is the closest to the distribution's
/// entropy, whose probability reaches `typical_p`; at least one (Meister et al. 2022, Locally
/// Typical Sampling).
fn keep_typical(typical_p: f32, candidates: &mut Vec<Candidate>) {
    // Summed in the order of tokens, so that nothing depends on the selections before.
    candidates.sort_unstable_by_key(|candidate| candidate.token);
    let total: f64 = candidates.iter().map(|candidate| f64::from(candidate.weight)).sum();
    let information = |candidate: &Candidate| -(f64::from(candidate.weight) / total).ln();
    let expected: f64 = candidates
        .iter()
        // A weight that has become 0 adds nothing.
        .filter(|candidate| candidate.weight > 0.0)
        .map(|candidate| f64::from(candidate.weight) / total * information(candidate))
        .sum();
    let away = |candidate: &Candidate| (information(candidate) - expected).abs();
    candidates.sort_unstable_by(|a, b| away(a).total_cmp(&away(b)).then(by_weight(a, b)));
    let wanted = f64::from(typical_p) * total;
    let mut sum = 0.0;
    let kept = candidates.iter().position(|candidate| {
        sum += f64::from(candidate.weight);
        sum >= wanted
    });
    candidates.truncate(kept.map_or(candidates.len(), |last| last + 1));
}

/// The token that `uniform`, in [0, 1), falls on; `None` without candidates.
pub(super) fn draw(candidates: &[Candidate], uniform: f64) -> Option<u32> {
    let total: f64 = candidates.iter().map(|candidate| f64::from(candidate.weight)).sum();
    let mut left = uniform * total;
    for candidate in candidates {
        left -= f64::from(candidate.weight);
        if left < 0.0 {
            return Some(candidate.token);
        }
    }
    // Rounding may leave a rest: it belongs to the last one.
    candidates.last().map(|candidate| candidate.token)
}
