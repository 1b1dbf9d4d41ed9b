//! What a completion must look like: a JSON value, a regular expression, a grammar. The service
//! that makes it holds the model to it, token by token.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::ApiError;
use crate::{limits, v1};

/// Characters of a schema's name, as OpenAI has it.
const NAME_CHARS_MAX: usize = 64;

/// The form of a completion. Absent or `text` = any text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ResponseFormat {
    /// Any text.
    Text {},
    /// A JSON object.
    JsonObject {},
    /// A JSON value of a schema.
    JsonSchema {
        /// The schema and its name.
        json_schema: JsonSchemaFormat,
    },
    /// A text that a regular expression matches as a whole.
    Regex {
        /// The expression, as Rust's `regex` writes them; no look-around, no back-references.
        regex: String,
    },
    /// A text of a grammar.
    Grammar {
        /// In llguidance's dialect of Lark; the text is what `start` derives.
        grammar: String,
    },
}

/// A schema and what it is called.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JsonSchemaFormat {
    /// Letters, digits, `_` and `-`; at most 64.
    pub name: String,
    /// For readers; the model does not see it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The JSON Schema; absent = any object. Properties come in the order in which it names them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Value>,
    /// Accepted: the schema is always kept to, and never cut to what can be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strict: Option<bool>,
}

impl ResponseFormat {
    /// The form as a service takes it; `None` for any text.
    ///
    /// # Errors
    /// `invalid_request` or `payload_too_large`, naming the field and its limit.
    pub fn to_constraint(&self) -> Result<Option<v1::Constraint>, ApiError> {
        use v1::constraint::Form;
        let form = match self {
            Self::Text {} => return Ok(None),
            Self::JsonObject {} => Form::JsonSchema(r#"{"type":"object"}"#.to_owned()),
            Self::JsonSchema { json_schema } => Form::JsonSchema(json_schema.text()?),
            Self::Regex { regex } => Form::Regex(sized("response_format.regex", regex)?),
            Self::Grammar { grammar } => Form::Lark(sized("response_format.grammar", grammar)?),
        };
        Ok(Some(v1::Constraint { form: Some(form) }))
    }
}

impl JsonSchemaFormat {
    fn text(&self) -> Result<String, ApiError> {
        let param = "response_format.json_schema.name";
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if self.name.is_empty() || self.name.len() > NAME_CHARS_MAX || !self.name.chars().all(fits)
        {
            let message = format!(
                "{param} must have 1 to {NAME_CHARS_MAX} characters: letters, digits, _ and -"
            );
            return Err(ApiError::invalid(param, message));
        }
        let param = "response_format.json_schema.schema";
        match &self.schema {
            None => Ok(r#"{"type":"object"}"#.to_owned()),
            Some(schema @ Value::Object(_)) => sized(param, &schema.to_string()),
            Some(_) => Err(ApiError::invalid(param, format!("{param} must be an object"))),
        }
    }
}

fn sized(param: &str, text: &str) -> Result<String, ApiError> {
    let (bytes, limit) = (text.len(), limits::CONSTRAINT_BYTES_MAX);
    if bytes == 0 {
        return Err(ApiError::invalid(param, format!("{param} is empty")));
    }
    if bytes > limit {
        let message = format!("{param} has {bytes} bytes; the limit is {limit}");
        return Err(ApiError::new(crate::ErrorCode::PayloadTooLarge, message).with_param(param));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: Value) -> Result<Option<v1::Constraint>, ApiError> {
        serde_json::from_value::<ResponseFormat>(value).unwrap().to_constraint()
    }

    #[test]
    fn formats_are_openai_s_and_two_more() {
        use v1::constraint::Form;
        let check = |value: Value, expect: Option<Form>| {
            assert_eq!(read(value).unwrap().and_then(|one| one.form), expect);
        };
        let object = r#"{"type":"object"}"#.to_owned();
        check(json!({"type": "text"}), None);
        check(json!({"type": "json_object"}), Some(Form::JsonSchema(object.clone())));
        let named = json!({"name": "n", "strict": true, "schema": {"type": "object"}});
        check(json!({"type": "json_schema", "json_schema": named}), Some(Form::JsonSchema(object)));
        check(json!({"type": "regex", "regex": "a|b"}), Some(Form::Regex("a|b".to_owned())));
        let lark = "start: \"a\"".to_owned();
        check(json!({"type": "grammar", "grammar": lark}), Some(Form::Lark(lark)));
    }

    #[test]
    fn wrong_ones_are_named() {
        let check = |value: Value, param: &str| {
            assert_eq!(read(value).unwrap_err().param.as_deref(), Some(param));
        };
        let schema = |schema: Value| json!({"type": "json_schema", "json_schema": schema});
        check(schema(json!({"name": "a b"})), "response_format.json_schema.name");
        check(schema(json!({"name": ""})), "response_format.json_schema.name");
        let number = schema(json!({"name": "a", "schema": 7}));
        check(number, "response_format.json_schema.schema");
        check(json!({"type": "regex", "regex": ""}), "response_format.regex");
        let long = "a".repeat(limits::CONSTRAINT_BYTES_MAX + 1);
        check(json!({"type": "grammar", "grammar": long}), "response_format.grammar");
        for wrong in [json!({"type": "xml"}), json!({"type": "text", "regex": "a"})] {
            assert!(serde_json::from_value::<ResponseFormat>(wrong).is_err());
        }
    }
}
