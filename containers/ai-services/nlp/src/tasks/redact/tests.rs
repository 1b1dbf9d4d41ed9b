//! What is hidden, what is left alone, and what holds of any text.

use proptest::prelude::*;

use super::*;

fn rules(names: &[RedactRule]) -> Redaction {
    let task = v1::RedactTask {
        rules: names.iter().map(|rule| rule.as_str().to_owned()).collect(),
        ..v1::RedactTask::default()
    };
    Redaction::checked(&task).unwrap()
}

fn check(text: &str, expected: &str) {
    let task = v1::RedactTask { all_rules: true, ..v1::RedactTask::default() };
    let redacted = Redaction::checked(&task).unwrap().apply(text, Vec::new());
    assert_eq!(redacted.text, expected);
}

#[test]
fn personal_data_is_hidden_and_named() {
    check("Mail jane.doe+x@mail.example.co.uk now.", "Mail [EMAIL] now.");
    check("jürgen@müller.example", "[EMAIL]");
    check("Call +49 30 901820 or +1 (415) 555-2671.", "Call [PHONE] or [PHONE].");
    check("(415) 555-2671, 415-555-2671, 415.555.2671", "[PHONE], [PHONE], [PHONE]");
    check("Tel. 030 / 901820 and 020 7946 0958", "Tel. [PHONE] and [PHONE]");
    check("0049 30 901820, 00 44 20 7946 0958", "[PHONE], [PHONE]");
    check("+49 (0)30 901820; 01 23 45 67 89; 03-1234-5678", "[PHONE]; [PHONE]; [PHONE]");
    check("(020) 7946 0958 or 030 12 3456", "[PHONE] or [PHONE]");
    check("IBAN DE89 3704 0044 0532 0130 00 and text", "IBAN [IBAN] and text");
    check("gb29nwbk60161331926819.", "[IBAN].");
    check("Card 4111 1111 1111 1111, 5500-0055-5555-5559", "Card [CREDIT_CARD], [CREDIT_CARD]");
    check("4111 1111 1111 1111 12/27", "[CREDIT_CARD] 12/27");
    check("from 192.168.0.1:80 to 2001:db8::ff00:42:8329", "from [IP_ADDRESS]:80 to [IP_ADDRESS]");
    check("::ffff:192.0.2.128 and fe80::1", "[IP_ADDRESS] and [IP_ADDRESS]");
    check("mac 00:1B:44:11:3A:B7", "mac [MAC_ADDRESS]");
    check("see https://example.com/a?b=c, ok", "see [URL], ok");
    check("(www.example.com/x)", "([URL])");
    check("SSN 123-45-6789", "SSN [US_SSN]");
}

#[test]
fn what_only_looks_so_is_left() {
    for text in [
        "version 1.2.3.4.5 and 300.1.1.1",
        "at 12:30:45 on 2024-01-15",
        "order 4111 1111 1111 1112",
        "000-12-3456 and 666-12-3456 and 123-00-4567",
        "0000 0000 0000 0000",
        "IBAN DE89 3704 0044 0532 0130 01",
        "GB29 NWBK 6016 0331 0926 18 has a digit that is wrong, DE89 3704 0044 0532 0130 one less",
        "on 05.06.2024, 01-02-1999 and 31/12/2023",
        "part 0012345678901, 03012345678 and 1234567890",
        "a@b and @handle and me@",
        "1,234,567.89 EUR in 2023",
        "std::vec::Vec",
        "chapter 3.14",
        "12345678901234567890123456789",
    ] {
        check(text, text);
    }
}

#[test]
fn only_the_rules_that_were_asked_for_apply() {
    let redacted = rules(&[RedactRule::Email]).apply("a@b.example 192.168.0.1", Vec::new());
    assert_eq!(redacted.text, "[EMAIL] 192.168.0.1");
}

fn with(task: v1::RedactTask, text: &str, entities: Vec<Found>) -> v1::Redacted {
    Redaction::checked(&task).unwrap().apply(text, entities)
}

#[test]
fn replacements_are_what_was_asked_for() {
    let task = |replacement: v1::Replacement, mask: &str| v1::RedactTask {
        all_rules: true,
        replacement: replacement.into(),
        mask: mask.to_owned(),
        ..v1::RedactTask::default()
    };
    let text = "é a@b.example, c@d.example, a@b.example";
    let numbered = with(task(v1::Replacement::Numbered, ""), text, Vec::new());
    assert_eq!(numbered.text, "é [EMAIL_1], [EMAIL_2], [EMAIL_1]");
    let span = &numbered.spans[0];
    assert_eq!((span.start, span.end, span.redacted_start, span.redacted_end), (2, 13, 2, 11));
    let masked = with(task(v1::Replacement::Mask, "█"), "x a@b.example", Vec::new());
    assert_eq!(masked.text, "x ███████████");
    let removed = with(task(v1::Replacement::Remove, ""), "x a@b.example y", Vec::new());
    assert_eq!((removed.text.as_str(), removed.spans[0].redacted_end), ("x  y", 2));
}

#[test]
fn patterns_and_entities_join_in_and_overlaps_are_one() {
    let pattern = |label: &str, pattern: &str| v1::CustomPattern {
        label: label.to_owned(),
        pattern: pattern.to_owned(),
    };
    let task = v1::RedactTask {
        all_rules: true,
        patterns: vec![pattern("TICKET", r"T-\d+"), pattern("EMPTY", "x*")],
        ..v1::RedactTask::default()
    };
    let text = "Jane Doe jane@doe.example T-123";
    let person = |bytes| Found { bytes, label: "PER".to_owned(), score: 0.75 };
    // The second entity reaches into the address: nothing of either stays.
    let redacted = with(task, text, vec![person(0..8), person(7..14)]);
    assert_eq!(redacted.text, "[PER] [TICKET]".replace("[PER] ", "[EMAIL] "));
    assert_eq!(redacted.spans[0].source, "rule");
    assert_eq!(redacted.spans[1].source, "pattern");
}

