//! Splitting against the published regular expressions, small vocabularies by hand, broken files.

use std::sync::LazyLock;

use proptest::prelude::*;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{
    OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, SplitDelimiterBehavior,
};

use super::*;
use crate::gguf::sample::Sample;

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// The splitters, and the published regular expression of each in the `tokenizers` crate; whether
/// digits are taken apart before.
static BY_REGEX: LazyLock<Vec<(&str, Split, bool)>> = LazyLock::new(|| {
    [
        ("gpt-2", GPT2, false),
        ("smollm", GPT2, true),
        ("llama-bpe", LLAMA3, false),
        ("qwen2", QWEN2, false),
    ]
    .map(|(pre, regex, digits)| {
        let pattern = SplitPattern::Regex(regex.to_owned());
        (pre, Split::new(pattern, SplitDelimiterBehavior::Isolated, false).unwrap(), digits)
    })
    .into()
});

fn same(text: &str) {
    for (pre, split, digits) in BY_REGEX.iter() {
        let mut expected = PreTokenizedString::from(text);
        if *digits {
            Digits::new(true).pre_tokenize(&mut expected).unwrap();
        }
        split.pre_tokenize(&mut expected).unwrap();
        let expected: Vec<_> = expected
            .get_splits(OffsetReferential::Original, OffsetType::Byte)
            .into_iter()
            .map(|(piece, _, _)| piece.to_owned())
            .collect();
        let pieces: Vec<_> = Splitter::named(pre).unwrap().pieces(text).collect();
        assert_eq!(pieces, expected, "{pre} on {text:?}");
    }
}

#[test]
fn pieces_are_those_of_the_published_expressions() {
    for text in [
        "Hello, world! It's 12345 o'clock, they'LL say 'Sure' or 'ſo'.",
        "  two spaces\n\n  and lines \r\n\t tabs\t\tend  ",
        "x²+½ Ⅷ ٣٤ 一二三 e\u{301} ʰª \u{a0}b\u{3000}c\u{2028}d",
        "'",
        "''s",
        "'r",
        "'re're",
        " '",
        " 's",
        "a'",
        "!\r\n\r\n!",
        " !\n x",
        "\n\n \n",
        "\r",
        " \r",
    ] {
        same(text);
    }
}

