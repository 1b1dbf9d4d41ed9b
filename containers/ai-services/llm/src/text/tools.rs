//! Functions that a chat offers to the model: how its template wants them and how it writes a call.
//!
//! For a template that knows none, or writes calls in a way that nobody here reads, they become
//! text in the form that Hermes and Qwen models were trained on: small models of other families
//! can follow it when the output is held to it. It must not know tokens.

use serde_json::Value;

use super::chat::Message;

/// How a call is written as text: what begins it, and what ends it.
const TAGS: (&str, &str) = ("<tool_call>\n", "\n</tool_call>");

/// A chat and what the model may call in it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Chat {
    /// At least one.
    pub messages: Vec<Message>,
    /// As OpenAI has them; none = the model can call nothing.
    pub tools: Vec<Value>,
}

/// How a model writes calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CallStyle {
    /// `<tool_call>`, a line of JSON, `</tool_call>`; its template has them so (Hermes, Qwen).
    Tags,
    /// The same, but the template does not know it and has to be told in words.
    #[default]
    ToldTags,
    /// The whole answer is one JSON object with `name` and `parameters` (Llama 3).
    Json,
    /// `[TOOL_CALLS]` and a JSON list (Mistral until 2024).
    MistralList,
    /// `[TOOL_CALLS]`, a name, `[ARGS]` and a JSON object (Mistral since then).
    MistralNamed,
}

/// The text around calls, in the order in which it comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallText {
    /// Before the first call.
    pub begin: &'static str,
    /// Before each function's name.
    pub before_name: &'static str,
    /// Between the name and the arguments.
    pub before_arguments: &'static str,
    /// After the arguments.
    pub after: &'static str,
    /// Between two calls; `None` when an answer can have one only.
    pub between: Option<&'static str>,
    /// After the last call.
    pub end: &'static str,
}

impl CallStyle {
    /// What calls are made of.
    #[must_use]
    pub fn text(self) -> CallText {
        let tags = CallText {
            begin: "",
            before_name: "<tool_call>\n{\"name\": \"",
            before_arguments: "\", \"arguments\": ",
            after: "}\n</tool_call>",
            between: Some("\n"),
            end: "",
        };
        match self {
            Self::Tags | Self::ToldTags => tags,
            Self::Json => CallText {
                before_name: "{\"name\": \"",
                before_arguments: "\", \"parameters\": ",
                after: "}",
                between: None,
                ..tags
            },
            Self::MistralList => CallText {
                begin: "[TOOL_CALLS][",
                before_name: "{\"name\": \"",
                after: "}",
                between: Some(", "),
                end: "]",
                ..tags
            },
            Self::MistralNamed => CallText {
                before_name: "[TOOL_CALLS]",
                before_arguments: "[ARGS]",
                after: "",
                between: Some(""),
                ..tags
            },
        }
    }

    /// How a model with this chat template writes them, by the words that the template teaches it.
    #[must_use]
    pub fn of(source: &str) -> Self {
        // Qwen3-Coder names parameters in tags of their own.
        let tags = source.contains("<tool_call>") && !source.contains("<function=");
        if !source.contains("tools") {
            Self::ToldTags
        } else if source.contains("[TOOL_CALLS]") && source.contains("[ARGS]") {
            Self::MistralNamed
        } else if source.contains("[TOOL_CALLS]") {
            Self::MistralList
        } else if tags && source.contains("arguments") {
            Self::Tags
        } else if source.contains("\"parameters\": dictionary") {
            Self::Json
        } else {
            Self::ToldTags
        }
    }
}

impl Chat {
    /// Without tools and calls.
    #[must_use]
    pub fn of(messages: Vec<Message>) -> Self {
        Self { messages, tools: Vec::new() }
    }

    /// The chat as a template of this style takes it: unchanged, or with functions, calls and
    /// their answers as text.
    #[must_use]
    pub fn told(&self, style: CallStyle) -> Self {
        if style != CallStyle::ToldTags {
            return self.clone();
        }
        let mut messages: Vec<Message> = Vec::with_capacity(self.messages.len() + 1);
        let mut answers = false;
        for message in &self.messages {
            let told = as_text(message);
            // Many templates want turns to alternate: what several functions gave, and what the
            // user says to it, is one turn.
            let same = told.role == "user" && answers;
            answers = message.role == "tool";
            match messages.last_mut().filter(|_| same) {
                Some(last) => last.content = format!("{}\n{}", last.content, told.content),
                None => messages.push(told),
            }
        }
        if !self.tools.is_empty() {
            let instructions = instructions(&self.tools);
            match messages.first_mut().filter(|first| first.role == "system") {
                Some(first) => first.content = format!("{}\n\n{instructions}", first.content),
                None => messages.insert(0, Message::said("system", &instructions)),
            }
        }
        Self::of(messages)
    }
}

