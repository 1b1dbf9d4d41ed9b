//! Positions in a text: from bytes to characters (Unicode scalar values), which is what callers of
//! every language can count.

/// The characters before each byte of a text, for bytes at which a character begins.
#[derive(Debug)]
pub struct CharOffsets<'a> {
    text: &'a str,
    /// Characters before each block of [`BLOCK`] bytes.
    before: Vec<u32>,
}

const BLOCK: usize = 64;

impl<'a> CharOffsets<'a> {
    /// Counts the characters of `text` once.
    #[must_use]
    pub fn new(text: &'a str) -> Self {
        let mut before = Vec::with_capacity(text.len() / BLOCK + 1);
        let mut count = 0u32;
        for block in text.as_bytes().chunks(BLOCK) {
            before.push(count);
            count += starts(block);
        }
        before.push(count);
        Self { text, before }
    }

    /// Characters before byte `at`; inside a character, those before it and itself.
    #[must_use]
    pub fn chars(&self, at: usize) -> u32 {
        let at = at.min(self.text.len());
        let block = at / BLOCK;
        let within = &self.text.as_bytes()[block * BLOCK..at];
        self.before.get(block).copied().unwrap_or(0) + starts(within)
    }
}

/// Characters that begin in the bytes.
fn starts(bytes: &[u8]) -> u32 {
    bytes.iter().filter(|byte| **byte & 0xc0 != 0x80).count() as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn characters_are_counted_as_the_standard_library_does(text in "\\PC{0,200}") {
            let offsets = CharOffsets::new(&text);
            for (count, (at, _)) in text.char_indices().enumerate() {
                prop_assert_eq!(offsets.chars(at) as usize, count);
            }
            prop_assert_eq!(offsets.chars(text.len()) as usize, text.chars().count());
            prop_assert_eq!(offsets.chars(text.len() + 9) as usize, text.chars().count());
        }
    }
}
