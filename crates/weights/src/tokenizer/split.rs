//! Splitting a text into the pieces within which tokens are merged: the published regular
//! expressions of each family, written out as a scan that is linear in the text (a backtracking
//! engine gives up on long runs of white space). It knows characters, not tokens.

use std::sync::LazyLock;

use regex_syntax::hir::{Class, HirKind};

/// How a family splits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Splitter {
    /// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
    Gpt2,
    /// Each `\p{N}` by itself first, then GPT-2's within what is left.
    DigitsThenGpt2,
    /// `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|
    /// ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
    Llama3,
    /// As Llama 3's, with `\p{N}` for `\p{N}{1,3}`.
    Qwen2,
}

impl Splitter {
    /// The splitter that `tokenizer.ggml.pre` names.
    pub(super) fn named(pre: &str) -> Option<Self> {
        match pre {
            "gpt-2" => Some(Self::Gpt2),
            "smollm" | "starcoder" | "refact" => Some(Self::DigitsThenGpt2),
            "llama-bpe" | "llama3" | "llama-v3" => Some(Self::Llama3),
            "qwen2" | "deepseek-r1-qwen" => Some(Self::Qwen2),
            _ => None,
        }
    }

    /// The splitter of a published regular expression, written as `tokenizer.json` has it.
    pub(super) fn of_regex(regex: &str) -> Option<Self> {
        const BEGIN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|";
        const END: &str = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
        match regex.strip_prefix(BEGIN)?.strip_suffix(END)? {
            r"\p{N}{1,3}" => Some(Self::Llama3),
            r"\p{N}" => Some(Self::Qwen2),
            _ => None,
        }
    }

    /// The pieces of `text`: together they are the whole of it, and none is empty.
    pub(super) fn pieces(self, text: &str) -> impl Iterator<Item = &str> {
        let mut rest = text;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let (piece, behind) = rest.split_at(self.first_piece(rest));
            rest = behind;
            Some(piece)
        })
    }

    /// Bytes of the first piece; `text` is not empty.
    fn first_piece(self, text: &str) -> usize {
        match self {
            Self::Gpt2 => gpt2(text),
            Self::DigitsThenGpt2 => {
                let number = |c: &char| class(*c) == CharClass::Number;
                match text.chars().next().filter(number) {
                    Some(digit) => digit.len_utf8(),
                    // GPT-2's look-ahead sees nothing of the digit: the parts are apart.
                    None => gpt2(&text[..run(text, |c| !number(&c))]),
                }
            }
            Self::Llama3 => llama3(text, 3),
            Self::Qwen2 => llama3(text, 1),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CharClass {
    Letter,
    Number,
    Space,
    Other,
}

/// `\p{L}` as sorted ranges. (`char::is_alphabetic` is a larger class.)
static LETTERS: LazyLock<Vec<(char, char)>> = LazyLock::new(|| {
    let parsed = regex_syntax::parse(r"\p{L}").map(|hir| hir.into_kind());
    match parsed {
        Ok(HirKind::Class(Class::Unicode(letters))) => {
            letters.iter().map(|range| (range.start(), range.end())).collect()
        }
        other => unreachable!("`\\p{{L}}` is a class of characters, not {other:?}"),
    }
});

fn class(c: char) -> CharClass {
    if c.is_ascii() {
        return match c {
            'a'..='z' | 'A'..='Z' => CharClass::Letter,
            '0'..='9' => CharClass::Number,
            '\t'..='\r' | ' ' => CharClass::Space,
            _ => CharClass::Other,
        };
    }
    let at = LETTERS.partition_point(|&(_, end)| end < c);
    if LETTERS.get(at).is_some_and(|&(start, _)| start <= c) {
        CharClass::Letter
    } else if c.is_numeric() {
        CharClass::Number
    } else if c.is_whitespace() {
        CharClass::Space
    } else {
        CharClass::Other
    }
}

/// Bytes of the leading characters that satisfy `is`.
fn run(text: &str, is: impl Fn(char) -> bool) -> usize {
    text.find(|c| !is(c)).unwrap_or(text.len())
}

fn run_of(text: &str, of: CharClass) -> usize {
    run(text, |c| class(c) == of)
}

fn gpt2(text: &str) -> usize {
    if let Some(len) = contraction(text, |c| c) {
        return len;
    }
    let (lead, rest) = optional_space(text);
    match rest.chars().next().map(class) {
        Some(kind @ (CharClass::Letter | CharClass::Number | CharClass::Other)) => {
            lead + run_of(rest, kind)
        }
        Some(CharClass::Space) | None => white_space(text),
    }
}

fn llama3(text: &str, digits_max: usize) -> usize {
    // Beside `s`, Unicode folds the long s to it; the other letters have no further forms.
    let fold = |c: char| if c == 'ſ' { 's' } else { c.to_ascii_lowercase() };
    if let Some(len) = contraction(text, fold) {
        return len;
    }
    let mut characters = text.chars();
    let Some(first) = characters.next() else { return 0 };
    let kind = class(first);
    match kind {
        CharClass::Letter => return run_of(text, CharClass::Letter),
        CharClass::Number => {
            return text
                .chars()
                .take(digits_max)
                .take_while(|&c| class(c) == CharClass::Number)
                .map(char::len_utf8)
                .sum();
        }
        CharClass::Space | CharClass::Other => {}
    }
    let behind = characters.as_str();
    let letters = run_of(behind, CharClass::Letter);
    if letters > 0 && !is_newline(first) {
        return first.len_utf8() + letters;
    }
    let (lead, rest) = optional_space(text);
    let others = run_of(rest, CharClass::Other);
    if others > 0 {
        return lead + others + run(&rest[others..], is_newline);
    }
    let spaces = run_of(text, CharClass::Space);
    match text[..spaces].rfind(is_newline) {
        // `\r` and `\n` are one byte.
        Some(last) => last + 1,
        None => white_space(text),
    }
}

fn is_newline(c: char) -> bool {
    matches!(c, '\r' | '\n')
}

/// A leading space when something other than white space follows it, and the rest.
fn optional_space(text: &str) -> (usize, &str) {
    match text.strip_prefix(' ') {
        Some(rest) => (1, rest),
        None => (0, text),
    }
}

/// `\s+(?!\S)|\s+`: the last white space before something else is left to it, unless it is alone.
fn white_space(text: &str) -> usize {
    let spaces = run_of(text, CharClass::Space);
    if spaces == text.len() {
        return spaces;
    }
    let last = text[..spaces].chars().next_back().map_or(0, char::len_utf8);
    if last < spaces { spaces - last } else { spaces }
}

/// `'s|'t|'re|'ve|'m|'ll|'d`, after `fold`.
fn contraction(text: &str, fold: impl Fn(char) -> char) -> Option<usize> {
    let mut characters = text.strip_prefix('\'')?.chars();
    let first = characters.next()?;
    let one = 1 + first.len_utf8();
    match fold(first) {
        's' | 't' | 'm' | 'd' => return Some(one),
        _ => {}
    }
    let second = characters.next()?;
    match (fold(first), fold(second)) {
        ('r' | 'v', 'e') | ('l', 'l') => Some(one + second.len_utf8()),
        _ => None,
    }
}
