//! A streamed answer: the generations of all choices read side by side, as OpenAI's chunks.

use std::sync::Arc;

use aisemble_protocol::completion::Usage;
use aisemble_protocol::v1::generate_event::Event as Generated;
use aisemble_protocol::{ApiError, v1};
use axum::response::Response;
use axum::response::sse::Event;
use futures_util::future::try_join_all;
use futures_util::stream::{self, SelectAll, StreamExt as _};

use super::super::error::OpenAiError;
use super::super::sse;
use super::Plan;
use super::answer::{Form, Head, News};
use super::shapes::UsageObject;
use crate::app::transcript::{Ear, token_logprob, usage};
use crate::app::{App, Origin};
use crate::dispatch::Generation;

/// One choice while it is generated.
struct Choice {
    index: usize,
    generation: Generation,
    /// Characters sent.
    offset: usize,
    phase: Phase,
    ear: Ear,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The role is to be said first.
    Opening,
    Generating,
    Over,
}

/// What happens to one choice.
enum Step {
    News(News),
    /// The last news, and its tokens.
    End(News, Usage),
    Failed(ApiError),
}

/// Begins all generations of the plan; the stream begins once each has been started, so that a
/// refusal still has a status of its own.
///
/// # Errors
/// As the services say.
pub(super) async fn respond(
    app: &Arc<App>,
    origin: &Origin,
    plan: Plan,
    form: Form,
) -> Result<Response, ApiError> {
    let generations = super::begin(app, origin, &plan).await?;
    let opening = generations.into_iter().enumerate();
    let begun = try_join_all(opening.map(|one| opened(one, Ear::new(plan.offer.clone())))).await?;
    let (started, choices): (Vec<_>, Vec<_>) = begun.into_iter().unzip();
    let started = started.into_iter().next().unwrap_or_default();
    let head = Head::new(form, &started.model, &started.sha256);
    let steps: SelectAll<_> =
        choices.into_iter().map(|choice| stream::unfold(choice, next).boxed()).collect();
    let usages = vec![Usage::default(); plan.generations.len()];
    let asked = plan.include_usage;
    let writer = Writer { head, usages, include_usage: asked, per_prompt: plan.per_prompt };
    let events = stream::unfold(Some((steps, writer)), |state| async move {
        let (mut steps, mut writer) = state?;
        Some(match steps.next().await {
            Some(Step::Failed(error)) => (vec![failed(&error)], None),
            Some(step) => (vec![writer.event(step)], Some((steps, writer))),
            None => (writer.end(), None),
        })
    });
    Ok(sse::respond(app, events.flat_map(stream::iter)))
}

async fn opened(
    (index, mut generation): (usize, Generation),
    mut ear: Ear,
) -> Result<(v1::Started, Choice), ApiError> {
    loop {
        // Nothing else comes before it.
        if let Generated::Started(started) = generation.next().await? {
            ear.started(&started);
            let choice = Choice { index, generation, offset: 0, phase: Phase::Opening, ear };
            return Ok((started, choice));
        }
    }
}

async fn next(mut choice: Choice) -> Option<(Step, Choice)> {
    let index = choice.index;
    match choice.phase {
        Phase::Over => return None,
        Phase::Opening => {
            choice.phase = Phase::Generating;
            return Some((Step::News(News { index, first: true, ..News::default() }), choice));
        }
        Phase::Generating => {}
    }
    let step = loop {
        match choice.generation.next().await {
            Ok(Generated::Started(_)) => {}
            Ok(Generated::Token(token)) => {
                let mut news = News { index, offset: choice.offset, ..News::default() };
                news.add(choice.ear.hear(&token.text));
                choice.offset += token.text.chars().count();
                news.logprobs = token_logprob(token).into_iter().collect();
                if !news.text.is_empty() || !news.calls.is_empty() || !news.logprobs.is_empty() {
                    break Step::News(news);
                }
            }
            Ok(Generated::Finished(finished)) => break end(&mut choice, finished),
            Err(error) => {
                choice.phase = Phase::Over;
                break Step::Failed(error);
            }
        }
    };
    Some((step, choice))
}

fn end(choice: &mut Choice, finished: v1::Finished) -> Step {
    choice.phase = Phase::Over;
    let usage = usage(&finished);
    let mut news = News { index: choice.index, offset: choice.offset, ..News::default() };
    news.add(choice.ear.end(&finished.text_tail));
    news.finish_reason = choice.ear.reason(&finished).map(str::to_owned);
    Step::End(news, usage)
}

/// Writes chunks.
struct Writer {
    head: Head,
    usages: Vec<Usage>,
    include_usage: bool,
    per_prompt: usize,
}

impl Writer {
    fn event(&mut self, step: Step) -> Event {
        let news = match step {
            Step::News(news) => news,
            Step::End(news, usage) => {
                if let Some(slot) = self.usages.get_mut(news.index) {
                    *slot = usage;
                }
                news
            }
            Step::Failed(error) => return failed(&error),
        };
        data(&self.head.chunk(Some(news), self.include_usage.then_some(None)))
    }

    /// The usage, if it was asked for, and the mark of the end.
    fn end(&self) -> Vec<Event> {
        let mut events = Vec::new();
        if self.include_usage {
            let usage = UsageObject::of(&self.usages, self.per_prompt);
            events.push(data(&self.head.chunk(None, Some(Some(usage)))));
        }
        events.push(Event::default().data("[DONE]"));
        events
    }
}

fn failed(error: &ApiError) -> Event {
    data(&OpenAiError::new(error))
}

fn data(value: &impl serde::Serialize) -> Event {
    // Strings and numbers: they can always be written.
    Event::default().json_data(value).unwrap_or_default()
}
