//! Parameters of OpenAI's requests: which are taken, which do no harm, which are refused by name.
//!
//! The policy: a parameter that changes nothing here is accepted in silence, because official
//! clients and frameworks send it unasked; one that would change the answer and is not done is
//! refused with its name; one that nobody knows is refused as OpenAI refuses it. `null` is the same
//! as absent.

use std::collections::BTreeMap;

use aisemble_protocol::completion::{CompletionRequest, Stop};
use aisemble_protocol::{ApiError, v1};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::super::extract::field_error;

/// Accepted and without effect.
const HARMLESS: [&str; 10] = [
    "user",
    "metadata",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "parallel_tool_calls",
    "prediction",
    "verbosity",
    "reasoning_effort",
];

/// A parameter, and whether a value of it asks for nothing.
type NotDone = (&'static str, fn(&Value) -> bool);

/// Refused unless they ask for nothing.
const NOT_DONE: [NotDone; 11] = [
    ("tools", is_empty),
    ("functions", is_empty),
    ("tool_choice", |value| value == "none" || value == "auto"),
    ("function_call", |value| value == "none" || value == "auto"),
    ("response_format", |value| value["type"] == "text"),
    ("store", |value| *value == Value::Bool(false)),
    ("modalities", |value| *value == serde_json::json!(["text"])),
    ("audio", |_| false),
    ("web_search_options", |_| false),
    ("suffix", |value| value == ""),
    ("echo", |value| *value == Value::Bool(false)),
];

fn is_empty(value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty)
}

/// What chat and text completions have in common.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Sampling {
    pub(super) temperature: Option<f32>,
    pub(super) top_p: Option<f32>,
    /// Completions of each prompt.
    pub(super) n: Option<usize>,
    pub(super) seed: Option<i64>,
    #[schema(value_type = Option<Vec<String>>)]
    pub(super) stop: Option<Stop>,
    pub(super) presence_penalty: Option<f32>,
    pub(super) frequency_penalty: Option<f32>,
    pub(super) logit_bias: Option<BTreeMap<u32, f32>>,
    /// Beyond OpenAI: sample among the k likeliest.
    pub(super) top_k: Option<u32>,
    /// Beyond OpenAI: leave out tokens less likely than this share of the likeliest.
    pub(super) min_p: Option<f32>,
    /// Beyond OpenAI: sample among the tokens whose information is the closest to what is expected,
    /// that make up this probability.
    pub(super) typical_p: Option<f32>,
    /// Beyond OpenAI: divides the logits of tokens seen before.
    pub(super) repetition_penalty: Option<f32>,
    /// Beyond OpenAI: go on after the end-of-sequence token; for benchmarks.
    pub(super) ignore_eos: Option<bool>,
    pub(super) stream: Option<bool>,
    pub(super) stream_options: Option<StreamOptions>,
}

/// How a stream is to look.
#[derive(Debug, Default, Clone, Copy, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct StreamOptions {
    /// Send the usage in a last chunk.
    #[serde(default)]
    pub(super) include_usage: Option<bool>,
    /// Accepted and without effect.
    #[serde(default, rename = "include_obfuscation")]
    _include_obfuscation: Option<bool>,
}

const SAMPLING_FIELDS: [&str; 15] = [
    "temperature",
    "top_p",
    "n",
    "seed",
    "stop",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "top_k",
    "min_p",
    "typical_p",
    "repetition_penalty",
    "ignore_eos",
    "stream",
    "stream_options",
];

/// Splits a body into what both kinds of completion share and what is the route's own.
///
/// # Errors
/// `invalid_request`, naming the parameter.
pub(super) fn read<T: DeserializeOwned>(
    mut body: Map<String, Value>,
    own_fields: &[&str],
) -> Result<(Sampling, T), ApiError> {
    body.retain(|name, value| {
        let name = name.as_str();
        !value.is_null() && (!HARMLESS.contains(&name) || own_fields.contains(&name))
    });
    for (name, asks_for_nothing) in NOT_DONE {
        if !own_fields.contains(&name)
            && let Some(value) = body.remove(name)
            && !asks_for_nothing(&value)
        {
            return Err(ApiError::invalid(name, format!("{name} is not supported yet")));
        }
    }
    let (mut sampling, mut own) = (Map::new(), Map::new());
    for (name, value) in body {
        if SAMPLING_FIELDS.contains(&name.as_str()) {
            sampling.insert(name, value);
        } else if own_fields.contains(&name.as_str()) {
            own.insert(name, value);
        } else {
            return Err(unrecognized(&name));
        }
    }
    let sampling: Sampling = typed(Value::Object(sampling))?;
    if sampling.stream_options.is_some() && sampling.stream != Some(true) {
        let message = "stream_options is only allowed when stream is true";
        return Err(ApiError::invalid("stream_options", message));
    }
    Ok((sampling, typed(Value::Object(own))?))
}

/// A body of a route that shares nothing with completions.
///
/// # Errors
/// `invalid_request`, naming the parameter.
pub(super) fn read_own<T: DeserializeOwned>(
    mut body: Map<String, Value>,
    own_fields: &[&str],
) -> Result<T, ApiError> {
    body.retain(|name, value| !value.is_null() && name != "user");
    if let Some(name) = body.keys().find(|name| !own_fields.contains(&name.as_str())) {
        return Err(unrecognized(name));
    }
    typed(Value::Object(body))
}

