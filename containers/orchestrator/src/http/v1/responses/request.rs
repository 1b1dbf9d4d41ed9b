//! A response's request: its parameters, checked, as a completion of a chat.

use aisemble_protocol::completion::{ChatMessage, CompletionRequest};
use aisemble_protocol::response_format::ResponseFormat;
use aisemble_protocol::{ApiError, ErrorCode, limits};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::super::params::{self, Sampling};
use super::input;
use crate::app::{App, Caller};
use crate::work::KeptResponse;

const OWN_FIELDS: [&str; 19] = [
    "model",
    "input",
    "instructions",
    "max_output_tokens",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "text",
    "metadata",
    "background",
    "store",
    "previous_response_id",
    "reasoning",
    "truncation",
    "include",
    "top_logprobs",
    "max_tool_calls",
    "conversation",
    "prompt",
];

/// The parameters of a response.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(default)]
pub(in crate::http) struct ResponseRequest {
    /// The model; empty or absent = the first one.
    model: String,
    /// A text, or items: messages, function calls, and what they gave.
    #[schema(value_type = Object)]
    input: Value,
    /// A system message before the input; the next response does not take it over.
    instructions: Option<String>,
    /// Tokens at most; absent = as many as the model gives.
    max_output_tokens: Option<u32>,
    /// Functions that the model may call.
    #[schema(value_type = Vec<Object>)]
    tools: Vec<Value>,
    /// `auto` (the default), `none`, `required`, or a function by its name.
    #[schema(value_type = Option<Object>)]
    tool_choice: Option<Value>,
    /// Whether one answer may have several calls; default true.
    parallel_tool_calls: Option<bool>,
    /// `format`: what the text must look like.
    #[schema(value_type = Option<Object>)]
    text: Option<TextSettings>,
    /// Given back with the response.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Map<String, Value>>,
    /// Answer at once and make it as a durable job; it is then kept.
    background: bool,
    /// Keep the response, to be looked at and gone on from. Default false: nothing is kept.
    store: bool,
    /// A response that is kept and that this one goes on from.
    previous_response_id: Option<String>,
    /// Accepted and without effect.
    #[schema(value_type = Option<Object>)]
    reasoning: Option<Value>,
    /// Only `disabled`.
    truncation: Option<String>,
    /// Only what is empty.
    include: Vec<String>,
    /// Only 0.
    top_logprobs: Option<u32>,
    /// Accepted and without effect: only functions of the caller's are called.
    max_tool_calls: Option<u32>,
    /// Not supported.
    #[schema(value_type = Option<Object>)]
    conversation: Option<Value>,
    /// Not supported.
    #[schema(value_type = Option<Object>)]
    prompt: Option<Value>,
}

/// How the text is to look.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TextSettings {
    format: Option<Map<String, Value>>,
    #[serde(rename = "verbosity")]
    _verbosity: Option<String>,
}

/// A request, checked.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) kept: KeptResponse,
    pub(super) stream: bool,
    pub(super) background: bool,
    pub(super) store: bool,
}

impl Asked {
    /// Reads a body.
    ///
    /// # Errors
    /// `invalid_request` or `payload_too_large`, naming the parameter; `not_found` for an unknown
    /// model or previous response.
    pub(super) async fn read(
        app: &App,
        caller: &Caller,
        body: Map<String, Value>,
    ) -> Result<Self, ApiError> {
        let (sampling, own): (Sampling, ResponseRequest) = params::read(body, &OWN_FIELDS)?;
        own.refuse(&sampling)?;
        let shown = own.shown(&sampling)?;
        let mut request = sampling.request(&own.model);
        let (stream, background) = (sampling.stream == Some(true), own.background);
        let most = match app.resolve_model(&own.model) {
            Ok(model) => {
                request.model = Some(model.name);
                model.limits.map_or(1, |max| max.output_tokens_max)
            }
            // It waits for the service, which cuts this to what it gives.
            Err(error) if background && error.code == ErrorCode::Unavailable => {
                limits::OUTPUT_TOKENS_MAX
            }
            Err(error) => return Err(error),
        };
        request.max_tokens = Some(own.max_output_tokens.unwrap_or(most));
        let said = match &own.previous_response_id {
            Some(id) => app.chat_of(caller, id).await?,
            None => Vec::new(),
        };
        let store = own.store || background;
        let instructed = own.instructions.is_some();
        own.fill(&mut request, said)?;
        request.to_generate().map_err(renamed)?;
        Ok(Self { kept: KeptResponse { request, instructed, shown }, stream, background, store })
    }
}