#[test]
fn a_pattern_that_takes_the_square_of_the_text_is_ended_and_shows_nothing() {
    let patterns = vec![v1::CustomPattern {
        label: "X".to_owned(),
        // Each match looks at all the rest first: 2 ^ 39 bytes of this text.
        pattern: "(?:.*[^A-Z])|[A-Z]".to_owned(),
    }];
    let task = v1::RedactTask { patterns, ..v1::RedactTask::default() };
    let text = "A".repeat(1 << 20);
    let redacted = with(task, &text, Vec::new());
    assert!(!redacted.text.replace("[X]", "").contains('A'));
    assert_eq!(redacted.spans.last().unwrap().end, 1 << 20);
    assert!(redacted.spans.len() < 1 << 20, "it was ended");
}

#[test]
fn bad_patterns_and_rules_are_told() {
    let refused = |task: v1::RedactTask, param: &str, sentence: &str| {
        let error = Redaction::checked(&task).unwrap_err();
        assert_eq!(error.param.as_deref(), Some(param));
        assert!(error.message.contains(sentence), "{}", error.message);
    };
    let pattern = |pattern: &str| {
        let label = "X".to_owned();
        let patterns = vec![v1::CustomPattern { label, pattern: pattern.to_owned() }];
        v1::RedactTask { patterns, ..v1::RedactTask::default() }
    };
    refused(pattern("(a"), "patterns", "no regular expression");
    refused(pattern(r"(a)\1"), "patterns", "no regular expression");
    refused(pattern(r"(?:\w{500}){500}"), "patterns", "too costly");
    refused(pattern(""), "patterns", "between 1 and 512");
    refused(pattern(&"(".repeat(100)), "patterns", "no regular expression");
    let unknown = v1::RedactTask { rules: vec!["name".to_owned()], ..v1::RedactTask::default() };
    refused(unknown, "rules", "\"name\" is no rule; rules are email");
}

/// Text in which the rules find much and nearly find more.
fn text() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just("a@b.example".to_owned()),
        Just("+49 30 901820".to_owned()),
        Just("DE89 3704 0044 0532 0130 00".to_owned()),
        Just("4111 1111 1111 1111".to_owned()),
        Just("192.168.0.1".to_owned()),
        Just("2001:db8::1".to_owned()),
        Just("https://example.com/".to_owned()),
        "[0-9 .:@+()/-]{0,24}",
        "[A-Z]{2}[0-9]{2}[A-Z0-9 ]{0,30}",
        "\\PC{0,12}",
    ];
    proptest::collection::vec(part, 0..10).prop_map(|parts| parts.join(" "))
}

proptest! {
    #[test]
    fn spans_are_apart_and_the_rest_of_the_text_is_kept(
        text in text(),
        entities in proptest::collection::vec((0usize..80, 0usize..20), 0..4),
        replacement in 0i32..5,
    ) {
        let task = v1::RedactTask { all_rules: true, replacement, ..v1::RedactTask::default() };
        let bounded = |at: usize| text.floor_char_boundary(at.min(text.len()));
        let found: Vec<Found> = entities
            .iter()
            .map(|(start, len)| bounded(*start)..bounded(start + len))
            .map(|bytes| Found { bytes, label: "PER".to_owned(), score: 0.5 })
            .collect();
        let redacted = Redaction::checked(&task).unwrap().apply(&text, found.clone());
        let (given, left): (Vec<char>, Vec<char>) =
            (text.chars().collect(), redacted.text.chars().collect());
        let (mut at, mut written) = (0, 0);
        for span in &redacted.spans {
            let (start, end) = (span.start as usize, span.end as usize);
            prop_assert!(start >= at && end > start && end <= given.len());
            let kept = span.redacted_start as usize;
            prop_assert_eq!(&given[at..start], &left[written..kept]);
            (at, written) = (end, span.redacted_end as usize);
        }
        prop_assert_eq!(&given[at..], &left[written..]);
        // Everything that was found lies inside a span.
        for found in found.iter().filter(|found| !found.bytes.is_empty()) {
            let start = text[..found.bytes.start].chars().count() as u32;
            let end = text[..found.bytes.end].chars().count() as u32;
            prop_assert!(redacted.spans.iter().any(|s| s.start <= start && end <= s.end));
        }
    }

    #[test]
    fn the_built_in_patterns_are_found_between_other_words(before in "[a-z ]{0,20}", rest in " [a-z ]{0,20}") {
        for (data, label) in [
            ("a@b.example", "EMAIL"),
            ("+49 30 901820", "PHONE"),
            ("DE89370400440532013000", "IBAN"),
            ("4111111111111111", "CREDIT_CARD"),
            ("10.0.0.1", "IP_ADDRESS"),
        ] {
            let text = format!("{before} {data}{rest}");
            let task = v1::RedactTask { all_rules: true, ..v1::RedactTask::default() };
            let redacted = Redaction::checked(&task).unwrap().apply(&text, Vec::new());
            prop_assert_eq!(redacted.text, format!("{before} [{label}]{rest}"));
        }
    }
}