pub(super) fn unrecognized(name: &str) -> ApiError {
    let shown: String = name.chars().take(64).collect();
    let message = format!("Unrecognized request argument supplied: {shown}");
    ApiError::invalid(&shown, message)
}

/// A JSON value as a type; the error names the field.
pub(super) fn typed<T: DeserializeOwned>(value: Value) -> Result<T, ApiError> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        field_error(&path, &error.into_inner().to_string())
    })
}

impl Sampling {
    /// The request that has these parameters, OpenAI's defaults for the rest, and no input yet.
    pub(super) fn request(&self, model: &str) -> CompletionRequest {
        CompletionRequest {
            model: Some(model.to_owned()).filter(|model| !model.is_empty()),
            temperature: Some(self.temperature.unwrap_or(1.0)),
            top_p: self.top_p,
            top_k: self.top_k,
            min_p: self.min_p,
            typical_p: self.typical_p,
            repetition_penalty: self.repetition_penalty,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            seed: self.seed.map(i64::cast_unsigned),
            stop: self.stop.clone(),
            logit_bias: self.logit_bias.clone(),
            ignore_eos: self.ignore_eos.unwrap_or(false),
            ..CompletionRequest::default()
        }
    }

    /// Whether the last chunk is to carry the usage.
    pub(super) fn include_usage(&self) -> bool {
        self.stream_options.and_then(|options| options.include_usage).unwrap_or(false)
    }

    /// The requests of one prompt: `n`, each with a seed of its own when one is given.
    ///
    /// # Errors
    /// `invalid_request`, naming the field.
    pub(super) fn repeated(
        &self,
        request: &CompletionRequest,
        choices_max: usize,
    ) -> Result<Vec<v1::GenerateRequest>, ApiError> {
        let n = self.n.unwrap_or(1);
        if n == 0 || n > choices_max {
            let message = format!("n is {n}; it must be between 1 and {choices_max}");
            return Err(ApiError::invalid("n", message));
        }
        let first = request.to_generate()?;
        let copies = (0_u64..).take(n).map(|index| {
            let mut copy = first.clone();
            if let Some(sampling) = &mut copy.sampling {
                sampling.seed = sampling.seed.map(|seed| seed.wrapping_add(index));
            }
            copy
        });
        Ok(copies.collect())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Own {
        model: Option<String>,
    }

    fn check(body: Value, param: Option<&str>) {
        let Value::Object(map) = body.clone() else { panic!("an object") };
        let read = read::<Own>(map, &["model"]);
        match param {
            None => {
                let (_, own) = read.unwrap_or_else(|error| panic!("{body}: {error}"));
                assert!(own.model.is_some());
            }
            Some(param) => {
                assert_eq!(read.unwrap_err().param.as_deref(), Some(param), "{body}");
            }
        }
    }

    #[test]
    fn the_list_of_fields_is_that_of_the_type() {
        let all = SAMPLING_FIELDS.iter().map(|name| ((*name).to_owned(), Value::Null));
        let read: Sampling = typed(Value::Object(all.collect())).unwrap();
        assert!(read.temperature.is_none());
    }

    #[test]
    fn parameters_are_taken_passed_over_or_refused_by_name() {
        check(json!({"model": "m", "user": "u", "metadata": {}, "store": false}), None);
        check(json!({"model": "m", "tools": [], "response_format": {"type": "text"}}), None);
        check(json!({"model": "m", "stop": null, "tools": null, "audio": null}), None);
        check(json!({"model": "m", "store": true}), Some("store"));
        check(json!({"model": "m", "tools": [{}]}), Some("tools"));
        check(json!({"model": "m", "tool_choice": "required"}), Some("tool_choice"));
        let format = json!({"type": "json_object"});
        check(json!({"model": "m", "response_format": format}), Some("response_format"));
        check(json!({"model": "m", "temprature": 1}), Some("temprature"));
        check(json!({"model": "m", "temperature": "hot"}), Some("temperature"));
        check(json!({"model": "m", "n": -1}), Some("n"));
        check(json!({"model": 7}), Some("model"));
        let options = json!({"include_usage": true});
        check(json!({"model": "m", "stream_options": options}), Some("stream_options"));
        check(json!({"model": "m", "stream": true, "stream_options": options}), None);
    }

    #[test]
    fn n_completions_have_n_seeds() {
        let sampling = Sampling { n: Some(3), seed: Some(-1), ..Sampling::default() };
        let mut request = sampling.request("m");
        request.prompt = Some("a".to_owned());
        let seeds: Vec<_> = sampling
            .repeated(&request, 4)
            .unwrap()
            .into_iter()
            .map(|request| request.sampling.unwrap().seed)
            .collect();
        assert_eq!(seeds, [Some(u64::MAX), Some(0), Some(1)]);
        assert_eq!(sampling.repeated(&request, 2).unwrap_err().param.as_deref(), Some("n"));
    }
}
