//! Long texts as windows with overlap: which tokens each has, and which of them it answers for.

use std::ops::Range;

/// A stretch of a text's tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// The tokens that are computed together.
    pub tokens: Range<usize>,
    /// Those for which this window's result counts: every token of the text is in exactly one.
    /// It lies in the middle of what neighbours share, so that each has context on both sides.
    pub owned: Range<usize>,
}

/// Windows over `count` tokens of at most `room` each, neighbours sharing about `overlap`. A window
/// ends where `starts_word` says that a new word begins, if there is such a place in its last half.
///
/// # Panics
/// When `room` is 0 or not more than twice `overlap`.
#[must_use]
pub fn windows(
    count: usize,
    room: usize,
    overlap: usize,
    starts_word: impl Fn(usize) -> bool,
) -> Vec<Window> {
    assert!(room > 2 * overlap, "windows of {room} tokens cannot share {overlap}");
    let mut spans: Vec<Range<usize>> = Vec::new();
    let mut start = 0;
    loop {
        let furthest = (start + room).min(count);
        let end = if furthest == count {
            count
        } else {
            let least = start + room / 2 + 1;
            (least.max(start + 2 * overlap + 1)..=furthest)
                .rev()
                .find(|at| starts_word(*at))
                .unwrap_or(furthest)
        };
        spans.push(start..end);
        if end == count {
            break;
        }
        // The next one begins at a word as well, no later than the overlap asks for.
        let latest = end - overlap;
        let earliest = start + 1 + (latest - start) / 2;
        start = (earliest..=latest).rev().find(|at| starts_word(*at)).unwrap_or(latest);
    }
    let mut windows = Vec::with_capacity(spans.len());
    let mut owned_from = 0;
    for (index, tokens) in spans.iter().enumerate() {
        let owned_to = match spans.get(index + 1) {
            None => count,
            Some(next) => {
                let middle = next.start + (tokens.end - next.start) / 2;
                // At a word, so that no word is answered for by two.
                (next.start.max(owned_from)..=middle)
                    .rev()
                    .find(|at| starts_word(*at))
                    .unwrap_or(middle)
            }
        };
        windows.push(Window { tokens: tokens.clone(), owned: owned_from..owned_to });
        owned_from = owned_to;
    }
    windows
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_short_text_is_one_window() {
        assert_eq!(windows(5, 10, 2, |_| true), [Window { tokens: 0..5, owned: 0..5 }]);
        assert_eq!(windows(0, 10, 2, |_| true), [Window { tokens: 0..0, owned: 0..0 }]);
    }

    #[test]
    fn neighbours_share_and_divide_the_overlap() {
        let found = windows(25, 10, 4, |_| true);
        let tokens: Vec<_> = found.iter().map(|window| window.tokens.clone()).collect();
        assert_eq!(tokens, [0..10, 6..16, 12..22, 18..25]);
        let owned: Vec<_> = found.iter().map(|window| window.owned.clone()).collect();
        assert_eq!(owned, [0..8, 8..14, 14..20, 20..25]);
    }

    proptest! {
        #[test]
        fn every_token_is_computed_and_answered_for_once(
            count in 0usize..600,
            room in 3usize..60,
            share in 0usize..100,
            words in proptest::collection::vec(any::<bool>(), 600),
        ) {
            let overlap = (room - 1) / 2 * share / 100;
            let found = windows(count, room, overlap, |at| words[at]);
            let mut next = 0;
            for (index, window) in found.iter().enumerate() {
                prop_assert!(window.tokens.len() <= room);
                prop_assert_eq!(window.owned.start, next);
                prop_assert!(window.owned.start >= window.tokens.start);
                prop_assert!(window.owned.end <= window.tokens.end);
                next = window.owned.end;
                if let Some(after) = found.get(index + 1) {
                    prop_assert!(after.tokens.start > window.tokens.start, "it goes on");
                    prop_assert!(after.tokens.start + overlap <= window.tokens.end, "they share");
                }
            }
            prop_assert_eq!(next, count);
        }

        #[test]
        fn a_word_that_fits_is_not_cut(lengths in proptest::collection::vec(1usize..5, 0..200)) {
            let mut begins = vec![false; lengths.iter().sum::<usize>() + 1];
            let mut at = 0;
            for length in &lengths {
                begins[at] = true;
                at += length;
            }
            begins[at] = true;
            for window in windows(at, 40, 10, |at| begins[at]) {
                prop_assert!(begins[window.tokens.start] && begins[window.tokens.end]);
                prop_assert!(begins[window.owned.start] && begins[window.owned.end]);
            }
        }
    }
}
