//! The JSON that OpenAI's clients read.

use aisemble_protocol::completion::{CompletionResult, TokenLogprob, Usage};
use aisemble_protocol::tools::{ToolCall, ToolKind};
use serde::Serialize;
use utoipa::ToSchema;

/// `chat.completion`, `chat.completion.chunk` and `text_completion`.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(in crate::http) struct Completion<C> {
    /// `chatcmpl-...` or `cmpl-...`; the same in all chunks of a stream.
    pub(super) id: String,
    /// What it is.
    pub(super) object: &'static str,
    /// Seconds since 1970.
    pub(super) created: u64,
    /// The model that answered.
    pub(super) model: String,
    /// Changes with the model's file: the same seed and fingerprint give the same text.
    pub(super) system_fingerprint: String,
    /// The completions, or what is new of them.
    pub(super) choices: Vec<C>,
    /// Tokens in and out. In a stream it is there only when asked for: null but in the last chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) usage: Option<Option<UsageObject>>,
}

/// A completion of a chat.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(in crate::http) struct ChatChoice {
    /// From 0.
    pub(super) index: usize,
    /// What the model says.
    pub(super) message: Message,
    /// Log-probabilities, if asked for.
    pub(super) logprobs: Option<ChatLogprobs>,
    /// `stop`, `length` or `tool_calls`.
    pub(super) finish_reason: String,
}

/// What the model says.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(in crate::http) struct Message {
    /// Always `assistant`.
    pub(super) role: &'static str,
    /// The text; null when there are calls and nothing is said.
    pub(super) content: Option<String>,
    /// Always null.
    pub(super) refusal: Option<String>,
    /// What it calls.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) tool_calls: Vec<ToolCall>,
}

/// A call that comes piece by piece: who it is comes first.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(in crate::http) struct ToolCallDelta {
    /// Among the calls of the choice, from 0.
    pub(super) index: usize,
    /// `call_...`, to be named by the tool's answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<String>,
    /// Always `function`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub(super) kind: Option<ToolKind>,
    /// Which function, or more of its arguments.
    pub(super) function: FunctionDelta,
}

/// Which function, or more of its arguments.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(in crate::http) struct FunctionDelta {
    /// In the first piece.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    /// JSON, in pieces.
    pub(super) arguments: String,
}

/// What is new of a completion of a chat.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(in crate::http) struct ChatDelta {
    /// Of the completion, from 0.
    pub(super) index: usize,
    /// The news.
    pub(super) delta: Delta,
    /// Log-probabilities, if asked for.
    pub(super) logprobs: Option<ChatLogprobs>,
    /// `stop` or `length` at the end.
    pub(super) finish_reason: Option<String>,
}

/// News.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub(in crate::http) struct Delta {
    /// In the first chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) role: Option<&'static str>,
    /// More text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) content: Option<String>,
    /// Calls, or more of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) tool_calls: Vec<ToolCallDelta>,
}

/// A completion of a text, whole or what is new of it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(in crate::http) struct TextChoice {
    /// The text, or more of it.
    pub(super) text: String,
    /// Of the completion, from 0.
    pub(super) index: usize,
    /// Log-probabilities, if asked for.
    pub(super) logprobs: Option<TextLogprobs>,
    /// `stop` or `length` at the end.
    pub(super) finish_reason: Option<String>,
}

/// Log-probabilities of a chat's tokens.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(in crate::http) struct ChatLogprobs {
    /// One a token.
    pub(super) content: Vec<ChatLogprob>,
    /// Always null.
    pub(super) refusal: Option<Vec<ChatLogprob>>,
}

/// The log-probability of a token.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(in crate::http) struct ChatLogprob {
    token: String,
    logprob: f32,
    bytes: Vec<u8>,
    top_logprobs: Vec<TopLogprob>,
}

/// That of an alternative.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(in crate::http) struct TopLogprob {
    token: String,
    logprob: f32,
    bytes: Vec<u8>,
}

