//! The outputs of a text's windows as one.

use crate::heads::normalise;

/// A mean of vectors, each with a weight (its tokens).
#[derive(Debug, Clone, Default)]
pub struct WeightedMean {
    sum: Vec<f64>,
    weight: f64,
}

impl WeightedMean {
    /// Adds a vector, as long as those before.
    pub fn add(&mut self, vector: &[f32], weight: usize) {
        self.sum.resize(vector.len(), 0.0);
        for (sum, value) in self.sum.iter_mut().zip(vector) {
            *sum += f64::from(*value) * weight as f64;
        }
        self.weight += weight as f64;
    }

    /// The mean.
    #[must_use]
    pub fn mean(&self) -> Vec<f32> {
        let weight = if self.weight > 0.0 { self.weight } else { 1.0 };
        self.sum.iter().map(|sum| (sum / weight) as f32).collect()
    }
}

/// The leading `dimensions` (0 = all) of a vector, to length 1 if wanted.
#[must_use]
pub fn finish_vector(mut vector: Vec<f32>, dimensions: usize, unit: bool) -> Vec<f32> {
    if dimensions > 0 {
        vector.truncate(dimensions);
    }
    // Leading values of a vector of length 1 are not of length 1.
    if unit {
        normalise(&mut vector);
    }
    vector
}

/// Of two lists of terms, ascending ids, each term's larger weight.
#[must_use]
pub fn larger_terms(a: Vec<(u32, f32)>, b: &[(u32, f32)]) -> Vec<(u32, f32)> {
    if a.is_empty() {
        return b.to_vec();
    }
    let mut merged = Vec::with_capacity(a.len().max(b.len()));
    let (mut left, mut right) = (a.iter().peekable(), b.iter().peekable());
    while let (Some(x), Some(y)) = (left.peek(), right.peek()) {
        match x.0.cmp(&y.0) {
            std::cmp::Ordering::Less => merged.extend(left.next().copied()),
            std::cmp::Ordering::Greater => merged.extend(right.next().copied()),
            std::cmp::Ordering::Equal => {
                merged.push((x.0, x.1.max(y.1)));
                left.next();
                right.next();
            }
        }
    }
    merged.extend(left.copied());
    merged.extend(right.copied());
    merged
}

/// The `most` (0 = all) heaviest terms, ascending ids.
#[must_use]
pub fn heaviest(mut terms: Vec<(u32, f32)>, most: usize) -> Vec<(u32, f32)> {
    if most > 0 && terms.len() > most {
        terms.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        terms.truncate(most);
        terms.sort_by_key(|term| term.0);
    }
    terms
}

/// The product of two lists of terms, ascending ids.
#[must_use]
pub fn dot_terms(a: &[(u32, f32)], b: &[(u32, f32)]) -> f32 {
    let (mut left, mut right, mut sum) = (0, 0, 0.0f64);
    while let (Some(x), Some(y)) = (a.get(left), b.get(right)) {
        match x.0.cmp(&y.0) {
            std::cmp::Ordering::Less => left += 1,
            std::cmp::Ordering::Greater => right += 1,
            std::cmp::Ordering::Equal => {
                sum += f64::from(x.1) * f64::from(y.1);
                left += 1;
                right += 1;
            }
        }
    }
    sum as f32
}

/// The cosine of the angle between two vectors; 0 when one is zero.
#[must_use]
pub fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    if lengths > 0.0 { (dot(a, b) / lengths) as f32 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn windows_count_by_their_tokens() {
        let mut mean = WeightedMean::default();
        mean.add(&[1.0, 0.0], 3);
        mean.add(&[0.0, 1.0], 1);
        assert_eq!(mean.mean(), [0.75, 0.25]);
        assert_eq!(finish_vector(vec![3.0, 4.0, 9.0], 2, true), [0.6, 0.8]);
        assert_eq!(finish_vector(vec![0.0, 0.0], 0, true), [0.0, 0.0]);
        assert_eq!(cosine(&[1.0, 0.0], &[0.0, 0.0]), 0.0);
    }

    fn terms() -> impl Strategy<Value = Vec<(u32, f32)>> {
        proptest::collection::btree_map(0u32..40, 0.1f32..5.0, 0..30)
            .prop_map(|map| map.into_iter().collect())
    }

    proptest! {
        #[test]
        fn terms_are_merged_and_multiplied_as_maps_are(
            a in terms(),
            b in terms(),
            most in 0usize..9,
        ) {
            let (left, right): (BTreeMap<_, _>, BTreeMap<_, _>) =
                (a.iter().copied().collect(), b.iter().copied().collect());
            let mut largest: BTreeMap<u32, f32> = left.clone();
            for (id, weight) in &right {
                let entry = largest.entry(*id).or_insert(0.0);
                *entry = entry.max(*weight);
            }
            let merged = larger_terms(a.clone(), &b);
            prop_assert_eq!(&merged, &largest.into_iter().collect::<Vec<_>>());
            let product: f32 = left.iter().filter_map(|(id, x)| Some(x * right.get(id)?)).sum();
            prop_assert!((dot_terms(&a, &b) - product).abs() < 1e-3);
            let kept = heaviest(merged.clone(), most);
            prop_assert!(most == 0 || kept.len() == merged.len().min(most));
            prop_assert!(kept.is_sorted_by_key(|term| term.0));
            let lightest = kept.iter().map(|term| term.1).fold(f32::INFINITY, f32::min);
            let left_out = merged.iter().filter(|term| !kept.contains(term));
            prop_assert!(left_out.map(|term| term.1).all(|weight| weight <= lightest));
        }
    }
}
