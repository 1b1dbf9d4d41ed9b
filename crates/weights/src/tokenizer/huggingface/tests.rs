//! Small vocabularies of both kinds by hand, and what is refused.

use proptest::prelude::*;
use serde_json::json;

use super::*;

const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

fn split(regex: &str) -> Value {
    json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false},
        {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}]})
}

/// All bytes, `ab` and `abc`, a control token and a user-defined one.
fn byte_level() -> Value {
    let bytes = (0..=255_u8).map(|byte| {
        let text = (0..0x144).filter_map(char::from_u32).map(String::from);
        let is = |text: &String| byte_level::decode(text) == Some(vec![byte]);
        (text.into_iter().find(is).unwrap(), Value::from(byte))
    });
    let mut vocab: serde_json::Map<String, Value> = bytes.collect();
    vocab.insert("ab".to_owned(), 256.into());
    vocab.insert("abc".to_owned(), 257.into());
    json!({
        "added_tokens": [{"id": 258, "content": "<|im_end|>", "special": true},
            {"id": 260, "content": "<tag>", "special": false}],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": split(QWEN2),
        "model": {"type": "BPE", "vocab": vocab, "merges": ["a b", ["ab", "c"]]},
    })
}

/// Gemma's way: U+2581 for spaces, bytes as a last resort.
fn whole() -> Value {
    let mut vocab = serde_json::Map::new();
    for (id, text) in
        ["<unk>", "<bos>", "\u{2581}", "a", "b", "ab", "\u{2581}ab"].iter().enumerate()
    {
        vocab.insert((*text).to_owned(), id.into());
    }
    for byte in 0..=255 {
        vocab.insert(format!("<0x{byte:02X}>"), (7 + byte).into());
    }
    json!({
        "added_tokens": [{"id": 0, "content": "<unk>", "special": true},
            {"id": 1, "content": "<bos>", "special": true}],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"},
        "pre_tokenizer": {"type": "Split", "pattern": {"String": " "},
            "behavior": "MergedWithPrevious", "invert": false},
        "post_processor": {"type": "TemplateProcessing", "single": [
            {"SpecialToken": {"id": "<bos>", "type_id": 0}}, {"Sequence": {"id": "A"}}]},
        "model": {"type": "BPE", "vocab": vocab, "byte_fallback": true, "fuse_unk": true,
            "unk_token": "<unk>", "merges": [["a", "b"], ["\u{2581}", "ab"]]},
    })
}

fn files(tokenizer: &Value, settings: &Value, config: &Value) -> HuggingFaceFiles {
    HuggingFaceFiles {
        tokenizer: tokenizer.to_string().into_bytes(),
        config: config.to_string().into_bytes(),
        tokenizer_config: Some(settings.to_string().into_bytes()),
        ..HuggingFaceFiles::default()
    }
}

fn built(tokenizer: &Value) -> Result<Tokenizer, TokenizerError> {
    from_huggingface(&files(tokenizer, &json!({}), &json!({})))
}

#[track_caller]
fn refused(tokenizer: &Value, says: &str) {
    let error = built(tokenizer).unwrap_err().to_string();
    assert!(error.contains(says), "expected `{says}` in: {error}");
}

#[test]
fn bytes_are_merged_within_pieces_of_composed_text() {
    let settings = json!({"eos_token": {"content": "<|im_end|>"}, "bos_token": null,
        "chat_template": [{"name": "tool", "template": "x"}, {"name": "default", "template": "y"}]});
    let files = files(&byte_level(), &settings, &json!({"eos_token_id": [257]}));
    let tokenizer = from_huggingface(&files).unwrap();
    let encode = |text, special| tokenizer.encode(text, special).unwrap();
    assert_eq!(encode("abc ab", true), [257, 32, 256]);
    assert_eq!(encode("ab<|im_end|>", true), [256, 258]);
    assert_eq!(encode("<|im_end|>", false).len(), 10);
    assert_eq!(encode("a<tag>", false), [97, 260]);
    assert_eq!(encode("e\u{301}", false), encode("\u{e9}", false));
    assert_eq!(tokenizer.end_of_generation(), [257, 258]);
    assert_eq!((tokenizer.add_bos(), tokenizer.eos()), (false, Some(258)));
    assert_eq!((tokenizer.vocabulary_len(), tokenizer.kind(259)), (261, Some(TokenKind::Unused)));
    assert_eq!(tokenizer.chat_template(), Some("y"));
    assert_eq!(tokenizer.piece(257), Some(&b"abc"[..]));
}

