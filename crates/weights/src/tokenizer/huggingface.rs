//! From a `tokenizer.json` and the files beside it to a tokenizer. What a file asks for is either
//! carried out exactly or refused by name: an almost right tokenizer would give wrong answers in
//! silence. It knows the files of Hugging Face, not how texts are encoded.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use tokenizers::models::bpe::BPE;

use super::error::TokenizerError;
use super::load::{END_TEXTS, byte_of, matcher};
use super::split::Splitter;
use super::vocabulary::{TokenKind, Vocabulary};
use super::{Merges, SpacePrefix, SpecialIds, Tokenizer, byte_level};
use crate::gguf::limits::ARRAY_LEN_MAX;

const TOKENIZER: &str = "tokenizer.json";
const PRE_TOKENIZER: &str = "tokenizer.json: pre_tokenizer";
const NORMALIZER: &str = "tokenizer.json: normalizer";
const VOCAB: &str = "tokenizer.json: model.vocab";
const ADDED: &str = "tokenizer.json: added_tokens";

/// The files that a tokenizer is made of, unread.
#[derive(Debug, Clone, Default)]
pub struct HuggingFaceFiles {
    /// `tokenizer.json`.
    pub tokenizer: Vec<u8>,
    /// `config.json`: the ids of special tokens.
    pub config: Vec<u8>,
    /// `tokenizer_config.json`: the chat template and the texts of special tokens.
    pub tokenizer_config: Option<Vec<u8>>,
    /// `generation_config.json`: the tokens that end an answer.
    pub generation_config: Option<Vec<u8>>,
    /// `chat_template.jinja`; it goes before the template in `tokenizer_config.json`.
    pub chat_template: Option<Vec<u8>>,
}

#[derive(Deserialize)]
struct Raw {
    #[serde(default)]
    added_tokens: Vec<Added>,
    normalizer: Option<Value>,
    pre_tokenizer: Option<Value>,
    post_processor: Option<Value>,
    model: RawModel,
}

#[derive(Deserialize)]
struct Added {
    id: u32,
    content: String,
    #[serde(default)]
    special: bool,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
}

#[derive(Deserialize)]
struct RawModel {
    #[serde(rename = "type")]
    kind: Option<String>,
    vocab: BTreeMap<String, u32>,
    merges: Vec<Merge>,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    fuse_unk: bool,
    #[serde(default)]
    ignore_merges: bool,
    unk_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Pair(String, String),
    Text(String),
}

pub(super) fn from_huggingface(files: &HuggingFaceFiles) -> Result<Tokenizer, TokenizerError> {
    let raw: Raw = parse(TOKENIZER, &files.tokenizer)?;
    let kind = raw.model.kind.as_deref().unwrap_or("BPE");
    if kind != "BPE" {
        return Err(unsupported("tokenizer.json: model.type", kind, "BPE"));
    }
    let way = Way::of(&raw)?;
    let vocabulary = vocabulary(&raw, &way)?;
    let begins = begins_with_special(raw.post_processor.as_ref());
    let ids = special_ids(files, &vocabulary, begins)?;
    let user_defined: Vec<_> = vocabulary.of_kind(TokenKind::UserDefined).collect();
    let mut special = user_defined.clone();
    special.extend(vocabulary.of_kind(TokenKind::Control));
    let (special, user_defined) = (matcher(special)?, matcher(user_defined)?);
    let chat_template = chat_template(files)?;
    let merges = merges(raw.model, way)?;
    Ok(Tokenizer { vocabulary, merges, special, user_defined, ids, chat_template })
}

/// How texts become the symbols that are merged.
enum Way {
    /// Pieces by a splitter, bytes as characters.
    Bytes { splitter: Splitter, nfc: bool },
    /// The whole text with U+2581 for spaces, bytes as a last resort.
    Whole(SpacePrefix),
}

