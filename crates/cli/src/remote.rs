//! The commands that use a running Ai-semble over its HTTP API, here or elsewhere.

pub mod batch;
pub mod chat;
pub mod complete;
pub mod data;
pub mod files;
pub mod jobs;
pub mod nlp;
pub mod see;
mod texts;
mod work;
pub mod workflow;

use std::io::Read as _;

use aisemble_client::{Client, ClientConfig};
use aisemble_protocol::completion::{ChatMessage, CompletionRequest, Stop};
use aisemble_protocol::limits;

use crate::args::{Global, Sampling};
use crate::failure::{Exit, Failure, Outcome};
use crate::home::{Home, read_secret};
use crate::local::state::UpState;

const URL_DEFAULT: &str = "http://127.0.0.1:8080";

/// A client for the address and key that the options name, or those of the local `up`.
///
/// # Errors
/// When the URL or the key file is not usable.
pub fn connect(global: &Global) -> Outcome<Client> {
    Ok(Client::new(ClientConfig::new(url(global)?, key(global)?))?)
}

/// The address that the options name, else that of the local `up`, else the usual one.
///
/// # Errors
/// When the state of the local `up` cannot be read.
pub fn url(global: &Global) -> Outcome<String> {
    if let Some(url) = &global.url {
        return Ok(url.clone());
    }
    let state = match Home::named(global) {
        Ok(home) => UpState::alive(&home)?,
        Err(_) => None,
    };
    Ok(state.map_or_else(|| URL_DEFAULT.to_owned(), |state| state.url()))
}

fn key(global: &Global) -> Outcome<Option<String>> {
    if let Some(path) = &global.key_file {
        return read_secret(path).map(Some);
    }
    let path = match Home::named(global) {
        Ok(home) => home.client_key(),
        Err(_) => return Ok(None),
    };
    if path.exists() { read_secret(&path).map(Some) } else { Ok(None) }
}

/// The prompt as given, or from standard input for `-`.
pub(crate) fn prompt(given: &str) -> Outcome<String> {
    if given != "-" {
        return Ok(given.to_owned());
    }
    let mut text = String::new();
    let limit = limits::PROMPT_BYTES_MAX as u64;
    std::io::stdin().lock().take(limit + 1).read_to_string(&mut text).map_err(|error| {
        Failure::new(Exit::Failed, "cannot read the prompt from standard input").because(error)
    })?;
    if text.len() as u64 > limit {
        return Err(Failure::new(Exit::Usage, format!("the prompt is over {limit} bytes")));
    }
    Ok(text)
}

/// A request for a prompt: through the chat template, unless `raw`.
pub(crate) fn request(
    prompt: String,
    raw: bool,
    system: Option<&str>,
    sampling: &Sampling,
) -> CompletionRequest {
    let mut request = CompletionRequest::default();
    apply(sampling, &mut request);
    if raw {
        request.prompt = Some(prompt);
    } else {
        let system = system.map(|text| message("system", text.to_owned()));
        request.messages = Some(system.into_iter().chain([message("user", prompt)]).collect());
    }
    request
}

pub(crate) fn message(role: &str, content: String) -> ChatMessage {
    ChatMessage::said(role, &content)
}

pub(crate) fn apply(sampling: &Sampling, request: &mut CompletionRequest) {
    request.model.clone_from(&sampling.model);
    request.max_tokens = sampling.max_tokens;
    request.temperature = sampling.temperature;
    request.top_p = sampling.top_p;
    request.top_k = sampling.top_k;
    request.seed = sampling.seed;
    request.stop = match sampling.stop.as_slice() {
        [] => None,
        [one] => Some(Stop::One(one.clone())),
        many => Some(Stop::Many(many.to_vec())),
    };
}
