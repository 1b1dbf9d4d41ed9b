//! From the metadata of a GGUF file to a tokenizer. It knows the keys `tokenizer.*`.

use aho_corasick::{AhoCorasick, MatchKind};
use tokenizers::models::bpe::BPE;

use super::scores::ScoreMerges;
use super::split::Splitter;
use super::vocabulary::{TokenKind, Vocabulary};
use super::{Matcher, Merges, SpecialIds, Tokenizer, TokenizerError, byte_level};
use crate::gguf::GgufFile;

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const TOKENS: &str = "tokenizer.ggml.tokens";
const TOKEN_TYPES: &str = "tokenizer.ggml.token_type";
const MERGES: &str = "tokenizer.ggml.merges";
const SCORES: &str = "tokenizer.ggml.scores";

/// Texts of control tokens that end an answer in one family or another. Files often name only one
/// of them as `eos`. (The list of llama.cpp.)
pub(super) const END_TEXTS: [&str; 10] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|eom_id|>",
    "<|eot|>",
    "<EOT>",
    "</s>",
];

pub(super) fn from_gguf(gguf: &GgufFile) -> Result<Tokenizer, TokenizerError> {
    let model = gguf.require_str(MODEL)?;
    let (vocabulary, merges, add_bos_default) = match model {
        "gpt2" => byte_pairs(gguf)?,
        "llama" => scores(gguf)?,
        other => {
            return Err(TokenizerError::Unsupported {
                key: MODEL,
                found: other.to_owned(),
                supported: "gpt2 (byte pairs), llama (scores)",
            });
        }
    };
    let ids = special_ids(gguf, &vocabulary, add_bos_default)?;
    let user_defined: Vec<_> = vocabulary.of_kind(TokenKind::UserDefined).collect();
    let mut special = user_defined.clone();
    special.extend(vocabulary.of_kind(TokenKind::Control));
    let (special, user_defined) = (matcher(special)?, matcher(user_defined)?);
    let chat_template = gguf
        .metadata("tokenizer.chat_template")
        .and_then(|template| template.as_str())
        .map(str::to_owned);
    Ok(Tokenizer { vocabulary, merges, special, user_defined, ids, chat_template })
}

type Parts = (Vocabulary, Merges, bool);

fn byte_pairs(gguf: &GgufFile) -> Result<Parts, TokenizerError> {
    let pre = gguf.require_str(PRE)?;
    let splitter = Splitter::named(pre).ok_or_else(|| TokenizerError::Unsupported {
        key: PRE,
        found: pre.to_owned(),
        supported: "gpt-2, smollm, starcoder, refact, llama-bpe, qwen2, deepseek-r1-qwen",
    })?;
    let vocabulary = vocabulary(gguf, |text, kind| match kind {
        TokenKind::Normal | TokenKind::Unused | TokenKind::Byte => byte_level::decode(text),
        TokenKind::Unknown | TokenKind::Control | TokenKind::UserDefined => None,
    })?;
    let mut pairs = Vec::new();
    for (index, merge) in gguf.require_array(MERGES)?.iter().enumerate() {
        let invalid = |reason| TokenizerError::Entry { key: MERGES, index, reason };
        let merge = merge.as_str().ok_or_else(|| invalid("not a string in UTF-8"))?;
        let pair = merge.split_once(' ').ok_or_else(|| invalid("not two tokens"))?;
        pairs.push((pair.0.to_owned(), pair.1.to_owned()));
    }
    let texts: Vec<_> = vocabulary.texts().map(|(text, id)| (text.to_owned(), id)).collect();
    let llama3 = splitter == Splitter::Llama3;
    let bpe = BPE::builder()
        .vocab_and_merges(texts.into_iter().collect::<tokenizers::models::bpe::Vocab>(), pairs)
        // Llama 3's own tokenizer takes a piece that is a token as it is.
        .ignore_merges(llama3)
        // Prompts are not kept.
        .cache_capacity(0)
        .build()
        .map_err(|source| TokenizerError::Merges { source })?;
    let merges = Merges::BytePairs { splitter, nfc: false, bpe: Box::new(bpe) };
    Ok((vocabulary, merges, llama3))
}

fn scores(gguf: &GgufFile) -> Result<Parts, TokenizerError> {
    let vocabulary = vocabulary(gguf, |text, kind| match kind {
        TokenKind::Byte => byte_of(text).map(|byte| vec![byte]),
        TokenKind::Normal | TokenKind::Unused | TokenKind::UserDefined => {
            Some(text.replace('\u{2581}', " ").into_bytes())
        }
        TokenKind::Unknown | TokenKind::Control => None,
    })?;
    let mut scores = Vec::new();
    for (index, score) in gguf.require_array(SCORES)?.iter().enumerate() {
        let score = score.as_f64().filter(|score| !score.is_nan());
        let reason = "not a number";
        let score = score.ok_or(TokenizerError::Entry { key: SCORES, index, reason })?;
        scores.push(score as f32);
    }
    check_len(SCORES, scores.len(), &vocabulary)?;
    let mut bytes = Box::new([None; 256]);
    for (text, id) in vocabulary.of_kind(TokenKind::Byte) {
        if let Some(byte) = byte_of(text) {
            bytes[usize::from(byte)] = Some(id);
        }
    }
    let add_space_prefix = flag(gguf, "tokenizer.ggml.add_space_prefix", true);
    let unknown = special_id(gguf, "tokenizer.ggml.unknown_token_id", &vocabulary)?;
    let merges = ScoreMerges { scores, bytes, unknown, add_space_prefix };
    Ok((vocabulary, Merges::Scores(merges), true))
}