/// Log-probabilities of a text's tokens, in columns.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub(in crate::http) struct TextLogprobs {
    tokens: Vec<String>,
    token_logprobs: Vec<f32>,
    /// For each token, the alternatives and their log-probabilities.
    #[schema(value_type = Vec<Object>)]
    top_logprobs: Vec<serde_json::Map<String, serde_json::Value>>,
    /// Where each token begins in the text, in characters.
    text_offset: Vec<usize>,
}

/// Tokens in and out.
#[derive(Debug, Clone, Copy, Default, Serialize, ToSchema)]
pub(in crate::http) struct UsageObject {
    prompt_tokens: u32,
    completion_tokens: u32,
    total_tokens: u32,
    prompt_tokens_details: PromptDetails,
    completion_tokens_details: CompletionDetails,
}

/// Of the prompt.
#[derive(Debug, Clone, Copy, Default, Serialize, ToSchema)]
pub(in crate::http) struct PromptDetails {
    cached_tokens: u32,
    audio_tokens: u32,
}

/// Of the completion.
#[derive(Debug, Clone, Copy, Default, Serialize, ToSchema)]
pub(in crate::http) struct CompletionDetails {
    reasoning_tokens: u32,
    audio_tokens: u32,
    accepted_prediction_tokens: u32,
    rejected_prediction_tokens: u32,
}

impl UsageObject {
    /// The sum over all choices; a prompt that `per_prompt` of them share is counted once.
    pub(super) fn of(usages: &[Usage], per_prompt: usize) -> Self {
        let mut sum = Self::default();
        for (index, usage) in usages.iter().enumerate() {
            sum.completion_tokens = sum.completion_tokens.saturating_add(usage.completion_tokens);
            if index % per_prompt.max(1) == 0 {
                sum.prompt_tokens = sum.prompt_tokens.saturating_add(usage.prompt_tokens);
                let cached = &mut sum.prompt_tokens_details.cached_tokens;
                *cached = cached.saturating_add(usage.cached_tokens);
            }
        }
        sum.total_tokens = sum.prompt_tokens.saturating_add(sum.completion_tokens);
        sum
    }

    pub(super) fn of_results(results: &[CompletionResult], per_prompt: usize) -> Self {
        let usages: Vec<_> = results.iter().map(|result| result.usage).collect();
        Self::of(&usages, per_prompt)
    }
}

impl ChatLogprobs {
    pub(super) fn of(tokens: &[TokenLogprob]) -> Self {
        let content = tokens
            .iter()
            .map(|token| ChatLogprob {
                token: token.token.clone(),
                logprob: token.logprob,
                bytes: token.bytes.clone(),
                top_logprobs: token.top_logprobs.iter().map(TopLogprob::of).collect(),
            })
            .collect();
        Self { content, refusal: None }
    }
}

impl TopLogprob {
    fn of(token: &TokenLogprob) -> Self {
        Self { token: token.token.clone(), logprob: token.logprob, bytes: token.bytes.clone() }
    }
}

impl TextLogprobs {
    /// The columns for tokens that begin `offset` characters into the text.
    pub(super) fn of(tokens: &[TokenLogprob], mut offset: usize) -> Self {
        let mut columns = Self::default();
        for token in tokens {
            columns.tokens.push(token.token.clone());
            columns.token_logprobs.push(token.logprob);
            let top = token.top_logprobs.iter();
            let top = top.map(|one| (one.token.clone(), one.logprob.into()));
            columns.top_logprobs.push(top.collect());
            columns.text_offset.push(offset);
            offset += token.token.chars().count();
        }
        columns
    }
}

/// The fingerprint of a model's file.
pub(super) fn fingerprint(model_sha256: &str) -> String {
    format!("fp_{}", model_sha256.get(..12).unwrap_or(model_sha256))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_prompt_is_counted_once() {
        let usage =
            Usage { prompt_tokens: 5, completion_tokens: 2, total_tokens: 7, cached_tokens: 1 };
        let sum = UsageObject::of(&[usage; 4], 2);
        assert_eq!((sum.prompt_tokens, sum.completion_tokens, sum.total_tokens), (10, 8, 18));
        assert_eq!(sum.prompt_tokens_details.cached_tokens, 2);
    }
}
