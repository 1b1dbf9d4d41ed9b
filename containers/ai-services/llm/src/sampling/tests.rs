//! Sampling against plain definitions, and its promises: seeds, NaN, penalties, log-probabilities.

use std::collections::HashMap;

use proptest::prelude::*;

use aisemble_protocol::v1;

use super::logprobs::IMPOSSIBLE;
use super::truncation::{Candidate, truncate};
use super::*;

fn parameters() -> SamplingParameters {
    SamplingParameters { temperature: 1.0, seed: 7, ..SamplingParameters::greedy() }
}

fn tokens(parameters: &SamplingParameters, logits: &[f32], prompt: &[u32], n: usize) -> Vec<u32> {
    let mut sampler = Sampler::default();
    let mut state = SamplerState::new(parameters.clone(), LogprobsWanted::No, prompt);
    (0..n).map(|_| sampler.sample(&mut state, logits).unwrap().token).collect()
}

fn kept(parameters: &SamplingParameters, logits: &[f32]) -> Vec<u32> {
    let mut candidates: Vec<Candidate> = Vec::new();
    truncate(parameters, logits, &mut candidates);
    candidates.iter().map(|candidate| candidate.token).collect()
}

/// The definition of each truncation, with sorts of everything and no shortcuts.
fn kept_by_definition(parameters: &SamplingParameters, logits: &[f32]) -> Vec<u32> {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b)));
    if parameters.top_k > 0 {
        order.truncate(parameters.top_k);
    }
    let weight =
        |i: usize| f64::from(((logits[i] - logits[order[0]]) / parameters.temperature).exp());
    let total: f64 = order.iter().map(|i| weight(*i)).sum();
    let mut sum = 0.0;
    let mut kept = Vec::new();
    for &i in &order {
        kept.push(i as u32);
        sum += weight(i);
        if sum >= f64::from(parameters.top_p) * total {
            break;
        }
    }
    kept.retain(|i| weight(*i as usize) >= f64::from(parameters.min_p));
    kept.sort_unstable();
    kept
}