/// `<0x0A>`
pub(super) fn byte_of(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    u8::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 2)
}

/// Reads tokens and kinds. `piece` turns a token's text into its bytes; where it says `None` the
/// text itself is the piece.
fn vocabulary(
    gguf: &GgufFile,
    piece: impl Fn(&str, TokenKind) -> Option<Vec<u8>>,
) -> Result<Vocabulary, TokenizerError> {
    let tokens = gguf.require_array(TOKENS)?;
    let types = gguf.require_array(TOKEN_TYPES)?;
    let mut vocabulary = Vocabulary::new();
    for (index, (token, kind)) in tokens.iter().zip(types.iter()).enumerate() {
        let invalid = |key, reason| TokenizerError::Entry { key, index, reason };
        let text = token.as_str().ok_or_else(|| invalid(TOKENS, "not a string in UTF-8"))?;
        let kind = kind
            .as_u64()
            .and_then(TokenKind::from_number)
            .ok_or_else(|| invalid(TOKEN_TYPES, "not a token type (1 to 6)"))?;
        match piece(text, kind) {
            Some(piece) => vocabulary.push(text, &piece, kind),
            None => vocabulary.push(text, text.as_bytes(), kind),
        }
    }
    check_len(TOKEN_TYPES, types.len(), &vocabulary)?;
    check_len(TOKENS, tokens.len(), &vocabulary)?;
    if vocabulary.len() == 0 {
        return Err(TokenizerError::Entry { key: TOKENS, index: 0, reason: "there is none" });
    }
    Ok(vocabulary)
}

fn check_len(
    key: &'static str,
    found: usize,
    vocabulary: &Vocabulary,
) -> Result<(), TokenizerError> {
    if found == vocabulary.len() {
        Ok(())
    } else {
        Err(TokenizerError::Length { key, found, expected: vocabulary.len() })
    }
}

fn special_ids(
    gguf: &GgufFile,
    vocabulary: &Vocabulary,
    add_bos_default: bool,
) -> Result<SpecialIds, TokenizerError> {
    let id = |key| special_id(gguf, key, vocabulary);
    let eos = id("tokenizer.ggml.eos_token_id")?;
    let end_of_turn = id("tokenizer.ggml.eot_token_id")?;
    let end_of_message = id("tokenizer.ggml.eom_token_id")?;
    let by_text = END_TEXTS.iter().filter_map(|text| vocabulary.id(text)).filter(|&id| {
        matches!(vocabulary.kind(id), Some(TokenKind::Control | TokenKind::UserDefined))
    });
    let named = [eos, end_of_turn, end_of_message].into_iter().flatten();
    let mut end_of_generation: Vec<u32> = named.chain(by_text).collect();
    end_of_generation.sort_unstable();
    end_of_generation.dedup();
    Ok(SpecialIds {
        bos: id("tokenizer.ggml.bos_token_id")?,
        eos,
        unknown: id("tokenizer.ggml.unknown_token_id")?,
        padding: id("tokenizer.ggml.padding_token_id")?,
        add_bos: flag(gguf, "tokenizer.ggml.add_bos_token", add_bos_default),
        end_of_generation,
    })
}

fn special_id(
    gguf: &GgufFile,
    key: &'static str,
    vocabulary: &Vocabulary,
) -> Result<Option<u32>, TokenizerError> {
    if gguf.metadata(key).is_none() {
        return Ok(None);
    }
    let id = gguf.require_u64(key)?;
    match u32::try_from(id).ok().filter(|&id| (id as usize) < vocabulary.len()) {
        Some(id) => Ok(Some(id)),
        None => Err(TokenizerError::IdRange { key, id, vocabulary: vocabulary.len() }),
    }
}

fn flag(gguf: &GgufFile, key: &str, default: bool) -> bool {
    gguf.metadata(key).and_then(|value| value.as_bool()).unwrap_or(default)
}

/// Finds the leftmost and there the longest of the texts.
pub(super) fn matcher(tokens: Vec<(&str, u32)>) -> Result<Matcher, TokenizerError> {
    let (texts, ids): (Vec<_>, Vec<_>) =
        tokens.into_iter().filter(|(text, _)| !text.is_empty()).unzip();
    if texts.is_empty() {
        return Ok(Matcher { automaton: None, ids });
    }
    let automaton = AhoCorasick::builder()
        .match_kind(MatchKind::LeftmostLongest)
        .build(texts)
        .map_err(|source| TokenizerError::Special { source: Box::new(source) })?;
    Ok(Matcher { automaton: Some(automaton), ids })
}
