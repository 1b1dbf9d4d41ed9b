//! `POST /v1/chat/completions`.

use std::sync::Arc;

use aisemble_protocol::ApiError;
use aisemble_protocol::completion::ChatMessage;
use aisemble_protocol::response_format::ResponseFormat;
use axum::Json as Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::super::error::{Failure, OpenAiError};
use super::super::extract::{From, Json};
use super::answer::{self, Form};
use super::params::{self, Sampling};
use super::shapes::{ChatChoice, Completion};
use super::{Plan, stream};
use crate::app::{App, Origin};

const OWN_FIELDS: [&str; 10] = [
    "model",
    "messages",
    "max_tokens",
    "max_completion_tokens",
    "logprobs",
    "top_logprobs",
    "response_format",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
];

/// The parameters that only chats have.
#[derive(Debug, Deserialize, ToSchema)]
pub(in crate::http) struct ChatRequest {
    /// The model; empty or absent = the first one.
    #[serde(default)]
    model: String,
    /// The chat: `role`, and `content` as a text or a list of text parts; `tool_calls` and
    /// `tool_call_id` as they came.
    #[schema(value_type = Vec<Object>)]
    messages: Vec<Map<String, Value>>,
    /// The old name of `max_completion_tokens`.
    max_tokens: Option<u32>,
    /// Tokens at most; absent = as many as the model gives.
    max_completion_tokens: Option<u32>,
    /// Give the log-probability of each token.
    #[serde(default)]
    logprobs: bool,
    /// And of so many alternatives.
    top_logprobs: Option<u32>,
    /// What the answer must look like; beyond OpenAI also `regex` and `grammar`.
    #[schema(value_type = Option<Object>)]
    response_format: Option<ResponseFormat>,
    /// Functions that the model may call.
    #[serde(default)]
    #[schema(value_type = Vec<Object>)]
    tools: Vec<Value>,
    /// `auto` (the default), `none`, `required`, or a function by its name.
    #[schema(value_type = Option<Object>)]
    tool_choice: Option<Value>,
    /// Whether one answer may have several calls; default true.
    parallel_tool_calls: Option<bool>,
}

/// Continues a chat, as OpenAI does. A call that `tool_choice` requires always fits its schema.
#[utoipa::path(post, path = "/v1/chat/completions", tag = "openai", security(("key" = ["llm"])),
    request_body = ChatRequest,
    responses((status = 200, body = Completion<ChatChoice>,
            description = "or events `chat.completion.chunk` when `stream` is true"),
        (status = "default", body = OpenAiError)))]
pub(in crate::http) async fn create(
    State(app): State<Arc<App>>,
    From(origin): From,
    Json(body): Json<Map<String, Value>>,
) -> Result<Response, Failure> {
    let plan = plan(&app, body)?;
    if plan.stream {
        return Ok(stream::respond(&app, &origin, plan, Form::Chat).await?);
    }
    let results = super::complete(&app, &origin, &plan).await?;
    Ok(Body(answer::chat(results, plan.per_prompt)).into_response())
}

/// Answers a chat that nobody is connected for.
pub(super) async fn answer_line(
    app: &App,
    origin: &Origin,
    body: Map<String, Value>,
) -> Result<Value, ApiError> {
    let plan = plan(app, body)?;
    let results = super::complete(app, origin, &plan).await?;
    super::lines::written(&answer::chat(results, plan.per_prompt))
}

fn plan(app: &App, body: Map<String, Value>) -> Result<Plan, ApiError> {
    let (sampling, chat): (Sampling, ChatRequest) = params::read(body, &OWN_FIELDS)?;
    let (name, max_tokens) = match (chat.max_completion_tokens, chat.max_tokens) {
        (Some(new), Some(old)) if new != old => {
            let message = "max_tokens and max_completion_tokens differ; give one of them";
            return Err(ApiError::invalid("max_tokens", message));
        }
        (Some(new), _) => ("max_completion_tokens", Some(new)),
        (None, old) => ("max_tokens", old),
    };
    let mut request = sampling.request(&chat.model);
    request.messages = Some(messages(chat.messages)?);
    (request.logprobs, request.top_logprobs) = (chat.logprobs, chat.top_logprobs);
    request.response_format = chat.response_format;
    (request.tools, request.tool_choice) = (chat.tools, chat.tool_choice);
    request.parallel_tool_calls = chat.parallel_tool_calls;
    request.max_tokens = Some(match max_tokens {
        Some(given) => given,
        None => app.resolve_model(&chat.model)?.limits.map_or(1, |max| max.output_tokens_max),
    });
    let renamed = |error: ApiError| match error.param.as_deref() {
        Some("max_tokens") => error.with_param(name),
        _ => error,
    };
    let generations = sampling.repeated(&request, app.limits.choices_max).map_err(renamed)?;
    let (stream, include_usage) = (sampling.stream == Some(true), sampling.include_usage());
    let offer = request.offer()?.map(Arc::new);
    Ok(Plan { per_prompt: generations.len(), generations, stream, include_usage, offer })
}

