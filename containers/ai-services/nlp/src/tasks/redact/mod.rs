//! Redaction: spans that rules, patterns and models find, put together so that none overlaps and
//! nothing that one of them found stays visible, and the text without them.

mod checksums;
mod phone;
mod rules;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use aisemble_protocol::nlp::RedactRule;
use aisemble_protocol::{ApiError, limits, v1};
use regex::{Regex, RegexBuilder};

use super::entities::Found;
use crate::text::CharOffsets;

/// Bytes that a caller's compiled pattern may take.
const PATTERN_PROGRAM_BYTES_MAX: usize = 1 << 20;
/// What a caller's pattern may take for one text: so long, and for each byte so much more. Looking
/// for all matches can take the square of the text, and others wait for the same thread.
const PATTERN_TIME_MAX: Duration = Duration::from_millis(100);
const PATTERN_TIME_PER_BYTE_MAX: Duration = Duration::from_micros(1);
/// Brackets within brackets of a caller's pattern.
const PATTERN_NESTING_MAX: u32 = 32;

/// Who found a span. When spans of the same length overlap, the first in this order names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A built-in rule.
    Rule,
    /// A caller's pattern.
    Pattern,
    /// A model.
    Model,
}

impl Source {
    fn as_str(self) -> &'static str {
        match self {
            Self::Rule => "rule",
            Self::Pattern => "pattern",
            Self::Model => "model",
        }
    }
}

/// A stretch to hide.
#[derive(Debug, Clone, PartialEq)]
struct Span {
    bytes: Range<usize>,
    label: String,
    source: Source,
    score: f32,
}

/// What stands where something was hidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Replacement {
    Label,
    Numbered,
    Mask(char),
    Remove,
}

/// What to look for and what to put in its place, checked.
#[derive(Debug)]
pub struct Redaction {
    rules: Vec<RedactRule>,
    patterns: Vec<(String, Regex)>,
    replacement: Replacement,
}

impl Redaction {
    /// Checks a task's rules, patterns and replacement.
    ///
    /// # Errors
    /// `invalid_request`, naming the field.
    pub fn checked(task: &v1::RedactTask) -> Result<Self, ApiError> {
        let rules = if task.all_rules {
            RedactRule::ALL.to_vec()
        } else {
            let parse = |name: &String| {
                RedactRule::parse(name).ok_or_else(|| {
                    let names = RedactRule::ALL.map(RedactRule::as_str).join(", ");
                    let name: String = name.chars().take(32).collect();
                    ApiError::invalid("rules", format!("{name:?} is no rule; rules are {names}"))
                })
            };
            task.rules.iter().map(parse).collect::<Result<_, _>>()?
        };
        if task.patterns.len() > limits::NLP_PATTERNS_MAX {
            let (given, limit) = (task.patterns.len(), limits::NLP_PATTERNS_MAX);
            let message = format!("{given} patterns are given; at most {limit} are taken");
            return Err(ApiError::invalid("patterns", message));
        }
        let patterns = task.patterns.iter().enumerate().map(|(index, custom)| {
            compile(&custom.pattern)
                .map(|regex| (custom.label.clone(), regex))
                .map_err(|why| ApiError::invalid("patterns", format!("patterns[{index}]: {why}")))
        });
        let patterns = patterns.collect::<Result<_, _>>()?;
        let replacement = v1::Replacement::try_from(task.replacement)
            .map_err(|_| ApiError::invalid("replacement", "the replacement is none that exists"))?;
        let replacement = match replacement {
            v1::Replacement::Unspecified | v1::Replacement::Label => Replacement::Label,
            v1::Replacement::Numbered => Replacement::Numbered,
            v1::Replacement::Mask => Replacement::Mask(task.mask.chars().next().unwrap_or('*')),
            v1::Replacement::Remove => Replacement::Remove,
        };
        Ok(Self { rules, patterns, replacement })
    }

    /// The text without what the rules, the patterns and a model (`entities`) found.
    #[must_use]
    pub fn apply(&self, text: &str, entities: Vec<Found>) -> v1::Redacted {
        let mut spans: Vec<Span> = Vec::new();
        let mut add = |bytes: Range<usize>, label: &str, source, score| {
            if bytes.start < bytes.end {
                spans.push(Span { bytes, label: label.to_owned(), source, score });
            }
        };
        for rule in &self.rules {
            for bytes in rules::find(*rule, text) {
                add(bytes, rule.label(), Source::Rule, 1.0);
            }
        }
        for (label, pattern) in &self.patterns {
            for bytes in matches(pattern, text) {
                add(bytes, label, Source::Pattern, 1.0);
            }
        }
        for Found { bytes, label, score } in entities {
            add(bytes, &label, Source::Model, score);
        }
        replace(text, &united(spans), self.replacement)
    }
}

