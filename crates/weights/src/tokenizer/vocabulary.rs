//! The tokens of a model: their texts, the bytes that they stand for, their kinds. It knows no text
//! to encode.

use std::collections::HashMap;

/// Kind of a token, as `tokenizer.ggml.token_type` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// Part of a text.
    Normal,
    /// Stands for what cannot be encoded.
    Unknown,
    /// Structure, not text: begin, end, turn.
    Control,
    /// Text that is always one token.
    UserDefined,
    /// Not used.
    Unused,
    /// One byte, for vocabularies that fall back to bytes.
    Byte,
}

impl TokenKind {
    pub(super) fn from_number(number: u64) -> Option<Self> {
        Some(match number {
            1 => Self::Normal,
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => return None,
        })
    }
}

/// All tokens, by id and by text.
#[derive(Debug)]
pub(super) struct Vocabulary {
    /// The pieces of all tokens, one after the other.
    bytes: Vec<u8>,
    /// Where each piece ends in `bytes`.
    ends: Vec<usize>,
    kinds: Vec<TokenKind>,
    ids: HashMap<String, u32>,
}

impl Vocabulary {
    pub(super) fn new() -> Self {
        Self { bytes: Vec::new(), ends: Vec::new(), kinds: Vec::new(), ids: HashMap::new() }
    }

    /// Adds the next token. Of two tokens with one text, the first is found by it.
    pub(super) fn push(&mut self, text: &str, piece: &[u8], kind: TokenKind) {
        // A vocabulary has at most `gguf::limits::ARRAY_LEN_MAX` tokens.
        let id = u32::try_from(self.kinds.len()).unwrap_or(u32::MAX);
        self.bytes.extend_from_slice(piece);
        self.ends.push(self.bytes.len());
        self.kinds.push(kind);
        self.ids.entry(text.to_owned()).or_insert(id);
    }

    pub(super) fn len(&self) -> usize {
        self.kinds.len()
    }

    pub(super) fn piece(&self, id: u32) -> Option<&[u8]> {
        let id = id as usize;
        let end = *self.ends.get(id)?;
        let begin = id.checked_sub(1).map_or(0, |before| self.ends[before]);
        Some(&self.bytes[begin..end])
    }

    pub(super) fn kind(&self, id: u32) -> Option<TokenKind> {
        self.kinds.get(id as usize).copied()
    }

    pub(super) fn id(&self, text: &str) -> Option<u32> {
        self.ids.get(text).copied()
    }

    /// Tokens of one kind with their texts.
    pub(super) fn of_kind(&self, kind: TokenKind) -> impl Iterator<Item = (&str, u32)> {
        self.ids
            .iter()
            .filter(move |(_, id)| self.kind(**id) == Some(kind))
            .map(|(text, &id)| (text.as_str(), id))
    }

    /// All texts with their ids.
    pub(super) fn texts(&self) -> impl Iterator<Item = (&str, u32)> {
        self.ids.iter().map(|(text, &id)| (text.as_str(), id))
    }
}
