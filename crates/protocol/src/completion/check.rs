//! The check of a completion's request, and the request as a service takes it.

use super::{ChatMessage, CompletionRequest, RedactOutput, Stop};
use crate::error::ApiError;
use crate::nlp::NlpTask as _;
use crate::tools::{Offer, ToolCall};
use crate::{limits, v1};

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
        let offer = self.offer()?;
        Ok(v1::GenerateRequest {
            request_id: String::new(),
            job_id: String::new(),
            model: self.model.clone().unwrap_or_default(),
            input: Some(self.input(offer.as_ref())?),
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
            constraint: self.constraint(offer.as_ref())?,
        })
    }

    /// What the model may call; `None` when it can call nothing.
    ///
    /// # Errors
    /// `invalid_request` or `payload_too_large`, naming the place.
    pub fn offer(&self) -> Result<Option<Offer>, ApiError> {
        let offer = Offer::read(&self.tools, self.tool_choice.as_ref(), self.parallel_tool_calls)?;
        if offer.is_some() && self.messages.is_none() {
            return Err(ApiError::invalid("tools", "tools are for chats; give messages"));
        }
        Ok(offer)
    }

    fn constraint(&self, offer: Option<&Offer>) -> Result<Option<v1::Constraint>, ApiError> {
        let format = match &self.response_format {
            Some(format) => format.to_constraint()?,
            None => None,
        };
        let constraint = match offer {
            Some(offer) => offer.constraint(format)?,
            None => format,
        };
        if constraint.is_some() && self.ignore_eos {
            let message = "what the text must be says where it ends; ignore_eos goes on after it";
            return Err(ApiError::invalid("ignore_eos", message));
        }
        Ok(constraint)
    }

    fn check_redact(&self, redact: &RedactOutput) -> Result<(), ApiError> {
        if self.logprobs {
            let message = "logprobs would show the tokens that redact hides; give one of them";
            return Err(ApiError::invalid("redact", message));
        }
        if !self.tools.is_empty() {
            let message = "redact hides nothing in the arguments of calls; give one of them";
            return Err(ApiError::invalid("redact", message));
        }
        redact.to_request("-").to_run().map(drop).map_err(|error| {
            let param = format!("redact.{}", error.param.as_deref().unwrap_or_default());
            error.with_param(&param)
        })
    }

    fn input(&self, offer: Option<&Offer>) -> Result<v1::generate_request::Input, ApiError> {
        match (&self.prompt, &self.messages) {
            (Some(prompt), None) => {
                check_prompt(prompt.len(), "prompt")?;
                Ok(v1::generate_request::Input::Prompt(prompt.clone()))
            }
            (None, Some(messages)) => {
                check_messages(messages)?;
                let messages = messages.iter().map(to_grpc).collect();
                let tools = offer.map(Offer::text).unwrap_or_default().to_owned();
                Ok(v1::generate_request::Input::Chat(v1::Chat { messages, tools }))
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
            typical_p: above_zero("typical_p", self.typical_p.unwrap_or(1.0), 1.0)?,
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
                    "messages[{index}].role is {:?}; it must be system, user, assistant or tool",
                    message.role.chars().take(32).collect::<String>()
                ),
            ));
        }
    }
    for (index, message) in messages.iter().enumerate() {
        check_calls(message, &format!("messages[{index}].tool_calls"))?;
    }
    let called = |call: &ToolCall| call.function.name.len() + call.function.arguments.len();
    let bytes = |message: &ChatMessage| {
        message.content.len() + message.tool_calls.iter().map(called).sum::<usize>()
    };
    check_prompt(messages.iter().map(bytes).sum(), "messages")
}

fn check_calls(message: &ChatMessage, place: &str) -> Result<(), ApiError> {
    let (given, limit) = (message.tool_calls.len(), limits::TOOL_CALLS_MAX);
    if given > limit {
        let message = format!("{place} has {given} calls; at most {limit} are taken");
        return Err(ApiError::invalid(place, message));
    }
    if given > 0 && message.role != "assistant" {
        return Err(ApiError::invalid(place, format!("{place}: only an assistant calls")));
    }
    Ok(())
}

fn to_grpc(message: &ChatMessage) -> v1::ChatMessage {
    let tool_calls = match message.tool_calls.as_slice() {
        [] => String::new(),
        calls => serde_json::json!(calls).to_string(),
    };
    v1::ChatMessage {
        role: message.role.clone(),
        content: message.content.clone(),
        tool_calls,
        tool_call_id: message.tool_call_id.clone().unwrap_or_default(),
    }
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
