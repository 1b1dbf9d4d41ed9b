//! The chat template of the model file: Jinja, rendered by minijinja under limits of work and size.
//!
//! The template comes from a file and is not trusted: it can loop and grow only so far, sees
//! nothing but the messages, and can refuse a chat with a sentence of its own. It must not know
//! tokens.

use std::io::{self, Write};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, Error, ErrorKind, Value, context};
use serde::Serialize;

use super::json::tojson;
use super::tools::Chat;

/// Bytes of a template.
const TEMPLATE_BYTES_MAX: usize = 256 * 1024;
/// Bytes of a rendered chat: the largest prompt and as much again.
const RENDERED_BYTES_MAX: usize = 2 * aisemble_protocol::limits::PROMPT_BYTES_MAX;
/// Instructions of one rendering: the largest chat (1024 messages) at 2000 each.
const FUEL_MAX: u64 = 2_000_000;
/// Bytes of a template's own refusal that a caller gets to see.
const REFUSAL_BYTES_MAX: usize = 300;
const NAME: &str = "chat";

/// One message, as the template sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Message {
    /// `system`, `user`, `assistant`, ...
    pub role: String,
    /// What is said.
    pub content: String,
    /// What an assistant called: a list as OpenAI has it, the arguments as an object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<serde_json::Value>,
    /// Which call a tool's message answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
}

impl Message {
    /// A message that calls nothing.
    #[must_use]
    pub fn said(role: &str, content: &str) -> Self {
        let (role, content) = (role.to_owned(), content.to_owned());
        Self { role, content, tool_calls: None, tool_call_id: None }
    }
}

/// A chat could not be made into a prompt.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// The template is no Jinja, or is too long. Found when the model is loaded.
    #[error("the model's chat template cannot be used")]
    Unusable {
        /// Why.
        #[source]
        source: Error,
    },
    /// The template itself refused the chat (`raise_exception`).
    #[error("the model's chat template refuses these messages: {refusal}")]
    Refused {
        /// The template's own words, cut to a line.
        refusal: String,
    },
    /// Rendering took more than [`FUEL_MAX`] instructions.
    #[error(
        "the chat takes the model's template more than {FUEL_MAX} instructions; send fewer messages"
    )]
    TooCostly,
    /// The prompt would be longer than [`RENDERED_BYTES_MAX`].
    #[error("the chat becomes a prompt of more than {RENDERED_BYTES_MAX} bytes")]
    TooLarge,
    /// The template failed on this chat: a defect of the model file.
    #[error("the model's chat template failed on these messages")]
    Failed {
        /// Why.
        #[source]
        source: Error,
    },
}

/// A template that has been compiled.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    bos: String,
    eos: String,
}

/// Marks an error as the template's own refusal.
#[derive(Debug, thiserror::Error)]
#[error("refused by the template")]
struct Refusal {
    refusal: String,
}

impl ChatTemplate {
    /// Compiles `source`; `bos` and `eos` are what it may write for these tokens (may be empty).
    ///
    /// # Errors
    /// [`ChatError::Unusable`].
    pub fn new(source: &str, bos: &str, eos: &str) -> Result<Self, ChatError> {
        let unusable = |source| ChatError::Unusable { source };
        if source.len() > TEMPLATE_BYTES_MAX {
            let why = format!("it is longer than {TEMPLATE_BYTES_MAX} bytes");
            return Err(unusable(Error::new(ErrorKind::SyntaxError, why)));
        }
        // As transformers sets Jinja up, which is what templates are written for.
        let mut syntax = SyntaxConfig::builder();
        syntax.trim_blocks(true).lstrip_blocks(true);
        let mut environment = Environment::new();
        environment.set_syntax(syntax.build().map_err(unusable)?);
        environment.set_fuel(Some(FUEL_MAX));
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |refusal: String| -> Result<String, Error> {
            let error = Error::new(ErrorKind::InvalidOperation, "raise_exception");
            Err(error.with_source(Refusal { refusal }))
        });
        environment.add_filter("tojson", tojson);
        environment.add_template_owned(NAME, source.to_owned()).map_err(unusable)?;
        let (source, bos, eos) = (source.to_owned(), bos.to_owned(), eos.to_owned());
        Ok(Self { environment, source, bos, eos })
    }

    /// The template's text.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The prompt of a chat, ready for the assistant's turn.
    ///
    /// # Errors
    /// Every kind but [`ChatError::Unusable`].
    pub fn render(&self, chat: &Chat) -> Result<String, ChatError> {
        let failed = |source| ChatError::Failed { source };
        let template = self.environment.get_template(NAME).map_err(failed)?;
        // Undefined when there are none: every template takes that for none.
        let tools = match chat.tools.as_slice() {
            [] => Value::UNDEFINED,
            tools => Value::from(Serde(tools)),
        };
        let context = context! {
            tools => tools,
            messages => Value::from(Serde(chat.messages.as_slice())),
            add_generation_prompt => true,
            bos_token => self.bos.as_str(),
            eos_token => self.eos.as_str(),
        };
        let mut page = Page::default();
        let rendered = template.render_captured_to(context, &mut page).map(drop);
        if page.full {
            return Err(ChatError::TooLarge);
        }
        rendered.map_err(chat_error)?;
        String::from_utf8(page.bytes).map_err(|_not_text| {
            failed(Error::new(ErrorKind::WriteFailure, "it wrote bytes that are no text"))
        })
    }
}

