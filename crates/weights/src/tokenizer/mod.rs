//! Tokenizers built from the metadata of a GGUF file or from a `tokenizer.json`. It knows text,
//! tokens and bytes, not prompts, chats or models.
//!
//! The merges of a byte-pair vocabulary are done by the `tokenizers` crate; splitting the text
//! before it is done here (`split`), because the crate's regular expressions give up silently on
//! long runs of white space, and special tokens are found here, because whether they are parsed is
//! decided per call. No text is cached between calls.

mod byte_level;
mod error;
mod huggingface;
mod load;
mod scores;
mod split;
mod vocabulary;

#[cfg(test)]
mod tests;

use aho_corasick::AhoCorasick;
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::NFC;
use tokenizers::{Model as _, NormalizedString, Normalizer as _};

pub use error::{EncodeError, TokenizerError};
pub use huggingface::HuggingFaceFiles;
pub use vocabulary::TokenKind;

use crate::gguf::GgufFile;
use scores::ScoreMerges;
use split::Splitter;
use vocabulary::Vocabulary;

/// Bytes of one text.
pub const ENCODE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A tokenizer of one model.
#[derive(Debug)]
pub struct Tokenizer {
    vocabulary: Vocabulary,
    merges: Merges,
    /// Control and user-defined tokens, and their ids in the order of the patterns.
    special: Matcher,
    /// User-defined tokens only: they are found in any text.
    user_defined: Matcher,
    ids: SpecialIds,
    chat_template: Option<String>,
}

#[derive(Debug)]
enum Merges {
    /// Within pieces of the text, bytes as characters; `nfc`: composed first.
    BytePairs { splitter: Splitter, nfc: bool, bpe: Box<BPE> },
    /// Of the whole text by scores.
    Scores(ScoreMerges),
    /// Of the whole text by rank, with U+2581 for spaces.
    Whole { prefix: SpacePrefix, bpe: Box<BPE> },
}

/// Where a space is put that nobody wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SpacePrefix {
    /// Nowhere.
    Never,
    /// In front of a text.
    First,
    /// In front of a text and behind each special token.
    Always,
}

#[derive(Debug)]
struct Matcher {
    automaton: Option<AhoCorasick>,
    ids: Vec<u32>,
}

/// The ids that have a meaning of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct SpecialIds {
    bos: Option<u32>,
    eos: Option<u32>,
    unknown: Option<u32>,
    padding: Option<u32>,
    add_bos: bool,
    /// Sorted, without duplicates.
    end_of_generation: Vec<u32>,
}

impl Tokenizer {
    /// Builds the tokenizer that the file describes (`tokenizer.ggml.*`).
    ///
    /// # Errors
    /// [`TokenizerError`] when something is missing or contradicts itself, and when the file asks
    /// for a tokenizer that is not implemented: a wrong one would give wrong answers silently.
    pub fn from_gguf(gguf: &GgufFile) -> Result<Self, TokenizerError> {
        load::from_gguf(gguf)
    }

    /// Builds the tokenizer that `tokenizer.json` describes, with the special tokens and the chat
    /// template of the files beside it.
    ///
    /// # Errors
    /// As [`from_gguf`](Self::from_gguf).
    pub fn from_huggingface(files: &HuggingFaceFiles) -> Result<Self, TokenizerError> {
        huggingface::from_huggingface(files)
    }

    /// The tokens of `text`. With `parse_special`, the texts of control tokens (`<|im_end|>`)
    /// become those tokens: for a rendered chat template. Without it they are ordinary text: for
    /// what a user wrote. Neither adds a token at the beginning: see [`add_bos`](Self::add_bos).
    ///
    /// # Errors
    /// [`EncodeError`] when the text is longer than [`ENCODE_BYTES_MAX`].
    pub fn encode(&self, text: &str, parse_special: bool) -> Result<Vec<u32>, EncodeError> {
        if text.len() > ENCODE_BYTES_MAX {
            return Err(EncodeError::TooLong { bytes: text.len(), bytes_max: ENCODE_BYTES_MAX });
        }
        let matcher = if parse_special { &self.special } else { &self.user_defined };
        let mut ids = Vec::new();
        let mut at = 0;
        if let Some(automaton) = &matcher.automaton {
            for found in automaton.find_iter(text) {
                self.encode_plain(&text[at..found.start()], at == 0, &mut ids)?;
                ids.push(matcher.ids[found.pattern().as_usize()]);
                at = found.end();
            }
        }
        self.encode_plain(&text[at..], at == 0, &mut ids)?;
        Ok(ids)
    }

