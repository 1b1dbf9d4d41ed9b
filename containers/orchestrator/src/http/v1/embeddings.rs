//! `POST /v1/embeddings`.

use std::sync::Arc;

use aisemble_protocol::nlp::{EmbedRequest, EmbedResult, Texts};
use aisemble_protocol::{ApiError, ErrorCode, limits};
use axum::Json as Body;
use axum::extract::State;
use base64::Engine as _;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::super::error::{Failure, OpenAiError};
use super::super::extract::{From, Json};
use super::params;
use crate::app::{App, Origin};

const OWN_FIELDS: [&str; 4] = ["input", "model", "encoding_format", "dimensions"];

/// What is to be embedded, and how the vectors are to be written.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct EmbeddingsRequest {
    /// A text, several texts, the token ids of a text, or those of several.
    #[schema(value_type = Vec<String>)]
    input: Option<Value>,
    /// The model; empty or absent = the first one that makes embeddings.
    #[serde(default)]
    model: String,
    /// `float` (the default) or `base64`: little-endian 32-bit floats.
    #[serde(default)]
    encoding_format: Encoding,
    /// The leading values only, normalised again; for models that are trained for it.
    dimensions: Option<u32>,
}

/// How a vector is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::http) enum Encoding {
    /// Numbers.
    #[default]
    Float,
    /// The base64 of little-endian 32-bit floats.
    Base64,
}

/// The embeddings.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct EmbeddingList {
    /// Always `list`.
    object: &'static str,
    /// One an input, in order.
    data: Vec<Embedding>,
    /// The model that answered.
    model: String,
    /// Tokens.
    usage: EmbeddingUsage,
}

/// One embedding.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct Embedding {
    /// Always `embedding`.
    object: &'static str,
    /// Place of its input, from 0.
    index: u32,
    /// The vector, as asked for.
    #[schema(value_type = Vec<f32>)]
    embedding: Vector,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Vector {
    Numbers(Vec<f32>),
    Text(String),
}

/// Tokens in.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub(in crate::http) struct EmbeddingUsage {
    prompt_tokens: u32,
    total_tokens: u32,
}

/// Makes embeddings, as OpenAI does. Long inputs are computed in windows, never cut.
#[utoipa::path(post, path = "/v1/embeddings", tag = "openai", security(("key" = ["nlp"])),
    request_body = EmbeddingsRequest,
    responses((status = 200, body = EmbeddingList), (status = "default", body = OpenAiError)))]
pub(in crate::http) async fn create(
    State(app): State<Arc<App>>,
    From(origin): From,
    Json(body): Json<Map<String, Value>>,
) -> Result<Body<EmbeddingList>, Failure> {
    let request: EmbeddingsRequest = params::read_own(body, &OWN_FIELDS)?;
    let encoding = request.encoding_format;
    let result = app.nlp(&origin, &embed_request(request)?).await.map_err(renamed)?;
    Ok(Body(answer(result, encoding)))
}

/// Makes embeddings that nobody is connected for.
pub(super) async fn answer_line(
    app: &App,
    origin: &Origin,
    body: Map<String, Value>,
) -> Result<Value, ApiError> {
    let request: EmbeddingsRequest = params::read_own(body, &OWN_FIELDS)?;
    let encoding = request.encoding_format;
    let result = app.nlp(origin, &embed_request(request)?).await.map_err(renamed)?;
    super::lines::written(&answer(result, encoding))
}

fn embed_request(request: EmbeddingsRequest) -> Result<EmbedRequest, ApiError> {
    let EmbeddingsRequest { input, model, dimensions, .. } = request;
    let mut embed = EmbedRequest {
        model: Some(model).filter(|model| !model.is_empty()),
        dimensions,
        ..EmbedRequest::default()
    };
    let Some(input) = input else {
        return Err(ApiError::invalid("input", "you must provide input"));
    };
    match read_input(input)? {
        Input::Texts(texts) => embed.texts = Some(Texts::Many(texts)),
        Input::Tokens(lists) => embed.tokens = Some(lists),
    }
    Ok(embed)
}

#[derive(Debug, PartialEq)]
enum Input {
    Texts(Vec<String>),
    Tokens(Vec<Vec<u32>>),
}

