//! `tokenizer.json`: labels to tokens, and the tokens of a caption to words.
//!
//! What a caller writes stays text: `<|endoftext|>` in a label is thirteen characters and not the
//! token.

use tokenizers::Tokenizer;

/// Characters of a label that an error repeats.
const SHOWN_CHARS: usize = 60;

/// Why a text has no tokens, or a file is no tokenizer.
#[derive(Debug, thiserror::Error)]
pub enum WordsError {
    /// The file is not a tokenizer.
    #[error("tokenizer.json is not a tokenizer")]
    File {
        /// What the reader said.
        #[source]
        source: tokenizers::Error,
    },
    /// The text cannot be encoded, or the tokens are no text.
    #[error("the tokenizer failed")]
    Failed {
        /// What the tokenizer said.
        #[source]
        source: tokenizers::Error,
    },
    /// The text is longer than the model reads.
    #[error("the label {label:?} has {tokens} tokens; the model reads at most {limit}")]
    TooLong {
        /// Its beginning.
        label: String,
        /// Its tokens.
        tokens: usize,
        /// Tokens that the model reads.
        limit: usize,
    },
    /// The tokenizer knows more tokens than the model.
    #[error("tokenizer.json gives the token {id}; the model's vocabulary has {vocabulary}")]
    Vocabulary {
        /// The token.
        id: u32,
        /// Tokens of the model.
        vocabulary: usize,
    },
    /// The model takes what it says of a text from its last token, and there is none.
    #[error("tokenizer.json does not end a text with the vocabulary's last token")]
    NoEnd,
}

/// How long the texts are that a model takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    /// As long as they are, and the token with the highest number ends them (CLIP).
    ToEnd,
    /// All of one length, filled up with this token (SigLIP).
    Filled(u32),
}

/// A tokenizer and what its model takes.
#[derive(Debug)]
pub struct Words {
    tokenizer: Tokenizer,
    length: Length,
    tokens_max: usize,
    vocabulary: usize,
}

impl Words {
    /// Reads a `tokenizer.json`. The file's own truncation is turned off, and so is its padding;
    /// the token that it pads with is kept in place of that of `length`.
    ///
    /// # Errors
    /// [`WordsError`].
    pub(super) fn new(
        bytes: &[u8],
        length: Length,
        tokens_max: usize,
        vocabulary: usize,
    ) -> Result<Self, WordsError> {
        let file = |source| WordsError::File { source };
        let mut tokenizer = Tokenizer::from_bytes(bytes).map_err(file)?;
        let own = tokenizer.get_padding().map(|padding| padding.pad_id);
        let length = match (length, own) {
            (Length::Filled(_), Some(own)) => Length::Filled(own),
            (Length::Filled(_), None) | (Length::ToEnd, _) => length,
        };
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(file)?;
        tokenizer.set_encode_special_tokens(true);
        let words = Self { tokenizer, length, tokens_max, vocabulary };
        if let Length::Filled(id) = length
            && id as usize >= vocabulary
        {
            return Err(WordsError::Vocabulary { id, vocabulary });
        }
        words.tokens("a")?;
        Ok(words)
    }

    /// The tokens of a label, as the model takes them.
    ///
    /// # Errors
    /// [`WordsError`].
    pub fn tokens(&self, label: &str) -> Result<Vec<u32>, WordsError> {
        let failed = |source| WordsError::Failed { source };
        let encoding = self.tokenizer.encode_fast(label, true).map_err(failed)?;
        let mut ids = encoding.get_ids().to_vec();
        if ids.len() > self.tokens_max {
            let (tokens, limit) = (ids.len(), self.tokens_max);
            let label = label.chars().take(SHOWN_CHARS).collect();
            return Err(WordsError::TooLong { label, tokens, limit });
        }
        let vocabulary = self.vocabulary;
        if let Some(id) = ids.iter().copied().find(|id| *id as usize >= vocabulary) {
            return Err(WordsError::Vocabulary { id, vocabulary });
        }
        match self.length {
            Length::Filled(id) => ids.resize(self.tokens_max, id),
            // The layers look at the first of the largest numbers.
            Length::ToEnd => {
                let largest = ids.iter().max();
                let first = largest.and_then(|id| ids.iter().position(|other| other == id));
                if first.is_none_or(|at| at + 1 != ids.len()) {
                    return Err(WordsError::NoEnd);
                }
            }
        }
        Ok(ids)
    }

    /// The text of tokens, special ones left out.
    ///
    /// # Errors
    /// [`WordsError::Failed`].
    pub fn text(&self, ids: &[u32]) -> Result<String, WordsError> {
        let text = self.tokenizer.decode(ids, true);
        text.map(|text| text.trim().to_owned()).map_err(|source| WordsError::Failed { source })
    }
}