    fn encode_plain(
        &self,
        text: &str,
        at_start: bool,
        ids: &mut Vec<u32>,
    ) -> Result<(), EncodeError> {
        if text.is_empty() {
            return Ok(());
        }
        match &self.merges {
            Merges::BytePairs { splitter, nfc, bpe } => {
                let composed;
                let text = if *nfc && !text.is_ascii() {
                    composed = compose(text)?;
                    composed.get()
                } else {
                    text
                };
                for piece in splitter.pieces(text) {
                    merge(bpe, &byte_level::encode(piece), ids)?;
                }
            }
            Merges::Whole { prefix, bpe } => {
                let mut escaped = text.replace(' ', scores::SPACE);
                let is_prefixed = match prefix {
                    SpacePrefix::Never => false,
                    SpacePrefix::First => at_start && !escaped.starts_with(scores::SPACE),
                    SpacePrefix::Always => true,
                };
                if is_prefixed {
                    escaped.insert_str(0, scores::SPACE);
                }
                merge(bpe, &escaped, ids)?;
            }
            Merges::Scores(merges) => merges.encode(text, at_start, &self.vocabulary, ids),
        }
        Ok(())
    }

    /// The bytes that a token stands for; `None` when there is no such token. A piece may be part
    /// of a character, so pieces are joined before they are read as UTF-8. The piece of a special
    /// token is its text.
    pub fn piece(&self, id: u32) -> Option<&[u8]> {
        self.vocabulary.piece(id)
    }

    /// What kind of token it is; `None` when there is no such token.
    pub fn kind(&self, id: u32) -> Option<TokenKind> {
        self.vocabulary.kind(id)
    }

    /// Whether the token is control, and so not part of an answer's text.
    pub fn is_control(&self, id: u32) -> bool {
        self.kind(id) == Some(TokenKind::Control)
    }

    /// The id of a token by its text in the file, for special tokens mostly.
    pub fn token_id(&self, text: &str) -> Option<u32> {
        self.vocabulary.id(text)
    }

    /// Number of tokens.
    pub fn vocabulary_len(&self) -> usize {
        self.vocabulary.len()
    }

    /// The token that begins a sequence.
    pub fn bos(&self) -> Option<u32> {
        self.ids.bos
    }

    /// Whether the model wants [`bos`](Self::bos) in front of a prompt that no template made.
    pub fn add_bos(&self) -> bool {
        self.ids.add_bos
    }

    /// The token that ends a sequence.
    pub fn eos(&self) -> Option<u32> {
        self.ids.eos
    }

    /// The token for what cannot be encoded.
    pub fn unknown(&self) -> Option<u32> {
        self.ids.unknown
    }

    /// The token that fills up a batch.
    pub fn padding(&self) -> Option<u32> {
        self.ids.padding
    }

    /// All tokens that end an answer: end of sequence, of turn, of message; sorted.
    pub fn end_of_generation(&self) -> &[u32] {
        &self.ids.end_of_generation
    }

    /// Whether the token ends an answer.
    pub fn ends_generation(&self, id: u32) -> bool {
        self.ids.end_of_generation.binary_search(&id).is_ok()
    }

    /// The Jinja template of a chat, when the file has one.
    pub fn chat_template(&self) -> Option<&str> {
        self.chat_template.as_deref()
    }
}

fn merge(bpe: &BPE, text: &str, ids: &mut Vec<u32>) -> Result<(), EncodeError> {
    let tokens = bpe.tokenize(text).map_err(|source| EncodeError::Merge { source })?;
    ids.extend(tokens.iter().map(|token| token.id));
    Ok(())
}

/// Unicode's normal form C.
fn compose(text: &str) -> Result<NormalizedString, EncodeError> {
    let mut text = NormalizedString::from(text);
    NFC.normalize(&mut text).map_err(|source| EncodeError::Merge { source })?;
    Ok(text)
}
