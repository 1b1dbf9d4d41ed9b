//! Calls of functions found in what a model says, while it says it: text, and calls piece by piece.
//!
//! It reads character by character, so what is found never depends on how the text was cut. What
//! looks like a call and is none (no JSON, or of a function that was not offered) is text, to the
//! letter. It must not know HTTP, or where the text comes from.

mod object;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use aisemble_protocol::tools::{CalledFunction, Offer, ToolCall, ToolKind};
use aisemble_protocol::v1::CallFormat;
use object::{CallObject, Part, Progress};

/// Characters between a tag and the arguments of a call that is named outside of JSON.
const HEAD_CHARS_MAX: usize = 256;
/// Bytes around tags and calls, spaces mostly, that are held: each is looked at with every
/// character.
const PADDING_BYTES_MAX: usize = 128;

/// What comes out of a model that may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Said in words.
    Text(String),
    /// A call begins.
    Begin {
        /// Among the calls of this answer, from 0.
        index: usize,
        /// What its answer is to name.
        id: String,
        /// The function.
        name: String,
    },
    /// More of the arguments of a call.
    Arguments {
        /// Which.
        index: usize,
        /// JSON, in pieces.
        text: String,
    },
}

/// Looks for calls in a text that comes piece by piece.
#[derive(Debug, Clone)]
pub struct CallScan {
    offer: Arc<Offer>,
    syntax: Syntax,
    place: Place,
    /// What may turn out to be a part of a call, and is text when it does not.
    held: String,
    calls: usize,
    found: Vec<Found>,
}

/// Where in the text the scan is.
#[derive(Debug, Clone)]
enum Place {
    /// In words; `held` may be the beginning of a tag, with the spaces before it.
    Words,
    /// Behind a tag, or between two calls.
    Between,
    /// In the name of a call that is not JSON.
    Head(String),
    /// In a call; `held` is all of it, with its tag, until it has begun.
    Object(Box<CallObject>),
    /// Behind a call, before its closing tag.
    Closing,
    /// Nothing counts any more: one call was allowed.
    Silent,
}

/// How a family writes calls.
#[derive(Debug, Clone, Copy)]
struct Syntax {
    /// Before calls.
    tag: &'static str,
    /// A call may begin the text without a tag.
    bare: bool,
    /// After a call; empty = none.
    close: &'static str,
    /// What may stand between calls beside spaces.
    separators: &'static [char],
    /// A name may come before the JSON.
    named: bool,
    /// Characters of an id; the template may insist on them. 0 = as OpenAI has them.
    id_chars: usize,
}

const TAGS: Syntax = Syntax {
    tag: "<tool_call>",
    bare: false,
    close: "</tool_call>",
    separators: &[],
    named: false,
    id_chars: 0,
};
const JSON: Syntax =
    Syntax { tag: "<|python_tag|>", bare: true, close: "", separators: &[';', ','], ..TAGS };
const MISTRAL: Syntax = Syntax {
    tag: "[TOOL_CALLS]",
    close: "",
    separators: &['[', ',', ']'],
    named: true,
    id_chars: 9,
    ..TAGS
};

impl CallScan {
    /// Looks for calls of what is offered, written in that way.
    #[must_use]
    pub fn new(format: CallFormat, offer: Arc<Offer>) -> Self {
        let syntax = match format {
            CallFormat::Tags | CallFormat::Unspecified => TAGS,
            CallFormat::Json => JSON,
            CallFormat::Mistral => MISTRAL,
        };
        let place = if syntax.bare { Place::Between } else { Place::Words };
        let (held, found) = (String::new(), Vec::new());
        Self { offer, syntax, place, held, calls: 0, found }
    }

    /// What is certain after `text` has come too.
    pub fn push(&mut self, text: &str) -> Vec<Found> {
        for character in text.chars() {
            self.feed(character);
        }
        std::mem::take(&mut self.found)
    }

    /// What is left at the end. A call that is cut off stays as far as it came.
    pub fn finish(&mut self) -> Vec<Found> {
        let held = std::mem::take(&mut self.held);
        match std::mem::replace(&mut self.place, Place::Silent) {
            Place::Words | Place::Between if self.calls > 0 && self.is_padding(&held) => {}
            Place::Words | Place::Between | Place::Head(_) => self.say(&held),
            Place::Object(object) if !object.has_begun() => self.say(&held),
            Place::Object(_) | Place::Closing | Place::Silent => {}
        }
        std::mem::take(&mut self.found)
    }

