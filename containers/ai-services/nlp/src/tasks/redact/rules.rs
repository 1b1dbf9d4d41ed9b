//! The built-in rules: what looks like personal data, and the check that tells it from what only
//! looks so. Times are linear in the text, whatever it says.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::sync::LazyLock;

use aisemble_protocol::nlp::RedactRule;
use regex::Regex;

use super::checksums::{iban_length, is_iban, is_luhn};
use super::phone;

/// Digits of a payment card.
const CARD_DIGITS: std::ops::RangeInclusive<usize> = 13..=19;
/// Characters of the longest account number, with a space behind every one.
const IBAN_BYTES_MAX: usize = 34 * 2;

/// A pattern of this file.
pub(super) fn pattern(text: &str) -> Regex {
    #[expect(clippy::expect_used, reason = "the patterns are constants that the tests use")]
    Regex::new(text).expect("a pattern of this file is one")
}

static EMAIL: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"[\p{L}\p{N}._%+'-]+@(?:[\p{L}\p{N}][\p{L}\p{N}-]*\.)+\p{L}{2,}"));
static IBAN: LazyLock<Regex> = LazyLock::new(|| pattern(r"[A-Za-z]{2}[0-9]{2}[ ]?[A-Za-z0-9]"));
static CARD: LazyLock<Regex> = LazyLock::new(|| pattern(r"[0-9](?:[ \-]?[0-9]){12,18}"));
static ADDRESS: LazyLock<Regex> = LazyLock::new(|| {
    // A version 6 address that ends in one of version 4 comes first: the others are parts of it.
    pattern(concat!(
        r"[0-9A-Fa-f:]{1,30}:[0-9]{1,3}(?:\.[0-9]{1,3}){3}",
        r"|[0-9]{1,3}(?:\.[0-9]{1,3}){3}|[0-9A-Fa-f:]{2,39}",
    ))
});
static MAC: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){5}|[0-9A-Fa-f]{2}(?:-[0-9A-Fa-f]{2}){5}")
});
static URL: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r#"(?i:https?|ftp)://[^\s<>"\p{Cc}]+|(?i:www)\.[\p{L}\p{N}-]+\.[^\s<>"\p{Cc}]{2,}"#)
});
static SSN: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"[0-9]{3}-[0-9]{2}-[0-9]{4}|[0-9]{3} [0-9]{2} [0-9]{4}"));

/// The bytes of everything in `text` that the rule finds, in order.
#[must_use]
pub(super) fn find(rule: RedactRule, text: &str) -> Vec<Range<usize>> {
    match rule {
        RedactRule::Email => all(&EMAIL, text, alone),
        RedactRule::Phone => phone::find(text),
        RedactRule::Iban => ibans(text),
        RedactRule::CreditCard => all(&CARD, text, card),
        RedactRule::IpAddress => all(&ADDRESS, text, address),
        RedactRule::MacAddress => all(&MAC, text, |text, range| {
            let range = alone(text, range)?;
            (!touches(text, &range, |character| character == ':' || character == '-'))
                .then_some(range)
        }),
        RedactRule::Url => all(&URL, text, |text, range| Some(without_tail(text, range))),
        RedactRule::UsSsn => all(&SSN, text, social_security),
    }
}

/// Matches that pass a check. One that does not is looked into again from its second character.
pub(super) fn all(
    pattern: &Regex,
    text: &str,
    check: impl Fn(&str, Range<usize>) -> Option<Range<usize>>,
) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    let mut at = 0;
    while let Some(hit) = pattern.find_at(text, at) {
        match check(text, hit.range()).filter(|range| range.end > range.start) {
            Some(range) => {
                at = range.end;
                found.push(range);
            }
            // Behind the run of characters that the match began with: a refused run is not tried
            // at each of its digits again, which would be quadratic.
            None => at = skip_run(text, hit.start()),
        }
    }
    found
}

/// The end of the run of letters and digits at `at`, at least one character on.
fn skip_run(text: &str, at: usize) -> usize {
    let rest = &text[at..];
    let run = rest.find(|character: char| !character.is_alphanumeric()).unwrap_or(rest.len());
    let first = rest.chars().next().map_or(1, char::len_utf8);
    at + run.max(first)
}

/// Whether the character before or behind satisfies a test.
pub(super) fn touches(text: &str, range: &Range<usize>, test: impl Fn(char) -> bool) -> bool {
    let before = text[..range.start].chars().next_back();
    let behind = text[range.end..].chars().next();
    before.is_some_and(&test) || behind.is_some_and(&test)
}