/// What a caller's pattern finds. When it takes too long, all that it has not looked at counts as
/// found: what may have to be hidden is not shown.
fn matches(pattern: &Regex, text: &str) -> Vec<Range<usize>> {
    let bytes = u32::try_from(text.len()).unwrap_or(u32::MAX);
    let time_max = PATTERN_TIME_MAX + PATTERN_TIME_PER_BYTE_MAX * bytes;
    let begin = Instant::now();
    let mut found = Vec::new();
    for hit in pattern.find_iter(text) {
        if begin.elapsed() > time_max {
            found.push(hit.start()..text.len());
            break;
        }
        found.push(hit.range());
    }
    found
}

fn compile(pattern: &str) -> Result<Regex, String> {
    if pattern.is_empty() || pattern.len() > limits::NLP_PATTERN_BYTES_MAX {
        let limit = limits::NLP_PATTERN_BYTES_MAX;
        return Err(format!("a pattern must have between 1 and {limit} bytes"));
    }
    RegexBuilder::new(pattern)
        .size_limit(PATTERN_PROGRAM_BYTES_MAX)
        .dfa_size_limit(PATTERN_PROGRAM_BYTES_MAX)
        .nest_limit(PATTERN_NESTING_MAX)
        .build()
        .map_err(|error| {
            if matches!(error, regex::Error::CompiledTooBig(_)) {
                return "the pattern is too costly".to_owned();
            }
            // The last line says why; those before show the pattern.
            let text = error.to_string();
            let why = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
            format!("it is no regular expression: {why}")
        })
}

/// Spans that overlap as one: it covers them all and is named by the longest.
fn united(mut spans: Vec<Span>) -> Vec<Span> {
    spans.sort_by_key(|span| (span.bytes.start, usize::MAX - span.bytes.end, span.source));
    let mut united: Vec<(Span, usize)> = Vec::with_capacity(spans.len());
    for span in spans {
        let length = span.bytes.len();
        match united.last_mut() {
            Some((last, longest)) if span.bytes.start < last.bytes.end => {
                last.bytes.end = last.bytes.end.max(span.bytes.end);
                if (length, last.source) > (*longest, span.source) {
                    *longest = length;
                    (last.label, last.source, last.score) = (span.label, span.source, span.score);
                }
            }
            Some(_) | None => united.push((span, length)),
        }
    }
    united.into_iter().map(|(span, _)| span).collect()
}

fn replace(text: &str, spans: &[Span], replacement: Replacement) -> v1::Redacted {
    let offsets = CharOffsets::new(text);
    let mut numbers: HashMap<(&str, &str), usize> = HashMap::new();
    let mut counts: HashMap<&str, usize> = HashMap::new();
    let mut redacted = v1::Redacted::default();
    let (mut at, mut written) = (0, 0u32);
    for span in spans {
        let before = &text[at..span.bytes.start];
        redacted.text.push_str(before);
        written += before.chars().count() as u32;
        let hidden = &text[span.bytes.clone()];
        let stand_in = match replacement {
            Replacement::Label => format!("[{}]", span.label),
            Replacement::Numbered => {
                let number = numbers.entry((&span.label, hidden)).or_insert_with(|| {
                    let count = counts.entry(&span.label).or_default();
                    *count += 1;
                    *count
                });
                format!("[{}_{number}]", span.label)
            }
            Replacement::Mask(mask) => hidden.chars().map(|_| mask).collect(),
            Replacement::Remove => String::new(),
        };
        let redacted_start = written;
        written += stand_in.chars().count() as u32;
        redacted.text.push_str(&stand_in);
        redacted.spans.push(v1::RedactedSpan {
            label: span.label.clone(),
            source: span.source.as_str().to_owned(),
            start: offsets.chars(span.bytes.start),
            end: offsets.chars(span.bytes.end),
            redacted_start,
            redacted_end: written,
            score: span.score,
        });
        at = span.bytes.end;
    }
    redacted.text.push_str(&text[at..]);
    redacted
}
