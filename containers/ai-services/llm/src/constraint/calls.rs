//! The grammar of calls of functions, in the way in which a model's template writes them. It must
//! not know templates, or how grammars are followed.

use aisemble_protocol::limits;
use serde_json::Value;

use super::compile::FormError;
use super::schema;
use crate::text::{CallStyle, CallText};

/// Calls that an output is held to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calls {
    /// What may be called; at least one.
    pub functions: Vec<Function>,
    /// Exactly one call, not several.
    pub one: bool,
    /// Or a JSON value of this schema, and no call.
    pub or_json_schema: Option<String>,
}

/// A function that can be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// Letters, digits, `_`, `-` and `.`.
    pub name: String,
    /// The JSON schema of its arguments, an object.
    pub schema: String,
}

/// How calls are written.
#[derive(Debug, Clone)]
pub struct CallWriting {
    /// The text around them.
    pub text: CallText,
    /// Parts of that text that are control tokens.
    pub markers: Vec<(String, u32)>,
}

impl Default for CallWriting {
    fn default() -> Self {
        Self { text: CallStyle::default().text(), markers: Vec::new() }
    }
}

impl Calls {
    /// The grammar, in llguidance's dialect of Lark. Each schema is a document of its own, so its
    /// references hold.
    ///
    /// # Errors
    /// [`FormError`], naming the function.
    pub(super) fn grammar(&self, writing: &CallWriting) -> Result<String, FormError> {
        let text = writing.text;
        let (mut choices, mut rules) = (Vec::new(), String::new());
        for (index, Function { name, schema }) in self.functions.iter().enumerate() {
            let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
            if name.is_empty() || !name.chars().all(fits) {
                return Err(FormError::NoFunction);
            }
            let schema = schema::checked(schema)
                .map_err(|source| FormError::Parameters { name: name.clone(), source })?;
            let head = format!("{}{name}{}", text.before_name, text.before_arguments);
            let (head, after) = (writing.symbols(&head), writing.symbols(text.after));
            choices.push(format!("call_{index}"));
            rules.push_str(&format!(
                "call_{index}: {head} arguments_{index} {after}\n\
                 arguments_{index}: %json {schema}\n"
            ));
        }
        if choices.is_empty() {
            return Err(FormError::NoFunction);
        }
        let more = match text.between.filter(|_| !self.one) {
            Some(between) => {
                let most = limits::TOOL_CALLS_MAX - 1;
                format!(" ({} one){{0,{most}}}", writing.symbols(between))
            }
            None => String::new(),
        };
        let (begin, end) = (writing.symbols(text.begin), writing.symbols(text.end));
        let calls = format!("calls: {begin} one{more} {end}\none: {}\n", choices.join(" | "));
        let (start, other) = match &self.or_json_schema {
            None => ("start: calls\n", String::new()),
            Some(schema) => {
                let schema = schema::checked(schema)?;
                ("start: calls | other\n", format!("other: %json {schema}\n"))
            }
        };
        Ok(format!("{start}{calls}{other}{rules}"))
    }
}

impl CallWriting {
    /// `text` as symbols of a grammar: literals, and control tokens where it names them.
    fn symbols(&self, text: &str) -> String {
        let (mut symbols, mut rest) = (Vec::new(), text);
        while !rest.is_empty() {
            let places = self
                .markers
                .iter()
                .filter_map(|(marker, id)| Some((rest.find(marker.as_str())?, marker.len(), *id)));
            let Some((at, bytes, id)) = places.min() else {
                symbols.push(Value::from(rest).to_string());
                break;
            };
            if at > 0 {
                symbols.push(Value::from(&rest[..at]).to_string());
            }
            symbols.push(format!("<[{id}]>"));
            rest = &rest[at + bytes..];
        }
        symbols.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_tokens_are_named_where_the_text_has_them() {
        let writing = CallWriting {
            text: CallStyle::MistralNamed.text(),
            markers: vec![("[ARGS]".to_owned(), 9), ("[TOOL_CALLS]".to_owned(), 5)],
        };
        let check = |text: &str, expect: &str| assert_eq!(writing.symbols(text), expect);
        check("[TOOL_CALLS]add[ARGS]", "<[5]> \"add\" <[9]>");
        check("[TOOL_CALLS][", "<[5]> \"[\"");
        check("a\n\"b", "\"a\\n\\\"b\"");
        check("", "");
    }
}
