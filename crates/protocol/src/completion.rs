//! `POST /ai/llm/completion`: the request as JSON, its check into a gRPC request, and the answer.

use serde::{Deserialize, Serialize};

use crate::error::ApiError;
use crate::job::{JobId, JobOptions};
use crate::nlp::{
    CustomPattern, NlpTask as _, RedactRequest, RedactRule, RedactedSpan, Replacement, Texts,
};
use crate::response_format::ResponseFormat;
use crate::{limits, v1};

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
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What is said.
    pub content: String,
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
    /// Why it ended: `stop` or `length`.
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

impl CompletionRequest {
    /// Checks every field and gives the request as a service takes it.
    ///
    /// # Errors
    /// `invalid_request` or `payload_too_large`, naming the field and its limit.
    pub fn to_generate(&self) -> Result<v1::GenerateRequest, ApiError> {
        let max_tokens = self.max_tokens.unwrap_or(limits::OUTPUT_TOKENS_DEFAULT);
        if max_tokens == 0 || max_tokens > limits::OUTPUT_TOKENS_MAX {
            let limit = limits::OUTPUT_TOKENS_MAX;
            return Err(ApiError::invalid(
                "max_tokens",
                format!("max_tokens is {max_tokens}; it must be between 1 and {limit}"),
            ));
        }
        let top_logprobs = self.top_logprobs.unwrap_or(0);
        if top_logprobs > limits::TOP_LOGPROBS_MAX {
            let limit = limits::TOP_LOGPROBS_MAX;
            return Err(ApiError::invalid(
                "top_logprobs",
                format!("top_logprobs is {top_logprobs}; it must be at most {limit}"),
            ));
        }
        if top_logprobs > 0 && !self.logprobs {
            return Err(ApiError::invalid("top_logprobs", "top_logprobs needs logprobs: true"));
        }
        if let Some(redact) = &self.redact {
            self.check_redact(redact)?;
        }
        Ok(v1::GenerateRequest {
            request_id: String::new(),
            job_id: String::new(),
            model: self.model.clone().unwrap_or_default(),
            input: Some(self.input()?),
            sampling: Some(self.sampling()?),
            max_tokens,
            stop: self.stop_strings()?,
            logprobs: self.logprobs,
            top_logprobs,
            priority: self
                .job
                .as_ref()
                .map(|job| job.priority)
                .unwrap_or_default()
                .to_grpc()
                .into(),
            ignore_eos: self.ignore_eos,
            owner: String::new(),
            constraint: self.constraint()?,
        })
    }

    fn constraint(&self) -> Result<Option<v1::Constraint>, ApiError> {
        let Some(format) = &self.response_format else { return Ok(None) };
        let constraint = format.to_constraint()?;
        if constraint.is_some() && self.ignore_eos {
            let message = "response_format says where the text ends; ignore_eos goes on after it";
            return Err(ApiError::invalid("ignore_eos", message));
        }
        Ok(constraint)
    }

    fn check_redact(&self, redact: &RedactOutput) -> Result<(), ApiError> {
        if self.logprobs {
            let message = "logprobs would show the tokens that redact hides; give one of them";
            return Err(ApiError::invalid("redact", message));
        }
        redact.to_request("-").to_run().map(drop).map_err(|error| {
            let param = format!("redact.{}", error.param.as_deref().unwrap_or_default());
            error.with_param(&param)
        })
    }

    fn input(&self) -> Result<v1::generate_request::Input, ApiError> {
        match (&self.prompt, &self.messages) {
            (Some(prompt), None) => {
                check_prompt(prompt.len(), "prompt")?;
                Ok(v1::generate_request::Input::Prompt(prompt.clone()))
            }
            (None, Some(messages)) => {
                check_messages(messages)?;
                let messages = messages
                    .iter()
                    .map(|m| v1::ChatMessage {
                        role: m.role.clone(),
                        content: m.content.clone(),
                        ..v1::ChatMessage::default()
                    })
                    .collect();
                Ok(v1::generate_request::Input::Chat(v1::Chat { messages, ..v1::Chat::default() }))
            }
            (Some(_), Some(_)) => {
                Err(ApiError::invalid("messages", "give prompt or messages, not both"))
            }
            (None, None) => {
                Err(ApiError::invalid("prompt", "prompt or messages is required; both are absent"))
            }
        }
    }

