//! `Tokenize` and `Detokenize`.

use std::sync::Arc;

use aisemble_protocol::{ApiError, limits, v1};

use super::input::Input;
use crate::host::Host;
use crate::text::Detokenizer;

/// Ids of one `Detokenize`: as many as the largest prompt could have.
const IDS_MAX: usize = limits::PROMPT_BYTES_MAX;

/// The tokens of a text or chat.
pub(super) async fn tokenize(
    host: Arc<Host>,
    request: v1::TokenizeRequest,
) -> Result<v1::TokenizeResponse, ApiError> {
    let input = match request.input {
        Some(v1::tokenize_request::Input::Prompt(prompt)) if prompt.is_empty() => {
            return Ok(v1::TokenizeResponse::default());
        }
        Some(v1::tokenize_request::Input::Prompt(prompt)) => Input::prompt(prompt)?,
        Some(v1::tokenize_request::Input::Chat(chat)) => Input::chat(chat)?,
        None => return Err(ApiError::invalid("prompt", "prompt or chat is required")),
    };
    let add_special = request.add_special;
    let ids = host.encode(move |encoder| input.tokens(encoder, add_special)).await?;
    let piece = |id: &u32| {
        String::from_utf8_lossy(host.tokenizer.piece(*id).unwrap_or_default()).into_owned()
    };
    let pieces = ids.iter().map(piece).collect();
    Ok(v1::TokenizeResponse { ids, pieces })
}

/// The text of tokens, control tokens included.
pub(super) fn detokenize(
    host: Arc<Host>,
    request: &v1::DetokenizeRequest,
) -> Result<v1::DetokenizeResponse, ApiError> {
    let (given, limit) = (request.ids.len(), IDS_MAX);
    if given > limit {
        let message = format!("{given} ids are given; at most {limit} are taken");
        return Err(ApiError::invalid("ids", message));
    }
    let mut detokenizer = Detokenizer::default();
    let mut text = String::new();
    for id in &request.ids {
        let Some(piece) = host.tokenizer.piece(*id) else {
            let vocabulary = host.tokenizer.vocabulary_len();
            let message = format!("{id} is no token; the vocabulary has {vocabulary} tokens");
            return Err(ApiError::invalid("ids", message));
        };
        text.push_str(&detokenizer.push(piece));
    }
    text.push_str(detokenizer.finish());
    Ok(v1::DetokenizeResponse { text })
}