impl Way {
    fn of(raw: &Raw) -> Result<Self, TokenizerError> {
        let normalizers = steps(raw.normalizer.as_ref(), "normalizers");
        let pre_tokenizers = steps(raw.pre_tokenizer.as_ref(), "pretokenizers");
        if pre_tokenizers.iter().any(|step| is(step, "ByteLevel")) {
            let splitter = splitter(&pre_tokenizers)?;
            let nfc = match normalizers.as_slice() {
                [] => false,
                [step] if is(step, "NFC") => true,
                _ => return Err(unsupported_step(NORMALIZER, raw.normalizer.as_ref(), "NFC")),
            };
            return Ok(Self::Bytes { splitter, nfc });
        }
        let prefix = whole(&normalizers, &pre_tokenizers).ok_or_else(|| {
            let supported = "byte-level pieces, or U+2581 for spaces";
            unsupported_step(PRE_TOKENIZER, raw.pre_tokenizer.as_ref(), supported)
        })?;
        Ok(Self::Whole(prefix))
    }
}

/// The steps of a `Sequence`, or the one step that there is.
fn steps<'a>(whole: Option<&'a Value>, key: &str) -> Vec<&'a Value> {
    match whole {
        None | Some(Value::Null) => Vec::new(),
        Some(step) if is(step, "Sequence") => step
            .get(key)
            .and_then(Value::as_array)
            .map_or_else(Vec::new, |steps| steps.iter().collect()),
        Some(step) => vec![step],
    }
}

fn is(step: &Value, kind: &str) -> bool {
    step.get("type").and_then(Value::as_str) == Some(kind)
}

fn flag(step: &Value, key: &str, default: bool) -> bool {
    step.get(key).and_then(Value::as_bool).unwrap_or(default)
}

/// The splitter that a byte-level pre-tokenizer describes.
fn splitter(steps: &[&Value]) -> Result<Splitter, TokenizerError> {
    let regex = |step: &Value| {
        let pattern = step.get("pattern")?.get("Regex")?.as_str()?;
        let plain = step.get("behavior").and_then(Value::as_str) == Some("Isolated")
            && !flag(step, "invert", false);
        Splitter::of_regex(pattern).filter(|_| plain)
    };
    let gpt2 = |step: &Value| flag(step, "use_regex", true);
    let found = match steps {
        [level] if gpt2(level) => Some(Splitter::Gpt2),
        [split, level] if is(split, "Split") && !gpt2(level) => regex(split),
        [digits, level] if is(digits, "Digits") && gpt2(level) => {
            flag(digits, "individual_digits", false).then_some(Splitter::DigitsThenGpt2)
        }
        _ => None,
    };
    let prefixed = steps.last().is_some_and(|level| flag(level, "add_prefix_space", true));
    found.filter(|_| !prefixed).ok_or_else(|| {
        let found: Vec<String> = steps.iter().map(|step| step.to_string()).collect();
        let supported = "the published splits of GPT-2, SmolLM, Llama 3 and Qwen2";
        unsupported(PRE_TOKENIZER, &found.join(", "), supported)
    })
}

/// Where a space is put that nobody wrote, when spaces become U+2581 and nothing else is changed.
fn whole(normalizers: &[&Value], pre_tokenizers: &[&Value]) -> Option<SpacePrefix> {
    let text = |step: &Value, key: &str| step.get(key).and_then(Value::as_str).map(str::to_owned);
    let replaces = |step: &Value| {
        is(step, "Replace")
            && step.get("pattern").and_then(|pattern| pattern.get("String")?.as_str()) == Some(" ")
            && text(step, "content").as_deref() == Some(super::scores::SPACE)
    };
    let prepends =
        |step: &Value| is(step, "Prepend") && text(step, "prepend").as_deref() == Some("\u{2581}");
    match (normalizers, pre_tokenizers) {
        // After the replacement there is no space left to split at (Gemma).
        ([one], [] | [_]) if replaces(one) && pre_tokenizers.iter().all(|s| splits_at_space(s)) => {
            Some(SpacePrefix::Never)
        }
        ([first, second], []) if prepends(first) && replaces(second) => Some(SpacePrefix::Always),
        ([], [one]) if is(one, "Metaspace") && !flag(one, "split", true) => {
            let plain = text(one, "replacement").as_deref() == Some(super::scores::SPACE);
            match text(one, "prepend_scheme").as_deref() {
                Some("never") if plain => Some(SpacePrefix::Never),
                Some("first") if plain => Some(SpacePrefix::First),
                _ => None,
            }
        }
        _ => None,
    }
}

fn splits_at_space(step: &Value) -> bool {
    let pattern = step.get("pattern").and_then(|pattern| pattern.get("String")?.as_str());
    is(step, "Split") && pattern == Some(" ")
}

