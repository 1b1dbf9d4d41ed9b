//! Vectors of labels, kept: callers ask with the same labels again and again, and a text costs as
//! much as a picture.
//!
//! It knows numbers and names, no networks and no requests.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

/// Labels that are kept, over all models; at 768 values each 12 MB.
pub const LABELS_KEPT_MAX: usize = 4096;

/// A vector of length 1.
pub type LabelVector = Arc<[f32]>;

/// The newest labels' vectors. The one that came first goes first.
#[derive(Debug, Default)]
pub struct LabelVectors {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    vectors: HashMap<(usize, Arc<str>), LabelVector>,
    order: VecDeque<(usize, Arc<str>)>,
}

impl LabelVectors {
    /// The vectors of labels for a model of the catalog, where they are known.
    pub fn get(&self, model: usize, labels: &[String]) -> Vec<Option<LabelVector>> {
        // No foreign code runs under this lock, so a poisoned one is whole.
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |label: &String| kept.vectors.get(&(model, Arc::from(label.as_str()))).cloned();
        labels.iter().map(of).collect()
    }

    /// Keeps a label's vector.
    pub fn keep(&self, model: usize, label: &str, vector: LabelVector) {
        let key = (model, Arc::from(label));
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.vectors.insert(key.clone(), vector).is_none() {
            kept.order.push_back(key);
        }
        while kept.order.len() > LABELS_KEPT_MAX {
            if let Some(oldest) = kept.order.pop_front() {
                kept.vectors.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_kept_for_their_model_and_never_more_than_the_limit() {
        let vectors = LabelVectors::default();
        let label = |number: usize| vec![format!("label {number}")];
        for number in 0..LABELS_KEPT_MAX + 10 {
            vectors.keep(0, &label(number)[0], Arc::from([number as f32]));
            vectors.keep(0, &label(number)[0], Arc::from([number as f32]));
        }
        assert_eq!(vectors.get(0, &label(9)), [None]);
        assert_eq!(vectors.get(0, &label(10))[0].as_deref(), Some(&[10.0][..]));
        assert_eq!(vectors.get(1, &label(10)), [None]);
        let kept = vectors.kept.lock().unwrap();
        assert_eq!((kept.vectors.len(), kept.order.len()), (LABELS_KEPT_MAX, LABELS_KEPT_MAX));
    }
}