proptest! {
    #[test]
    fn truncation_keeps_what_the_definition_keeps(
        // A coarse grid makes ties common and keeps sums away from rounding.
        grid in proptest::collection::vec(0u8..12, 1..300),
        top_k in 0usize..40,
        top_p in 1u8..=20,
        min_p in 0u8..10,
        temperature in prop_oneof![Just(0.5f32), Just(1.0), Just(2.0)],
    ) {
        let logits: Vec<f32> = grid.iter().map(|g| f32::from(*g) * 0.37).collect();
        let parameters = SamplingParameters {
            temperature,
            top_k,
            top_p: f32::from(top_p) / 20.0,
            min_p: f32::from(min_p) / 10.0 + 0.003,
            ..parameters()
        };
        let (ours, theirs) = (kept(&parameters, &logits), kept_by_definition(&parameters, &logits));
        // A sum in another order may fall on the other side of top_p by one token.
        let near = ours == theirs || ours.len().abs_diff(theirs.len()) == 1;
        prop_assert!(near, "{ours:?} {theirs:?}");
    }

    #[test]
    fn any_bits_give_a_finite_choice_or_an_error(
        bits in proptest::collection::vec(any::<u32>(), 0..80),
        temperature in 0u8..3,
        top_k in 0usize..5,
        penalty in prop_oneof![Just(1.0f32), Just(1.3), Just(0.5)],
    ) {
        let logits: Vec<f32> = bits.iter().map(|b| f32::from_bits(*b)).collect();
        let parameters = SamplingParameters {
            temperature: f32::from(temperature),
            top_k,
            repetition_penalty: penalty,
            ..parameters()
        };
        let mut state = SamplerState::new(parameters, LogprobsWanted::Top(3), &[0, 1]);
        match Sampler::default().sample(&mut state, &logits) {
            Ok(sampled) => {
                prop_assert!(logits[sampled.token as usize].is_finite());
                let (chosen, top) = sampled.logprobs.unwrap();
                prop_assert!(chosen.logprob <= 0.0);
                prop_assert!(top.iter().all(|t| t.logprob <= 0.0));
            }
            Err(SampleError::NoFiniteLogit) => {
                prop_assert!(penalty != 1.0 || !logits.iter().any(|logit| logit.is_finite()));
            }
            Err(SampleError::Constraint(lost)) => prop_assert!(false, "unconstrained: {}", lost),
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_tokens_and_another_seed_others() {
    let logits: Vec<f32> = (0..1000).map(|i| (i % 17) as f32 * 0.1).collect();
    let first = tokens(&parameters(), &logits, &[], 50);
    assert_eq!(first, tokens(&parameters(), &logits, &[], 50));
    assert_ne!(first, tokens(&SamplingParameters { seed: 8, ..parameters() }, &logits, &[], 50));
    // Stored: the stream must not change with a version of a dependency.
    assert_eq!(first[..8], [828, 918, 58, 535, 686, 696, 544, 766]);
}

#[test]
fn draws_follow_the_probabilities() {
    let logits = [0.0f32, 1.0, 2.0, f32::NEG_INFINITY];
    let mut counts = HashMap::new();
    for token in tokens(&parameters(), &logits, &[], 20_000) {
        *counts.entry(token).or_insert(0u32) += 1;
    }
    let total: f32 = logits.iter().map(|logit| logit.exp()).sum();
    for token in 0..3u32 {
        let expected = logits[token as usize].exp() / total;
        let share = counts[&token] as f32 / 20_000.0;
        assert!((share - expected).abs() < 0.015, "token {token}: {share} instead of {expected}");
    }
    assert!(!counts.contains_key(&3), "a token of no probability was drawn");
}

#[test]
fn typical_p_keeps_what_says_as_much_as_is_expected() {
    // Entropy 1.213 nats; the tokens carry 0.693, 1.386, 2.079 and 2.079.
    let logits: Vec<f32> = [0.5f32, 0.25, 0.125, 0.125].map(f32::ln).to_vec();
    let check = |typical_p: f32, expect: &[u32]| {
        assert_eq!(kept(&SamplingParameters { typical_p, ..parameters() }, &logits), expect);
    };
    check(1.0, &[0, 1, 2, 3]);
    check(0.2, &[1]);
    check(0.5, &[0, 1]);
    check(0.8, &[0, 1, 2]);
    check(0.0001, &[1]);
}

#[test]
fn greedy_takes_the_first_of_equals_and_never_nan() {
    let greedy = SamplingParameters::greedy();
    assert_eq!(tokens(&greedy, &[1.0, f32::NAN, 3.0, 3.0, f32::INFINITY], &[], 1), [2]);
    let mut state = SamplerState::new(greedy, LogprobsWanted::No, &[]);
    let refused = Sampler::default().sample(&mut state, &[f32::NAN, f32::NEG_INFINITY]);
    assert_eq!(refused, Err(SampleError::NoFiniteLogit));
}

#[test]
fn penalties_reach_the_tokens_they_are_meant_for() {
    let logits = [2.0f32, 1.9, 1.8, -1.0];
    let with = |change: fn(&mut SamplingParameters)| {
        let mut parameters = SamplingParameters::greedy();
        change(&mut parameters);
        tokens(&parameters, &logits, &[0], 3)
    };
    // Repetition counts the prompt's token 0 from the start.
    assert_eq!(with(|p| p.repetition_penalty = 1.5), [1, 2, 0]);
    // Presence and frequency count the output only.
    assert_eq!(with(|p| p.presence_penalty = 0.15), [0, 1, 0]);
    assert_eq!(with(|p| p.frequency_penalty = 0.15), [0, 1, 0]);
    assert_eq!(with(|p| p.logit_bias = vec![(3, 100.0)]), [3, 3, 3]);
    assert_eq!(with(|p| p.logit_bias = vec![(0, -100.0)]), [1, 1, 1]);
}

#[test]
fn logprobs_are_those_of_the_model_before_bias_and_temperature() {
    let logits = [0.0f32, 1.0, 2.0, f32::NAN];
    let biased = SamplingParameters { logit_bias: vec![(0, 50.0)], ..SamplingParameters::greedy() };
    let mut state = SamplerState::new(biased, LogprobsWanted::Top(2), &[]);
    let sampled = Sampler::default().sample(&mut state, &logits).unwrap();
    let (chosen, top) = sampled.logprobs.unwrap();
    let normaliser = (1.0f32 + 1f32.exp() + 2f32.exp()).ln();
    assert_eq!(chosen.token, 0);
    assert!((chosen.logprob + normaliser).abs() < 1e-5);
    assert_eq!(top.iter().map(|t| t.token).collect::<Vec<_>>(), [2, 1]);
    assert!((top[0].logprob - (2.0 - normaliser)).abs() < 1e-5);
    assert_eq!(top_logprobs(&logits, 3, 0).0.logprob, IMPOSSIBLE);
}

#[test]
fn wrong_parameters_are_named_with_their_range() {
    let check = |change: fn(&mut v1::Sampling), param: &str, sentence: &str| {
        let mut given = v1::Sampling { temperature: 1.0, ..v1::Sampling::default() };
        change(&mut given);
        let error = SamplingParameters::checked(Some(&given), 100, 0).unwrap_err();
        assert_eq!(error.param.as_deref(), Some(param));
        assert!(error.message.contains(sentence), "{}", error.message);
    };
    check(|s| s.temperature = -0.1, "temperature", "0 or more and at most 2");
    check(|s| s.temperature = f32::NAN, "temperature", "is NaN");
    check(|s| s.top_p = 1.5, "top_p", "above 0 and at most 1");
    check(|s| s.min_p = f32::INFINITY, "min_p", "at most 1");
    check(|s| s.repetition_penalty = -1.0, "repetition_penalty", "above 0");
    check(|s| s.presence_penalty = 3.0, "presence_penalty", "at most 2");
    check(|s| s.logit_bias = [(100, 1.0)].into(), "logit_bias", "vocabulary has 100 tokens");
    check(|s| s.logit_bias = [(1, 101.0)].into(), "logit_bias", "at most 100");
    let absent = SamplingParameters::checked(None, 100, 5).unwrap();
    assert_eq!((absent.temperature, absent.seed), (0.7, 5));
}
