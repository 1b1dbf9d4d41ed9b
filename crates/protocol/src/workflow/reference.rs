//! The two small notations of workflows: `{"from": "STEP.output.PATH"}` for earlier outputs, and
//! `{{column}}` for the values of a row.

use serde_json::{Map, Value};

/// Bytes of one reference.
const REFERENCE_BYTES_MAX: usize = 512;
/// Parts of one reference.
const REFERENCE_PARTS_MAX: usize = 16;
/// References of one step.
const REFERENCES_MAX: usize = 256;

/// What a reference points into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The input of that name.
    Input(String),
    /// The output of that step.
    Step(String),
}

/// A parsed reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// What it points into.
    pub source: Source,
    /// Names of fields, or numbers of list items, from the outside in.
    pub path: Vec<String>,
}

impl Reference {
    /// Reads `STEP.output`, `STEP.output.PATH` or `inputs.NAME.PATH`.
    ///
    /// # Errors
    /// What is wrong with it, for a person.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > REFERENCE_BYTES_MAX {
            return Err(format!("a reference has at most {REFERENCE_BYTES_MAX} bytes"));
        }
        let mut parts = text.split('.').map(str::to_owned);
        let shown = || format!("{text:?} is not STEP.output.PATH or inputs.NAME");
        let (Some(first), Some(second)) = (parts.next(), parts.next()) else {
            return Err(shown());
        };
        let source = match (first.as_str(), second.as_str()) {
            ("", _) | (_, "") => return Err(shown()),
            ("inputs", _) => Source::Input(second),
            (_, "output") => Source::Step(first),
            (_, _) => return Err(shown()),
        };
        let path: Vec<String> = parts.collect();
        if path.len() > REFERENCE_PARTS_MAX || path.iter().any(String::is_empty) {
            return Err(shown());
        }
        Ok(Self { source, path })
    }

    /// What the path leads to within `value`; null when there is nothing.
    #[must_use]
    pub fn within<'v>(&self, value: &'v Value) -> &'v Value {
        follow(value, self.path.iter().map(String::as_str))
    }
}

/// What a path of fields and numbers leads to; null when there is nothing.
pub(super) fn follow<'v, 'p>(value: &'v Value, path: impl Iterator<Item = &'p str>) -> &'v Value {
    let mut at = value;
    for part in path {
        let next = match at {
            Value::Object(map) => map.get(part),
            Value::Array(list) => part.parse::<usize>().ok().and_then(|index| list.get(index)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
        };
        at = next.unwrap_or(&Value::Null);
    }
    at
}

/// The text of a value that is a reference: an object with `from` and nothing else.
fn reference_text(value: &Map<String, Value>) -> Option<&str> {
    if value.len() == 1 { value.get("from")?.as_str() } else { None }
}

/// Every reference within a value.
///
/// # Errors
/// What is wrong with the first that is malformed.
pub fn references(value: &Value) -> Result<Vec<Reference>, String> {
    let mut found = Vec::new();
    collect(value, &mut found)?;
    Ok(found)
}

fn collect(value: &Value, found: &mut Vec<Reference>) -> Result<(), String> {
    match value {
        Value::Object(map) => {
            if let Some(text) = reference_text(map) {
                if found.len() == REFERENCES_MAX {
                    return Err(format!("a step has at most {REFERENCES_MAX} references"));
                }
                found.push(Reference::parse(text)?);
                return Ok(());
            }
            map.values().try_for_each(|value| collect(value, found))
        }
        Value::Array(list) => list.iter().try_for_each(|value| collect(value, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

/// The value with every reference replaced by what `lookup` gives for it.
///
/// # Errors
/// Those of `lookup`, and a malformed reference as text.
pub fn resolve<E: From<String>>(
    value: &Value,
    lookup: &mut impl FnMut(&Reference) -> Result<Value, E>,
) -> Result<Value, E> {
    match value {
        Value::Object(map) => {
            if let Some(text) = reference_text(map) {
                return lookup(&Reference::parse(text)?);
            }
            let resolved = map.iter().map(|(key, value)| {
                let value = resolve(value, lookup)?;
                Ok((key.clone(), value))
            });
            resolved.collect::<Result<Map<_, _>, E>>().map(Value::Object)
        }
        Value::Array(list) => {
            let resolved = list.iter().map(|value| resolve(value, lookup));
            resolved.collect::<Result<Vec<_>, E>>().map(Value::Array)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(value.clone()),
    }
}

/// A piece of a template.
enum Piece<'t> {
    Text(&'t str),
    Column(&'t str),
}

/// The pieces of a template. A `{{` without its `}}` is text.
fn pieces(template: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = template;
    while let Some(open) = rest.find("{{") {
        let Some(length) = rest[open + 2..].find("}}") else { break };
        let name = rest[open + 2..open + 2 + length].trim();
        if name.is_empty() || name.contains('{') {
            // Not a column: the braces are the text's own.
            let (text, after) = rest.split_at(open + 2);
            pieces.push(Piece::Text(text));
            rest = after;
            continue;
        }
        pieces.push(Piece::Text(&rest[..open]));
        pieces.push(Piece::Column(name));
        rest = &rest[open + 4 + length..];
    }
    pieces.push(Piece::Text(rest));
    pieces.retain(|piece| !matches!(piece, Piece::Text("")));
    pieces
}

/// The columns that a template names, each once, in order.
#[must_use]
pub fn columns(template: &Value) -> Vec<String> {
    let mut names = Vec::new();
    visit(template, &mut |text| {
        for piece in pieces(text) {
            if let Piece::Column(name) = piece
                && !names.iter().any(|known| known == name)
            {
                names.push(name.to_owned());
            }
        }
    });
    names
}

fn visit(value: &Value, seen: &mut impl FnMut(&str)) {
    match value {
        Value::String(text) => seen(text),
        Value::Array(list) => list.iter().for_each(|value| visit(value, seen)),
        Value::Object(map) => map.values().for_each(|value| visit(value, seen)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A template with a row's values in the place of its columns. A text that is one column and
/// nothing else becomes the value itself; within a text, null is nothing and what is no text is
/// written as JSON. Values are not looked into for columns again.
///
/// # Errors
/// The name of the first column that the row does not have.
pub fn fill(template: &Value, row: &Map<String, Value>) -> Result<Value, String> {
    match template {
        Value::String(text) => fill_text(text, row),
        Value::Array(list) => {
            list.iter().map(|value| fill(value, row)).collect::<Result<_, _>>().map(Value::Array)
        }
        Value::Object(map) => {
            let filled = map.iter().map(|(key, value)| Ok((key.clone(), fill(value, row)?)));
            filled.collect::<Result<Map<_, _>, String>>().map(Value::Object)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(template.clone()),
    }
}

fn fill_text(text: &str, row: &Map<String, Value>) -> Result<Value, String> {
    let pieces = pieces(text);
    let value = |name: &str| row.get(name).ok_or_else(|| name.to_owned());
    if let [Piece::Column(name)] = pieces.as_slice() {
        return value(name).cloned();
    }
    let mut filled = String::new();
    for piece in pieces {
        match piece {
            Piece::Text(text) => filled.push_str(text),
            Piece::Column(name) => match value(name)? {
                Value::Null => {}
                Value::String(text) => filled.push_str(text),
                Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                    filled.push_str(&value(name)?.to_string());
                }
            },
        }
    }
    Ok(Value::String(filled))
}