/// Not a part of a longer word or number.
pub(super) fn alone(text: &str, range: Range<usize>) -> Option<Range<usize>> {
    (!touches(text, &range, char::is_alphanumeric)).then_some(range)
}

pub(super) fn digits(text: &str) -> Vec<u8> {
    text.bytes().filter(u8::is_ascii_digit).collect()
}

/// A payment card's number at the beginning of the match: what follows it may be another number.
fn card(text: &str, range: Range<usize>) -> Option<Range<usize>> {
    let ends =
        text[range.clone()].char_indices().filter(|(_, character)| character.is_ascii_digit());
    let ends: Vec<usize> = ends.map(|(at, _)| range.start + at + 1).collect();
    let least = CARD_DIGITS.start() - 1;
    ends.get(least..)?.iter().rev().find_map(|end| {
        let range = alone(text, range.start..*end)?;
        let digits = digits(&text[range.clone()]);
        let same = digits.iter().all(|digit| Some(digit) == digits.first());
        (is_issued(&digits) && !same && is_luhn(&digits)).then_some(range)
    })
}

/// Whether an issuer gives out numbers that begin so and are so long.
fn is_issued(digits: &[u8]) -> bool {
    match digits {
        [b'4', ..] => matches!(digits.len(), 13 | 16 | 19),
        [b'2' | b'5', ..] => digits.len() == 16,
        [b'3', b'4' | b'7', ..] => digits.len() == 15,
        [b'3', b'0' | b'6' | b'8' | b'9', ..] => matches!(digits.len(), 14 | 16 | 19),
        [b'3', b'5', ..] | [b'6', ..] => (16..=19).contains(&digits.len()),
        _ => false,
    }
}

fn address(text: &str, range: Range<usize>) -> Option<Range<usize>> {
    let mut range = alone(text, range)?;
    // A colon behind an address is the sentence's or a port's.
    while text[range.clone()].ends_with(':') && !text[range.clone()].ends_with("::") {
        range.end -= 1;
    }
    let found = &text[range.clone()];
    // Versions have more parts than an address.
    let longer = text[..range.start].ends_with('.')
        || text[range.end..]
            .strip_prefix('.')
            .is_some_and(|rest| rest.starts_with(|next: char| next.is_ascii_digit()));
    let version_4 = found.parse::<Ipv4Addr>().is_ok();
    let version_6 = found.len() > 2 && found.parse::<Ipv6Addr>().is_ok();
    ((version_4 && !longer) || version_6).then_some(range)
}

fn social_security(text: &str, range: Range<usize>) -> Option<Range<usize>> {
    let range = alone(text, range)?;
    let digits = digits(&text[range.clone()]);
    let (area, group, serial) = (digits.get(..3)?, digits.get(3..5)?, digits.get(5..)?);
    let given_out = area != b"000" && area != b"666" && area[0] != b'9';
    let part_of_more = touches(text, &range, |character| character == '-');
    (given_out && group != b"00" && serial != b"0000" && !part_of_more).then_some(range)
}

/// Without the punctuation that ends a sentence.
fn without_tail(text: &str, mut range: Range<usize>) -> Range<usize> {
    loop {
        let found = &text[range.clone()];
        let closes = found.ends_with(')') && !found.contains('(');
        if !(closes || found.ends_with(['.', ',', ';', ':', '!', '?', '\''])) {
            return range;
        }
        range.end -= 1;
    }
}

/// Account numbers: a country's letters, then as many characters as that country's have, with or
/// without single spaces.
fn ibans(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(hit) = IBAN.find_at(text, at) {
        match iban_at(text, hit.start()) {
            Some(range) => {
                at = range.end;
                found.push(range);
            }
            None => at = skip_run(text, hit.start()),
        }
    }
    found
}

fn iban_at(text: &str, start: usize) -> Option<Range<usize>> {
    let before = text[..start].chars().next_back();
    if before.is_some_and(char::is_alphanumeric) {
        return None;
    }
    let length = iban_length(&text.get(start..start + 2)?.to_ascii_uppercase())?;
    let mut number = String::with_capacity(length);
    let bytes = text.as_bytes();
    for at in start..bytes.len().min(start + IBAN_BYTES_MAX) {
        match bytes[at] {
            byte if byte.is_ascii_alphanumeric() => {
                number.push(char::from(byte.to_ascii_uppercase()))
            }
            b' ' if bytes.get(at - 1) != Some(&b' ') => continue,
            _ => return None,
        }
        if number.len() == length {
            let range = start..at + 1;
            return is_iban(&number).then(|| alone(text, range)).flatten();
        }
    }
    None
}
