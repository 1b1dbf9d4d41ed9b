//! Stop strings in text that comes in pieces. A match may begin in one piece and end in another, so
//! text that could be the beginning of one is held back.
//!
//! The result does not depend on where the pieces are cut: the output ends before the stop string
//! that is complete first, reading character by character; of several that are complete at the same
//! place, before the longest. It knows text, not tokens.

use std::sync::Arc;

/// The stop strings of a request. None is empty.
#[derive(Debug, Clone, Default)]
pub struct StopStrings(Arc<[String]>);

impl StopStrings {
    /// Of these strings; empty ones would match everywhere and are left out.
    #[must_use]
    pub fn new(strings: Vec<String>) -> Self {
        Self(strings.into_iter().filter(|string| !string.is_empty()).collect())
    }

    /// A scan at the beginning of an output.
    #[must_use]
    pub fn scan(&self) -> StopScan {
        StopScan { strings: self.clone(), held: String::new(), stopped: false }
    }
}

/// The place in an output up to which it has been searched.
#[derive(Debug, Clone)]
pub struct StopScan {
    strings: StopStrings,
    /// Text that may be the beginning of a stop string, shorter than the longest of them.
    held: String,
    stopped: bool,
}

impl StopScan {
    /// The text that is safe to show after `text` came. When a stop string is complete,
    /// [`stopped`](Self::stopped) is true from now on and nothing more is shown.
    pub fn push(&mut self, text: &str) -> String {
        if self.stopped {
            return String::new();
        }
        if self.strings.0.is_empty() {
            return text.to_owned();
        }
        self.held.push_str(text);
        if let Some(at) = self.first_match() {
            self.held.truncate(at);
            self.stopped = true;
            return std::mem::take(&mut self.held);
        }
        let keep = self.possible_beginning();
        let rest = self.held.split_off(self.held.len() - keep);
        std::mem::replace(&mut self.held, rest)
    }

    /// Whether a stop string has come.
    #[must_use]
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// The end of the output: what was held back for a stop string that did not come.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Where the match that is complete first begins.
    fn first_match(&self) -> Option<usize> {
        let matches = self.strings.0.iter().filter_map(|string| {
            let start = self.held.find(string.as_str())?;
            Some((start + string.len(), start))
        });
        matches.min().map(|(_, start)| start)
    }

    /// Bytes at the end of the held text that are the beginning of a stop string.
    fn possible_beginning(&self) -> usize {
        let ends_with_beginning_of = |string: &str| {
            let longest = (string.len() - 1).min(self.held.len());
            (1..=longest)
                .rev()
                .find(|bytes| self.held.as_bytes().ends_with(&string.as_bytes()[..*bytes]))
                .unwrap_or(0)
        };
        self.strings.0.iter().map(|string| ends_with_beginning_of(string)).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scan(strings: &[&str], pieces: &[&str]) -> (Vec<String>, bool, String) {
        let stop = StopStrings::new(strings.iter().map(|s| (*s).to_owned()).collect());
        let mut scan = stop.scan();
        let shown = pieces.iter().map(|piece| scan.push(piece)).collect();
        (shown, scan.stopped(), scan.finish())
    }

    fn check(strings: &[&str], pieces: &[&str], shown: &[&str], stopped: bool, tail: &str) {
        let (ours, ours_stopped, ours_tail) = scan(strings, pieces);
        assert_eq!(
            (ours, ours_stopped, ours_tail.as_str()),
            (shown.iter().map(|s| (*s).to_owned()).collect(), stopped, tail)
        );
    }

    #[test]
    fn text_is_held_back_only_while_it_may_become_a_stop_string() {
        check(&["END"], &["a E", "ND b"], &["a ", ""], true, "");
        check(&["END"], &["a E", "N", "x"], &["a ", "", "ENx"], false, "");
        check(&["END"], &["a EN"], &["a "], false, "EN");
        check(&["\n\n", "User:"], &["hi\n", "\nUser:"], &["hi", ""], true, "");
        check(&["aab"], &["aaa", "b"], &["a", ""], true, "");
        check(&["€€"], &["1€", "2€€3"], &["1", "€2"], true, "");
        check(&[], &["a", "b"], &["a", "b"], false, "");
    }

    #[test]
    fn the_string_that_is_complete_first_ends_the_output() {
        check(&["abcd", "bc"], &["abcd"], &["a"], true, "");
        check(&["abc", "bc"], &["xabc"], &["x"], true, "");
    }

    /// Character by character, with no state but the text so far.
    fn by_definition(strings: &[String], text: &str) -> (String, bool) {
        let mut so_far = String::new();
        for character in text.chars() {
            so_far.push(character);
            let longest = strings.iter().filter(|s| so_far.ends_with(s.as_str())).map(String::len);
            if let Some(bytes) = longest.max() {
                so_far.truncate(so_far.len() - bytes);
                return (so_far, true);
            }
        }
        (so_far, false)
    }

    proptest! {
        #[test]
        fn the_cuts_between_pieces_change_nothing(
            strings in proptest::collection::vec("[ab€]{1,4}", 0..4),
            pieces in proptest::collection::vec("[ab€]{0,5}", 0..12),
        ) {
            let mut scan = StopStrings::new(strings.clone()).scan();
            let mut shown: String = pieces.iter().map(|piece| scan.push(piece)).collect();
            let stopped = scan.stopped();
            shown.push_str(&scan.finish());
            prop_assert_eq!((shown, stopped), by_definition(&strings, &pieces.concat()));
        }
    }
}