fn messages(given: Vec<Map<String, Value>>) -> Result<Vec<ChatMessage>, ApiError> {
    given.into_iter().enumerate().map(|(index, message)| read_message(index, message)).collect()
}

/// One message. Clients send back what they got, so fields that hold nothing are passed over.
fn read_message(index: usize, message: Map<String, Value>) -> Result<ChatMessage, ApiError> {
    let place = |field: &str| format!("messages[{index}].{field}");
    let (mut role, mut content) = (None, None);
    let (mut tool_calls, mut tool_call_id) = (Vec::new(), None);
    for (field, value) in message {
        match (field.as_str(), value) {
            (_, Value::Null) | ("name" | "annotations" | "refusal", _) => {}
            ("role", Value::String(text)) => role = Some(text),
            ("content", Value::String(text)) => content = Some(text),
            ("content", Value::Array(parts)) => content = Some(text_of(parts, &place("content"))?),
            ("tool_call_id", Value::String(id)) => tool_call_id = Some(id),
            ("tool_calls", calls @ Value::Array(_)) => {
                let at = place("tool_calls");
                tool_calls = serde_path_to_error::deserialize(calls).map_err(|error| {
                    let at = format!("{at}{}", error.path());
                    let shown: String = at.chars().take(96).collect();
                    ApiError::invalid(&shown, format!("{shown}: {}", error.into_inner()))
                })?;
            }
            ("role" | "content" | "tool_call_id", _) => {
                let message = format!("{} must be a text", place(&field));
                return Err(ApiError::invalid(&place(&field), message));
            }
            (_, Value::Array(items)) if items.is_empty() => {}
            (_, _) => {
                let shown: String = place(&field).chars().take(96).collect();
                return Err(ApiError::invalid(&shown, format!("{shown} is not supported yet")));
            }
        }
    }
    let absent =
        |field: &str| ApiError::invalid(&place(field), format!("{} is required", place(field)));
    let role = role.ok_or_else(|| absent("role"))?;
    // An assistant's turn may be empty; anybody else says something.
    let content = match content {
        None if role == "assistant" => String::new(),
        content => content.ok_or_else(|| absent("content"))?,
    };
    Ok(ChatMessage { role, content, tool_calls, tool_call_id })
}

/// Text parts, joined by line breaks.
fn text_of(parts: Vec<Value>, place: &str) -> Result<String, ApiError> {
    let mut texts = Vec::new();
    for (index, part) in parts.into_iter().enumerate() {
        match (part["type"].as_str(), part["text"].as_str()) {
            (Some("text"), Some(text)) => texts.push(text.to_owned()),
            (kind, _) => {
                let (at, kind) = (format!("{place}[{index}]"), kind.unwrap_or("without a type"));
                let kind: String = kind.chars().take(32).collect();
                let message = format!("{at} is {kind}; this model takes only parts of type text");
                return Err(ApiError::invalid(&at, message));
            }
        }
    }
    Ok(texts.join("\n"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(message: Value) -> Result<ChatMessage, ApiError> {
        let Value::Object(message) = message else { panic!("an object") };
        read_message(3, message)
    }

    #[test]
    fn messages_are_texts_or_text_parts() {
        let parts = json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]);
        let message = read(json!({"role": "user", "content": parts, "name": "x"})).unwrap();
        assert_eq!((message.role.as_str(), message.content.as_str()), ("user", "a\nb"));
        let echoed = json!({"role": "assistant", "content": "c", "refusal": null,
            "annotations": [], "tool_calls": null, "audio": null});
        assert_eq!(read(echoed).unwrap(), ChatMessage::said("assistant", "c"));
        let call = json!({"id": "x", "function": {"name": "a", "arguments": "{}"}, "index": 0});
        let called = json!({"role": "assistant", "content": null, "tool_calls": [call]});
        assert_eq!(read(called).unwrap().tool_calls[0].function.name, "a");
        let tool = json!({"role": "tool", "content": "7", "tool_call_id": "x"});
        assert_eq!(read(tool).unwrap().tool_call_id.as_deref(), Some("x"));
    }

    #[test]
    fn what_is_not_text_is_refused_with_its_place() {
        let check = |message: Value, param: &str| {
            assert_eq!(read(message).unwrap_err().param.as_deref(), Some(param));
        };
        check(json!({"content": "a"}), "messages[3].role");
        check(json!({"role": "user"}), "messages[3].content");
        check(json!({"role": "user", "content": 7}), "messages[3].content");
        check(
            json!({"role": "user", "content": [{"type": "image_url"}]}),
            "messages[3].content[0]",
        );
        let call = json!({"role": "assistant", "tool_calls": [{}]});
        check(call, "messages[3].tool_calls[0]");
        let custom = json!([{"type": "custom", "function": {"name": "a", "arguments": ""}}]);
        let call = json!({"role": "assistant", "tool_calls": custom});
        check(call, "messages[3].tool_calls[0].type");
    }
}
