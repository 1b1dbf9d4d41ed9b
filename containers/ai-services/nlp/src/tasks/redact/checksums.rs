//! Check digits: what tells a real number from digits that look like one.

/// Account numbers' lengths by country (SWIFT's IBAN registry).
const IBAN_LENGTHS: [(&str, usize); 89] = [
    ("AD", 24),
    ("AE", 23),
    ("AL", 28),
    ("AT", 20),
    ("AZ", 28),
    ("BA", 20),
    ("BE", 16),
    ("BG", 22),
    ("BH", 22),
    ("BI", 27),
    ("BR", 29),
    ("BY", 28),
    ("CH", 21),
    ("CR", 22),
    ("CY", 28),
    ("CZ", 24),
    ("DE", 22),
    ("DJ", 27),
    ("DK", 18),
    ("DO", 28),
    ("EE", 20),
    ("EG", 29),
    ("ES", 24),
    ("FI", 18),
    ("FK", 18),
    ("FO", 18),
    ("FR", 27),
    ("GB", 22),
    ("GE", 22),
    ("GI", 23),
    ("GL", 18),
    ("GR", 27),
    ("GT", 28),
    ("HN", 28),
    ("HR", 21),
    ("HU", 28),
    ("IE", 22),
    ("IL", 23),
    ("IQ", 23),
    ("IS", 26),
    ("IT", 27),
    ("JO", 30),
    ("KW", 30),
    ("KZ", 20),
    ("LB", 28),
    ("LC", 32),
    ("LI", 21),
    ("LT", 20),
    ("LU", 20),
    ("LV", 21),
    ("LY", 25),
    ("MC", 27),
    ("MD", 24),
    ("ME", 22),
    ("MK", 19),
    ("MN", 20),
    ("MR", 27),
    ("MT", 31),
    ("MU", 30),
    ("NI", 28),
    ("NL", 18),
    ("NO", 15),
    ("OM", 23),
    ("PK", 24),
    ("PL", 28),
    ("PS", 29),
    ("PT", 25),
    ("QA", 29),
    ("RO", 24),
    ("RS", 22),
    ("RU", 33),
    ("SA", 24),
    ("SC", 31),
    ("SD", 18),
    ("SE", 24),
    ("SI", 19),
    ("SK", 24),
    ("SM", 27),
    ("SO", 23),
    ("ST", 25),
    ("SV", 28),
    ("TL", 23),
    ("TN", 24),
    ("TR", 26),
    ("UA", 29),
    ("VA", 22),
    ("VG", 24),
    ("XK", 20),
    ("YE", 30),
];

/// Characters of an account number of the country, upper-case letters and digits.
#[must_use]
pub(super) fn iban_length(country: &str) -> Option<usize> {
    let at = IBAN_LENGTHS.binary_search_by_key(&country, |(country, _)| country).ok()?;
    Some(IBAN_LENGTHS[at].1)
}

/// ISO 7064 MOD 97-10 of an account number without spaces: the first four characters moved to the
/// end, letters as 10 to 35, leaves 1.
#[must_use]
pub(super) fn is_iban(text: &str) -> bool {
    let known = text.get(..2).and_then(iban_length) == Some(text.len());
    known && text.get(4..).is_some_and(|rest| remainder_97(rest, &text[..4]) == Some(1))
}

fn remainder_97(rest: &str, head: &str) -> Option<u32> {
    rest.chars().chain(head.chars()).try_fold(0u32, |remainder, character| {
        let value = character.to_digit(36)?;
        let shift = if value > 9 { 100 } else { 10 };
        Some((remainder * shift + value) % 97)
    })
}

/// The check digit of payment cards (ISO/IEC 7812-1, Annex B): every second digit from the right
/// doubled, digits summed, leaves 0 modulo 10.
#[must_use]
pub(super) fn is_luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(at, digit)| {
            let digit = u32::from(digit - b'0');
            let doubled = if at % 2 == 1 { digit * 2 } else { digit };
            doubled / 10 + doubled % 10
        })
        .sum();
    !digits.is_empty() && sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_published_examples_are_right() {
        for iban in [
            "DE89370400440532013000",
            "GB29NWBK60161331926819",
            "FR1420041010050500013M02606",
            "NO9386011117947",
            "MT84MALT011000012345MTLCAST001S",
        ] {
            assert!(is_iban(iban), "{iban}");
        }
        for card in ["4111111111111111", "5500005555555559", "378282246310005", "6011111111111117"]
        {
            assert!(is_luhn(card.as_bytes()), "{card}");
        }
        assert!(IBAN_LENGTHS.is_sorted_by_key(|(country, _)| *country));
        assert!(!is_iban("ZZ89370400440532013000") && !is_iban("") && !is_iban("DEé"));
        assert!(!is_luhn(b""));
    }

    proptest! {
        #[test]
        fn one_wrong_digit_is_seen(at in 4usize..22, digit in 0u8..10) {
            let mut iban = b"DE89370400440532013000".to_vec();
            let right = iban[at] == b'0' + digit;
            iban[at] = b'0' + digit;
            prop_assert_eq!(is_iban(std::str::from_utf8(&iban).unwrap()), right);
        }

        #[test]
        fn one_wrong_card_digit_is_seen(at in 0usize..16, digit in 0u8..10) {
            let mut card = b"4111111111111111".to_vec();
            let right = card[at] == b'0' + digit;
            card[at] = b'0' + digit;
            prop_assert_eq!(is_luhn(&card), right);
        }

        #[test]
        fn any_text_has_an_answer(text in "\\PC{0,40}") {
            let _any = is_iban(&text);
        }
    }
}
