//! `input` and `tools` of a response's request, as a chat has them. Items of the Responses API are
//! flat where chats nest.

use aisemble_protocol::ApiError;
use aisemble_protocol::completion::ChatMessage;
use aisemble_protocol::tools::{CalledFunction, ToolCall, ToolKind};
use serde_json::{Value, json};

/// The messages of `input`: a text, or a list of items.
///
/// # Errors
/// `invalid_request`, naming the place.
pub(super) fn messages(input: &Value) -> Result<Vec<ChatMessage>, ApiError> {
    let items = match input {
        Value::String(text) => return Ok(vec![ChatMessage::said("user", text)]),
        Value::Array(items) => items,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => {
            return Err(ApiError::invalid("input", "input must be a text or a list of items"));
        }
    };
    let mut messages: Vec<ChatMessage> = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let place = format!("input[{index}]");
        match item["type"].as_str() {
            None | Some("message") => messages.push(message(item, &place)?),
            Some("function_call") => {
                let call = call(item, &place)?;
                match messages.last_mut().filter(|last| last.role == "assistant") {
                    Some(last) => last.tool_calls.push(call),
                    None => {
                        let said = ChatMessage::said("assistant", "");
                        messages.push(ChatMessage { tool_calls: vec![call], ..said });
                    }
                }
            }
            Some("function_call_output") => {
                let output = content(&item["output"], &format!("{place}.output"))?;
                let id = text(item, "call_id", &place)?;
                let said = ChatMessage::said("tool", &output);
                messages.push(ChatMessage { tool_call_id: Some(id), ..said });
            }
            // What a model thought is not its answer.
            Some("reasoning") => {}
            Some(kind) => {
                let kind: String = kind.chars().take(32).collect();
                let message = format!("{place} is {kind}; it must be a message or a function call");
                return Err(ApiError::invalid(&place, message));
            }
        }
    }
    Ok(messages)
}

fn message(item: &Value, place: &str) -> Result<ChatMessage, ApiError> {
    let role = text(item, "role", place)?;
    let content = content(&item["content"], &format!("{place}.content"))?;
    Ok(ChatMessage::said(&role, &content))
}

fn call(item: &Value, place: &str) -> Result<ToolCall, ApiError> {
    let field = |name: &str| text(item, name, place);
    let function = CalledFunction { name: field("name")?, arguments: field("arguments")? };
    Ok(ToolCall { id: field("call_id")?, kind: ToolKind::Function, function })
}

fn text(item: &Value, name: &str, place: &str) -> Result<String, ApiError> {
    item[name].as_str().map(str::to_owned).ok_or_else(|| {
        let at = format!("{place}.{name}");
        ApiError::invalid(&at, format!("{at} must be a text"))
    })
}

/// A text, or the texts of parts joined by line breaks.
fn content(content: &Value, place: &str) -> Result<String, ApiError> {
    let parts = match content {
        Value::String(text) => return Ok(text.clone()),
        Value::Array(parts) => parts,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => {
            return Err(ApiError::invalid(place, format!("{place} must be a text or parts")));
        }
    };
    let mut texts = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        let kind = part["type"].as_str().unwrap_or("without a type");
        match (kind, part["text"].as_str(), part["refusal"].as_str()) {
            ("input_text" | "output_text" | "text", Some(text), _) | ("refusal", _, Some(text)) => {
                texts.push(text)
            }
            _ => {
                let (at, kind) = (format!("{place}[{index}]"), kind.chars().take(32));
                let kind: String = kind.collect();
                let message = format!("{at} is {kind}; this model takes only parts of text");
                return Err(ApiError::invalid(&at, message));
            }
        }
    }
    Ok(texts.join("\n"))
}

/// The tools as chats have them: the function one level deeper.
///
/// # Errors
/// `invalid_request`, naming the place.
pub(super) fn tools(tools: &[Value]) -> Result<Vec<Value>, ApiError> {
    let nested = tools.iter().enumerate().map(|(index, tool)| {
        let (Some("function"), Some(fields)) = (tool["type"].as_str(), tool.as_object()) else {
            let at = format!("tools[{index}].type");
            let message = format!("{at} must be \"function\"; no other tools are known");
            return Err(ApiError::invalid(&at, message));
        };
        let mut function = fields.clone();
        function.retain(|name, value| name != "type" && !value.is_null());
        Ok(json!({"type": "function", "function": function}))
    });
    nested.collect()
}

/// The `tool_choice` as chats have it.
pub(super) fn tool_choice(choice: Value) -> Value {
    let function = |tool: &Value| json!({"type": "function", "function": {"name": tool["name"]}});
    match choice["type"].as_str() {
        Some("function") => function(&choice),
        Some("allowed_tools") => {
            let tools = choice["tools"].as_array().into_iter().flatten();
            let tools: Vec<Value> = tools.map(function).collect();
            json!({"type": "allowed_tools",
                "allowed_tools": {"mode": choice["mode"], "tools": tools}})
        }
        Some(_) | None => choice,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_become_messages() {
        let read = messages(&json!([
            {"role": "user", "content": [{"type": "input_text", "text": "a"}]},
            {"type": "reasoning", "summary": []},
            {"type": "message", "role": "assistant", "id": "msg_1", "status": "completed",
                "content": [{"type": "output_text", "text": "b", "annotations": []}]},
            {"type": "function_call", "call_id": "x", "name": "f", "arguments": "{}", "id": "fc_1"},
            {"type": "function_call_output", "call_id": "x", "output": "7"},
            {"type": "function_call", "call_id": "y", "name": "g", "arguments": "{}"},
        ]))
        .unwrap();
        let roles: Vec<_> = read.iter().map(|one| one.role.as_str()).collect();
        assert_eq!(roles, ["user", "assistant", "tool", "assistant"]);
        assert_eq!(read[1].tool_calls[0].function.name, "f");
        assert_eq!((read[1].content.as_str(), read[2].content.as_str()), ("b", "7"));
        assert_eq!(read[2].tool_call_id.as_deref(), Some("x"));
        assert_eq!(messages(&json!("hi")).unwrap(), [ChatMessage::said("user", "hi")]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let check = |input: Value, param: &str| {
            assert_eq!(messages(&input).unwrap_err().param.as_deref(), Some(param), "{input}");
        };
        check(json!(7), "input");
        check(json!([{"content": "a"}]), "input[0].role");
        check(json!([{"role": "user"}]), "input[0].content");
        check(
            json!([{"role": "user", "content": [{"type": "input_image"}]}]),
            "input[0].content[0]",
        );
        check(json!([{"type": "item_reference", "id": "x"}]), "input[0]");
        check(json!([{"type": "function_call", "call_id": "x"}]), "input[0].name");
        assert!(tools(&[json!({"type": "web_search"})]).is_err());
    }

    #[test]
    fn tools_are_nested() {
        let flat = json!({"type": "function", "name": "f", "strict": null, "parameters": {}});
        let nested = json!({"type": "function", "function": {"name": "f", "parameters": {}}});
        assert_eq!(tools(&[flat]).unwrap(), [nested]);
        let chosen = json!({"type": "function", "function": {"name": "f"}});
        assert_eq!(tool_choice(json!({"type": "function", "name": "f"})), chosen);
        assert_eq!(tool_choice(json!("auto")), json!("auto"));
    }
}