#[test]
fn the_whole_text_is_merged_and_the_rest_is_bytes() {
    let files = files(&whole(), &json!({"bos_token": "<bos>"}), &json!({"eos_token_id": 1}));
    let tokenizer = from_huggingface(&files).unwrap();
    let encode = |text| tokenizer.encode(text, true).unwrap();
    assert_eq!(encode("ab ab"), [5, 6]);
    assert_eq!(encode("<bos>\u{e9}a"), [1, 7 + 0xc3, 7 + 0xa9, 3]);
    assert_eq!(tokenizer.piece(6), Some(&b" ab"[..]));
    assert_eq!(tokenizer.piece(7 + 0xc3), Some(&[0xc3][..]));
    assert!(tokenizer.add_bos());
    let mut llama = whole();
    llama["normalizer"] = json!({"type": "Sequence", "normalizers": [
        {"type": "Prepend", "prepend": "\u{2581}"}, whole()["normalizer"]]});
    llama["pre_tokenizer"] = Value::Null;
    assert_eq!(built(&llama).unwrap().encode("ab<bos>ab", true).unwrap(), [6, 1, 6]);
    let mut first = whole();
    first["normalizer"] = Value::Null;
    first["pre_tokenizer"] = json!({"type": "Metaspace", "replacement": "\u{2581}",
        "prepend_scheme": "first", "split": false});
    assert_eq!(built(&first).unwrap().encode("ab<bos>ab", true).unwrap(), [6, 1, 5]);
}

#[test]
fn what_is_not_carried_out_exactly_is_refused() {
    let with = |key: &str, value: Value| {
        let mut tokenizer = byte_level();
        tokenizer[key] = value;
        tokenizer
    };
    refused(&with("pre_tokenizer", split(r"\w+")), "not supported");
    refused(&with("pre_tokenizer", Value::Null), "not supported");
    refused(&with("normalizer", json!({"type": "NFKC"})), "which is not supported; supported: NFC");
    refused(&with("model", json!({"type": "Unigram", "vocab": {}, "merges": []})), "Unigram");
    refused(&with("model", json!({"vocab": {}, "merges": ["ab"]})), "not two tokens");
    refused(&with("model", json!({"vocab": {"a": 0, "b": 0}, "merges": []})), "there twice");
    refused(&with("model", json!({"vocab": {"a": 0}, "merges": ["a c"]})), "do not fit");
    refused(&with("added_tokens", json!([{"id": 1, "content": "x", "lstrip": true}])), "lstrip");
    refused(&with("added_tokens", json!([{"id": u32::MAX, "content": "x"}])), "larger than");
    refused(&json!([]), "`tokenizer.json` cannot be understood");
    let files = files(&byte_level(), &json!({}), &json!({"eos_token_id": 9999}));
    let error = from_huggingface(&files).unwrap_err().to_string();
    assert!(error.contains("9999, the vocabulary has 261 tokens"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_change_gives_a_tokenizer_or_an_error(
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
        text in ".{0,24}",
    ) {
        for tokenizer in [byte_level(), whole()] {
            let mut bytes = tokenizer.to_string().into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let mut files = files(&tokenizer, &json!({}), &json!({}));
            files.tokenizer = bytes.clone();
            if let Ok(tokenizer) = from_huggingface(&files) {
                let _ids = tokenizer.encode(&text, true).unwrap();
            }
            bytes.truncate(cut.index(bytes.len()));
            files.tokenizer = bytes;
            prop_assert!(from_huggingface(&files).is_err());
        }
    }

    #[test]
    fn any_text_comes_back(text in "[ -~\u{e9}\u{65e5}]{0,40}") {
        for tokenizer in [byte_level(), whole()] {
            let tokenizer = built(&tokenizer).unwrap();
            let ids = tokenizer.encode(&text, false).unwrap();
            let bytes: Vec<u8> =
                ids.iter().flat_map(|&id| tokenizer.piece(id).unwrap()).copied().collect();
            prop_assert_eq!(String::from_utf8(bytes).unwrap(), text.as_str());
        }
    }
}
