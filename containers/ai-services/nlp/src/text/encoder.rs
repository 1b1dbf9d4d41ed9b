//! A model's tokenizer: ids with their places in the text, and the special tokens around them.
//!
//! What a user writes stays text: `[SEP]` in a text is five characters, not the token.

use std::ops::Range;

use tokenizers::Tokenizer;

/// Why a text has no tokens, or a file no tokenizer.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// The file is not a tokenizer.
    #[error("it is not a tokenizer file")]
    File {
        /// What the reader said.
        #[source]
        source: tokenizers::Error,
    },
    /// The text cannot be encoded.
    #[error("the text cannot be encoded")]
    Encode {
        /// What the tokenizer said.
        #[source]
        source: tokenizers::Error,
    },
    /// The tokenizer puts special tokens where no template is known.
    #[error("the tokenizer's special tokens cannot be told from its text")]
    Template,
    /// The tokenizer knows more tokens than the model.
    #[error("the tokenizer gives token {id}, the model's vocabulary has {vocabulary}")]
    Vocabulary {
        /// The token.
        id: u32,
        /// Tokens of the model.
        vocabulary: usize,
    },
}

/// A token and where it is in its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// Its bytes in the text; empty when it stands for none.
    pub bytes: Range<usize>,
    /// Number of its word, from 0.
    pub word: u32,
}

/// A text as tokens, special ones not included.
#[derive(Debug, Clone, Default)]
pub struct EncodedText {
    /// The tokens.
    pub tokens: Vec<Token>,
}

impl EncodedText {
    /// Ids of which no text is known, each a word.
    #[must_use]
    pub fn of_ids(ids: &[u32]) -> Self {
        let token = |(word, id): (usize, &u32)| Token { id: *id, bytes: 0..0, word: word as u32 };
        Self { tokens: ids.iter().enumerate().map(token).collect() }
    }

    /// The ids of a stretch.
    #[must_use]
    pub fn ids(&self, range: Range<usize>) -> Vec<u32> {
        self.tokens[range].iter().map(|token| token.id).collect()
    }

    /// Whether a token begins a word; the end of the text does.
    #[must_use]
    pub fn starts_word(&self, at: usize) -> bool {
        match (at.checked_sub(1).and_then(|before| self.tokens.get(before)), self.tokens.get(at)) {
            (Some(before), Some(token)) => before.word != token.word,
            (None, _) | (_, None) => true,
        }
    }
}

/// Special tokens before, between and behind texts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Template {
    before: Vec<u32>,
    between: Vec<u32>,
    behind: Vec<u32>,
}

/// A tokenizer and its templates.
#[derive(Debug)]
pub struct TextEncoder {
    tokenizer: Tokenizer,
    single: Template,
    pair: Option<Template>,
    vocabulary: usize,
}