fn vocabulary(raw: &Raw, way: &Way) -> Result<Vocabulary, TokenizerError> {
    let added: BTreeMap<u32, &Added> = raw.added_tokens.iter().map(|one| (one.id, one)).collect();
    let mut by_id: BTreeMap<u32, (&str, TokenKind)> = BTreeMap::new();
    for (text, &id) in &raw.model.vocab {
        let kind = match way {
            Way::Whole(_) if byte_of(text).is_some() => TokenKind::Byte,
            _ if raw.model.unk_token.as_ref() == Some(text) => TokenKind::Unknown,
            Way::Whole(_) | Way::Bytes { .. } => TokenKind::Normal,
        };
        if by_id.insert(id, (text, kind)).is_some() {
            return Err(entry(VOCAB, id, "the id is there twice"));
        }
    }
    for (&id, one) in &added {
        if one.single_word || one.lstrip || one.rstrip {
            return Err(entry(ADDED, id, "single_word, lstrip and rstrip are not supported"));
        }
        let kind = if one.special { TokenKind::Control } else { TokenKind::UserDefined };
        by_id.insert(id, (&one.content, kind));
    }
    let Some(last) = by_id.keys().next_back().copied() else {
        return Err(entry(VOCAB, 0, "there is none"));
    };
    if u64::from(last) >= ARRAY_LEN_MAX {
        return Err(entry(VOCAB, last, "the id is larger than any vocabulary's"));
    }
    let mut vocabulary = Vocabulary::new();
    for id in 0..=last {
        let (text, kind) = by_id.get(&id).copied().unwrap_or(("", TokenKind::Unused));
        let spaces = || text.replace(super::scores::SPACE, " ").into_bytes();
        let piece = match (way, kind) {
            (_, TokenKind::Control | TokenKind::Unknown) => None,
            (Way::Bytes { .. }, TokenKind::UserDefined) => None,
            (Way::Bytes { .. }, _) => byte_level::decode(text),
            (Way::Whole(_), TokenKind::Byte) => byte_of(text).map(|byte| vec![byte]),
            (Way::Whole(_), _) => Some(spaces()),
        };
        vocabulary.push(text, &piece.unwrap_or_else(|| text.as_bytes().to_vec()), kind);
    }
    Ok(vocabulary)
}

fn merges(model: RawModel, way: Way) -> Result<Merges, TokenizerError> {
    let mut pairs = Vec::with_capacity(model.merges.len());
    for (index, merge) in model.merges.into_iter().enumerate() {
        let pair = match merge {
            Merge::Pair(left, right) => Some((left, right)),
            Merge::Text(text) => {
                text.split_once(' ').map(|(left, right)| (left.to_owned(), right.to_owned()))
            }
        };
        let (key, reason) = ("tokenizer.json: model.merges", "not two tokens");
        pairs.push(pair.ok_or(TokenizerError::Entry { key, index, reason })?);
    }
    let vocab = model.vocab.into_iter().collect::<tokenizers::models::bpe::Vocab>();
    let mut builder = BPE::builder()
        .vocab_and_merges(vocab, pairs)
        .ignore_merges(model.ignore_merges)
        // Prompts are not kept.
        .cache_capacity(0);
    if let Way::Whole(_) = way {
        builder = builder.byte_fallback(model.byte_fallback).fuse_unk(model.fuse_unk);
        if let Some(unknown) = model.unk_token {
            builder = builder.unk_token(unknown);
        }
    }
    let bpe = builder.build().map_err(|source| TokenizerError::Merges { source })?;
    let bpe = Box::new(bpe);
    Ok(match way {
        Way::Bytes { splitter, nfc } => Merges::BytePairs { splitter, nfc, bpe },
        Way::Whole(prefix) => Merges::Whole { prefix, bpe },
    })
}

/// Whether the post-processor puts a special token in front of a text.
fn begins_with_special(post_processor: Option<&Value>) -> bool {
    steps(post_processor, "processors").iter().any(|step| {
        let first = || step.get("single")?.as_array()?.first()?.get("SpecialToken");
        is(step, "TemplateProcessing") && first().is_some()
    })
}

