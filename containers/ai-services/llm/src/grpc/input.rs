//! Checks of what a caller sends, before anything is done with it: text, chats, stop strings.
//!
//! The orchestrator checks its callers too; a service does not rely on who talks to its socket.

use aisemble_protocol::{ApiError, ErrorCode, limits, v1};

use crate::constraint::Form;
use crate::text::{ChatError, Message, PromptEncoder, PromptError, StopStrings};

/// Roles of messages. A template decides what it does with each.
const ROLES: [&str; 5] = ["system", "developer", "user", "assistant", "tool"];

/// Text to make tokens of.
#[derive(Debug)]
pub(super) enum Input {
    /// As it is.
    Prompt(String),
    /// Through the model's template.
    Chat(Vec<Message>),
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
        check_bytes("messages", chat.messages.iter().map(|m| m.content.len()).sum())?;
        let messages = chat.messages.into_iter().enumerate().map(|(index, message)| {
            if !ROLES.contains(&message.role.as_str()) {
                let role: String = message.role.chars().take(32).collect();
                let message = format!(
                    "messages[{index}].role is {role:?}; it must be one of {}",
                    ROLES.join(", ")
                );
                return Err(ApiError::invalid("messages", message));
            }
            Ok(Message { role: message.role, content: message.content })
        });
        Ok(Self::Chat(messages.collect::<Result<_, _>>()?))
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
            Self::Chat(messages) => encoder.chat(messages),
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
    let (Given::JsonSchema(text) | Given::Regex(text) | Given::Lark(text)) = &given;
    let (bytes, limit) = (text.len(), limits::CONSTRAINT_BYTES_MAX);
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
    }))
}
