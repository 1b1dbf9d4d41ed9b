//! `POST /v1/completions`.

use std::sync::Arc;

use aisemble_protocol::ApiError;
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
use super::shapes::{Completion, TextChoice};
use super::{Plan, stream};
use crate::app::{App, Origin};

const OWN_FIELDS: [&str; 5] = ["model", "prompt", "max_tokens", "logprobs", "best_of"];
/// OpenAI's default.
const MAX_TOKENS_DEFAULT: u32 = 16;

/// The parameters that only text completions have.
#[derive(Debug, Deserialize, ToSchema)]
pub(in crate::http) struct TextRequest {
    /// The model; empty or absent = the first one.
    #[serde(default)]
    model: String,
    /// The text to go on from, or several.
    #[schema(value_type = Vec<String>)]
    prompt: Prompt,
    /// Tokens at most; default 16.
    max_tokens: Option<u32>,
    /// Give the log-probability of each token, and of so many alternatives.
    logprobs: Option<u32>,
    /// Only as many as `n`.
    best_of: Option<usize>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Prompt {
    One(String),
    Many(Vec<String>),
    /// Token ids, which are not taken.
    Other(serde::de::IgnoredAny),
}

/// Continues texts, as OpenAI's older route does.
#[utoipa::path(post, path = "/v1/completions", tag = "openai", security(("key" = ["llm"])),
    request_body = TextRequest,
    responses((status = 200, body = Completion<TextChoice>,
            description = "or events `text_completion` when `stream` is true"),
        (status = "default", body = OpenAiError)))]
pub(in crate::http) async fn create(
    State(app): State<Arc<App>>,
    From(origin): From,
    Json(body): Json<Map<String, Value>>,
) -> Result<Response, Failure> {
    let plan = plan(body, app.limits.choices_max)?;
    if plan.stream {
        return Ok(stream::respond(&app, &origin, plan, Form::Text).await?);
    }
    let results = super::complete(&app, &origin, &plan).await?;
    Ok(Body(answer::text(results, plan.per_prompt)).into_response())
}

/// Continues texts that nobody is connected for.
pub(super) async fn answer_line(
    app: &App,
    origin: &Origin,
    body: Map<String, Value>,
) -> Result<Value, ApiError> {
    let plan = plan(body, app.limits.choices_max)?;
    let results = super::complete(app, origin, &plan).await?;
    super::lines::written(&answer::text(results, plan.per_prompt))
}

fn plan(body: Map<String, Value>, choices_max: usize) -> Result<Plan, ApiError> {
    let (sampling, text): (Sampling, TextRequest) = params::read(body, &OWN_FIELDS)?;
    let n = sampling.n.unwrap_or(1);
    if text.best_of.is_some_and(|best_of| best_of != n) {
        return Err(ApiError::invalid("best_of", "best_of other than n is not supported"));
    }
    let prompts = match text.prompt {
        Prompt::One(prompt) => vec![prompt],
        Prompt::Many(prompts) => prompts,
        Prompt::Other(_) => {
            let message = "prompt must be a text or a list of texts; token ids are not taken";
            return Err(ApiError::invalid("prompt", message));
        }
    };
    if prompts.is_empty() || prompts.len().saturating_mul(n) > choices_max {
        let message = format!("prompts times n must be between 1 and {choices_max}");
        return Err(ApiError::invalid("prompt", message));
    }
    let mut request = sampling.request(&text.model);
    request.max_tokens = Some(text.max_tokens.unwrap_or(MAX_TOKENS_DEFAULT));
    (request.logprobs, request.top_logprobs) = (text.logprobs.is_some(), text.logprobs);
    let mut generations = Vec::new();
    for prompt in prompts {
        request.prompt = Some(prompt);
        generations.extend(sampling.repeated(&request, choices_max)?);
    }
    let (stream, include_usage) = (sampling.stream == Some(true), sampling.include_usage());
    Ok(Plan { generations, per_prompt: n, stream, include_usage })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(body: Value) -> Result<Plan, ApiError> {
        let Value::Object(body) = body else { panic!("an object") };
        plan(body, 8)
    }

    #[test]
    fn prompts_times_n_are_the_choices() {
        let plan = read(json!({"prompt": ["a", "b"], "n": 3, "logprobs": 2})).unwrap();
        assert_eq!((plan.generations.len(), plan.per_prompt), (6, 3));
        assert!(plan.generations.iter().all(|one| one.max_tokens == 16 && one.top_logprobs == 2));
    }

    #[test]
    fn what_is_not_done_is_named() {
        let check = |body: Value, param: &str| {
            assert_eq!(read(body).err().unwrap().param.as_deref(), Some(param));
        };
        check(json!({"prompt": [1, 2]}), "prompt");
        check(json!({"prompt": []}), "prompt");
        check(json!({"prompt": ["a", "b", "c"], "n": 3}), "prompt");
        check(json!({"prompt": "a", "best_of": 2}), "best_of");
        check(json!({"prompt": "a", "echo": true}), "echo");
        check(json!({"prompt": "a", "suffix": "b"}), "suffix");
    }
}