fn chat_error(error: Error) -> ChatError {
    if error.kind() == ErrorKind::OutOfFuel {
        return ChatError::TooCostly;
    }
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(current) = cause {
        if let Some(refusal) = current.downcast_ref::<Refusal>() {
            let mut end = refusal.refusal.len().min(REFUSAL_BYTES_MAX);
            while !refusal.refusal.is_char_boundary(end) {
                end -= 1;
            }
            let line = refusal.refusal[..end].replace(['\n', '\r'], " ");
            return ChatError::Refused { refusal: line };
        }
        cause = current.source();
    }
    ChatError::Failed { source: error }
}

/// A prompt that refuses to grow over its limit.
#[derive(Debug, Default)]
struct Page {
    bytes: Vec<u8>,
    full: bool,
}

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > RENDERED_BYTES_MAX {
            self.full = true;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CHATML: &str = "{% for message in messages %}{% if loop.first and messages[0]['role'] != \
        'system' %}{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + \
        message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if \
        add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

    fn says(role: &str, content: &str) -> Message {
        Message::said(role, content)
    }

    fn render(template: &str, messages: &[Message]) -> Result<String, ChatError> {
        ChatTemplate::new(template, "<s>", "</s>")?.render(&Chat::of(messages.to_vec()))
    }

    #[test]
    fn chatml_is_rendered_to_the_letter() {
        assert_eq!(
            render(CHATML, &[says("user", "Hi {{ 7 }}")]).unwrap(),
            "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi {{ 7 }}<|im_end|>\n\
             <|im_start|>assistant\n"
        );
    }

    #[test]
    fn what_templates_of_known_models_use_works() {
        let check = |template: &str, expect: &str| {
            let messages = [says("system", " s "), says("user", "u")];
            assert_eq!(render(template, &messages).unwrap(), expect, "{template}");
        };
        check("{{ bos_token }}{{ messages[0].content.strip() }}{{ eos_token }}", "<s>s</s>");
        check("{{ messages[0]['content'] | trim }}", "s");
        check("{% set rest = messages[1:] %}{{ rest[0]['role'].upper() }}", "USER");
        check("{% if not tools is defined %}none{% endif %}", "none");
        check(
            "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}\
               {% endfor %}{{ ns.n }}",
            "2",
        );
        check("{{ messages[1] | tojson }}", r#"{"role": "user", "content": "u"}"#);
        check(
            "{% if 'u' in messages[1].content and messages[1].content.startswith('u') %}y\
               {% endif %}",
            "y",
        );
        check("  {% if true %}\n  a\n  {% endif %}\n", "  a\n");
        check(
            "{% for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}\
               {{ m.role }}{% break %}{% endfor %}",
            "user",
        );
    }

    #[test]
    fn a_template_can_refuse_but_not_run_wild() {
        let chat = [says("user", "a")];
        let error = render("{{ raise_exception('roles must\nalternate') }}", &chat).unwrap_err();
        assert!(error.to_string().ends_with("these messages: roles must alternate"), "{error}");
        let squares =
            "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}";
        assert!(matches!(render(squares, &chat), Err(ChatError::TooCostly)));
        let long = "{% for a in range(3000) %}{{ 'a' * 1000 }}{% endfor %}";
        assert!(matches!(render(long, &chat), Err(ChatError::TooLarge)));
        assert!(matches!(render("{{ messages[0].a.b }}", &chat), Err(ChatError::Failed { .. })));
        assert!(matches!(render("{% for %}", &chat), Err(ChatError::Unusable { .. })));
        let huge = "a".repeat(TEMPLATE_BYTES_MAX + 1);
        assert!(matches!(render(&huge, &chat), Err(ChatError::Unusable { .. })));
    }

    proptest! {
        #[test]
        fn no_template_and_no_message_makes_it_panic(
            template in "(\\{[{%]|[%}]\\}|for|in|if|end|messages|[a-z|.'\\[\\]0-9+~* -]){0,30}",
            content in ".{0,50}",
        ) {
            drop(render(&template, &[says("user", &content)]));
            let rendered = render(CHATML, &[says("system", &content)]).unwrap();
            prop_assert!(rendered.contains(&content));
        }
    }
}
