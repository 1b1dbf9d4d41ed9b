//! The `response` object and its items, as OpenAI's clients read them.

use aisemble_protocol::completion::{CompletionResult, Usage};
use aisemble_protocol::tools::ToolCall;
use aisemble_protocol::{ApiError, JobState};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::app::responses::{Kept, response_id};

/// What all states of one response share.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) id: String,
    /// Seconds since 1970.
    pub(super) created_at: u64,
    pub(super) model: String,
    /// Fields that repeat the request.
    pub(super) shown: Map<String, Value>,
}

/// How far a response is.
#[derive(Debug)]
pub(super) enum Stage<'a> {
    /// `queued`, `in_progress` or `cancelled`.
    Without(&'static str),
    Failed(&'a ApiError),
    /// Why it ended, its usage and its items.
    Over(&'a str, Usage, Vec<Value>),
}

impl Head {
    pub(super) fn response(&self, stage: Stage<'_>) -> Value {
        let (mut status, mut error, mut incomplete) = ("completed", Value::Null, Value::Null);
        let (mut output, mut usage) = (Vec::new(), Value::Null);
        match stage {
            Stage::Without(name) => status = name,
            Stage::Failed(why) => {
                status = "failed";
                error = json!({"code": "server_error", "message": why.message});
            }
            Stage::Over(reason, spent, items) => {
                (usage, output) = (usage_object(spent), items);
                if reason == "length" {
                    status = "incomplete";
                    incomplete = json!({"reason": "max_output_tokens"});
                }
            }
        }
        let mut response = json!({
            "id": self.id,
            "object": "response",
            "created_at": self.created_at,
            "status": status,
            "error": error,
            "incomplete_details": incomplete,
            "model": self.model,
            "output": output,
            "usage": usage,
        });
        if let Some(fields) = response.as_object_mut() {
            fields.extend(self.shown.clone());
        }
        response
    }
}

/// A response that is kept, as it stands.
pub(super) fn kept(kept: &Kept) -> Value {
    let id = response_id(kept.view.id);
    let asked = kept.asked.request.model.clone().unwrap_or_default();
    let mut head = Head {
        id: id.clone(),
        created_at: kept.view.created_at_ms / 1_000,
        model: asked,
        shown: kept.asked.shown.clone(),
    };
    let stage = match (&kept.ended, kept.view.state) {
        (Some(Ok(result)), _) => {
            head.model.clone_from(&result.model);
            Stage::Over(&result.finish_reason, result.usage, items(&id, result))
        }
        (_, JobState::Cancelled) => Stage::Without("cancelled"),
        (Some(Err(error)), _) => Stage::Failed(error),
        (None, JobState::Running) => Stage::Without("in_progress"),
        (None, _) => Stage::Without("queued"),
    };
    head.response(stage)
}

/// The items of a whole answer: what is said, then what is called.
pub(super) fn items(id: &str, result: &CompletionResult) -> Vec<Value> {
    let said = !result.text.is_empty() || result.tool_calls.is_empty();
    let status = item_status(&result.finish_reason);
    let text = said.then(|| message(&item_id("msg", id, 0), &result.text, status));
    let calls = result.tool_calls.iter().enumerate();
    let calls =
        calls.map(|(index, one)| call(&item_id("fc", id, index + usize::from(said)), one, status));
    text.into_iter().chain(calls).collect()
}

/// The id of a response's item: the same each time that the response is looked at.
pub(super) fn item_id(prefix: &str, response: &str, index: usize) -> String {
    let hash = blake3::hash(format!("{response}/{index}").as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.as_bytes()[..16]);
    format!("{prefix}_{}", Uuid::from_bytes(bytes).simple())
}

pub(super) fn item_status(reason: &str) -> &'static str {
    if reason == "length" { "incomplete" } else { "completed" }
}

pub(super) fn message(id: &str, text: &str, status: &str) -> Value {
    let content = if status == "in_progress" { Vec::new() } else { vec![part(text)] };
    json!({"id": id, "type": "message", "status": status, "role": "assistant", "content": content})
}

pub(super) fn part(text: &str) -> Value {
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
}

pub(super) fn call(id: &str, call: &ToolCall, status: &str) -> Value {
    let (call_id, function) = (&call.id, &call.function);
    json!({"id": id, "type": "function_call", "status": status, "call_id": call_id,
        "name": function.name, "arguments": function.arguments})
}

fn usage_object(usage: Usage) -> Value {
    json!({
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.total_tokens,
    })
}
