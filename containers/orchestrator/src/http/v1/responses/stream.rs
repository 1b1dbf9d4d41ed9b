//! A response as it comes: semantic events, numbered from 0.

use std::sync::Arc;

use aisemble_protocol::ApiError;
use aisemble_protocol::completion::CompletionResult;
use aisemble_protocol::tools::{CalledFunction, Offer, ToolCall, ToolKind};
use aisemble_protocol::v1::generate_event::Event as Generated;
use axum::response::Response;
use axum::response::sse::Event;
use futures_util::stream::{self, StreamExt as _};
use serde_json::{Value, json};

use super::super::super::sse;
use super::object::{self, Head, Stage};
use super::request::Asked;
use crate::app::responses::response_id;
use crate::app::transcript::Transcript;
use crate::app::{App, Origin, Patience, Progress, Update, now_ms};
use crate::calls::Found;
use crate::dispatch::Generation;
use crate::live::Piece;
use crate::work;

/// Where the answer comes from.
enum Source {
    /// Straight from the service; nothing is kept.
    Live(Box<(Generation, Transcript)>),
    /// From the job that makes it: words as they come, calls when it is over.
    Kept(Box<Progress>),
}

/// What has come.
enum Heard {
    Found(Vec<Found>),
    Over(Vec<Found>, Box<CompletionResult>),
    Failed(ApiError),
}

/// Begins the response and streams it; a refusal still has a status of its own.
///
/// # Errors
/// As the services or the store say.
pub(super) async fn respond(
    app: &Arc<App>,
    origin: &Origin,
    asked: Asked,
) -> Result<Response, ApiError> {
    let model = app.resolve_model(asked.kept.request.model.as_deref().unwrap_or_default())?.name;
    let shown = asked.kept.shown.clone();
    let (id, source) = if asked.store {
        let patience = if asked.background { Patience::Later } else { Patience::Follows };
        let accepted = app.submit::<work::Response>(origin, asked.kept, patience).await?;
        let id = response_id(accepted.view.id);
        (id, Source::Kept(Box::new(Progress::new(Arc::clone(app), accepted.view))))
    } else {
        let offer = asked.kept.request.offer()?.map(Arc::new);
        let generation = app.generate(origin, asked.kept.request.to_generate()?).await?;
        (super::new_id(), live(generation, offer).await?)
    };
    let head = Head { id, created_at: now_ms() / 1_000, model, shown };
    let mut writer = Writer { head, number: 0, open: None, items: Vec::new() };
    let first = writer.begin();
    let rest = stream::unfold(Some((source, writer)), |state| async move {
        let (mut source, mut writer) = state?;
        let heard = source.next().await?;
        let over = !matches!(heard, Heard::Found(_));
        let events = writer.heard(heard);
        Some((events, (!over).then_some((source, writer))))
    });
    let events = stream::once(async { first }).chain(rest);
    Ok(sse::respond(app, events.flat_map(stream::iter)))
}

async fn live(mut generation: Generation, offer: Option<Arc<Offer>>) -> Result<Source, ApiError> {
    let mut transcript = Transcript::new(offer);
    loop {
        // Nothing else comes before it.
        let event = generation.next().await?;
        let started = matches!(event, Generated::Started(_));
        let _not_over = transcript.add(event);
        if started {
            return Ok(Source::Live(Box::new((generation, transcript))));
        }
    }
}

impl Source {
    async fn next(&mut self) -> Option<Heard> {
        match self {
            Self::Live(live) => {
                let (generation, transcript) = &mut **live;
                Some(match generation.next().await {
                    Err(error) => Heard::Failed(error),
                    Ok(event) => match transcript.add(event) {
                        Some(result) => Heard::Over(transcript.found(), Box::new(result)),
                        None => Heard::Found(transcript.found()),
                    },
                })
            }
            Self::Kept(progress) => loop {
                match progress.next().await? {
                    Update::Piece(Piece::Token { text, .. }) => {
                        return Some(Heard::Found(vec![Found::Text(text)]));
                    }
                    Update::Result(result) => return Some(whole(&result)),
                    Update::Error(error) => return Some(Heard::Failed(error)),
                    Update::Job(_)
                    | Update::Progress(_)
                    | Update::Piece(Piece::Item { .. } | Piece::Restart { .. }) => {}
                }
            },
        }
    }
}

/// The end of a job whose words have come.
fn whole(result: &[u8]) -> Heard {
    let Ok(result) = serde_json::from_slice::<CompletionResult>(result) else {
        let message = "the stored response cannot be read";
        return Heard::Failed(ApiError::new(aisemble_protocol::ErrorCode::Internal, message));
    };
    let calls = result.tool_calls.iter().enumerate().flat_map(|(index, call)| {
        let CalledFunction { name, arguments } = call.function.clone();
        [
            Found::Begin { index, id: call.id.clone(), name },
            Found::Arguments { index, text: arguments },
        ]
    });
    Heard::Over(calls.collect(), Box::new(result))
}

