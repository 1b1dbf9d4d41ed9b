//! From the label probabilities of tokens to entities: B- and I- tags, words of several pieces, and
//! the strategies of aggregation (the names and rules are those of Hugging Face's pipeline).

use std::ops::Range;

use aisemble_protocol::v1::Aggregation;

use crate::text::Token;

/// Labels that say "nothing here".
const OUTSIDE: [&str; 2] = ["O", "$KEEP"];

/// A stretch of a text with a label.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Its bytes in the text.
    pub bytes: Range<usize>,
    /// The label.
    pub label: String,
    /// 0 to 1.
    pub score: f32,
}

/// A token or a word with its likeliest label.
#[derive(Debug, Clone, PartialEq)]
pub struct Tagged {
    bytes: Range<usize>,
    label: usize,
    score: f32,
}

/// Tags the tokens of a window. `probabilities` is `[tokens, labels]`. The tokens must be whole
/// words, as far as a window can hold them.
#[must_use]
pub fn tag(
    tokens: &[Token],
    probabilities: &[f32],
    labels: usize,
    aggregation: Aggregation,
) -> Vec<Tagged> {
    let rows: Vec<&[f32]> = probabilities.chunks_exact(labels.max(1)).collect();
    let tagged = |bytes: Range<usize>, row: &[f32]| {
        let (label, score) = best(row);
        Tagged { bytes, label, score }
    };
    match aggregation {
        Aggregation::None | Aggregation::Simple | Aggregation::Unspecified => {
            tokens.iter().zip(&rows).map(|(token, row)| tagged(token.bytes.clone(), row)).collect()
        }
        Aggregation::First | Aggregation::Average | Aggregation::Max => {
            let mut units = Vec::new();
            let mut at = 0;
            for word in tokens.chunk_by(|a, b| a.word == b.word) {
                let rows = &rows[at.min(rows.len())..(at + word.len()).min(rows.len())];
                at += word.len();
                let (Some(first), Some(last), Some(row)) =
                    (word.first(), word.last(), rows.first())
                else {
                    continue;
                };
                let bytes = first.bytes.start..last.bytes.end.max(first.bytes.start);
                units.push(match aggregation {
                    Aggregation::Average => tagged(bytes, &mean(rows)),
                    Aggregation::Max => {
                        let surest = rows.iter().max_by(|a, b| best(a).1.total_cmp(&best(b).1));
                        tagged(bytes, surest.unwrap_or(row))
                    }
                    Aggregation::First
                    | Aggregation::None
                    | Aggregation::Simple
                    | Aggregation::Unspecified => tagged(bytes, row),
                });
            }
            units
        }
    }
}

fn best(row: &[f32]) -> (usize, f32) {
    let first = (0, f32::NEG_INFINITY);
    row.iter().copied().enumerate().fold(
        first,
        |best, (label, score)| {
            if score > best.1 { (label, score) } else { best }
        },
    )
}

fn mean(rows: &[&[f32]]) -> Vec<f32> {
    let mut sum = vec![0.0; rows.first().map_or(0, |row| row.len())];
    for row in rows {
        for (sum, value) in sum.iter_mut().zip(*row) {
            *sum += value / rows.len() as f32;
        }
    }
    sum
}

/// `B-PER` as (whether it begins anew, `PER`); a label without a prefix goes on.
fn parts(label: &str) -> (bool, &str) {
    match label.split_once('-') {
        Some(("B", rest)) => (true, rest),
        Some(("I", rest)) => (false, rest),
        Some(_) | None => (false, label),
    }
}

