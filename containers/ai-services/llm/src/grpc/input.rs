//! Checks of what a caller sends, before anything is done with it: text, chats, stop strings.
//!
//! The orchestrator checks its callers too; a service does not rely on who talks to its socket.

use aisemble_protocol::{ApiError, ErrorCode, limits, v1};

use serde_json::Value;

use crate::constraint::{Calls, Form, Function};
use crate::text::{Chat, ChatError, Message, PromptEncoder, PromptError, StopStrings};

/// Roles of messages. A template decides what it does with each.
const ROLES: [&str; 5] = ["system", "developer", "user", "assistant", "tool"];

/// Text to make tokens of.
#[derive(Debug)]
pub(super) enum Input {
    /// As it is.
    Prompt(String),
    /// Through the model's template.
    Chat(Chat),
}

impl Input {
    pub(super) fn prompt(prompt: String) -> Result<Self, ApiError> {
        check_bytes("prompt", prompt.len())?;
        Ok(Self::Prompt(prompt))
    }

    pub(super) fn chat(chat: v1::Chat) -> Result<Self, ApiError> {
        let (given, limit) = (chat.messages.len(), limits::MESSAGES_MAX);
        if given == 0 || given > limit {
            let message = format!("{given} messages are given; between 1 and {limit} are taken");
            return Err(ApiError::invalid("messages", message));
        }
        let bytes = |m: &v1::ChatMessage| m.content.len() + m.tool_calls.len();
        check_bytes("messages", chat.messages.iter().map(bytes).sum())?;
        let tools = tools(&chat.tools)?;
        let messages = chat.messages.into_iter().enumerate().map(|(index, message)| {
            if !ROLES.contains(&message.role.as_str()) {
                let role: String = message.role.chars().take(32).collect();
                let message = format!(
                    "messages[{index}].role is {role:?}; it must be one of {}",
                    ROLES.join(", ")
                );
                return Err(ApiError::invalid("messages", message));
            }
            Ok(Message {
                tool_calls: calls(&message.tool_calls)
                    .map_err(|error| error.with_param(&format!("messages[{index}].tool_calls")))?,
                tool_call_id: Some(message.tool_call_id).filter(|id| !id.is_empty()),
                role: message.role,
                content: message.content,
            })
        });
        Ok(Self::Chat(Chat { messages: messages.collect::<Result<_, _>>()?, tools }))
    }

    /// Whether the model may call functions.
    pub(super) fn has_tools(&self) -> bool {
        matches!(self, Self::Chat(chat) if !chat.tools.is_empty())
    }

    /// The tokens; costly for long texts. `add_special` is for prompts: a chat always gets what its
    /// template and model want.
    pub(super) fn tokens(
        &self,
        encoder: &PromptEncoder,
        add_special: bool,
    ) -> Result<Vec<u32>, ApiError> {
        match self {
            Self::Prompt(prompt) => encoder.raw(prompt, add_special),
            Self::Chat(chat) => encoder.chat(chat),
        }
        .map_err(|error| self.public(&error))
    }

    /// What a caller may read of a failure. The rest is a defect of the model file, and is logged.
    fn public(&self, error: &PromptError) -> ApiError {
        let param = match self {
            Self::Prompt(_) => "prompt",
            Self::Chat(_) => "messages",
        };
        let code = match error {
            PromptError::NoTemplate | PromptError::NoMark => ErrorCode::Unprocessable,
            PromptError::Chat(chat) => match chat {
                ChatError::Refused { .. } | ChatError::TooCostly => ErrorCode::Unprocessable,
                ChatError::TooLarge => ErrorCode::PayloadTooLarge,
                ChatError::Unusable { source } | ChatError::Failed { source } => {
                    // Its kind and line only: the text of a template error can quote the messages.
                    let (kind, line) = (format!("{:?}", source.kind()), source.line());
                    tracing::error!(error.kind = kind, template.line = line, "the template failed");
                    ErrorCode::Unprocessable
                }
            },
            PromptError::Encode { .. } => ErrorCode::PayloadTooLarge,
        };
        ApiError::new(code, error.to_string()).with_param(param)
    }
}

