//! From the outputs of windows to the results of texts: each text's as soon as its last window is
//! there.

use std::ops::Range;
use std::sync::Arc;

use aisemble_protocol::v1;
use aisemble_protocol::v1::text_result::Result as Of;

use super::entities::{self, Found, Tagged};
use super::merge::{self, WeightedMean};
use super::redact::Redaction;
use crate::heads::Output;
use crate::text::{CharOffsets, EncodedText};

/// What is made of the windows.
#[derive(Debug)]
pub enum Goal {
    /// Vectors of texts.
    Dense {
        /// The leading values only; 0 = all.
        dimensions: usize,
        /// To length 1.
        unit: bool,
    },
    /// Terms of texts.
    Sparse {
        /// The heaviest only; 0 = all.
        terms_max: usize,
    },
    /// Documents against a query, which is the first text: by the product of their terms or the
    /// cosine of their vectors.
    Rank,
    /// Documents that were computed together with the query.
    Relevance,
    /// Labels of texts.
    Labels {
        /// The best only; 0 = all.
        top_k: usize,
    },
    /// Parts of texts that have a label.
    Entities(EntityGoal),
    /// Texts without such parts.
    Redact(EntityGoal, Box<Redaction>),
}

/// Which entities.
#[derive(Debug, Clone)]
pub struct EntityGoal {
    /// How tags become entities.
    pub aggregation: v1::Aggregation,
    /// Less sure ones are left out.
    pub score_min: f32,
    /// Only these labels; empty = all.
    pub only: Vec<String>,
}

/// A window's place in its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Number of the text.
    pub text: usize,
    /// Of the text's tokens, those that the window answers for.
    pub owned: Range<usize>,
    /// Which of the window's tokens is the first of them.
    pub first: usize,
    /// Tokens of the window, special ones included.
    pub tokens: usize,
}

/// A text and what is known of it.
#[derive(Debug, Default)]
pub struct Subject {
    /// The text itself; empty where only tokens are known or needed.
    pub text: String,
    /// Its tokens; only for entities.
    pub encoded: EncodedText,
    windows: u32,
    left: usize,
    tokens: u32,
    mean: WeightedMean,
    terms: Vec<(u32, f32)>,
    best: Option<f32>,
    /// Outputs that wait for the query.
    waiting: Vec<Output>,
    tagged: Vec<(usize, Vec<Tagged>)>,
}

impl Subject {
    /// A text, with its tokens where entities are looked for.
    #[must_use]
    pub fn new(text: String, encoded: EncodedText) -> Self {
        Self { text, encoded, ..Self::default() }
    }
}

/// The results that are still to come.
#[derive(Debug)]
pub struct Assembly {
    goal: Goal,
    labels: Arc<[String]>,
    subjects: Vec<Subject>,
    places: Vec<Place>,
}

impl Assembly {
    /// For texts whose windows are at `places`.
    #[must_use]
    pub fn new(
        goal: Goal,
        labels: Arc<[String]>,
        mut subjects: Vec<Subject>,
        places: Vec<Place>,
    ) -> Self {
        for place in &places {
            if let Some(subject) = subjects.get_mut(place.text) {
                subject.left += 1;
                subject.windows += 1;
                subject.tokens += place.tokens as u32;
            }
        }
        Self { goal, labels, subjects, places }
    }

    /// Results that there will be.
    #[must_use]
    pub fn results(&self) -> usize {
        match self.goal {
            Goal::Rank => self.subjects.len().saturating_sub(1),
            Goal::Dense { .. }
            | Goal::Sparse { .. }
            | Goal::Relevance
            | Goal::Labels { .. }
            | Goal::Entities(_)
            | Goal::Redact(..) => self.subjects.len(),
        }
    }

    /// Takes in outputs of windows; gives the results of the texts that are complete now.
    pub fn take(&mut self, outputs: Vec<(usize, Output)>) -> Vec<v1::TextResult> {
        let mut complete = Vec::new();
        for (window, output) in outputs {
            let Some(place) = self.places.get(window).cloned() else { continue };
            let was_query = matches!(self.goal, Goal::Rank) && place.text == 0;
            self.add(&place, output);
            let Some(subject) = self.subjects.get_mut(place.text) else { continue };
            subject.left = subject.left.saturating_sub(1);
            if subject.left > 0 {
                continue;
            }
            if was_query {
                // Documents that came before the query was complete.
                complete.extend(1..self.subjects.len());
            } else {
                complete.push(place.text);
            }
        }
        complete.into_iter().filter_map(|text| self.result(text)).collect()
    }

