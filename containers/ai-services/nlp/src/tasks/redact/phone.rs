//! Telephone numbers: international ones as ITU-T E.164 counts them, and national ones in the forms
//! that people write, with something between their groups. Digits that have the shape of another
//! number (an account's, a card's, a social security number's, a date's) are none, even where that
//! other number is mistyped; digits without any separator are none either.

use std::ops::{Range, RangeInclusive};
use std::sync::LazyLock;

use regex::Regex;

use super::checksums::iban_length;
use super::rules::{all, alone, digits, pattern, touches};

/// Digits of a telephone number: E.164 allows 15; shorter than 8 is too much else.
const DIGITS: RangeInclusive<usize> = 8..=15;
/// Characters that a mistyped account number may have too many or too few.
const IBAN_SLIP: usize = 2;

static PHONE: LazyLock<Regex> = LazyLock::new(|| {
    pattern(concat!(
        // International: no country's code begins with 0.
        r"\+[1-9][0-9]{0,2}(?:[ .\-/]{0,2}\(?[0-9]{1,6}\)?){1,7}",
        r"|00[ ]?[1-9][0-9]{0,2}[ .\-/]{1,2}\(?[0-9]{1,6}\)?(?:[ .\-/]{0,2}\(?[0-9]{1,6}\)?){0,6}",
        // North American: area, exchange, line; neither of the first two begins with 0 or 1.
        r"|\(?[2-9][0-9]{2}\)?[ .\-]{1,2}[2-9][0-9]{2}[ .\-][0-9]{4}",
        // National: a 0, an area's code that begins with none.
        r"|\(?0[1-9][0-9]{0,4}\)?[ ./\-]{1,3}[0-9]{2,8}(?:[ .\-][0-9]{2,6}){0,4}",
    ))
});

/// Numbers of other kinds, by their groups alone.
static OTHERS: LazyLock<Regex> = LazyLock::new(|| {
    pattern(concat!(
        // An account number in groups of four.
        r"(?P<iban>[A-Z]{2}[0-9]{2}(?: [A-Z0-9]{4}){2,7}(?: [A-Z0-9]{1,3})?)",
        // A card's: of 16 digits, of 19; of 15 and 14.
        r"|[0-9]{4}(?:[ \-][0-9]{4}){3}(?:[ \-][0-9]{3})?|3[0-9]{3}[ \-][0-9]{6}[ \-][0-9]{4,5}",
        // A social security number.
        r"|[0-9]{3}-[0-9]{2}-[0-9]{4}",
        // A day, its month and year.
        r"|(?:0[1-9]|[12][0-9]|3[01])[./\-](?:0[1-9]|1[0-2])[./\-](?:19|20)[0-9]{2}",
    ))
});

/// The bytes of every telephone number, in order.
pub(super) fn find(text: &str) -> Vec<Range<usize>> {
    let others = others(text);
    all(&PHONE, text, |text, range| {
        phone(text, range).filter(|range| {
            // The plus is said of telephone numbers only.
            text[range.start..].starts_with('+') || !lies_within(range, &others)
        })
    })
}

/// Whether one of `others`, which are in order and apart, covers the range.
fn lies_within(range: &Range<usize>, others: &[Range<usize>]) -> bool {
    let behind = others.partition_point(|other| other.start <= range.start);
    others[..behind].last().is_some_and(|other| range.end <= other.end)
}

fn phone(text: &str, range: Range<usize>) -> Option<Range<usize>> {
    let range = alone(text, range)?;
    let found = &text[range.clone()];
    // `00` before an international number and `(0)` within it are not dialled as part of it.
    let prefix = 2 * usize::from(found.starts_with("00")) + usize::from(found.contains("(0)"));
    let count = digits(found).len() - prefix;
    // A closing bracket without its opening one belongs to the sentence.
    let brackets = found.matches('(').count() == found.matches(')').count();
    let part_of_more = touches(text, &range, |character| matches!(character, '.' | '-' | '/'))
        && text[range.end..].starts_with(['-', '/', '.'])
        && text[range.end..].chars().nth(1).is_some_and(|next| next.is_ascii_digit());
    (DIGITS.contains(&count) && brackets && !part_of_more).then_some(range)
}

/// Where numbers of other kinds are, by their shape.
fn others(text: &str) -> Vec<Range<usize>> {
    let found = OTHERS.captures_iter(text).filter_map(|hit| {
        let range = alone(text, hit.get(0)?.range())?;
        let is_other = match hit.name("iban") {
            Some(iban) => is_near_iban(iban.as_str()),
            None => true,
        };
        is_other.then_some(range)
    });
    found.collect()
}

/// About as long as the account numbers of its country.
fn is_near_iban(text: &str) -> bool {
    let length = text.bytes().filter(|byte| *byte != b' ').count();
    iban_length(&text[..2]).is_some_and(|right| length.abs_diff(right) <= IBAN_SLIP)
}
