//! Functions that a chat offers to a model, and calls of them: what a request may say, checked.
//!
//! It must not know how a model writes a call.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::{ApiError, ErrorCode};
use crate::v1::constraint::Form;
use crate::{limits, v1};

/// Characters of a function's name, as OpenAI has it.
const NAME_CHARS_MAX: usize = 64;

/// A call of a function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ToolCall {
    /// What the tool's answer names.
    #[serde(default)]
    pub id: String,
    /// Always `function`.
    #[serde(rename = "type", default)]
    pub kind: ToolKind,
    /// Which, and with what.
    pub function: CalledFunction,
}

/// What kinds of tools there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ToolKind {
    /// A function.
    #[default]
    Function,
}

/// Which function is called, and with what.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CalledFunction {
    /// Its name.
    pub name: String,
    /// JSON, an object, as a text.
    pub arguments: String,
}

/// What a chat may call, checked. At least one function.
#[derive(Debug, Clone, PartialEq)]
pub struct Offer {
    /// The list for the template, as the caller wrote it.
    text: String,
    functions: Vec<v1::CallFunction>,
    must: bool,
    one: bool,
}

impl Offer {
    /// `tools`, `tool_choice` and `parallel_tool_calls` of a request; `None` when the model can
    /// call nothing.
    ///
    /// # Errors
    /// `invalid_request` or `payload_too_large`, naming the place.
    pub fn read(
        tools: &[Value],
        choice: Option<&Value>,
        parallel: Option<bool>,
    ) -> Result<Option<Self>, ApiError> {
        if tools.len() > limits::TOOLS_MAX {
            let (given, limit) = (tools.len(), limits::TOOLS_MAX);
            let message = format!("{given} tools are given; at most {limit} are taken");
            return Err(ApiError::invalid("tools", message));
        }
        let mut functions: Vec<v1::CallFunction> = Vec::new();
        for (index, tool) in tools.iter().enumerate() {
            let function = function(tool, &format!("tools[{index}]"))?;
            if functions.iter().any(|known| known.name == function.name) {
                let at = format!("tools[{index}].function.name");
                return Err(ApiError::invalid(&at, format!("{at} is there twice")));
            }
            functions.push(function);
        }
        let text = text_of(tools)?;
        let mut offer = Self { text, functions, must: false, one: parallel == Some(false) };
        match choice {
            None | Some(Value::Null) => {}
            Some(Value::String(word)) if word == "auto" => {}
            Some(Value::String(word)) if word == "none" => return Ok(None),
            Some(Value::String(word)) if word == "required" => offer.must = true,
            Some(named) => offer.choose(tools, named)?,
        }
        if offer.functions.is_empty() && offer.must {
            let message = "tool_choice asks for a call, but no tools are given";
            return Err(ApiError::invalid("tool_choice", message));
        }
        Ok(Some(offer).filter(|offer| !offer.functions.is_empty()))
    }

    /// A `tool_choice` that is an object: a function by its name, or a part of the list.
    fn choose(&mut self, tools: &[Value], named: &Value) -> Result<(), ApiError> {
        let wrong = |message: &str| Err(ApiError::invalid("tool_choice", message));
        let names: Vec<&str> = match named["type"].as_str() {
            Some("function") => {
                (self.must, self.one) = (true, true);
                named["function"]["name"].as_str().into_iter().collect()
            }
            Some("allowed_tools") => {
                let allowed = &named["allowed_tools"];
                match allowed["mode"].as_str() {
                    Some("auto") => {}
                    Some("required") => self.must = true,
                    Some(_) | None => {
                        return wrong("tool_choice.allowed_tools.mode must be auto or required");
                    }
                }
                let listed = allowed["tools"].as_array().into_iter().flatten();
                listed.filter_map(|tool| tool["function"]["name"].as_str()).collect()
            }
            Some(_) | None => Vec::new(),
        };
        if names.is_empty() {
            return wrong("tool_choice must be none, auto, required, or a function by its name");
        }
        let known = |name: &&str| self.functions.iter().any(|function| function.name == **name);
        if !names.iter().all(known) {
            return wrong("tool_choice names a function that tools does not have");
        }
        self.functions.retain(|function| names.contains(&function.name.as_str()));
        let chosen = tools.iter().filter(|tool| {
            tool["function"]["name"].as_str().is_some_and(|name| names.contains(&name))
        });
        self.text = Value::Array(chosen.cloned().collect()).to_string();
        Ok(())
    }

    /// The functions as a template takes them: JSON, a list.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether this is a function that may be called.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.functions.iter().any(|function| function.name == name)
    }

    /// Whether an answer may have one call only.
    #[must_use]
    pub fn one(&self) -> bool {
        self.one
    }

    /// What an answer is held to, when without tools it would be held to `format`.
    ///
    /// # Errors
    /// `invalid_request` for what does not go together.
    pub fn constraint(
        &self,
        format: Option<v1::Constraint>,
    ) -> Result<Option<v1::Constraint>, ApiError> {
        let calls = |or_json_schema| {
            let (functions, one) = (self.functions.clone(), self.one);
            let calls = v1::Calls { functions, one, or_json_schema };
            Ok(Some(v1::Constraint { form: Some(Form::Calls(calls)) }))
        };
        match format.and_then(|format| format.form) {
            None if self.must => calls(String::new()),
            None => Ok(None),
            Some(_) if self.must => {
                let message = "a tool_choice that requires a call leaves nothing to \
                               response_format; give one of them";
                Err(ApiError::invalid("response_format", message))
            }
            Some(Form::JsonSchema(schema)) => calls(schema),
            Some(Form::Regex(_) | Form::Lark(_) | Form::Calls(_)) => {
                let message = "beside tools, response_format must be json_schema or json_object";
                Err(ApiError::invalid("response_format", message))
            }
        }
    }
}