    fn add(&mut self, place: &Place, output: Output) {
        let rank = matches!(self.goal, Goal::Rank) && place.text > 0;
        let aggregation = match &self.goal {
            Goal::Entities(goal) | Goal::Redact(goal, _) => goal.aggregation,
            Goal::Dense { .. }
            | Goal::Sparse { .. }
            | Goal::Rank
            | Goal::Relevance
            | Goal::Labels { .. } => v1::Aggregation::Unspecified,
        };
        let labels = self.labels.len();
        let Some(subject) = self.subjects.get_mut(place.text) else { return };
        if rank {
            subject.waiting.push(output);
            return;
        }
        match output {
            Output::Vector(vector) => subject.mean.add(&vector, place.tokens),
            Output::Terms(terms) => {
                subject.terms = merge::larger_terms(std::mem::take(&mut subject.terms), &terms);
            }
            Output::Labels(scores) => subject.mean.add(&scores, place.tokens),
            Output::Relevance(score) => {
                subject.best = Some(subject.best.map_or(score, |best| best.max(score)));
            }
            Output::Tokens(rows) => {
                let tokens = subject.encoded.tokens.get(place.owned.clone()).unwrap_or_default();
                let rows = rows.get(place.first * labels..).unwrap_or_default();
                let tagged = entities::tag(tokens, rows, labels, aggregation);
                subject.tagged.push((place.owned.start, tagged));
            }
        }
    }

    /// The result of a text, if all of it is there and has not been given yet.
    fn result(&mut self, text: usize) -> Option<v1::TextResult> {
        if matches!(self.goal, Goal::Rank) {
            return self.ranked(text);
        }
        let subject = self.subjects.get_mut(text)?;
        let (tokens, windows) = (subject.tokens, subject.windows);
        let subject = std::mem::take(subject);
        let of = match &self.goal {
            Goal::Dense { dimensions, unit } => {
                let values = merge::finish_vector(subject.mean.mean(), *dimensions, *unit);
                Of::Dense(v1::Dense { values })
            }
            Goal::Sparse { terms_max } => {
                let (ids, weights) = merge::heaviest(subject.terms, *terms_max).into_iter().unzip();
                Of::Sparse(v1::Sparse { ids, weights })
            }
            Goal::Relevance => Of::Relevance(subject.best?),
            Goal::Labels { top_k } => Of::Labels(self.labels(&subject.mean.mean(), *top_k)),
            Goal::Entities(goal) => {
                let found = self.entities(&subject, goal);
                Of::Entities(v1::Entities { entities: shown(&subject.text, found) })
            }
            Goal::Redact(goal, redaction) => {
                let found = self.entities(&subject, goal);
                Of::Redacted(redaction.apply(&subject.text, found))
            }
            Goal::Rank => return None,
        };
        Some(v1::TextResult { index: text as u32, tokens, windows, result: Some(of) })
    }

    fn ranked(&mut self, text: usize) -> Option<v1::TextResult> {
        let (query, documents) = self.subjects.split_first_mut()?;
        let document = documents.get_mut(text.checked_sub(1)?)?;
        if query.left > 0 || document.left > 0 || document.waiting.is_empty() {
            return None;
        }
        let vector = query.mean.mean();
        let scores = std::mem::take(&mut document.waiting).into_iter().map(|output| match output {
            Output::Terms(terms) => merge::dot_terms(&query.terms, &terms),
            Output::Vector(other) => merge::cosine(&vector, &other),
            Output::Labels(_) | Output::Relevance(_) | Output::Tokens(_) => f32::NEG_INFINITY,
        });
        let best = scores.fold(f32::NEG_INFINITY, f32::max);
        Some(v1::TextResult {
            index: text as u32 - 1,
            tokens: document.tokens,
            windows: document.windows,
            result: Some(Of::Relevance(best)),
        })
    }

    fn labels(&self, scores: &[f32], top_k: usize) -> v1::Labels {
        let mut labels: Vec<v1::Label> = self
            .labels
            .iter()
            .zip(scores)
            .map(|(label, score)| v1::Label { label: label.clone(), score: *score })
            .collect();
        labels.sort_by(|a, b| b.score.total_cmp(&a.score));
        if top_k > 0 {
            labels.truncate(top_k);
        }
        v1::Labels { labels }
    }

    fn entities(&self, subject: &Subject, goal: &EntityGoal) -> Vec<Found> {
        let mut tagged: Vec<&(usize, Vec<Tagged>)> = subject.tagged.iter().collect();
        tagged.sort_by_key(|(from, _)| *from);
        let tagged: Vec<Tagged> =
            tagged.into_iter().flat_map(|(_, tagged)| tagged.iter().cloned()).collect();
        let found = entities::group(&tagged, &self.labels, goal.aggregation);
        let wanted = |found: &Found| {
            found.score >= goal.score_min
                && !found.bytes.is_empty()
                && (goal.only.is_empty() || goal.only.contains(&found.label))
        };
        found.into_iter().filter(wanted).collect()
    }
}

fn shown(text: &str, found: Vec<Found>) -> Vec<v1::Entity> {
    let offsets = CharOffsets::new(text);
    let shown = found.into_iter().map(|Found { bytes, label, score }| v1::Entity {
        label,
        text: text.get(bytes.clone()).unwrap_or_default().to_owned(),
        start: offsets.chars(bytes.start),
        end: offsets.chars(bytes.end),
        score,
    });
    shown.collect()
}
