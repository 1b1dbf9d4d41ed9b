//! From results and events to OpenAI's shapes: the two forms, chat and text, differ only here.

use aisemble_protocol::completion::{CompletionResult, TokenLogprob};
use aisemble_protocol::tools::ToolKind;
use serde_json::Value;

use super::shapes::{
    ChatChoice, ChatDelta, ChatLogprobs, Completion, Delta, FunctionDelta, Message, TextChoice,
    TextLogprobs, ToolCallDelta, UsageObject, fingerprint,
};
use crate::app::now_ms;
use crate::calls::Found;

/// Which of the two routes answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Chat,
    Text,
}

/// What all parts of one answer share.
#[derive(Debug, Clone)]
pub(super) struct Head {
    form: Form,
    id: String,
    created: u64,
    model: String,
    model_sha256: String,
}

/// What is new of one choice.
#[derive(Debug, Default)]
pub(super) struct News {
    pub(super) index: usize,
    /// The first chunk of a chat's choice names the role.
    pub(super) first: bool,
    pub(super) text: String,
    /// Calls, or more of them, in order.
    pub(super) calls: Vec<ToolCallDelta>,
    pub(super) logprobs: Vec<TokenLogprob>,
    /// Characters of the choice's text before this.
    pub(super) offset: usize,
    pub(super) finish_reason: Option<String>,
}

impl Head {
    pub(super) fn new(form: Form, model: &str, model_sha256: &str) -> Self {
        let prefix = match form {
            Form::Chat => "chatcmpl",
            Form::Text => "cmpl",
        };
        Self {
            form,
            id: format!("{prefix}-{}", uuid::Uuid::now_v7().simple()),
            created: now_ms() / 1_000,
            model: model.to_owned(),
            model_sha256: model_sha256.to_owned(),
        }
    }

    fn completion<C>(
        &self,
        object: &'static str,
        choices: Vec<C>,
        usage: Option<Option<UsageObject>>,
    ) -> Completion<C> {
        Completion {
            id: self.id.clone(),
            object,
            created: self.created,
            model: self.model.clone(),
            system_fingerprint: fingerprint(&self.model_sha256),
            choices,
            usage,
        }
    }

    /// A chunk with what is new; `usage` as [`Completion`] has it.
    pub(super) fn chunk(&self, news: Option<News>, usage: Option<Option<UsageObject>>) -> Value {
        let written = match self.form {
            Form::Chat => {
                let choices = news.into_iter().map(News::chat).collect();
                let chunk = self.completion::<ChatDelta>("chat.completion.chunk", choices, usage);
                serde_json::to_value(chunk)
            }
            Form::Text => {
                let choices = news.into_iter().map(News::text).collect();
                let chunk = self.completion::<TextChoice>("text_completion", choices, usage);
                serde_json::to_value(chunk)
            }
        };
        // Strings and numbers: they can always be written.
        written.unwrap_or_default()
    }
}

impl News {
    /// Adds what was found in the text.
    pub(super) fn add(&mut self, found: Vec<Found>) {
        for one in found {
            let (index, id, name, arguments) = match one {
                Found::Text(text) => {
                    self.text.push_str(&text);
                    continue;
                }
                Found::Begin { index, id, name } => (index, Some(id), Some(name), String::new()),
                Found::Arguments { index, text } => (index, None, None, text),
            };
            let kind = id.is_some().then_some(ToolKind::Function);
            let function = FunctionDelta { name, arguments };
            self.calls.push(ToolCallDelta { index, id, kind, function });
        }
    }

    fn chat(self) -> ChatDelta {
        let said = self.first || !self.text.is_empty();
        let content =
            (said || (!self.logprobs.is_empty() && self.calls.is_empty())).then_some(self.text);
        let role = self.first.then_some("assistant");
        let delta = Delta { role, content, tool_calls: self.calls };
        let logprobs = (!self.logprobs.is_empty()).then(|| ChatLogprobs::of(&self.logprobs));
        ChatDelta { index: self.index, delta, logprobs, finish_reason: self.finish_reason }
    }

    fn text(self) -> TextChoice {
        let logprobs =
            (!self.logprobs.is_empty()).then(|| TextLogprobs::of(&self.logprobs, self.offset));
        let Self { index, text, finish_reason, .. } = self;
        TextChoice { text, index, logprobs, finish_reason }
    }
}

/// The whole answer of a chat.
pub(super) fn chat(results: Vec<CompletionResult>, per_prompt: usize) -> Completion<ChatChoice> {
    let usage = UsageObject::of_results(&results, per_prompt);
    let head = head_of(Form::Chat, &results);
    let choices = results.into_iter().enumerate().map(|(index, result)| ChatChoice {
        index,
        message: Message {
            role: "assistant",
            content: (result.tool_calls.is_empty() || !result.text.is_empty())
                .then_some(result.text),
            refusal: None,
            tool_calls: result.tool_calls,
        },
        logprobs: result.logprobs.as_deref().map(ChatLogprobs::of),
        finish_reason: result.finish_reason,
    });
    head.completion("chat.completion", choices.collect(), Some(Some(usage)))
}

/// The whole answer of a text completion.
pub(super) fn text(results: Vec<CompletionResult>, usage: UsageObject) -> Completion<TextChoice> {
    let head = head_of(Form::Text, &results);
    let choices = results.into_iter().enumerate().map(|(index, result)| TextChoice {
        text: result.text,
        index,
        logprobs: result.logprobs.as_deref().map(|tokens| TextLogprobs::of(tokens, 0)),
        finish_reason: Some(result.finish_reason),
    });
    head.completion("text_completion", choices.collect(), Some(Some(usage)))
}

fn head_of(form: Form, results: &[CompletionResult]) -> Head {
    let first = results.first();
    let model = first.map_or("", |result| result.model.as_str());
    let sha256 = first.map_or("", |result| result.model_sha256.as_str());
    Head::new(form, model, sha256)
}
