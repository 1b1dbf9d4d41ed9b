//! The text form of a policy: JSON with a comment on every rule, symbolic constants, unknown keys
//! refused, and named limits. Turns it into the checked types of the parent module.
//!
//! It must not know seccomp programs; it only knows which names and numbers exist.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::{Condition, Policy, ReadRule, Rule, Syscall, Test, Value, constants, syscalls};

/// Length of one policy text, in bytes.
const DOCUMENT_BYTES_MAX: usize = 256 * 1024;
/// Rules of one policy, over all lists and includes.
const RULES_MAX: usize = 512;
/// Calls in one rule.
const SYSCALLS_PER_RULE_MAX: usize = 128;
/// Paths of one policy.
const PATHS_MAX: usize = 64;
/// Length of a comment, in bytes.
const COMMENT_BYTES_MAX: usize = 2_000;

/// Why a policy text is refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum DocumentError {
    #[error("the text has {found} bytes, more than {max}")]
    TooLong { found: usize, max: usize },
    #[error("not the expected JSON: {text}")]
    Json { text: String },
    #[error("{what}: {found} are more than {max}")]
    TooMany { what: &'static str, found: usize, max: usize },
    #[error("includes `{name}`, which is not built in")]
    UnknownInclude { name: String },
    #[error("includes `{name}`, which includes others itself")]
    NestedInclude { name: String },
    #[error("{place}: the comment is missing, empty or too long")]
    Comment { place: String },
    #[error("{place}: `{name}` is not a system call")]
    UnknownSyscall { place: String, name: String },
    #[error("{place}: no system call is named")]
    NoSyscall { place: String },
    #[error("{place}: {reason}")]
    Condition { place: String, reason: String },
    #[error("{place}: `{path}` is not an absolute path without `..`")]
    Path { place: String, path: String },
    #[error("`{name}` is in {list} more than once, or both with and without conditions")]
    Redundant { name: &'static str, list: &'static str },
    #[error("`{name}` is allowed by lock_down but refused by confine")]
    Contradiction { name: &'static str },
    #[error("`{name}` is in confine.not_implemented with conditions, which is not supported")]
    ConditionalNotImplemented { name: &'static str },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    comment: String,
    #[serde(default)]
    includes: Vec<String>,
    #[serde(default)]
    read: Vec<ReadEntry>,
    #[serde(default)]
    confine: ConfineSection,
    #[serde(default)]
    lock_down: LockDownSection,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct ConfineSection {
    #[serde(default)]
    not_implemented: Vec<RuleEntry>,
    #[serde(default)]
    refused: Vec<RuleEntry>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct LockDownSection {
    #[serde(default)]
    allowed: Vec<RuleEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadEntry {
    path: String,
    required: bool,
    comment: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleEntry {
    syscalls: Vec<String>,
    #[serde(default)]
    when: Vec<ConditionEntry>,
    comment: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConditionEntry {
    argument: u8,
    #[serde(default)]
    wide: bool,
    is: Option<ValueEntry>,
    is_not: Option<ValueEntry>,
    bits: Option<ValueEntry>,
    are: Option<ValueEntry>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ValueEntry {
    Number(u64),
    Text(String),
}

/// Parses `text` and everything it includes from `embedded`.
pub(super) fn parse(
    name: &str,
    text: &str,
    embedded: &[(&str, &str)],
) -> Result<Policy, DocumentError> {
    let mut top = read_document(name, text)?;
    let includes = std::mem::take(&mut top.includes);
    let mut documents = Vec::new();
    for include in &includes {
        let found = embedded.iter().find(|(embedded_name, _)| embedded_name == include);
        let Some((_, included)) = found else {
            return Err(DocumentError::UnknownInclude { name: include.clone() });
        };
        let document = read_document(include, included)?;
        if !document.includes.is_empty() {
            return Err(DocumentError::NestedInclude { name: include.clone() });
        }
        documents.push((include.as_str(), document));
    }
    documents.push((name, top));

    let (mut read, mut not_implemented, mut refused, mut allowed) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (file, document) in &documents {
        for (index, entry) in document.read.iter().enumerate() {
            read.push(read_rule(&format!("{file}: read[{index}]"), entry)?);
        }
        let ConfineSection { not_implemented: absent, refused: dangerous } = &document.confine;
        rules(file, "confine.not_implemented", absent, &mut not_implemented)?;
        rules(file, "confine.refused", dangerous, &mut refused)?;
        rules(file, "lock_down.allowed", &document.lock_down.allowed, &mut allowed)?;
    }
    limit("paths", read.len(), PATHS_MAX)?;
    limit("rules", not_implemented.len() + refused.len() + allowed.len(), RULES_MAX)?;
    let policy = Policy { name: name.to_owned(), read, not_implemented, refused, allowed };
    check_consistency(&policy)?;
    Ok(policy)
}

fn limit(what: &'static str, found: usize, max: usize) -> Result<(), DocumentError> {
    if found > max { Err(DocumentError::TooMany { what, found, max }) } else { Ok(()) }
}

fn read_document(name: &str, text: &str) -> Result<Document, DocumentError> {
    if text.len() > DOCUMENT_BYTES_MAX {
        return Err(DocumentError::TooLong { found: text.len(), max: DOCUMENT_BYTES_MAX });
    }
    let document: Document = serde_json::from_str(text)
        .map_err(|error| DocumentError::Json { text: error.to_string() })?;
    comment(name, &document.comment)?;
    Ok(document)
}

fn comment(place: &str, text: &str) -> Result<String, DocumentError> {
    if text.trim().is_empty() || text.len() > COMMENT_BYTES_MAX {
        return Err(DocumentError::Comment { place: place.to_owned() });
    }
    Ok(text.to_owned())
}

fn read_rule(place: &str, entry: &ReadEntry) -> Result<ReadRule, DocumentError> {
    let plain = entry.path.starts_with('/') && !entry.path.split('/').any(|part| part == "..");
    if !plain || entry.path.contains('\0') {
        return Err(DocumentError::Path { place: place.to_owned(), path: entry.path.clone() });
    }
    let comment = comment(place, &entry.comment)?;
    Ok(ReadRule { path: entry.path.clone().into(), required: entry.required, comment })
}

fn rules(
    file: &str,
    list: &str,
    entries: &[RuleEntry],
    into: &mut Vec<Rule>,
) -> Result<(), DocumentError> {
    for (index, entry) in entries.iter().enumerate() {
        into.push(rule(&format!("{file}: {list}[{index}]"), entry)?);
    }
    Ok(())
}

fn rule(place: &str, entry: &RuleEntry) -> Result<Rule, DocumentError> {
    limit("system calls in one rule", entry.syscalls.len(), SYSCALLS_PER_RULE_MAX)?;
    limit("conditions in one rule", entry.when.len(), super::ARGUMENTS)?;
    if entry.syscalls.is_empty() {
        return Err(DocumentError::NoSyscall { place: place.to_owned() });
    }
    let known = |name: &String| -> Result<Syscall, DocumentError> {
        syscalls::find(name).ok_or_else(|| DocumentError::UnknownSyscall {
            place: place.to_owned(),
            name: name.clone(),
        })
    };
    let refuse = |reason| DocumentError::Condition { place: place.to_owned(), reason };
    Ok(Rule {
        syscalls: entry.syscalls.iter().map(known).collect::<Result<_, _>>()?,
        when: entry
            .when
            .iter()
            .map(|entry| condition(entry).map_err(refuse))
            .collect::<Result<_, _>>()?,
        comment: comment(place, &entry.comment)?,
    })
}

fn condition(entry: &ConditionEntry) -> Result<Condition, String> {
    if usize::from(entry.argument) >= super::ARGUMENTS {
        return Err(format!("argument {} does not exist: 0 to 5 do", entry.argument));
    }
    let fits = |value: u64| {
        let fits = entry.wide || u32::try_from(value).is_ok();
        fits.then_some(value).ok_or(format!("{value} needs `wide`: it has more than 32 bits"))
    };
    let number = |value: &ValueEntry| constant(value).and_then(fits);
    let mask = |mask: &ValueEntry| match mask {
        ValueEntry::Text(text) if text.starts_with('!') => {
            let width = if entry.wide { u64::MAX } else { u64::from(u32::MAX) };
            sum(&text[1..]).map(|unmasked| width & !unmasked)
        }
        ValueEntry::Text(_) | ValueEntry::Number(_) => number(mask),
    };
    let value = |value: &ValueEntry| match value {
        ValueEntry::Text(text) if text == "OWN_PID" => Ok(Value::OwnPid),
        ValueEntry::Text(_) | ValueEntry::Number(_) => number(value).map(Value::Number),
    };
    let test = match (&entry.is, &entry.is_not, &entry.bits, &entry.are) {
        (Some(wanted), None, None, None) => Test::Is(value(wanted)?),
        (None, Some(unwanted), None, None) => Test::IsNot(value(unwanted)?),
        (None, None, Some(bits), Some(are)) => {
            let (mask, are) = (mask(bits)?, number(are)?);
            if mask == 0 || are & !mask != 0 {
                return Err(format!("bits {mask:#x} can never be {are:#x}"));
            }
            Test::Bits { mask, are }
        }
        _ => return Err("a condition has either `is`, or `is_not`, or `bits` with `are`".into()),
    };
    Ok(Condition { argument: entry.argument, wide: entry.wide, test })
}

fn constant(value: &ValueEntry) -> Result<u64, String> {
    match value {
        ValueEntry::Number(number) => Ok(*number),
        ValueEntry::Text(text) => sum(text),
    }
}

/// `A|B|C`
fn sum(text: &str) -> Result<u64, String> {
    text.split('|').map(str::trim).try_fold(0, |sum, name| {
        let number = constants::find(name);
        number.map(|number| sum | number).ok_or(format!("`{name}` is not a constant known here"))
    })
}

/// A rule that adds nothing, or that takes back what another gives, is a mistake of its author.
fn check_consistency(policy: &Policy) -> Result<(), DocumentError> {
    let lists = [
        ("confine.not_implemented", &policy.not_implemented),
        ("confine.refused", &policy.refused),
        ("lock_down.allowed", &policy.allowed),
    ];
    for (list, rules) in lists {
        let (mut plain, mut conditional) = (BTreeSet::new(), BTreeSet::new());
        let mut seen: Vec<(&str, &[Condition])> = Vec::new();
        for (rule, syscall) in rules.iter().flat_map(|r| r.syscalls.iter().map(move |s| (r, s))) {
            let name = syscall.name;
            let kind = if rule.when.is_empty() { &mut plain } else { &mut conditional };
            kind.insert(name);
            let repeated = seen.contains(&(name, rule.when.as_slice()));
            if repeated || (plain.contains(name) && conditional.contains(name)) {
                return Err(DocumentError::Redundant { name, list });
            }
            seen.push((name, &rule.when));
        }
    }
    let conditional = policy.not_implemented.iter().find(|rule| !rule.when.is_empty());
    if let Some(name) = conditional.and_then(|rule| rule.syscalls.first()).map(|s| s.name) {
        return Err(DocumentError::ConditionalNotImplemented { name });
    }
    let gone: BTreeSet<_> = policy
        .refused
        .iter()
        .chain(&policy.not_implemented)
        .filter(|rule| rule.when.is_empty())
        .flat_map(|rule| rule.syscalls.iter().map(|syscall| syscall.name))
        .collect();
    let mut allowed = policy.allowed.iter().flat_map(|rule| &rule.syscalls);
    match allowed.find(|syscall| gone.contains(syscall.name)) {
        Some(syscall) => Err(DocumentError::Contradiction { name: syscall.name }),
        None => Ok(()),
    }
}
