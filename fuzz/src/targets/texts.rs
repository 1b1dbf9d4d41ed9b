//! Languages within requests and models: SQL, chat templates, schemas, patterns of redaction.

use std::sync::LazyLock;

use aisemble_data_processor::engine;
use aisemble_llm::constraint::{CallWriting, Constraints, Form, Vocabulary};
use aisemble_llm::text::{Chat, ChatTemplate, Message};
use aisemble_nlp::tasks::redact::Redaction;
use aisemble_protocol::v1;

use super::{Answer, Target};
use crate::seeds;

const SQL: &[&str] = &[
    "SELECT ",
    " FROM ",
    " WHERE ",
    " GROUP BY ",
    "(",
    ")",
    ",",
    "*",
    "'",
    "\"",
    "WITH a AS (",
    ";",
    " JOIN ",
    " UNION ",
    "read_csv('/etc/passwd')",
    "COUNT(",
    " OVER (",
    "CASE WHEN ",
    "--",
    "/*",
    "INSERT INTO ",
    "::int",
    "INTERVAL '",
    "NOT ",
    "((((((((",
    "UNNEST(",
    "EXPLAIN ",
];
const JINJA: &[&str] = &[
    "{{",
    "}}",
    "{%",
    "%}",
    "{% for message in messages %}",
    "{% endfor %}",
    "{% if ",
    "{% endif %}",
    "{% set ",
    "{% macro x() %}",
    "{% endmacro %}",
    "| tojson",
    "| trim",
    ".strip()",
    "loop.index",
    "raise_exception('",
    "namespace(",
    "range(999999999)",
    "~",
    "[::-1]",
    "* 1000000",
];
const SCHEMA: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    "\"type\":",
    "\"object\"",
    "\"properties\":",
    "\"$ref\":\"#/$defs/a\"",
    "\"$defs\":",
    "\"enum\":",
    "\"pattern\":",
    "\"anyOf\":",
    "\"allOf\":",
    "\"items\":",
    "\"minItems\":",
    "\"maxLength\":",
    "\"required\":",
    "\"additionalProperties\":false",
    "(a+)+",
    "[^\\\\s]{1,999}",
    "\"const\":",
];
const PERSONAL: &[&str] = &[
    "@",
    ".example",
    "+49 ",
    "0",
    "DE89 3704 0044 0532 0130 00",
    "4111 1111 1111 1111",
    "::",
    "192.",
    "http://",
    "123-45-6789",
    "é",
    "\u{202e}",
    " ",
    "-",
];

pub(super) static TARGETS: [Target; 5] = [
    Target { name: "sql", seeds: seeds::sql, words: SQL, run: sql },
    Target { name: "chat-template", seeds: seeds::templates, words: JINJA, run: template },
    Target { name: "schema", seeds: seeds::schemas, words: SCHEMA, run: schema },
    Target { name: "grammar", seeds: seeds::grammars, words: SCHEMA, run: grammar },
    Target { name: "redact", seeds: seeds::texts, words: PERSONAL, run: redact },
];

/// The first byte says whether it is a statement or an expression.
fn sql(input: &[u8]) -> Answer {
    let Some((kind, rest)) = input.split_first() else { return Answer::Refused(String::new()) };
    let Ok(text) = std::str::from_utf8(rest) else { return Answer::Refused("no text".to_owned()) };
    Answer::of(match kind % 2 {
        0 => engine::check_statement(text).map_err(|error| error.message),
        _ => engine::check_expression(text).map_err(|error| error.message),
    })
}

fn template(input: &[u8]) -> Answer {
    let Ok(text) = std::str::from_utf8(input) else { return Answer::Refused("no text".to_owned()) };
    let template = match ChatTemplate::new(text, "<s>", "</s>") {
        Ok(template) => template,
        Err(error) => return Answer::Refused(error.to_string()),
    };
    let messages = vec![Message::said("system", "Be brief."), Message::said("user", "{{ 1 }} é")];
    Answer::of(template.render(&Chat::of(messages)))
}