/// Entities of a whole text from its tagged tokens or words, in order.
#[must_use]
pub fn group(tagged: &[Tagged], labels: &[String], aggregation: Aggregation) -> Vec<Found> {
    let name = |tagged: &Tagged| labels.get(tagged.label).map_or("", String::as_str);
    let outside = |tagged: &Tagged| OUTSIDE.contains(&name(tagged)) || name(tagged).is_empty();
    match aggregation {
        Aggregation::None => tagged
            .iter()
            .filter(|tagged| !outside(tagged))
            .map(|tagged| Found {
                bytes: tagged.bytes.clone(),
                label: name(tagged).to_owned(),
                score: tagged.score,
            })
            .collect(),
        Aggregation::Unspecified
        | Aggregation::Simple
        | Aggregation::First
        | Aggregation::Average
        | Aggregation::Max => tagged
            .chunk_by(|before, next| {
                let (begins, label) = parts(name(next));
                !begins && label == parts(name(before)).1
            })
            .filter(|run| run.first().is_some_and(|first| !outside(first)))
            .filter_map(|run| {
                let (first, last) = (run.first()?, run.last()?);
                let score = run.iter().map(|tagged| tagged.score).sum::<f32>() / run.len() as f32;
                let bytes = first.bytes.start..last.bytes.end.max(first.bytes.start);
                Some(Found { bytes, label: parts(name(first)).1.to_owned(), score })
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = "Angela Merkel visited New York";
    const LABELS: [&str; 5] = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"];

    fn labels() -> Vec<String> {
        LABELS.map(str::to_owned).into()
    }

    /// Pieces of [`TEXT`]: "Angela", "Mer", "kel", "visited", "New", "York".
    fn tokens() -> Vec<Token> {
        [(0..6, 0), (7..10, 1), (10..13, 1), (14..21, 2), (22..25, 3), (26..30, 4)]
            .map(|(bytes, word)| Token { id: 0, bytes, word })
            .into()
    }

    /// Each token's label and its probability; the rest is shared by the others.
    fn probabilities(rows: [(usize, f32); 6]) -> Vec<f32> {
        rows.into_iter()
            .flat_map(|(label, score)| {
                (0..5).map(move |at| if at == label { score } else { (1.0 - score) / 4.0 })
            })
            .collect()
    }

    fn check(aggregation: Aggregation, rows: [(usize, f32); 6], expected: &[(&str, &str, f32)]) {
        let tagged = tag(&tokens(), &probabilities(rows), 5, aggregation);
        let found = group(&tagged, &labels(), aggregation);
        let found: Vec<_> =
            found.iter().map(|f| (&TEXT[f.bytes.clone()], f.label.as_str(), f.score)).collect();
        assert_eq!(found.len(), expected.len(), "{aggregation:?}: {found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert_eq!((found.0, found.1), (expected.0, expected.1), "{aggregation:?}");
            assert!((found.2 - expected.2).abs() < 1e-6, "{aggregation:?}: {found:?}");
        }
    }

    #[test]
    fn neighbours_of_one_label_are_one_entity() {
        let rows = [(1, 0.9), (2, 0.8), (2, 0.7), (0, 0.9), (3, 0.9), (4, 0.5)];
        let people = [("Angela Merkel", "PER", 0.8), ("New York", "LOC", 0.7)];
        check(Aggregation::Simple, rows, &people);
        let words = [("Angela Merkel", "PER", 0.85), ("New York", "LOC", 0.7)];
        check(Aggregation::First, rows, &words);
        check(Aggregation::Max, rows, &words);
        let mean = [("Angela Merkel", "PER", 0.825), ("New York", "LOC", 0.7)];
        check(Aggregation::Average, rows, &mean);
        let pieces = [
            ("Angela", "B-PER", 0.9),
            ("Mer", "I-PER", 0.8),
            ("kel", "I-PER", 0.7),
            ("New", "B-LOC", 0.9),
            ("York", "I-LOC", 0.5),
        ];
        check(Aggregation::None, rows, &pieces);
    }

    #[test]
    fn pieces_that_disagree_are_one_word_where_that_is_asked_for() {
        // The second piece of "Merkel" says LOC, surer than the first says PER.
        let rows = [(1, 0.9), (2, 0.6), (4, 0.9), (0, 0.9), (0, 0.9), (0, 0.9)];
        let apart = [("Angela Mer", "PER", 0.75), ("kel", "LOC", 0.9)];
        check(Aggregation::Simple, rows, &apart);
        check(Aggregation::First, rows, &[("Angela Merkel", "PER", 0.75)]);
        check(Aggregation::Max, rows, &[("Angela", "PER", 0.9), ("Merkel", "LOC", 0.9)]);
        let mean = [("Angela", "PER", 0.9), ("Merkel", "LOC", 0.5)];
        check(Aggregation::Average, rows, &mean);
    }

    #[test]
    fn a_beginning_divides_neighbours() {
        let rows = [(1, 0.9), (1, 0.9), (2, 0.9), (0, 0.9), (3, 0.9), (3, 0.9)];
        let expected = [
            ("Angela", "PER", 0.9),
            ("Merkel", "PER", 0.9),
            ("New", "LOC", 0.9),
            ("York", "LOC", 0.9),
        ];
        check(Aggregation::Simple, rows, &expected);
    }

    proptest! {
        #[test]
        fn entities_are_in_order_inside_the_text_and_never_outside(
            values in proptest::collection::vec(0.0f32..1.0, 30),
            strategy in 0i32..6,
        ) {
            let aggregation = Aggregation::try_from(strategy).unwrap();
            let found = group(&tag(&tokens(), &values, 5, aggregation), &labels(), aggregation);
            let mut next = 0;
            for found in &found {
                prop_assert!(found.bytes.start >= next && found.bytes.end <= TEXT.len());
                prop_assert!(!found.bytes.is_empty() && found.label != "O");
                prop_assert!((0.0..=1.0).contains(&found.score));
                next = found.bytes.end;
            }
        }
    }
}
