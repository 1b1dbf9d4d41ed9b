//! From a prompt or a chat to the tokens that the model is fed with.

use std::sync::Arc;

use aisemble_weights::Tokenizer;
use aisemble_weights::tokenizer::{EncodeError, TokenKind};

use super::chat::{ChatError, ChatTemplate};
use super::prompt::{SpecialToken, SpecialTokens, Stretch};
use super::tools::{CallStyle, Chat};

/// Why there are no tokens.
#[derive(Debug, thiserror::Error)]
pub enum PromptError {
    /// The model file has no chat template.
    #[error("the model has no chat template; send a prompt instead of messages")]
    NoTemplate,
    /// The template does not take the chat.
    #[error(transparent)]
    Chat(#[from] ChatError),
    /// The chat contains every character that could mark what is not a control token.
    #[error("the messages contain all the noncharacters U+FDD0 to U+FDEF; leave one out")]
    NoMark,
    /// The tokenizer does not take the text.
    #[error("the text cannot be tokenized")]
    Encode {
        /// Why.
        #[source]
        source: EncodeError,
    },
}

/// Makes tokens of what callers send.
#[derive(Debug)]
pub struct PromptEncoder {
    tokenizer: Arc<Tokenizer>,
    specials: SpecialTokens,
    template: Option<ChatTemplate>,
    style: CallStyle,
    markers: Vec<SpecialToken>,
    bos: Option<u32>,
}

/// Control tokens that are a part of calls.
const CALL_MARKERS: [&str; 4] = ["[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "<|python_tag|>"];

impl PromptEncoder {
    /// For a model's tokenizer and the chat template in its file.
    ///
    /// # Errors
    /// When the template cannot be used; a model without one is fine.
    pub fn new(tokenizer: Arc<Tokenizer>) -> Result<Self, ChatError> {
        let ids = 0..u32::try_from(tokenizer.vocabulary_len()).unwrap_or(u32::MAX);
        let text = |id: u32| {
            tokenizer.piece(id).and_then(|piece| std::str::from_utf8(piece).ok()).map(str::to_owned)
        };
        let control = ids
            .filter(|id| tokenizer.kind(*id) == Some(TokenKind::Control))
            .filter_map(|id| Some(SpecialToken { id, text: text(id)? }));
        let control: Vec<_> = control.collect();
        let is_marker = |token: &&SpecialToken| CALL_MARKERS.contains(&token.text.as_str());
        let markers = control.iter().filter(is_marker).cloned().collect();
        let specials = SpecialTokens::new(control);
        let written = |id: Option<u32>| id.and_then(text).unwrap_or_default();
        let (bos, eos) = (written(tokenizer.bos()), written(tokenizer.eos()));
        let template = match tokenizer.chat_template() {
            Some(source) => Some(ChatTemplate::new(source, &bos, &eos)?),
            None => None,
        };
        let bos = tokenizer.bos().filter(|_| tokenizer.add_bos());
        let style = tokenizer.chat_template().map(CallStyle::of).unwrap_or_default();
        Ok(Self { tokenizer, specials, template, style, markers, bos })
    }

    /// How the model writes calls of functions.
    #[must_use]
    pub fn call_style(&self) -> CallStyle {
        self.style
    }

    /// The control tokens that are a part of calls: where a chat has tools they are text.
    #[must_use]
    pub fn call_markers(&self) -> &[SpecialToken] {
        &self.markers
    }

    /// Whether chats are possible.
    #[must_use]
    pub fn has_template(&self) -> bool {
        self.template.is_some()
    }

    /// The tokens of a prompt that is taken as it is: control tokens in it count. When the model
    /// wants a beginning-of-sequence token and the prompt does not begin with it, it is added.
    ///
    /// # Errors
    /// [`PromptError::Encode`].
    pub fn raw(&self, prompt: &str, add_special: bool) -> Result<Vec<u32>, PromptError> {
        let ids = self.encode(prompt, true)?;
        Ok(if add_special { self.with_bos(ids) } else { ids })
    }

    /// The tokens of a chat, ready for the assistant's answer: control tokens count only where the
    /// template wrote them.
    ///
    /// # Errors
    /// [`PromptError`].
    pub fn chat(&self, chat: &Chat) -> Result<Vec<u32>, PromptError> {
        let template = self.template.as_ref().ok_or(PromptError::NoTemplate)?;
        let chat = chat.told(self.style);
        let contents = chat.messages.iter().map(|message| message.content.as_str());
        let calls = chat.messages.iter().filter_map(|message| message.tool_calls.as_ref());
        let values: Vec<String> = calls.chain(&chat.tools).map(ToString::to_string).collect();
        let ids = chat.messages.iter().filter_map(|message| message.tool_call_id.as_deref());
        let texts = contents.chain(values.iter().map(String::as_str)).chain(ids);
        let texts = texts.chain([template.source()]);
        let mark = SpecialTokens::mark_for(texts).ok_or(PromptError::NoMark)?;
        let rendered = template.render(&self.specials.disarm(&chat, mark))?;
        let mut ids = Vec::new();
        for stretch in self.specials.cut(&rendered, mark) {
            match stretch {
                Stretch::Special(id) => ids.push(id),
                Stretch::Text(text) => ids.extend(self.encode(&text, false)?),
            }
        }
        Ok(self.with_bos(ids))
    }

    fn encode(&self, text: &str, parse_special: bool) -> Result<Vec<u32>, PromptError> {
        let encoded = self.tokenizer.encode(text, parse_special);
        encoded.map_err(|source| PromptError::Encode { source })
    }

    /// A template may have written the token already: it is never doubled.
    fn with_bos(&self, mut ids: Vec<u32>) -> Vec<u32> {
        if let Some(bos) = self.bos
            && ids.first() != Some(&bos)
        {
            ids.insert(0, bos);
        }
        ids
    }
}
