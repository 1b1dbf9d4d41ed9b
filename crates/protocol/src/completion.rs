//! `POST /ai/llm/completion`: the request as JSON, its check into a gRPC request, and the answer.

mod check;
mod result;

use serde::{Deserialize, Serialize};

use crate::job::JobOptions;
use crate::nlp::{CustomPattern, RedactRequest, RedactRule, Replacement, Texts};
use crate::response_format::ResponseFormat;
use crate::tools::ToolCall;

pub use result::{CompletionResult, Timings, TokenLogprob, Usage};

/// A completion to make. Give `prompt` (taken as it is) or `messages` (through the model's chat
/// template), not both.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CompletionRequest {
    /// The model; absent = the only or first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Text to go on from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// A chat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages: Option<Vec<ChatMessage>>,
    /// How many tokens at most; default 256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    /// 0 = always the likeliest token; default 0.7; at most 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f32>,
    /// Sample among the k likeliest; 0 (the default) = off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_k: Option<u32>,
    /// Sample among the likeliest that make up this probability; default 1 = off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f32>,
    /// Leave out tokens less likely than this share of the likeliest; default 0 = off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_p: Option<f32>,
    /// Sample among the tokens whose information is the closest to what is expected, that make up
    /// this probability; default 1 = off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub typical_p: Option<f32>,
    /// Divides the logits of tokens seen before; default 1 = off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repetition_penalty: Option<f32>,
    /// Subtracted from the logits of tokens generated before; -2 to 2, default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub presence_penalty: Option<f32>,
    /// Subtracted once for each time a token was generated; -2 to 2, default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frequency_penalty: Option<f32>,
    /// The same seed and input give the same output; absent = drawn at random.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Texts that end the completion; they are not part of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<Stop>,
    /// Give the log-probability of each token.
    #[serde(default)]
    pub logprobs: bool,
    /// And of this many alternatives, at most 20.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_logprobs: Option<u32>,
    /// Token id to a number added to its logit, -100 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logit_bias: Option<std::collections::BTreeMap<u32, f32>>,
    /// Answer with server-sent events, as `Accept: text/event-stream` does.
    #[serde(default)]
    pub stream: bool,
    /// Go on after the end-of-sequence token; for benchmarks.
    #[serde(default)]
    pub ignore_eos: bool,
    /// What the completion must look like: JSON of a schema, a regular expression, a grammar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub response_format: Option<ResponseFormat>,
    /// Functions that the model may call, as OpenAI has them; for chats.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<Object>))]
    pub tools: Vec<serde_json::Value>,
    /// `auto` (the default), `none`, `required`, or a function by its name, as OpenAI has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub tool_choice: Option<serde_json::Value>,
    /// Whether one answer may have several calls; default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallel_tool_calls: Option<bool>,
    /// Hide personal data in the completion, by the nlp service. The text then comes as a whole: no
    /// token is shown or recorded before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redact: Option<RedactOutput>,
    /// How the job is to be run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobOptions>,
}

/// What to hide in a completion, as `POST /ai/nlp/redact` has it. `{}` = what the built-in rules
/// find.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RedactOutput {
    /// The model that finds entities; absent = the first that does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The built-in rules to apply; absent = all, `[]` = none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<Vec<RedactRule>>,
    /// Patterns of your own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub patterns: Vec<CustomPattern>,
    /// Hide what a model finds as well.
    #[serde(default)]
    pub entities: bool,
    /// Only these labels of the model; absent = all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entity_labels: Option<Vec<String>>,
    /// Leave entities that are less sure; default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score_min: Option<f32>,
    /// What stands where something was hidden.
    #[serde(default)]
    pub replacement: Replacement,
    /// The character of `replacement: mask`; default `*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<String>,
}

impl RedactOutput {
    /// The redaction of `text`.
    #[must_use]
    pub fn to_request(&self, text: &str) -> RedactRequest {
        let Self { model, rules, patterns, entities, entity_labels, score_min, replacement, mask } =
            self.clone();
        RedactRequest {
            model,
            texts: Texts::One(text.to_owned()),
            rules,
            patterns,
            entities,
            entity_labels,
            score_min,
            replacement,
            mask,
            ..RedactRequest::default()
        }
    }
}

/// One message of a chat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ChatMessage {
    /// `system`, `user`, `assistant`, or `tool` for what a function gave.
    pub role: String,
    /// What is said; empty where an assistant only calls.
    pub content: String,
    /// What an assistant called.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// The call that a tool's message answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
}

impl ChatMessage {
    /// A message that calls nothing and answers no call.
    #[must_use]
    pub fn said(role: &str, content: &str) -> Self {
        let (role, content) = (role.to_owned(), content.to_owned());
        Self { role, content, tool_calls: Vec::new(), tool_call_id: None }
    }
}

/// One stop string or several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(untagged)]
pub enum Stop {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: serde_json::Value, param: &str, sentence: &str) {
        let request: CompletionRequest = serde_json::from_value(json).unwrap();
        let error = request.to_generate().unwrap_err();
        assert_eq!(error.param.as_deref(), Some(param));
        assert!(error.message.contains(sentence), "{}", error.message);
    }

    #[test]
    fn each_wrong_field_is_named_with_its_limit() {
        use serde_json::json;
        check(json!({}), "prompt", "prompt or messages is required");
        check(json!({"prompt": ""}), "prompt", "prompt is empty");
        check(json!({"messages": []}), "messages", "between 1 and 1024");
        check(json!({"prompt": "a", "max_tokens": 0}), "max_tokens", "between 1 and 131072");
        check(json!({"prompt": "a", "max_tokens": 4_000_000}), "max_tokens", "between 1 and");
        check(json!({"prompt": "a", "temperature": 2.5}), "temperature", "between 0 and 2");
        check(json!({"prompt": "a", "top_p": 0.0}), "top_p", "above 0 and at most 1");
        check(json!({"prompt": "a", "typical_p": 1.5}), "typical_p", "above 0 and at most 1");
        let tool = json!({"type": "function", "function": {"name": "f"}});
        check(json!({"prompt": "a", "tools": [tool]}), "tools", "give messages");
        let said = json!([{"role": "user", "content": "a"}]);
        check(json!({"messages": said, "tools": [tool], "redact": {}}), "redact", "arguments");
        let required = json!({"messages": said, "tools": [tool], "tool_choice": "required",
            "ignore_eos": true});
        check(required, "ignore_eos", "where it ends");
        check(json!({"prompt": "a", "stop": [""]}), "stop", "between 1 and 256 bytes");
        check(json!({"prompt": "a", "top_logprobs": 2}), "top_logprobs", "needs logprobs");
        let redact = json!({"mask": "##", "replacement": "mask"});
        check(json!({"prompt": "a", "redact": redact}), "redact.mask", "mask");
        check(json!({"prompt": "a", "redact": {}, "logprobs": true}), "redact", "logprobs");
        check(json!({"messages": [{"role": "king", "content": "a"}]}), "messages", "\"king\"");
    }

    #[test]
    fn an_unknown_field_is_refused_by_name() {
        let error = serde_json::from_str::<CompletionRequest>(r#"{"prompt":"a","max_token":3}"#);
        assert!(error.unwrap_err().to_string().contains("max_token"));
    }
}