/// What the model may call.
fn tools(text: &str) -> Result<Vec<Value>, ApiError> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let (bytes, limit) = (text.len(), limits::TOOLS_BYTES_MAX);
    if bytes > limit {
        let message = format!("tools has {bytes} bytes; the limit is {limit}");
        return Err(ApiError::new(ErrorCode::PayloadTooLarge, message).with_param("tools"));
    }
    let tools = serde_json::from_str::<Vec<Value>>(text).ok();
    let tools = tools.filter(|tools| tools.len() <= limits::TOOLS_MAX);
    tools.ok_or_else(|| {
        let limit = limits::TOOLS_MAX;
        ApiError::invalid("tools", format!("tools must be a list of at most {limit} functions"))
    })
}

/// What an assistant called, with the arguments as templates want them: no text, an object.
fn calls(text: &str) -> Result<Option<Value>, ApiError> {
    if text.is_empty() {
        return Ok(None);
    }
    let not_calls = || ApiError::invalid("messages", "tool_calls must be a list of calls");
    let mut calls: Vec<Value> = serde_json::from_str(text).map_err(|_no_list| not_calls())?;
    for call in &mut calls {
        let arguments = call.pointer_mut("/function/arguments").ok_or_else(not_calls)?;
        let read = arguments.as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
        if let Some(object) = read.filter(Value::is_object) {
            *arguments = object;
        }
    }
    Ok(Some(Value::Array(calls)))
}

fn check_bytes(param: &str, bytes: usize) -> Result<(), ApiError> {
    let limit = limits::PROMPT_BYTES_MAX;
    if bytes > limit {
        let message = format!("{param} has {bytes} bytes; the limit is {limit}");
        return Err(ApiError::new(ErrorCode::PayloadTooLarge, message).with_param(param));
    }
    if bytes == 0 {
        return Err(ApiError::invalid(param, format!("{param} is empty")));
    }
    Ok(())
}

/// The stop strings of a request.
pub(super) fn stop_strings(given: Vec<String>) -> Result<StopStrings, ApiError> {
    if given.len() > limits::STOP_STRINGS_MAX {
        let (given, limit) = (given.len(), limits::STOP_STRINGS_MAX);
        let message = format!("{given} stop strings are given; at most {limit} are taken");
        return Err(ApiError::invalid("stop", message));
    }
    if given.iter().any(|text| text.is_empty() || text.len() > limits::STOP_BYTES_MAX) {
        let limit = limits::STOP_BYTES_MAX;
        let message = format!("a stop string must have between 1 and {limit} bytes");
        return Err(ApiError::invalid("stop", message));
    }
    Ok(StopStrings::new(given))
}

/// What the output of a request must fit.
pub(super) fn form(
    given: Option<v1::Constraint>,
    ignore_eos: bool,
) -> Result<Option<Form>, ApiError> {
    use v1::constraint::Form as Given;
    let Some(given) = given.and_then(|constraint| constraint.form) else { return Ok(None) };
    let (bytes, limit) = match &given {
        Given::JsonSchema(text) | Given::Regex(text) | Given::Lark(text) => {
            (text.len(), limits::CONSTRAINT_BYTES_MAX)
        }
        Given::Calls(calls) => {
            let bytes = |function: &v1::CallFunction| function.name.len() + function.schema.len();
            let bytes: usize = calls.functions.iter().map(bytes).sum();
            (
                bytes + calls.or_json_schema.len(),
                limits::TOOLS_BYTES_MAX + limits::CONSTRAINT_BYTES_MAX,
            )
        }
    };
    if bytes == 0 || bytes > limit {
        let message = format!("it has {bytes} bytes; between 1 and {limit} are taken");
        return Err(ApiError::invalid("response_format", message));
    }
    if ignore_eos {
        let message = "what the output must fit says where it ends; ignore_eos goes on after it";
        return Err(ApiError::invalid("ignore_eos", message));
    }
    Ok(Some(match given {
        Given::JsonSchema(text) => Form::JsonSchema(text),
        Given::Regex(text) => Form::Regex(text),
        Given::Lark(text) => Form::Lark(text),
        Given::Calls(calls) => Form::Calls(called(calls)),
    }))
}

fn called(given: v1::Calls) -> Calls {
    let function = |one: v1::CallFunction| Function { name: one.name, schema: one.schema };
    Calls {
        functions: given.functions.into_iter().map(function).collect(),
        one: given.one,
        or_json_schema: Some(given.or_json_schema).filter(|schema| !schema.is_empty()),
    }
}
