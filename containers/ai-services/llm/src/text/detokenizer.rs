//! Text from the bytes of tokens, as they come: a character may be spread over several tokens, and
//! a model may produce bytes that are no text at all. It knows bytes, not tokens.

const REPLACEMENT: char = char::REPLACEMENT_CHARACTER;

/// Bytes of a character that is not complete yet (at most 3).
#[derive(Debug, Clone, Default)]
pub struct Detokenizer {
    pending: Vec<u8>,
}

impl Detokenizer {
    /// The text that `bytes` complete. Bytes that cannot be text become U+FFFD, as
    /// `String::from_utf8_lossy` has it; the beginning of a character is kept for the next call.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        if self.pending.is_empty()
            && let Ok(text) = std::str::from_utf8(bytes)
        {
            return text.to_owned();
        }
        self.pending.extend_from_slice(bytes);
        let mut text = String::new();
        let mut read = 0;
        loop {
            match std::str::from_utf8(&self.pending[read..]) {
                Ok(rest) => {
                    text.push_str(rest);
                    self.pending.clear();
                    return text;
                }
                Err(error) => {
                    let valid = read + error.valid_up_to();
                    text.push_str(&String::from_utf8_lossy(&self.pending[read..valid]));
                    let Some(wrong) = error.error_len() else {
                        self.pending.drain(..valid);
                        return text;
                    };
                    text.push(REPLACEMENT);
                    read = valid + wrong;
                }
            }
        }
    }

    /// The end: what was the beginning of a character never became one.
    pub fn finish(&mut self) -> &'static str {
        let incomplete = !self.pending.is_empty();
        self.pending.clear();
        if incomplete { "\u{FFFD}" } else { "" }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pieces_give_the_text_that_the_whole_gives(
            bytes in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..60),
                // Characters of every length, so that cuts fall inside them.
                "[a-zß€😀𝄞\u{300}]{0,20}".prop_map(String::into_bytes),
            ],
            cuts in proptest::collection::vec(1usize..4, 0..60),
        ) {
            let mut detokenizer = Detokenizer::default();
            let mut text = String::new();
            let mut rest = bytes.as_slice();
            for cut in cuts {
                let (piece, left) = rest.split_at(cut.min(rest.len()));
                text.push_str(&detokenizer.push(piece));
                rest = left;
            }
            text.push_str(&detokenizer.push(rest));
            text.push_str(detokenizer.finish());
            prop_assert_eq!(text, String::from_utf8_lossy(&bytes).into_owned());
        }
    }

    #[test]
    fn a_character_comes_when_it_is_complete() {
        let mut detokenizer = Detokenizer::default();
        assert_eq!(detokenizer.push(b"a\xF0\x9F"), "a");
        assert_eq!(detokenizer.push(b"\x98"), "");
        assert_eq!(detokenizer.push(b"\x80!"), "😀!");
        assert_eq!(detokenizer.finish(), "");
    }
}
