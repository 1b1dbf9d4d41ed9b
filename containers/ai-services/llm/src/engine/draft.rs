//! Speculation by prompt lookup: what followed the last tokens when they came before is proposed as
//! what follows now (Saxena 2023, "Prompt Lookup Decoding"). The model computes the proposed tokens
//! beside the known one, and sampling takes them over as long as it draws the same: so speculation
//! changes how many tokens a step gives, never which.
//!
//! How many are proposed follows how often they were right lately, so that text without repetition
//! costs nothing.

/// Tokens before the end that are searched.
const SEARCHED_TOKENS_MAX: usize = 16 * 1024;
/// The last tokens must have come before in at least this number.
const MATCH_TOKENS_MIN: usize = 2;
/// A match of so many tokens is good enough to stop searching.
const MATCH_TOKENS_MAX: usize = 8;
/// Weight of the newest outcome.
const NEWEST: f64 = 0.12;
/// What one more row costs as a share of a step of one row. A token is proposed when it is likelier
/// than that to be right.
const ROW_COST: f64 = 0.35;
/// Tokens after which a sequence whose text did not repeat itself is tried again.
const RETRY_TOKENS: u32 = 24;

/// The memory of one sequence.
#[derive(Debug, Clone)]
pub(super) struct Drafter {
    /// How often a proposed token was right.
    right: f64,
    since_try: u32,
}

impl Default for Drafter {
    fn default() -> Self {
        // Worth one or two tokens at first.
        Self { right: 0.6, since_try: 0 }
    }
}

impl Drafter {
    /// What may follow `tokens`: at most `tokens_max`, often none.
    pub(super) fn propose(&mut self, tokens: &[u32], tokens_max: usize) -> Vec<u32> {
        let mut wanted = self.length(tokens_max);
        if wanted == 0 {
            self.since_try += 1;
            if self.since_try < RETRY_TOKENS {
                return Vec::new();
            }
            wanted = tokens_max.min(2);
        }
        let draft = lookup(tokens, wanted).to_vec();
        if !draft.is_empty() {
            self.since_try = 0;
        }
        draft
    }

    /// Of `proposed` tokens the first `accepted` were right.
    pub(super) fn learn(&mut self, proposed: usize, accepted: usize) {
        for _ in 0..accepted {
            self.right += (1.0 - self.right) * NEWEST;
        }
        if accepted < proposed {
            self.right -= self.right * NEWEST;
        }
    }

    /// The last token of a draft is right when all before it are: as many as are worth their row.
    fn length(&self, tokens_max: usize) -> usize {
        let mut chance = self.right;
        let mut length = 0;
        while length < tokens_max && chance > ROW_COST {
            length += 1;
            chance *= self.right;
        }
        length
    }
}

/// What followed the longest and latest earlier occurrence of the end of `tokens`.
fn lookup(tokens: &[u32], wanted: usize) -> &[u32] {
    let begin = tokens.len().saturating_sub(SEARCHED_TOKENS_MAX);
    let tokens = &tokens[begin..];
    let Some(&[before_last, last]) = tokens.last_chunk::<2>() else { return &[] };
    let mut best = (MATCH_TOKENS_MIN - 1, 0);
    // `end`: behind an earlier occurrence of the last two tokens.
    for end in (2..tokens.len()).rev() {
        if tokens[end - 1] != last || tokens[end - 2] != before_last {
            continue;
        }
        let same = (1..=MATCH_TOKENS_MAX.min(end))
            .take_while(|back| tokens[end - back] == tokens[tokens.len() - back])
            .count();
        if same > best.0 {
            best = (same, end);
        }
        if same == MATCH_TOKENS_MAX {
            break;
        }
    }
    let (same, end) = best;
    if same < MATCH_TOKENS_MIN {
        return &[];
    }
    &tokens[end..(end + wanted).min(tokens.len())]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_followed_before_is_proposed() {
        let check = |tokens: &[u32], wanted, expect: &[u32]| {
            assert_eq!(lookup(tokens, wanted), expect, "{tokens:?}");
        };
        check(&[1, 2, 3, 4, 1, 2], 2, &[3, 4]);
        check(&[1, 2, 3, 4, 1, 2], 9, &[3, 4, 1, 2]);
        check(&[1, 2, 3, 4, 9, 2], 2, &[]);
        check(&[1, 2], 2, &[]);
        check(&[1], 2, &[]);
        // The longer match wins over the later one.
        check(&[7, 1, 2, 3, 5, 1, 2, 4, 7, 1, 2], 1, &[3]);
        check(&[1, 2, 3, 5, 1, 2, 4, 9, 1, 2], 1, &[4]);
        // A run repeats itself.
        check(&[5, 5, 5], 2, &[5]);
    }

    #[test]
    fn text_without_repetition_soon_costs_nothing_and_repetition_is_found_again() {
        let mut drafter = Drafter::default();
        let tokens = [1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2];
        let mut proposed = 0;
        for _ in 0..200 {
            let draft = drafter.propose(&tokens, 7);
            proposed += draft.len();
            drafter.learn(draft.len(), 0);
        }
        assert!(proposed < 30, "{proposed} tokens for nothing");
        for _ in 0..200 {
            let draft = drafter.propose(&tokens, 7);
            drafter.learn(draft.len(), draft.len());
        }
        assert_eq!(drafter.propose(&tokens, 7).len(), 7);
    }

    proptest! {
        #[test]
        fn a_draft_continues_an_earlier_occurrence(
            tokens in proptest::collection::vec(0u32..4, 0..60),
            wanted in 0usize..10,
        ) {
            let draft = lookup(&tokens, wanted);
            prop_assert!(draft.len() <= wanted);
            if let (false, Some(end)) = (draft.is_empty(), tokens.last_chunk::<2>()) {
                let with: Vec<u32> = end.iter().chain(draft).copied().collect();
                prop_assert!(tokens.windows(with.len()).any(|window| window == with));
            }
        }
    }
}