    /// How many calls have begun.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.calls
    }

    fn feed(&mut self, character: char) {
        match std::mem::replace(&mut self.place, Place::Words) {
            Place::Words => self.word(character),
            Place::Between => self.between(character),
            Place::Head(head) => self.head(head, character),
            Place::Object(object) => self.object(object, character),
            Place::Closing => self.closing(character),
            Place::Silent => self.place = Place::Silent,
        }
    }

    fn word(&mut self, character: char) {
        self.held.push(character);
        let tag = self.syntax.tag;
        if self.held.ends_with(tag) {
            // Only the spaces before it were held with it.
            self.place = Place::Between;
            return;
        }
        let open = (1..tag.len()).rev().find(|n| self.held.ends_with(&tag[..*n])).unwrap_or(0);
        let mut certain = self.held.len() - open;
        if certain <= PADDING_BYTES_MAX {
            certain = self.held[..certain].trim_end().len();
        }
        let words: String = self.held.drain(..certain).collect();
        self.say(&words);
    }

    fn between(&mut self, character: char) {
        let (syntax, begun) = (self.syntax, self.calls > 0);
        if character == '{' {
            return self.object(Box::new(CallObject::new()), character);
        }
        let tagged = self.held.trim_start().starts_with(syntax.tag);
        let separates = syntax.separators.contains(&character) && (begun || syntax.named);
        if (character.is_whitespace() || separates) && self.held.len() <= 2 * PADDING_BYTES_MAX {
            self.held.push(character);
            self.place = Place::Between;
        } else if syntax.named && tagged && self.held.trim_end().ends_with(syntax.tag) {
            self.head(String::new(), character);
        } else {
            self.reject(character);
        }
    }

    fn head(&mut self, mut head: String, character: char) {
        if character == '{' {
            let name = head.split('[').next().unwrap_or_default().trim();
            let marks = head[head.find('[').unwrap_or(head.len())..].trim();
            let known = match marks.strip_suffix("[ARGS]") {
                Some(id) => id.is_empty() || id.starts_with("[CALL_ID]"),
                None => marks.is_empty(),
            };
            if known && self.offer.has(name) {
                return self.object(Box::new(CallObject::arguments_of(name.to_owned())), character);
            }
        }
        let fits = character.is_ascii_alphanumeric() || "_-.[] ".contains(character);
        if !fits || head.len() >= HEAD_CHARS_MAX {
            return self.reject(character);
        }
        head.push(character);
        self.held.push(character);
        self.place = Place::Head(head);
    }

    fn object(&mut self, mut object: Box<CallObject>, character: char) {
        if !object.has_begun() {
            self.held.push(character);
        }
        let mut parts = Vec::new();
        let progress = object.feed(character, &mut parts);
        for part in parts {
            match part {
                Part::Name(name) if self.offer.has(&name) => self.begin(name),
                Part::Name(_) => {
                    let held = std::mem::take(&mut self.held);
                    return self.say(&held);
                }
                Part::Arguments(text) => self.argue(&text),
            }
        }
        match progress {
            Progress::GoesOn => self.place = Place::Object(object),
            Progress::Done | Progress::Broken if object.has_begun() => self.called(),
            Progress::Done | Progress::Broken => {
                // The character that broke it may be the beginning of something else.
                let last = self.held.pop();
                let held = std::mem::take(&mut self.held);
                self.say(&held);
                last.into_iter().for_each(|one| self.word(one));
            }
        }
    }

    fn closing(&mut self, character: char) {
        self.held.push(character);
        let (close, held) = (self.syntax.close, self.held.trim_start());
        if held == close {
            self.held.clear();
        } else if close.starts_with(held) && self.held.len() <= PADDING_BYTES_MAX {
            self.place = Place::Closing;
        } else {
            let held = std::mem::take(&mut self.held);
            held.chars().for_each(|one| self.feed(one));
        }
    }

    fn begin(&mut self, name: String) {
        self.held.clear();
        let index = self.calls;
        self.calls += 1;
        self.found.push(Found::Begin { index, id: self.new_id(), name });
    }

    fn argue(&mut self, more: &str) {
        let index = self.calls.saturating_sub(1);
        match self.found.last_mut() {
            Some(Found::Arguments { index: same, text }) if *same == index => text.push_str(more),
            _ => self.found.push(Found::Arguments { index, text: more.to_owned() }),
        }
    }

    /// A call is over.
    fn called(&mut self) {
        self.held.clear();
        self.place = if self.offer.one() {
            Place::Silent
        } else if !self.syntax.close.is_empty() {
            Place::Closing
        } else {
            Place::Between
        };
    }

    /// What is held, and this character, is no part of a call. A tag in it was looked at already;
    /// behind it another one may begin.
    fn reject(&mut self, character: char) {
        let held = std::mem::take(&mut self.held);
        let behind = held.find(self.syntax.tag).map(|at| at + self.syntax.tag.len());
        let (tag, mut rest) = held.split_at(behind.unwrap_or(0));
        self.say(tag);
        if tag.is_empty() && self.calls > 0 {
            rest = rest.trim_start_matches(|one: char| one.is_whitespace() || one == ']');
        }
        self.place = Place::Words;
        rest.chars().chain([character]).for_each(|one| self.feed(one));
    }

    /// Whether this is only what stands around calls.
    fn is_padding(&self, text: &str) -> bool {
        text.chars().all(|one| one.is_whitespace() || self.syntax.separators.contains(&one))
    }

    fn say(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        match self.found.last_mut() {
            Some(Found::Text(words)) => words.push_str(text),
            _ => self.found.push(Found::Text(text.to_owned())),
        }
    }

    fn new_id(&self) -> String {
        let random = uuid::Uuid::new_v4().simple().to_string();
        match self.syntax.id_chars {
            0 => format!("call_{}", &random[..24]),
            chars => random[..chars].to_owned(),
        }
    }
}

/// What was found, put together: the words, and the calls.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heard {
    /// Said in words.
    pub text: String,
    /// In order.
    pub calls: Vec<ToolCall>,
}

impl Heard {
    /// Adds what was found.
    pub fn add(&mut self, found: Vec<Found>) {
        for one in found {
            match one {
                Found::Text(text) => self.text.push_str(&text),
                Found::Begin { id, name, .. } => {
                    let function = CalledFunction { name, arguments: String::new() };
                    self.calls.push(ToolCall { id, kind: ToolKind::Function, function });
                }
                Found::Arguments { index, text } => {
                    if let Some(call) = self.calls.get_mut(index) {
                        call.function.arguments.push_str(&text);
                    }
                }
            }
        }
    }
}

/// Why an answer with so many calls ended: a call is an end of its own, unless it was cut off.
#[must_use]
pub fn reason(reason: &str, calls: usize) -> &str {
    if calls > 0 && reason == "stop" { "tool_calls" } else { reason }
}