fn text_of(tools: &[Value]) -> Result<String, ApiError> {
    let text = Value::from(tools).to_string();
    let (bytes, limit) = (text.len(), limits::TOOLS_BYTES_MAX);
    if bytes > limit {
        let message = format!("tools has {bytes} bytes; the limit is {limit}");
        return Err(ApiError::new(ErrorCode::PayloadTooLarge, message).with_param("tools"));
    }
    Ok(text)
}

/// One tool of a list: its name, and the schema of its arguments.
fn function(tool: &Value, place: &str) -> Result<v1::CallFunction, ApiError> {
    let wrong = |field: &str, what: &str| {
        let at = format!("{place}{field}");
        Err(ApiError::invalid(&at, format!("{at} {what}")))
    };
    if tool["type"] != "function" {
        return wrong(".type", "must be \"function\"; no other tools are known");
    }
    let function = &tool["function"];
    let name = function["name"].as_str().unwrap_or_default();
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.is_empty() || name.len() > NAME_CHARS_MAX || !name.chars().all(fits) {
        return wrong(".function.name", "must have 1 to 64 letters, digits, _ and -");
    }
    let schema = match &function["parameters"] {
        Value::Null => json!({"type": "object", "properties": {}, "additionalProperties": false}),
        Value::Object(fields) if fields.get("type").is_none_or(|kind| kind == "object") => {
            // Arguments are an object whether or not the schema says so.
            let mut schema = fields.clone();
            schema.insert("type".to_owned(), Value::from("object"));
            Value::Object(schema)
        }
        Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)
        | Value::Object(_) => {
            return wrong(".function.parameters", "must be the JSON schema of an object");
        }
    };
    let schema = schema.to_string();
    if schema.len() > limits::CONSTRAINT_BYTES_MAX {
        let (bytes, limit) = (schema.len(), limits::CONSTRAINT_BYTES_MAX);
        let at = format!("{place}.function.parameters");
        let message = format!("{at} has {bytes} bytes; the limit is {limit}");
        return Err(ApiError::new(ErrorCode::PayloadTooLarge, message).with_param(&at));
    }
    Ok(v1::CallFunction { name: name.to_owned(), schema })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(name: &str) -> Value {
        json!({"type": "function", "function": {"name": name}})
    }

    fn named(name: &str) -> Value {
        json!({"type": "function", "function": {"name": name}})
    }

    #[test]
    fn the_choice_says_what_is_offered_and_what_must_be() {
        let check = |choice: Value, expect: Option<(usize, bool, bool)>| {
            let read = Offer::read(&[tool("a"), tool("b")], Some(&choice), None).unwrap();
            let read = read.map(|offer| (offer.functions.len(), offer.must, offer.one));
            assert_eq!(read, expect, "{choice}");
        };
        check(json!("auto"), Some((2, false, false)));
        check(json!(null), Some((2, false, false)));
        check(json!("none"), None);
        check(json!("required"), Some((2, true, false)));
        check(named("b"), Some((1, true, true)));
        let allowed = json!({"type": "allowed_tools",
            "allowed_tools": {"mode": "required", "tools": [named("a")]}});
        check(allowed, Some((1, true, false)));
        assert!(Offer::read(&[], Some(&json!("auto")), None).unwrap().is_none());
        let one = Offer::read(&[tool("a")], None, Some(false)).unwrap().unwrap();
        assert!(one.one() && one.has("a") && !one.has("b"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let check = |tools: Value, choice: Value, param: &str| {
            let error = Offer::read(tools.as_array().unwrap(), Some(&choice), None).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(param), "{error}");
        };
        let auto = || json!("auto");
        check(json!([{"type": "web_search"}]), auto(), "tools[0].type");
        check(json!([7]), auto(), "tools[0].type");
        check(json!([tool("a"), tool("b c")]), auto(), "tools[1].function.name");
        check(json!([tool("a"), tool("a")]), auto(), "tools[1].function.name");
        let list = json!({"type": "function", "function": {"name": "a", "parameters": []}});
        check(json!([list]), auto(), "tools[0].function.parameters");
        check(json!([tool("a")]), json!("always"), "tool_choice");
        check(json!([tool("a")]), json!({"type": "function"}), "tool_choice");
        check(json!([tool("a")]), named("c"), "tool_choice");
        check(json!([]), json!("required"), "tool_choice");
        let many: Vec<_> = (0..=limits::TOOLS_MAX).map(|n| tool(&format!("f{n}"))).collect();
        check(json!(many), auto(), "tools");
        let mut long = tool("a");
        long["function"]["description"] = Value::from("a".repeat(limits::TOOLS_BYTES_MAX));
        check(json!([long]), auto(), "tools");
    }

    #[test]
    fn a_format_beside_tools_is_the_other_possibility() {
        let schema = || {
            let form = Form::JsonSchema("{}".to_owned());
            Some(v1::Constraint { form: Some(form) })
        };
        let auto = Offer::read(&[tool("a")], None, None).unwrap().unwrap();
        assert_eq!(auto.constraint(None).unwrap(), None);
        let Some(Form::Calls(calls)) = auto.constraint(schema()).unwrap().unwrap().form else {
            panic!("calls or the schema");
        };
        assert_eq!((calls.or_json_schema.as_str(), calls.functions.len()), ("{}", 1));
        let must = Offer::read(&[tool("a")], Some(&json!("required")), None).unwrap().unwrap();
        assert!(must.constraint(None).unwrap().is_some());
        assert!(must.constraint(schema()).is_err());
        let regex = v1::Constraint { form: Some(Form::Regex("a".to_owned())) };
        assert!(auto.constraint(Some(regex)).is_err());
    }
}