/// The error with the name that the caller gave the field.
fn renamed(error: ApiError) -> ApiError {
    let field = match error.param.as_deref() {
        Some("max_tokens") => "max_output_tokens".to_owned(),
        Some("messages") => "input".to_owned(),
        Some(param) if param.starts_with("response_format") => {
            param.replacen("response_format", "text.format", 1).replace(".json_schema", "")
        }
        Some(param) if param.starts_with("tools[") => param.replace(".function.", "."),
        Some(_) | None => return error,
    };
    error.with_param(&field)
}

impl ResponseRequest {
    /// Refuses what is not done, by name.
    fn refuse(&self, sampling: &Sampling) -> Result<(), ApiError> {
        let refused = |name: &str, why: &str| Err(ApiError::invalid(name, format!("{name} {why}")));
        let not_yet = "is not supported yet";
        if sampling.n.is_some() {
            return Err(params::unrecognized("n"));
        }
        if self.conversation.is_some() {
            return refused("conversation", not_yet);
        }
        if self.prompt.is_some() {
            return refused("prompt", not_yet);
        }
        if !self.include.is_empty() {
            return refused("include", not_yet);
        }
        if self.top_logprobs.is_some_and(|top| top > 0) {
            return refused("top_logprobs", not_yet);
        }
        if self.truncation.as_deref().is_some_and(|how| how != "disabled") {
            return refused("truncation", "must be disabled: nothing is left out of a chat");
        }
        Ok(())
    }

    /// What the answer repeats of the request.
    fn shown(&self, sampling: &Sampling) -> Result<Map<String, Value>, ApiError> {
        let metadata = self.metadata.clone().unwrap_or_default();
        let bytes = Value::Object(metadata.clone()).to_string().len();
        if bytes > limits::METADATA_BYTES_MAX {
            let limit = limits::METADATA_BYTES_MAX;
            let message = format!("metadata has {bytes} bytes; the limit is {limit}");
            return Err(ApiError::invalid("metadata", message));
        }
        let format = self.text.as_ref().and_then(|text| text.format.clone());
        let format = format.map_or_else(|| json!({"type": "text"}), Value::Object);
        let shown = json!({
            "background": self.background,
            "instructions": self.instructions,
            "max_output_tokens": self.max_output_tokens,
            "max_tool_calls": self.max_tool_calls,
            "metadata": metadata,
            "parallel_tool_calls": self.parallel_tool_calls.unwrap_or(true),
            "previous_response_id": self.previous_response_id,
            "reasoning": {"effort": null, "summary": null},
            "service_tier": "default",
            "store": self.store || self.background,
            "temperature": sampling.temperature.unwrap_or(1.0),
            "text": {"format": format},
            "tool_choice": self.tool_choice.clone().unwrap_or_else(|| json!("auto")),
            "tools": self.tools,
            "top_logprobs": 0,
            "top_p": sampling.top_p.unwrap_or(1.0),
            "truncation": "disabled",
            "user": null,
        });
        let Value::Object(shown) = shown else { return Ok(Map::new()) };
        Ok(shown)
    }

    /// Puts the chat, the tools and the form into the request.
    fn fill(self, request: &mut CompletionRequest, said: Vec<ChatMessage>) -> Result<(), ApiError> {
        let instructions = self.instructions.map(|text| ChatMessage::said("system", &text));
        let news = input::messages(&self.input)?;
        request.messages = Some(instructions.into_iter().chain(said).chain(news).collect());
        request.tools = input::tools(&self.tools)?;
        request.tool_choice = self.tool_choice.map(input::tool_choice);
        request.parallel_tool_calls = self.parallel_tool_calls;
        request.response_format = match self.text.and_then(|text| text.format) {
            Some(format) => Some(response_format(format)?),
            None => None,
        };
        Ok(())
    }
}

/// The format as chats have it: the schema one level deeper.
fn response_format(mut format: Map<String, Value>) -> Result<ResponseFormat, ApiError> {
    let value = match format.get("type").and_then(Value::as_str) {
        Some("json_schema") => {
            format.retain(|name, value| name != "type" && !value.is_null());
            json!({"type": "json_schema", "json_schema": format})
        }
        Some(_) | None => Value::Object(format),
    };
    serde_json::from_value(value)
        .map_err(|error| ApiError::invalid("text.format", format!("text.format: {error}")))
}