fn as_text(message: &Message) -> Message {
    if message.role == "tool" {
        let content = format!("<tool_response>\n{}\n</tool_response>", message.content);
        return Message::said("user", &content);
    }
    let mut content = message.content.clone();
    for call in message.tool_calls.iter().flat_map(Value::as_array).flatten() {
        let function = &call["function"];
        let (name, arguments) = (&function["name"], &function["arguments"]);
        let (begin, end) = TAGS;
        if !content.is_empty() {
            content.push('\n');
        }
        let call = format!("{begin}{{\"name\": {name}, \"arguments\": {arguments}}}{end}");
        content.push_str(&call);
    }
    Message::said(&message.role, &content)
}

/// What a model is told that knows tools only as text.
fn instructions(tools: &[Value]) -> String {
    let mut text = "You can call functions. Their signatures, one a line:\n<tools>\n".to_owned();
    for tool in tools {
        text.push_str(&tool.to_string());
        text.push('\n');
    }
    let (begin, end) = TAGS;
    text.push_str(&format!(
        "</tools>\nTo call one, answer with its name and arguments as a JSON object between these \
         tags, and nothing else:\n{begin}{{\"name\": \"the function\", \"arguments\": \
         {{\"parameter\": \"value\"}}}}{end}\nWhat it gives comes back between <tool_response> \
         tags. When no function is needed, answer in words."
    ));
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn chat() -> Chat {
        let call = json!([{"id": "a", "type": "function",
            "function": {"name": "add", "arguments": {"a": 1}}}]);
        let messages = vec![
            Message::said("system", "Be kind."),
            Message::said("user", "1?"),
            Message { tool_calls: Some(call), ..Message::said("assistant", "") },
            Message { tool_call_id: Some("a".to_owned()), ..Message::said("tool", "2") },
            Message { tool_call_id: Some("b".to_owned()), ..Message::said("tool", "3") },
            Message::said("user", "And?"),
            Message::said("user", "Well?"),
        ];
        let tool = json!({"type": "function", "function": {"name": "add"}});
        Chat { messages, tools: vec![tool] }
    }

    #[test]
    fn the_template_s_words_say_how_calls_are_written() {
        let check = |source: &str, expect: CallStyle| assert_eq!(CallStyle::of(source), expect);
        check("{{ messages }}", CallStyle::ToldTags);
        check("{% if tools %}<tools> <tool_call>\n{\"name\", \"arguments\"}", CallStyle::Tags);
        check("{% if tools %}<tool_call><function=x> arguments", CallStyle::ToldTags);
        let llama =
            "{% if tools %}{\"name\": function name, \"parameters\": dictionary of argument";
        check(llama, CallStyle::Json);
        check("{{ tools }}[AVAILABLE_TOOLS][TOOL_CALLS] [", CallStyle::MistralList);
        check("{{ tools }}[TOOL_CALLS]{{ name }}[ARGS]", CallStyle::MistralNamed);
        check("{{ tools }} in a way of its own", CallStyle::ToldTags);
    }

    #[test]
    fn a_template_that_knows_tools_gets_them_unchanged() {
        assert_eq!(chat().told(CallStyle::Tags), chat());
    }

    #[test]
    fn any_other_gets_text() {
        let told = chat().told(CallStyle::ToldTags);
        assert!(told.tools.is_empty());
        let contents: Vec<_> = told.messages.iter().map(|one| one.content.as_str()).collect();
        assert!(contents[0].starts_with("Be kind.\n\nYou can call functions."), "{}", contents[0]);
        assert!(contents[0].contains("<tools>\n{\"type\":\"function\""), "{}", contents[0]);
        let call = "<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\":1}}\n</tool_call>";
        assert_eq!(contents[2], call);
        let response = |text: &str| format!("<tool_response>\n{text}\n</tool_response>");
        assert_eq!(contents[3], format!("{}\n{}\nAnd?", response("2"), response("3")));
        assert_eq!((told.messages[3].role.as_str(), contents[4]), ("user", "Well?"));
        let mut unasked = chat();
        unasked.messages.remove(0);
        assert_eq!(unasked.told(CallStyle::ToldTags).messages[0].role, "system");
    }
}