/// A vocabulary of every byte, some words, and an end.
static CONSTRAINTS: LazyLock<Constraints> = LazyLock::new(|| {
    Constraints::new(|| {
        let words = ["true", "false", "null", "{\"", "\":", "\"a\"", "12", " the"];
        let bytes = (0..=255_u8).map(|byte| Some(vec![byte]));
        let words = words.iter().map(|word| Some(word.as_bytes().to_vec()));
        let mut pieces: Vec<_> = bytes.chain(words).collect();
        pieces.push(None);
        let ends = vec![pieces.len() as u32 - 1];
        Vocabulary { pieces, ends, calls: CallWriting::default() }
    })
});
/// As the service gives to the thread that compiles.
const STACK_BYTES: usize = 16 << 20;
/// Tokens that are followed.
const FOLLOWED: usize = 24;

/// Compiles a form on a thread as the service does, and follows it for some tokens.
fn followed(form: Form) -> Answer {
    let follow = move || {
        let mut constraint = match CONSTRAINTS.compile_here(&form) {
            Ok(constraint) => constraint,
            Err(error) => return Answer::Refused(error.to_string()),
        };
        let mut logits = vec![0.0; 265];
        for step in 0..FOLLOWED {
            logits.fill(1.0);
            if constraint.mask(&mut logits).is_err() {
                return Answer::Refused("lost".to_owned());
            }
            let open: Vec<usize> = (0..logits.len()).filter(|at| logits[*at].is_finite()).collect();
            let Some(token) = open.get(step * 31 % open.len().max(1)) else { break };
            if constraint.accept(*token as u32).is_err() {
                return Answer::Refused("lost".to_owned());
            }
            if constraint.is_complete() {
                break;
            }
        }
        Answer::Taken
    };
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(follow);
    let thread = thread.unwrap_or_else(|error| panic!("no thread: {error}"));
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn schema(input: &[u8]) -> Answer {
    match String::from_utf8(input.to_vec()) {
        Ok(text) => followed(Form::JsonSchema(text)),
        Err(_) => Answer::Refused("no text".to_owned()),
    }
}

/// The first byte says whether it is an expression or a grammar.
fn grammar(input: &[u8]) -> Answer {
    let Some((kind, rest)) = input.split_first() else { return Answer::Refused(String::new()) };
    match String::from_utf8(rest.to_vec()) {
        Ok(text) if kind % 2 == 0 => followed(Form::Regex(text)),
        Ok(text) => followed(Form::Lark(text)),
        Err(_) => Answer::Refused("no text".to_owned()),
    }
}

/// A pattern, a line end, a text. Nothing but what is hidden may change.
fn redact(input: &[u8]) -> Answer {
    let Ok(whole) = std::str::from_utf8(input) else {
        return Answer::Refused("no text".to_owned());
    };
    let (pattern, text) = whole.split_once('\n').unwrap_or(("", whole));
    let patterns = match pattern {
        "" => Vec::new(),
        pattern => {
            vec![v1::CustomPattern { label: "X".to_owned(), pattern: pattern.to_owned() }]
        }
    };
    let task = v1::RedactTask { all_rules: true, patterns, ..v1::RedactTask::default() };
    let redaction = match Redaction::checked(&task) {
        Ok(redaction) => redaction,
        Err(error) => return Answer::Refused(error.message),
    };
    let redacted = redaction.apply(text, Vec::new());
    let (given, left): (Vec<char>, Vec<char>) =
        (text.chars().collect(), redacted.text.chars().collect());
    let (mut at, mut written) = (0, 0);
    for span in &redacted.spans {
        let (start, end) = (span.start as usize, span.end as usize);
        assert!(at <= start && start < end && end <= given.len(), "{span:?}");
        assert_eq!(given[at..start], left[written..span.redacted_start as usize], "{span:?}");
        (at, written) = (end, span.redacted_end as usize);
    }
    assert_eq!(given[at..], left[written..]);
    Answer::Taken
}