    fn sampling(&self) -> Result<v1::Sampling, ApiError> {
        let logit_bias = self.logit_bias.clone().unwrap_or_default();
        if logit_bias.len() > limits::LOGIT_BIAS_MAX {
            let limit = limits::LOGIT_BIAS_MAX;
            return Err(ApiError::invalid(
                "logit_bias",
                format!("logit_bias has {} entries; at most {limit} are taken", logit_bias.len()),
            ));
        }
        for bias in logit_bias.values() {
            within("logit_bias", *bias, -100.0, 100.0)?;
        }
        Ok(v1::Sampling {
            temperature: within("temperature", self.temperature.unwrap_or(0.7), 0.0, 2.0)?,
            top_k: self.top_k.unwrap_or(0),
            top_p: above_zero("top_p", self.top_p.unwrap_or(1.0), 1.0)?,
            min_p: within("min_p", self.min_p.unwrap_or(0.0), 0.0, 1.0)?,
            repetition_penalty: above_zero(
                "repetition_penalty",
                self.repetition_penalty.unwrap_or(1.0),
                10.0,
            )?,
            presence_penalty: within(
                "presence_penalty",
                self.presence_penalty.unwrap_or(0.0),
                -2.0,
                2.0,
            )?,
            frequency_penalty: within(
                "frequency_penalty",
                self.frequency_penalty.unwrap_or(0.0),
                -2.0,
                2.0,
            )?,
            seed: self.seed,
            logit_bias: logit_bias.into_iter().collect(),
        })
    }

    fn stop_strings(&self) -> Result<Vec<String>, ApiError> {
        let stop = match &self.stop {
            None => Vec::new(),
            Some(Stop::One(text)) => vec![text.clone()],
            Some(Stop::Many(texts)) => texts.clone(),
        };
        if stop.len() > limits::STOP_STRINGS_MAX {
            let (given, limit) = (stop.len(), limits::STOP_STRINGS_MAX);
            return Err(ApiError::invalid(
                "stop",
                format!("{given} stop strings are given; at most {limit} are taken"),
            ));
        }
        if stop.iter().any(|text| text.is_empty() || text.len() > limits::STOP_BYTES_MAX) {
            let limit = limits::STOP_BYTES_MAX;
            return Err(ApiError::invalid(
                "stop",
                format!("a stop string must have between 1 and {limit} bytes"),
            ));
        }
        Ok(stop)
    }
}

fn check_prompt(bytes: usize, param: &str) -> Result<(), ApiError> {
    if bytes == 0 {
        return Err(ApiError::invalid(param, format!("{param} is empty")));
    }
    if bytes > limits::PROMPT_BYTES_MAX {
        let limit = limits::PROMPT_BYTES_MAX;
        return Err(ApiError::new(
            crate::ErrorCode::PayloadTooLarge,
            format!("{param} has {bytes} bytes; the limit is {limit}"),
        )
        .with_param(param));
    }
    Ok(())
}

fn check_messages(messages: &[ChatMessage]) -> Result<(), ApiError> {
    let (given, limit) = (messages.len(), limits::MESSAGES_MAX);
    if given == 0 || given > limit {
        return Err(ApiError::invalid(
            "messages",
            format!("{given} messages are given; between 1 and {limit} are taken"),
        ));
    }
    for (index, message) in messages.iter().enumerate() {
        if !matches!(message.role.as_str(), "system" | "developer" | "user" | "assistant" | "tool")
        {
            return Err(ApiError::invalid(
                "messages",
                format!(
                    "messages[{index}].role is {:?}; it must be system, user or assistant",
                    message.role.chars().take(32).collect::<String>()
                ),
            ));
        }
    }
    check_prompt(messages.iter().map(|message| message.content.len()).sum(), "messages")
}

fn within(param: &str, value: f32, low: f32, high: f32) -> Result<f32, ApiError> {
    if value.is_finite() && value >= low && value <= high {
        return Ok(value);
    }
    Err(ApiError::invalid(
        param,
        format!("{param} is {value}; it must be between {low} and {high}"),
    ))
}

fn above_zero(param: &str, value: f32, high: f32) -> Result<f32, ApiError> {
    if value.is_finite() && value > 0.0 && value <= high {
        return Ok(value);
    }
    Err(ApiError::invalid(
        param,
        format!("{param} is {value}; it must be above 0 and at most {high}"),
    ))
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
