//! `POST /v1/completions`.

use std::sync::Arc;

use aisemble_protocol::ApiError;
use aisemble_protocol::completion::CompletionResult;
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
use super::shapes::{Completion, TextChoice, UsageObject};
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
    /// Make so many of each prompt and give the `n` of the highest log-probability a token; at
    /// least `n`. Not with `stream`.
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
    let (plan, choice) = plan(body, app.limits.choices_max)?;
    if plan.stream {
        return Ok(stream::respond(&app, &origin, plan, Form::Text).await?);
    }
    let results = super::complete(&app, &origin, &plan).await?;
    Ok(Body(choice.answer(results, plan.per_prompt)).into_response())
}

/// Continues texts that nobody is connected for.
pub(super) async fn answer_line(
    app: &App,
    origin: &Origin,
    body: Map<String, Value>,
) -> Result<Value, ApiError> {
    let (plan, choice) = plan(body, app.limits.choices_max)?;
    let results = super::complete(app, origin, &plan).await?;
    super::lines::written(&choice.answer(results, plan.per_prompt))
}

/// Which of the completions of a prompt are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Choice {
    n: usize,
    /// The caller wants them, not only the choice.
    logprobs: bool,
}

impl Choice {
    /// The answer of all results, `made` of each prompt; the usage is that of all.
    fn answer(self, results: Vec<CompletionResult>, made: usize) -> Completion<TextChoice> {
        let usage = UsageObject::of_results(&results, made);
        answer::text(self.best(results, made), usage)
    }

    fn best(self, results: Vec<CompletionResult>, made: usize) -> Vec<CompletionResult> {
        if made == self.n {
            return results;
        }
        let mut best = Vec::new();
        let mut results = results.into_iter().peekable();
        while results.peek().is_some() {
            let mut of_prompt: Vec<_> = results.by_ref().take(made.max(1)).collect();
            // Stable: the first of equals.
            of_prompt.sort_by(|a, b| likelihood(b).total_cmp(&likelihood(a)));
            of_prompt.truncate(self.n);
            best.extend(of_prompt);
        }
        if !self.logprobs {
            best.iter_mut().for_each(|result| result.logprobs = None);
        }
        best
    }
}

/// The mean log-probability of a completion's tokens.
fn likelihood(result: &CompletionResult) -> f64 {
    let tokens = result.logprobs.as_deref().unwrap_or_default();
    let sum: f64 = tokens.iter().map(|token| f64::from(token.logprob)).sum();
    if tokens.is_empty() { f64::NEG_INFINITY } else { sum / tokens.len() as f64 }
}

fn plan(body: Map<String, Value>, choices_max: usize) -> Result<(Plan, Choice), ApiError> {
    let (sampling, text): (Sampling, TextRequest) = params::read(body, &OWN_FIELDS)?;
    let n = sampling.n.unwrap_or(1);
    let made = text.best_of.unwrap_or(n);
    let stream = sampling.stream == Some(true);
    if made < n {
        let message = format!("best_of is {made}; it must be at least n, which is {n}");
        return Err(ApiError::invalid("best_of", message));
    }
    if made > n && stream {
        let message = "best_of chooses when all are made; it cannot be streamed";
        return Err(ApiError::invalid("best_of", message));
    }
    let prompts = match text.prompt {
        Prompt::One(prompt) => vec![prompt],
        Prompt::Many(prompts) => prompts,
        Prompt::Other(_) => {
            let message = "prompt must be a text or a list of texts; token ids are not taken";
            return Err(ApiError::invalid("prompt", message));
        }
    };
    if prompts.is_empty() || prompts.len().saturating_mul(made) > choices_max {
        let message = format!("prompts times n or best_of must be between 1 and {choices_max}");
        return Err(ApiError::invalid("prompt", message));
    }
    let mut request = sampling.request(&text.model);
    request.max_tokens = Some(text.max_tokens.unwrap_or(MAX_TOKENS_DEFAULT));
    let logprobs = text.logprobs.is_some();
    (request.logprobs, request.top_logprobs) = (logprobs || made > n, text.logprobs);
    let sampling = Sampling { n: Some(made), ..sampling };
    let mut generations = Vec::new();
    for prompt in prompts {
        request.prompt = Some(prompt);
        generations.extend(sampling.repeated(&request, choices_max)?);
    }
    let include_usage = sampling.include_usage();
    let plan = Plan { generations, per_prompt: made, stream, include_usage, offer: None };
    Ok((plan, Choice { n, logprobs }))
}

#[cfg(test)]
mod tests {
    use aisemble_protocol::completion::{Timings, TokenLogprob, Usage};
    use serde_json::json;

    use super::*;

    fn read(body: Value) -> Result<Plan, ApiError> {
        let Value::Object(body) = body else { panic!("an object") };
        plan(body, 8).map(|(plan, _)| plan)
    }

    #[test]
    fn prompts_times_n_are_the_choices() {
        let plan = read(json!({"prompt": ["a", "b"], "n": 3, "logprobs": 2})).unwrap();
        assert_eq!((plan.generations.len(), plan.per_prompt), (6, 3));
        assert!(plan.generations.iter().all(|one| one.max_tokens == 16 && one.top_logprobs == 2));
    }

    #[test]
    fn the_best_of_each_prompt_are_given() {
        let made = |text: &str, logprobs: &[f32]| CompletionResult {
            job_id: None,
            model: "m".to_owned(),
            model_sha256: String::new(),
            text: text.to_owned(),
            tool_calls: Vec::new(),
            finish_reason: "stop".to_owned(),
            seed: 0,
            usage: Usage { completion_tokens: 2, prompt_tokens: 3, ..Usage::default() },
            timings: Timings::default(),
            logprobs: Some(
                logprobs
                    .iter()
                    .map(|logprob| TokenLogprob {
                        token: String::new(),
                        logprob: *logprob,
                        bytes: Vec::new(),
                        top_logprobs: Vec::new(),
                    })
                    .collect(),
            ),
            redactions: None,
        };
        // By the mean, not by the sum; an empty one is the last.
        let results = vec![
            made("a", &[-3.0]),
            made("b", &[-2.0, -2.0]),
            made("c", &[]),
            made("d", &[-1.0]),
            made("e", &[-1.0]),
            made("f", &[-0.5]),
        ];
        let choice = Choice { n: 1, logprobs: false };
        let answer = serde_json::to_value(choice.answer(results, 3)).unwrap();
        let texts: Vec<_> = answer["choices"].as_array().unwrap().iter().collect();
        assert_eq!(texts.len(), 2);
        assert_eq!((&texts[0]["text"], &texts[1]["text"]), (&json!("b"), &json!("f")));
        assert_eq!(texts[1]["logprobs"], Value::Null);
        assert_eq!(answer["usage"]["prompt_tokens"], 6);
        assert_eq!(answer["usage"]["completion_tokens"], 12);
    }

    #[test]
    fn what_is_not_done_is_named() {
        let check = |body: Value, param: &str| {
            assert_eq!(read(body).err().unwrap().param.as_deref(), Some(param));
        };
        check(json!({"prompt": [1, 2]}), "prompt");
        check(json!({"prompt": []}), "prompt");
        check(json!({"prompt": ["a", "b", "c"], "n": 3}), "prompt");
        check(json!({"prompt": "a", "n": 3, "best_of": 2}), "best_of");
        check(json!({"prompt": "a", "best_of": 2, "stream": true}), "best_of");
        check(json!({"prompt": "a", "best_of": 9}), "prompt");
        check(json!({"prompt": "a", "echo": true}), "echo");
        check(json!({"prompt": "a", "suffix": "b"}), "suffix");
    }
}
