//! The byte-level alphabet of GPT-2: each byte is written as one printable character, so that a
//! vocabulary of strings can hold any bytes.
//!
//! Source: `bytes_to_unicode` of <https://github.com/openai/gpt-2/blob/master/src/encoder.py>

use std::sync::LazyLock;

/// Characters of the alphabet lie below this.
const CHARACTERS: usize = 0x144;

struct Alphabet {
    characters: [char; 256],
    bytes: [Option<u8>; CHARACTERS],
}

static ALPHABET: LazyLock<Alphabet> = LazyLock::new(|| {
    let mut alphabet = Alphabet { characters: ['\0'; 256], bytes: [None; CHARACTERS] };
    let mut moved = 0x100;
    for byte in 0..=255_u8 {
        let printable = matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
        let code = if printable { u32::from(byte) } else { moved };
        moved += u32::from(!printable);
        alphabet.characters[usize::from(byte)] = char::from_u32(code).unwrap_or('\0');
        alphabet.bytes[code as usize] = Some(byte);
    }
    alphabet
});

/// The bytes of `text`, each as its character.
pub(super) fn encode(text: &str) -> String {
    text.bytes().map(|byte| ALPHABET.characters[usize::from(byte)]).collect()
}

/// The bytes that a token's characters stand for; `None` when one is not of the alphabet.
pub(super) fn decode(token: &str) -> Option<Vec<u8>> {
    token.chars().map(|c| ALPHABET.bytes.get(c as usize).copied().flatten()).collect()
}
