//! The check of a JSON schema before it is compiled: its size, its depth, and that it refers to
//! nothing outside itself. It knows JSON, not what the keywords mean.

use serde_json::{Map, Value, json};

/// Levels of nesting.
const DEPTH_MAX: usize = 32;
/// Values of every kind, keywords included.
const VALUES_MAX: usize = 8192;
/// Characters of a place that a caller is shown.
const PLACE_CHARS_MAX: usize = 96;
/// How llguidance is told what may stand between the parts of a value.
const OPTIONS_KEY: &str = "x-guidance";

/// Why a text is no schema that is taken.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// No JSON, or nested beyond what is read.
    #[error("the schema is no JSON: {source}")]
    NotJson {
        /// Where.
        source: serde_json::Error,
    },
    /// An array, a number, ...
    #[error("the schema must be a JSON object")]
    NotAnObject,
    /// Nested too deep.
    #[error("the schema is nested deeper than {DEPTH_MAX} levels at {place}")]
    TooDeep {
        /// JSON pointer.
        place: String,
    },
    /// Too long.
    #[error("the schema has more than {VALUES_MAX} values; the first one too many is at {place}")]
    TooLarge {
        /// JSON pointer.
        place: String,
    },
    /// A reference to another document.
    #[error("{place} refers to another document; only references within the schema are followed")]
    RefersOutside {
        /// JSON pointer.
        place: String,
    },
    /// A keyword that is ours.
    #[error("the schema must not have the keyword {OPTIONS_KEY}")]
    Reserved,
}

/// The schema of `text`, with the separators that the output has: `{"a": 1, "b": [2, 3]}`. Free
/// whitespace would let a small model write spaces for ever.
///
/// # Errors
/// [`SchemaError`], naming the place.
pub(super) fn checked(text: &str) -> Result<Value, SchemaError> {
    let schema: Value =
        serde_json::from_str(text).map_err(|source| SchemaError::NotJson { source })?;
    let Value::Object(mut schema) = schema else { return Err(SchemaError::NotAnObject) };
    if schema.contains_key(OPTIONS_KEY) {
        return Err(SchemaError::Reserved);
    }
    walk(&schema)?;
    let options =
        json!({"whitespace_flexible": false, "item_separator": ", ", "key_separator": ": "});
    schema.insert(OPTIONS_KEY.to_owned(), options);
    Ok(Value::Object(schema))
}

fn walk(schema: &Map<String, Value>) -> Result<(), SchemaError> {
    let outside = |to: &&str| !to.starts_with('#');
    let refers_outside = |object: &Map<String, Value>| {
        object.get("$ref").and_then(Value::as_str).filter(outside).is_some()
    };
    if refers_outside(schema) {
        return Err(SchemaError::RefersOutside { place: step("", "$ref") });
    }
    let mut values = 0;
    let mut open: Vec<(String, usize, &Value)> =
        schema.iter().rev().map(|(key, value)| (step("", key), 1, value)).collect();
    while let Some((place, depth, value)) = open.pop() {
        values += 1;
        if values > VALUES_MAX {
            return Err(SchemaError::TooLarge { place: shown(&place) });
        }
        if depth > DEPTH_MAX {
            return Err(SchemaError::TooDeep { place: shown(&place) });
        }
        match value {
            Value::Object(object) => {
                if refers_outside(object) {
                    return Err(SchemaError::RefersOutside { place: shown(&step(&place, "$ref")) });
                }
                let inside = object.iter().rev();
                open.extend(inside.map(|(key, value)| (step(&place, key), depth + 1, value)));
            }
            Value::Array(items) => {
                let inside = items.iter().enumerate().rev();
                let below = |(at, value)| (step(&place, &format!("{at}")), depth + 1, value);
                open.extend(inside.map(below));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    Ok(())
}

/// One step further in a JSON pointer; a place is only ever shown, so a long one is cut.
fn step(place: &str, key: &str) -> String {
    let mut place = place.to_owned();
    if place.len() < 4 * PLACE_CHARS_MAX {
        place.push('/');
        place.extend(key.chars().take(PLACE_CHARS_MAX));
    }
    place
}

fn shown(place: &str) -> String {
    place.chars().take(PLACE_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_taken_is_named_with_its_place() {
        let check = |text: &str, sentence: &str| {
            let error = checked(text).unwrap_err().to_string();
            assert!(error.contains(sentence), "{error}");
        };
        check("{", "no JSON");
        check("[]", "must be a JSON object");
        let deep = format!("{}1{}", "{\"a\":".repeat(40), "}".repeat(40));
        check(&deep, "deeper than 32 levels at /a/a/a");
        check(&format!("{}1{}", "[".repeat(500), "]".repeat(500)), "no JSON");
        let long = format!("{{\"enum\":[{}1]}}", "1,".repeat(9000));
        check(&long, "more than 8192 values; the first one too many is at /enum/819");
        let away = r#"{"properties":{"a":{"$ref":"https://example.com/x"}}}"#;
        check(away, "/properties/a/$ref refers to another document");
        let away = r#"{"$ref":"https://example.com/x"}"#;
        check(away, "/$ref refers to another document");
        check(r#"{"x-guidance":{}}"#, "x-guidance");
    }
}
