//! What comes of a completion. It must not know how it is asked for.

use serde::{Deserialize, Serialize};

use crate::job::JobId;
use crate::nlp::RedactedSpan;
use crate::tools::ToolCall;

/// What came out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CompletionResult {
    /// The job that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<JobId>,
    /// The model that answered.
    pub model: String,
    /// Digest of its file.
    pub model_sha256: String,
    /// The completion.
    pub text: String,
    /// What the model calls, in order; `text` is then what it said beside that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// Why it ended: `stop`, `length` or `tool_calls`.
    pub finish_reason: String,
    /// The seed that was used: give it again to get the same text.
    pub seed: u64,
    /// Tokens in and out.
    pub usage: Usage,
    /// Where the time went.
    pub timings: Timings,
    /// One entry a token, if asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<Vec<TokenLogprob>>,
    /// What was hidden, if it was asked for; `start` and `end` are places in the text that is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redactions: Option<Vec<RedactedSpan>>,
}

/// Tokens in and out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Usage {
    /// Of the prompt, the template's own included.
    pub prompt_tokens: u32,
    /// Generated.
    pub completion_tokens: u32,
    /// Sum.
    pub total_tokens: u32,
    /// Of the prompt, how many were not computed again.
    #[serde(default)]
    pub cached_tokens: u32,
}

/// Where the time went, milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Timings {
    /// In the service's queue.
    pub queue_ms: f64,
    /// Computing the prompt.
    pub prompt_ms: f64,
    /// Generating.
    pub decode_ms: f64,
    /// Generated tokens per second of `decode_ms`.
    pub decode_tokens_per_s: f64,
}

/// A token's log-probability.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TokenLogprob {
    /// Its text.
    pub token: String,
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// Its bytes: a token may be a part of a character.
    pub bytes: Vec<u8>,
    /// The likeliest alternatives, if asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(no_recursion))]
    pub top_logprobs: Vec<TokenLogprob>,
}