#[test]
fn a_million_spaces_are_split_like_any_other_text() {
    let text = format!("{}x", " ".repeat(1_000_000));
    for pre in ["gpt-2", "smollm", "llama-bpe", "qwen2"] {
        let lengths: Vec<_> = Splitter::named(pre).unwrap().pieces(&text).map(str::len).collect();
        assert_eq!(lengths, [999_999, 2], "{pre}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn pieces_of_any_text_are_those_of_the_expressions(
        text in concat!(
            r"([a-zA-Z']|'(s|T|re|VE|ll|M|ſ)|[0-9]|[ \t\r\n]",
            r"|\s|\p{L}|\p{N}|\p{M}|\p{S}|[!-/]){0,24}"
        )
    ) {
        same(&text);
    }

    #[test]
    fn pieces_make_the_text_again(text in ".{0,64}") {
        for pre in ["gpt-2", "smollm", "llama-bpe", "qwen2"] {
            let pieces: Vec<_> = Splitter::named(pre).unwrap().pieces(&text).collect();
            prop_assert!(pieces.iter().all(|piece| !piece.is_empty()));
            prop_assert_eq!(pieces.concat(), text.as_str());
        }
    }

    #[test]
    fn byte_level_goes_both_ways(text in ".{0,64}") {
        prop_assert_eq!(byte_level::decode(&byte_level::encode(&text)).unwrap(), text.as_bytes());
    }

    /// Whatever is done to the bytes of a vocabulary, there is a tokenizer or an error.
    #[test]
    fn no_changed_vocabulary_panics(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..24),
        text in ".{0,32}",
        parse_special in any::<bool>(),
    ) {
        for sample in [byte_pairs(), scores()] {
            let mut bytes = sample.bytes();
            for (at, byte) in &changes {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            if let Ok(gguf) = crate::gguf::sample::open(&bytes)
                && let Ok(tokenizer) = Tokenizer::from_gguf(&gguf)
            {
                for id in tokenizer.encode(&text, parse_special).unwrap() {
                    prop_assert!(tokenizer.piece(id).is_some());
                }
            }
        }
    }

    #[test]
    fn any_text_is_encoded_and_comes_back(text in "[ -~é日]{0,48}", parse_special in any::<bool>()) {
        for tokenizer in SMALL.iter() {
            let ids = tokenizer.encode(&text, parse_special).unwrap();
            let bytes: Vec<u8> =
                ids.iter().flat_map(|&id| tokenizer.piece(id).unwrap()).copied().collect();
            let decoded = String::from_utf8(bytes).unwrap();
            prop_assert_eq!(decoded.trim_start(), text.trim_start());
        }
    }
}

static SMALL: LazyLock<[Tokenizer; 2]> = LazyLock::new(|| {
    [byte_pairs(), scores()].map(|sample| Tokenizer::from_gguf(&sample.open()).unwrap())
});

/// All 256 bytes, `ab`, `abc`, a control token 258 and a user-defined one 259.
fn byte_pairs() -> Sample {
    let mut tokens: Vec<String> = (0..=255_u8).map(byte_character).collect();
    tokens.extend(["ab", "abc", "<|end|>", "<tag>"].map(str::to_owned));
    let mut types = vec![1; 258];
    types.extend([3, 4]);
    let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
    Sample::default()
        .str("tokenizer.ggml.model", "gpt2")
        .str("tokenizer.ggml.pre", "smollm")
        .strings("tokenizer.ggml.tokens", &tokens)
        .i32s("tokenizer.ggml.token_type", &types)
        .strings("tokenizer.ggml.merges", &["a b", "ab c"])
}

fn byte_character(byte: u8) -> String {
    (0..0x144)
        .filter_map(char::from_u32)
        .map(String::from)
        .find(|character| byte_level::decode(character) == Some(vec![byte]))
        .unwrap()
}

/// Unknown 0, control 1, all 256 bytes from 2, then a few tokens with scores.
fn scores() -> Sample {
    let mut tokens = vec!["<unk>".to_owned(), "</s>".to_owned()];
    tokens.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
    let words = ["\u{2581}", "a", "b", "ab", "\u{2581}a", "\u{2581}ab"];
    tokens.extend(words.map(str::to_owned));
    let mut types = vec![2, 3];
    types.extend([6; 256]);
    types.extend([1; 6]);
    let mut scores = vec![0.0; 258];
    scores.extend([-5.0, -4.0, -4.0, -1.0, -2.0, -3.0]);
    let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
    Sample::default()
        .str("tokenizer.ggml.model", "llama")
        .strings("tokenizer.ggml.tokens", &tokens)
        .i32s("tokenizer.ggml.token_type", &types)
        .f32s("tokenizer.ggml.scores", &scores)
        .u32("tokenizer.ggml.unknown_token_id", 0)
        .u32("tokenizer.ggml.eos_token_id", 1)
}

#[test]
fn merges_and_special_tokens_of_a_small_vocabulary() {
    let tokenizer = Tokenizer::from_gguf(&byte_pairs().open()).unwrap();
    let encode = |text, parse_special| tokenizer.encode(text, parse_special).unwrap();
    let byte = |byte: u8| u32::from(byte);
    assert_eq!(encode("abcab", true), [257, 256]);
    assert_eq!(encode("ab1ab", true), [256, byte(b'1'), 256]);
    assert_eq!(encode("ab<|end|>c", true), [256, 258, byte(b'c')]);
    assert_eq!(encode("<|end|>", false).len(), 7);
    // A user-defined token is one token in any text.
    assert_eq!(
        (encode("<tag>", false), encode("a<tag>", true)),
        (vec![259], vec![byte(b'a'), 259])
    );
    assert_eq!(encode("", true), [0; 0]);
    assert_eq!(tokenizer.end_of_generation(), [258]);
    assert_eq!(tokenizer.kind(259), Some(TokenKind::UserDefined));
    assert_eq!((tokenizer.bos(), tokenizer.add_bos()), (None, false));
}

#[test]
fn the_best_score_is_merged_first_and_the_rest_are_bytes() {
    let tokenizer = Tokenizer::from_gguf(&scores().open()).unwrap();
    let encode = |text| tokenizer.encode(text, true).unwrap();
    // `ab` (-1) goes before `▁a` (-2), then `▁ab`.
    assert_eq!(encode("ab"), [263]);
    assert_eq!(encode("b a"), [258, 260, 262]);
    assert_eq!(encode("é"), [258, 2 + 0xc3, 2 + 0xa9]);
    assert_eq!(tokenizer.piece(263), Some(&b" ab"[..]));
    assert_eq!(tokenizer.piece(2 + 0xc3), Some(&[0xc3][..]));
    assert!(tokenizer.add_bos());
    assert_eq!(tokenizer.end_of_generation(), [1]);
}

#[test]
fn a_text_beyond_the_limit_is_refused() {
    let tokenizer = Tokenizer::from_gguf(&byte_pairs().open()).unwrap();
    let text = " ".repeat(ENCODE_BYTES_MAX + 1);
    assert!(matches!(tokenizer.encode(&text, true), Err(EncodeError::TooLong { .. })));
}

#[track_caller]
fn refused(sample: Sample, says: &str) {
    let error = Tokenizer::from_gguf(&sample.open()).unwrap_err().to_string();
    assert!(error.contains(says), "expected `{says}` in: {error}");
}

#[test]
fn what_is_not_implemented_or_contradicts_itself_is_refused() {
    let model = |name| Sample::default().str("tokenizer.ggml.model", name);
    refused(Sample::default(), "no `tokenizer.ggml.model`");
    refused(model("bert"), "`tokenizer.ggml.model` is `bert`, which is not supported");
    refused(model("gpt2"), "no `tokenizer.ggml.pre`");
    refused(model("gpt2").str("tokenizer.ggml.pre", "tekken"), "`tekken`, which is not supported");
    let smollm = || model("gpt2").str("tokenizer.ggml.pre", "smollm");
    refused(smollm(), "no `tokenizer.ggml.tokens`");
    let tokens = || smollm().strings("tokenizer.ggml.tokens", &["a", "b", "ab"]);
    refused(tokens(), "no `tokenizer.ggml.token_type`");
    let types = |types: &[i32]| tokens().i32s("tokenizer.ggml.token_type", types);
    refused(types(&[1, 1]), "has 3 entries, the vocabulary 2");
    refused(types(&[1, 1, 1, 1]), "has 4 entries, the vocabulary 3");
    refused(types(&[1, 7, 1]), "entry 1 of `tokenizer.ggml.token_type`");
    refused(types(&[1, 1, 1]), "no `tokenizer.ggml.merges`");
    let merges = |merges: &[&str]| types(&[1; 3]).strings("tokenizer.ggml.merges", merges);
    refused(merges(&["ab"]), "not two tokens");
    refused(merges(&["a c"]), "the merges do not fit");
    refused(merges(&["a b"]).u32("tokenizer.ggml.eos_token_id", 3), "has 3 tokens");
    refused(merges(&["a b"]).str("tokenizer.ggml.bos_token_id", "x"), "expected a non-negative");
}