/// The item that is being written.
enum Open {
    Message { id: String, text: String },
    Call { id: String, call: ToolCall },
}

/// Writes events.
struct Writer {
    head: Head,
    number: u64,
    open: Option<Open>,
    items: Vec<Value>,
}

impl Writer {
    fn begin(&mut self) -> Vec<Event> {
        let response = self.head.response(Stage::Without("in_progress"));
        ["response.created", "response.in_progress"]
            .into_iter()
            .map(|name| self.event(name, json!({"response": response})))
            .collect()
    }

    fn heard(&mut self, heard: Heard) -> Vec<Event> {
        let mut events = Vec::new();
        match heard {
            Heard::Found(found) => self.found(found, &mut events),
            Heard::Over(found, result) => {
                self.found(found, &mut events);
                self.over(&result, &mut events);
            }
            Heard::Failed(error) => {
                let response = self.head.response(Stage::Failed(&error));
                events.push(self.event("response.failed", json!({"response": response})));
            }
        }
        events
    }

    fn found(&mut self, found: Vec<Found>, events: &mut Vec<Event>) {
        for one in found {
            match one {
                Found::Text(text) => self.say(&text, events),
                Found::Begin { id: call_id, name, .. } => {
                    self.close("completed", events);
                    let id = object::item_id("fc", &self.head.id, self.items.len());
                    let function = CalledFunction { name, arguments: String::new() };
                    let call = ToolCall { id: call_id, kind: ToolKind::Function, function };
                    let item = object::call(&id, &call, "in_progress");
                    events.push(self.of_item("response.output_item.added", json!({"item": item})));
                    self.open = Some(Open::Call { id, call });
                }
                Found::Arguments { text, .. } => {
                    let Some(Open::Call { id, call }) = &mut self.open else { continue };
                    call.function.arguments.push_str(&text);
                    let fields = json!({"item_id": id, "delta": text});
                    events.push(self.of_item("response.function_call_arguments.delta", fields));
                }
            }
        }
    }

    fn say(&mut self, more: &str, events: &mut Vec<Event>) {
        if !matches!(self.open, Some(Open::Message { .. })) {
            self.close("completed", events);
            let id = object::item_id("msg", &self.head.id, self.items.len());
            let item = object::message(&id, "", "in_progress");
            events.push(self.of_item("response.output_item.added", json!({"item": item})));
            let fields = json!({"item_id": id, "content_index": 0, "part": object::part("")});
            events.push(self.of_item("response.content_part.added", fields));
            self.open = Some(Open::Message { id, text: String::new() });
        }
        let Some(Open::Message { id, text }) = &mut self.open else { return };
        if !more.is_empty() {
            text.push_str(more);
            let fields = json!({"item_id": id, "content_index": 0, "delta": more, "logprobs": []});
            events.push(self.of_item("response.output_text.delta", fields));
        }
    }

    fn close(&mut self, status: &str, events: &mut Vec<Event>) {
        let item = match self.open.take() {
            None => return,
            Some(Open::Message { id, text }) => {
                let done = json!({"item_id": id, "content_index": 0, "text": text, "logprobs": []});
                events.push(self.of_item("response.output_text.done", done));
                let part = json!({"item_id": id, "content_index": 0, "part": object::part(&text)});
                events.push(self.of_item("response.content_part.done", part));
                object::message(&id, &text, status)
            }
            Some(Open::Call { id, call }) => {
                let (name, arguments) = (&call.function.name, &call.function.arguments);
                let done = json!({"item_id": id, "name": name, "arguments": arguments});
                events.push(self.of_item("response.function_call_arguments.done", done));
                object::call(&id, &call, status)
            }
        };
        events.push(self.of_item("response.output_item.done", json!({"item": item})));
        self.items.push(item);
    }

    fn over(&mut self, result: &CompletionResult, events: &mut Vec<Event>) {
        if self.items.is_empty() && self.open.is_none() {
            self.say("", events);
        }
        self.close(object::item_status(&result.finish_reason), events);
        let items = std::mem::take(&mut self.items);
        let stage = Stage::Over(&result.finish_reason, result.usage, items);
        let response = self.head.response(stage);
        let name = match result.finish_reason.as_str() {
            "length" => "response.incomplete",
            _ => "response.completed",
        };
        events.push(self.event(name, json!({"response": response})));
    }

    /// An event of the item that is being written.
    fn of_item(&mut self, name: &str, mut fields: Value) -> Event {
        fields["output_index"] = json!(self.items.len());
        self.event(name, fields)
    }

    fn event(&mut self, name: &str, mut fields: Value) -> Event {
        fields["type"] = json!(name);
        fields["sequence_number"] = json!(self.number);
        self.number += 1;
        // Strings and numbers: they can always be written.
        Event::default().event(name).json_data(fields).unwrap_or_default()
    }
}
