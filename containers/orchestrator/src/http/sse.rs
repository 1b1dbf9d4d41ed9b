//! Server-sent events: a job as it comes, and the recorded events of a job.

use std::sync::Arc;

use aisemble_jobs::JobsError;
use aisemble_protocol::job::JobEvent;
use axum::http::{HeaderName, HeaderValue};
use axum::response::sse::{Event, KeepAlive};
use axum::response::{IntoResponse as _, Response, Sse};
use futures_util::{Stream, StreamExt as _, stream};
use serde_json::json;

use super::error::{Place, Problem};
use crate::app::{App, Progress, Update};
use crate::live::Piece;

type Never = std::convert::Infallible;

/// An answer of events, kept open by comments. Proxies are asked not to hold it back.
pub(super) fn respond<S>(app: &App, events: S) -> Response
where
    S: Stream<Item = Event> + Send + 'static,
{
    let keep_alive = KeepAlive::new().interval(app.limits.keep_alive());
    let events = events.map(Ok::<_, Never>);
    let mut response = Sse::new(events).keep_alive(keep_alive).into_response();
    response
        .headers_mut()
        .insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

/// A job from now on: `job`, `token`, `item`, `progress`..., then `result` or `error`.
pub(super) fn progress(app: &Arc<App>, progress: Progress, place: Place) -> Response {
    let events = stream::unfold((progress, place), |(mut progress, place)| async move {
        let update = progress.next().await?;
        Some((update_event(update, &place), (progress, place)))
    });
    respond(app, events)
}

/// The recorded events of a job, numbered.
pub(super) fn recorded<S>(app: &App, events: S) -> Response
where
    S: Stream<Item = Result<JobEvent, JobsError>> + Send + 'static,
{
    let events = events.filter_map(|event| async {
        match event {
            Ok(event) => Some(named(&event.kind, &event.data).id(event.seq.to_string())),
            Err(error) => {
                tracing::warn!("a stream of events broke off: {error}");
                None
            }
        }
    });
    respond(app, events)
}

fn update_event(update: Update, place: &Place) -> Event {
    match update {
        Update::Job(view) => named("job", &view),
        Update::Piece(Piece::Token { text, index }) => {
            named("token", &json!({"text": text, "index": index}))
        }
        Update::Piece(Piece::Item { json }) => Event::default().event("item").data(&*json),
        Update::Progress(data) => named("progress", &data),
        Update::Piece(Piece::Restart { attempt }) => named("restart", &json!({"attempt": attempt})),
        Update::Result(result) => {
            // Written by serde_json: UTF-8 without line breaks.
            Event::default().event("result").data(String::from_utf8_lossy(&result))
        }
        Update::Error(error) => named("error", &Problem::new(&error, place)),
    }
}

/// An event of that name with JSON data. JSON has no line breaks of its own, so it can always be
/// sent.
fn named(name: &str, data: &impl serde::Serialize) -> Event {
    let name: String = name.chars().filter(|c| !c.is_control()).collect();
    Event::default().event(&name).json_data(data).unwrap_or_else(|_| Event::default().event(name))
}
