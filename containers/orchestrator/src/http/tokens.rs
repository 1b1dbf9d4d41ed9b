//! `POST /tokenize` and `POST /detokenize`, as vLLM has them; llama.cpp's fields are taken too.

use std::sync::Arc;

use aisemble_protocol::completion::{ChatMessage, CompletionRequest};
use aisemble_protocol::v1::generate_request::Input;
use aisemble_protocol::v1::tokenize_request;
use aisemble_protocol::{ApiError, v1};
use axum::Json as Body;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::error::{Failure, Problem};
use super::extract::{From, Json};
use crate::app::App;

/// A text or chat to make tokens of.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TokenizeRequest {
    /// The model; absent = the first one.
    model: Option<String>,
    /// The text; control tokens in it count.
    prompt: Option<String>,
    /// The text, as llama.cpp calls it.
    content: Option<String>,
    /// A chat, through the model's template; ready for the assistant's answer.
    messages: Option<Vec<ChatMessage>>,
    /// Functions of the chat.
    #[schema(value_type = Vec<Object>)]
    tools: Vec<serde_json::Value>,
    /// Whether a text begins with the beginning-of-sequence token, where the model wants it;
    /// default true, with `content` false.
    add_special_tokens: Option<bool>,
    /// The same, as llama.cpp calls it.
    add_special: Option<bool>,
    /// Give the text of each token as well.
    return_token_strs: bool,
    /// Give each token with its text, as llama.cpp does.
    with_pieces: bool,
}

/// Tokens.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Tokenized {
    /// How many.
    count: usize,
    /// The model's context.
    max_model_len: u32,
    /// Their ids; with `with_pieces`, objects of `id` and `piece`.
    tokens: Tokens,
    /// The text of each; bytes that are a part of a character are U+FFFD.
    #[serde(skip_serializing_if = "Option::is_none")]
    token_strs: Option<Vec<String>>,
}

/// Ids, with their texts where that was asked.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
enum Tokens {
    Ids(Vec<u32>),
    Pieces(Vec<Piece>),
}

/// A token and its text.
#[derive(Debug, Serialize, ToSchema)]
struct Piece {
    id: u32,
    piece: String,
}

/// Tokens to make a text of.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DetokenizeRequest {
    /// The model; absent = the first one.
    #[serde(default)]
    model: Option<String>,
    /// Their ids.
    tokens: Vec<u32>,
}

/// The text of tokens, control tokens included.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Detokenized {
    /// As vLLM calls it.
    prompt: String,
    /// The same, as llama.cpp calls it.
    content: String,
}

impl TokenizeRequest {
    /// The request as a service takes it; none for an empty text.
    fn to_grpc(&self) -> Result<Option<v1::TokenizeRequest>, ApiError> {
        let (prompt, add) = match (&self.prompt, &self.content) {
            (Some(_), Some(_)) => {
                return Err(ApiError::invalid("content", "give prompt or content, not both"));
            }
            (None, Some(content)) => (Some(content.clone()), false),
            (prompt, None) => (prompt.clone(), true),
        };
        if self.messages.is_none() && prompt.as_deref() == Some("") {
            return Ok(None);
        }
        let request = CompletionRequest {
            prompt,
            messages: self.messages.clone(),
            tools: self.tools.clone(),
            ..CompletionRequest::default()
        };
        let input = request.to_generate()?.input.map(|input| match input {
            Input::Prompt(prompt) => tokenize_request::Input::Prompt(prompt),
            Input::Chat(chat) => tokenize_request::Input::Chat(chat),
        });
        let add_special = self.add_special_tokens.or(self.add_special).unwrap_or(add);
        Ok(Some(v1::TokenizeRequest { input, add_special }))
    }
}

/// Makes tokens of a text or chat.
#[utoipa::path(post, path = "/tokenize", tag = "completion", security(("key" = ["llm"])),
    request_body = TokenizeRequest,
    responses((status = 200, body = Tokenized),
        (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn tokenize(
    State(app): State<Arc<App>>,
    From(origin): From,
    Json(request): Json<TokenizeRequest>,
) -> Result<Body<Tokenized>, Failure> {
    let asked = request.to_grpc()?;
    let model = app.resolve_model(request.model.as_deref().unwrap_or_default())?;
    let answer = match asked {
        Some(asked) => app.tokenize(&origin, &model, asked).await?,
        None => v1::TokenizeResponse::default(),
    };
    let v1::TokenizeResponse { ids, pieces } = answer;
    let (count, max_model_len) =
        (ids.len(), model.limits.map_or(0, |limits| limits.context_tokens_max));
    let token_strs = request.return_token_strs.then(|| pieces.clone());
    let tokens = if request.with_pieces {
        let both = ids.into_iter().zip(pieces);
        Tokens::Pieces(both.map(|(id, piece)| Piece { id, piece }).collect())
    } else {
        Tokens::Ids(ids)
    };
    Ok(Body(Tokenized { count, max_model_len, tokens, token_strs }))
}

/// Makes a text of tokens.
#[utoipa::path(post, path = "/detokenize", tag = "completion", security(("key" = ["llm"])),
    request_body = DetokenizeRequest,
    responses((status = 200, body = Detokenized),
        (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn detokenize(
    State(app): State<Arc<App>>,
    From(origin): From,
    Json(request): Json<DetokenizeRequest>,
) -> Result<Body<Detokenized>, Failure> {
    let model = app.resolve_model(request.model.as_deref().unwrap_or_default())?;
    let asked = v1::DetokenizeRequest { ids: request.tokens };
    let answer = app.detokenize(&origin, &model, asked).await.map_err(|error| {
        if error.param.as_deref() == Some("ids") { error.with_param("tokens") } else { error }
    })?;
    Ok(Body(Detokenized { prompt: answer.text.clone(), content: answer.text }))
}