impl TextEncoder {
    /// Reads a `tokenizer.json` for a model with a vocabulary of that many ids. The file's own
    /// padding and truncation are turned off.
    ///
    /// # Errors
    /// [`TextError`].
    pub fn from_bytes(bytes: &[u8], vocabulary: usize) -> Result<Self, TextError> {
        let mut tokenizer =
            Tokenizer::from_bytes(bytes).map_err(|source| TextError::File { source })?;
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|source| TextError::File { source })?;
        tokenizer.set_encode_special_tokens(true);
        let single = template(&tokenizer, "a", None)?.ok_or(TextError::Template)?;
        let pair = template(&tokenizer, "a", Some("b"))?;
        let ids = single.before.iter().chain(&single.behind);
        if let Some(id) = ids.copied().find(|id| *id as usize >= vocabulary) {
            return Err(TextError::Vocabulary { id, vocabulary });
        }
        Ok(Self { tokenizer, single, pair, vocabulary })
    }

    /// The tokens of a text.
    ///
    /// # Errors
    /// [`TextError::Encode`], and [`TextError::Vocabulary`] when the model has no such token.
    pub fn encode(&self, text: &str) -> Result<EncodedText, TextError> {
        let encoding =
            self.tokenizer.encode(text, false).map_err(|source| TextError::Encode { source })?;
        let words = encoding.get_word_ids();
        let mut tokens = Vec::with_capacity(encoding.len());
        let places = encoding.get_ids().iter().zip(encoding.get_offsets());
        for ((id, (start, end)), word) in places.zip(words) {
            if *id as usize >= self.vocabulary {
                return Err(TextError::Vocabulary { id: *id, vocabulary: self.vocabulary });
            }
            let last = tokens.last().map_or(0, |token: &Token| token.word);
            let (start, end) = (bounded(text, *start), bounded(text, *end));
            let bytes = start..end.max(start);
            tokens.push(Token { id: *id, bytes, word: word.unwrap_or(last) });
        }
        Ok(EncodedText { tokens })
    }

    /// Special tokens around a text.
    #[must_use]
    pub fn special_tokens(&self) -> usize {
        self.single.before.len() + self.single.behind.len()
    }

    /// Special tokens around two texts; `None` when the tokenizer takes no pairs.
    #[must_use]
    pub fn special_tokens_of_pair(&self) -> Option<usize> {
        let pair = self.pair.as_ref()?;
        Some(pair.before.len() + pair.between.len() + pair.behind.len())
    }

    /// A sequence for the model; also tells how many tokens stand before the text.
    #[must_use]
    pub fn sequence(&self, ids: &[u32]) -> (Vec<u32>, usize) {
        (join(&[&self.single.before, ids, &self.single.behind]), self.single.before.len())
    }

    /// A caller's own ids without the special tokens that they may have come with.
    #[must_use]
    pub fn inner_of<'a>(&self, ids: &'a [u32]) -> &'a [u32] {
        let ids = ids.strip_prefix(self.single.before.as_slice()).unwrap_or(ids);
        ids.strip_suffix(self.single.behind.as_slice()).unwrap_or(ids)
    }

    /// A sequence of two texts, and where the second begins. `None` as above.
    #[must_use]
    pub fn sequence_of_pair(&self, first: &[u32], second: &[u32]) -> Option<(Vec<u32>, usize)> {
        let Template { before, between, behind } = self.pair.as_ref()?;
        let second_from = before.len() + first.len() + between.len();
        Some((join(&[before, first, between, second, behind]), second_from))
    }

    /// Tokens of the model.
    #[must_use]
    pub const fn vocabulary(&self) -> usize {
        self.vocabulary
    }
}

/// The nearest start of a character at or before a byte.
fn bounded(text: &str, at: usize) -> usize {
    text.floor_char_boundary(at.min(text.len()))
}

fn join(parts: &[&[u32]]) -> Vec<u32> {
    parts.concat()
}

/// The template, found by comparing a probe with and without special tokens. `None` when the probes
/// are not in the result as they are.
fn template(
    tokenizer: &Tokenizer,
    first: &str,
    second: Option<&str>,
) -> Result<Option<Template>, TextError> {
    let encode = |source| TextError::Encode { source };
    let plain = |text: &str| -> Result<Vec<u32>, TextError> {
        Ok(tokenizer.encode(text, false).map_err(encode)?.get_ids().to_vec())
    };
    let whole = match second {
        None => tokenizer.encode(first, true),
        Some(second) => tokenizer.encode((first, second), true),
    };
    let whole = whole.map_err(encode)?.get_ids().to_vec();
    let inner = plain(first)?;
    let Some(at) = position(&whole, &inner) else { return Ok(None) };
    let (before, rest) = (whole[..at].to_vec(), &whole[at + inner.len()..]);
    let Some(second) = second else {
        return Ok(Some(Template { before, between: Vec::new(), behind: rest.to_vec() }));
    };
    let inner = plain(second)?;
    let Some(at) = position(rest, &inner) else { return Ok(None) };
    let (between, behind) = (rest[..at].to_vec(), rest[at + inner.len()..].to_vec());
    Ok(Some(Template { before, between, behind }))
}

fn position(all: &[u32], part: &[u32]) -> Option<usize> {
    if part.is_empty() {
        return None;
    }
    all.windows(part.len()).position(|window| window == part)
}