fn special_ids(
    files: &HuggingFaceFiles,
    vocabulary: &Vocabulary,
    begins_with_special: bool,
) -> Result<SpecialIds, TokenizerError> {
    let optional = |name, bytes: &Option<Vec<u8>>| match bytes {
        Some(bytes) => parse::<Value>(name, bytes),
        None => Ok(Value::Null),
    };
    let settings = optional("tokenizer_config.json", &files.tokenizer_config)?;
    let generation = optional("generation_config.json", &files.generation_config)?;
    let config: Value = parse("config.json", &files.config)?;
    // A token is given by its text, as it is or with settings.
    let named = |key: &str| {
        let value = settings.get(key)?;
        vocabulary.id(value.as_str().or_else(|| value.get("content")?.as_str())?)
    };
    let numbered = |from: &Value, key: &str| -> Vec<u32> {
        let one = |value: &Value| u32::try_from(value.as_u64()?).ok();
        match from.get(key) {
            Some(Value::Array(all)) => all.iter().filter_map(one).collect(),
            Some(value) => one(value).into_iter().collect(),
            None => Vec::new(),
        }
    };
    let ends = [numbered(&generation, "eos_token_id"), numbered(&config, "eos_token_id")].concat();
    let bos = named("bos_token").or_else(|| numbered(&config, "bos_token_id").first().copied());
    let inside = |id: &u32| (*id as usize) < vocabulary.len();
    if let Some(&id) = ends.iter().chain(&bos).find(|id| !inside(id)) {
        let (key, id) = ("eos_token_id", u64::from(id));
        return Err(TokenizerError::IdRange { key, id, vocabulary: vocabulary.len() });
    }
    let eos = named("eos_token").or_else(|| ends.first().copied());
    let by_text = END_TEXTS.iter().filter_map(|text| vocabulary.id(text)).filter(|&id| {
        matches!(vocabulary.kind(id), Some(TokenKind::Control | TokenKind::UserDefined))
    });
    let mut end_of_generation: Vec<u32> = ends.iter().copied().chain(eos).chain(by_text).collect();
    end_of_generation.sort_unstable();
    end_of_generation.dedup();
    let asked = settings.get("add_bos_token").and_then(Value::as_bool);
    Ok(SpecialIds {
        bos,
        eos,
        unknown: named("unk_token"),
        padding: named("pad_token"),
        add_bos: asked.unwrap_or(begins_with_special) && bos.is_some(),
        end_of_generation,
    })
}

/// The template of a chat; of several the one that is called `default`.
fn chat_template(files: &HuggingFaceFiles) -> Result<Option<String>, TokenizerError> {
    if let Some(template) = &files.chat_template {
        let text = String::from_utf8(template.clone());
        let (key, reason) = ("chat_template.jinja", "not UTF-8");
        return text.map(Some).map_err(|_| TokenizerError::Entry { key, index: 0, reason });
    }
    let Some(settings) = &files.tokenizer_config else { return Ok(None) };
    let settings: Value = parse("tokenizer_config.json", settings)?;
    Ok(match settings.get("chat_template") {
        Some(Value::String(template)) => Some(template.clone()),
        Some(Value::Array(several)) => several
            .iter()
            .find(|one| one.get("name").and_then(Value::as_str) == Some("default"))
            .and_then(|one| one.get("template")?.as_str())
            .map(str::to_owned),
        Some(_) | None => None,
    })
}

fn parse<T: serde::de::DeserializeOwned>(
    file: &'static str,
    bytes: &[u8],
) -> Result<T, TokenizerError> {
    serde_json::from_slice(bytes).map_err(|source| TokenizerError::Json { file, source })
}

fn entry(key: &'static str, id: u32, reason: &'static str) -> TokenizerError {
    TokenizerError::Entry { key, index: id as usize, reason }
}

fn unsupported_step(
    key: &'static str,
    found: Option<&Value>,
    supported: &'static str,
) -> TokenizerError {
    unsupported(key, &found.map_or_else(|| "missing".to_owned(), Value::to_string), supported)
}

fn unsupported(key: &'static str, found: &str, supported: &'static str) -> TokenizerError {
    /// Characters of a foreign value in a message.
    const SHOWN: usize = 240;
    let found = found.chars().take(SHOWN).collect();
    TokenizerError::Unsupported { key, found, supported }
}