/// A text, texts, token ids, or lists of token ids; the first element says which.
fn read_input(input: Value) -> Result<Input, ApiError> {
    let items = match input {
        Value::String(text) => vec![Value::String(text)],
        Value::Array(items) if items.first().is_some_and(Value::is_number) => {
            vec![Value::Array(items)]
        }
        Value::Array(items) => items,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => {
            return Err(wrong_input());
        }
    };
    let max = limits::NLP_TEXTS_MAX;
    if items.is_empty() || items.len() > max {
        let message = format!("input has {} items; it must have between 1 and {max}", items.len());
        return Err(ApiError::invalid("input", message));
    }
    if items.first().is_some_and(Value::is_string) {
        let texts = items.into_iter().map(|item| match item {
            Value::String(text) if text.is_empty() => {
                Err(ApiError::invalid("input", "input cannot be an empty string"))
            }
            Value::String(text) => Ok(text),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Array(_)
            | Value::Object(_) => Err(wrong_input()),
        });
        return Ok(Input::Texts(texts.collect::<Result<_, _>>()?));
    }
    let lists = items.into_iter().map(|item| match serde_json::from_value::<Vec<u32>>(item) {
        Ok(ids) if ids.is_empty() => {
            Err(ApiError::invalid("input", "input cannot be an empty array"))
        }
        Ok(ids) => Ok(ids),
        Err(_) => Err(wrong_input()),
    });
    Ok(Input::Tokens(lists.collect::<Result<_, _>>()?))
}

fn wrong_input() -> ApiError {
    let message = "input must be a string, an array of strings, an array of token ids, or an array \
                   of arrays of token ids";
    ApiError::invalid("input", message)
}

/// The caller knows no `texts` and `tokens`.
pub(super) fn renamed(error: ApiError) -> ApiError {
    match (error.code, error.param.as_deref()) {
        (_, Some("texts" | "tokens")) => error.with_param("input"),
        // No model here makes embeddings: what a client of OpenAI calls a model that is not there.
        (ErrorCode::Unprocessable, Some("model") | None) => {
            ApiError::new(ErrorCode::NotFound, error.message).with_param("model")
        }
        (_, _) => error,
    }
}

fn answer(result: EmbedResult, encoding: Encoding) -> EmbeddingList {
    let tokens = result.usage.tokens;
    let data = result.results.into_iter().map(|one| Embedding {
        object: "embedding",
        index: one.index,
        embedding: written(one.embedding.unwrap_or_default(), encoding),
    });
    EmbeddingList {
        object: "list",
        data: data.collect(),
        model: result.model,
        usage: EmbeddingUsage { prompt_tokens: tokens, total_tokens: tokens },
    }
}

fn written(values: Vec<f32>, encoding: Encoding) -> Vector {
    match encoding {
        Encoding::Float => Vector::Numbers(values),
        Encoding::Base64 => {
            let bytes: Vec<u8> = values.into_iter().flat_map(f32::to_le_bytes).collect();
            Vector::Text(base64::engine::general_purpose::STANDARD.encode(bytes))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_four_forms_of_input_are_told_apart() {
        let texts = |all: &[&str]| Input::Texts(all.iter().map(|text| (*text).into()).collect());
        assert_eq!(read_input(json!("a")).unwrap(), texts(&["a"]));
        assert_eq!(read_input(json!(["a", "b"])).unwrap(), texts(&["a", "b"]));
        assert_eq!(read_input(json!([1, 2])).unwrap(), Input::Tokens(vec![vec![1, 2]]));
        let lists = Input::Tokens(vec![vec![1], vec![2, 3]]);
        assert_eq!(read_input(json!([[1], [2, 3]])).unwrap(), lists);
    }

    #[test]
    fn what_is_none_of_them_is_refused() {
        let check = |input: Value, sentence: &str| {
            let error = read_input(input.clone()).unwrap_err();
            assert_eq!(error.param.as_deref(), Some("input"), "{input}");
            assert!(error.message.contains(sentence), "{input}: {}", error.message);
        };
        check(json!(""), "cannot be an empty string");
        check(json!([]), "between 1 and 2048");
        check(json!(vec!["a"; 2_049]), "2049 items");
        check(json!(["a", 1]), "must be a string");
        check(json!(["a", ""]), "empty string");
        check(json!([[]]), "empty array");
        check(json!([[1], "a"]), "must be a string");
        check(json!([-1]), "must be a string");
        check(json!([1.5]), "must be a string");
        check(json!({"text": "a"}), "must be a string");
    }

    #[test]
    fn base64_is_little_endian() {
        let Vector::Text(text) = written(vec![1.0, -2.5], Encoding::Base64) else { panic!() };
        assert_eq!(text, "AACAPwAAIMA=");
    }

    proptest! {
        #[test]
        fn no_input_panics(text in "\\PC{0,64}") {
            if let Ok(value) = serde_json::from_str::<Value>(&text) {
                let _ = read_input(value);
            }
        }
    }
}
