//! A generation's events put together into the completion that they make: words, and calls of
//! functions where a request offers any.

use std::sync::Arc;

use aisemble_protocol::completion::{CompletionResult, Timings, TokenLogprob, Usage};
use aisemble_protocol::tools::Offer;
use aisemble_protocol::v1::generate_event::Event;
use aisemble_protocol::{ApiError, v1};

use crate::calls::{CallScan, Found, Heard, reason};
use crate::dispatch::{Generation, reason_text};

/// Tells words from calls in what a generation says.
#[derive(Debug, Default)]
pub struct Ear {
    offer: Option<Arc<Offer>>,
    scan: Option<CallScan>,
}

impl Ear {
    /// For a generation that may call what is offered.
    #[must_use]
    pub fn new(offer: Option<Arc<Offer>>) -> Self {
        Self { offer, scan: None }
    }

    /// The generation has begun: how it writes calls is known.
    pub fn started(&mut self, started: &v1::Started) {
        let offer = self.offer.clone();
        self.scan = offer.map(|offer| CallScan::new(started.call_format(), offer));
    }

    /// What is certain after `text` has come too.
    pub fn hear(&mut self, text: &str) -> Vec<Found> {
        match &mut self.scan {
            Some(scan) => scan.push(text),
            None if text.is_empty() => Vec::new(),
            None => vec![Found::Text(text.to_owned())],
        }
    }

    /// What is left when `tail` was the last of it.
    pub fn end(&mut self, tail: &str) -> Vec<Found> {
        let mut found = self.hear(tail);
        found.extend(self.scan.iter_mut().flat_map(CallScan::finish));
        found
    }

    /// Why it ended: `stop`, `length` or `tool_calls`; none when it came to no end of its own.
    #[must_use]
    pub fn reason(&self, finished: &v1::Finished) -> Option<&'static str> {
        let calls = self.scan.as_ref().map_or(0, CallScan::calls);
        reason_text(finished.reason()).map(|text| reason(text, calls))
    }
}

/// What has come so far.
#[derive(Debug, Default)]
pub struct Transcript {
    ear: Ear,
    heard: Heard,
    news: Vec<Found>,
    logprobs: Vec<TokenLogprob>,
    started: v1::Started,
}

impl Transcript {
    /// Nothing has come of a generation that may call what is offered.
    #[must_use]
    pub fn new(offer: Option<Arc<Offer>>) -> Self {
        Self { ear: Ear::new(offer), ..Self::default() }
    }

    /// Adds an event; the last one gives the completion.
    pub fn add(&mut self, event: Event) -> Option<CompletionResult> {
        match event {
            Event::Started(started) => {
                self.ear.started(&started);
                self.started = started;
                None
            }
            Event::Token(token) => {
                self.news = self.ear.hear(&token.text);
                self.heard.add(self.news.clone());
                self.logprobs.extend(token_logprob(token));
                None
            }
            Event::Finished(finished) => Some(self.finish(&finished)),
        }
    }

    /// Takes what the last event has brought.
    pub fn found(&mut self) -> Vec<Found> {
        std::mem::take(&mut self.news)
    }

    /// The words that the last event has brought.
    #[must_use]
    pub fn words(&self) -> String {
        let words = self.news.iter().filter_map(|found| match found {
            Found::Text(text) => Some(text.as_str()),
            Found::Begin { .. } | Found::Arguments { .. } => None,
        });
        words.collect()
    }

    fn finish(&mut self, finished: &v1::Finished) -> CompletionResult {
        self.news = self.ear.end(&finished.text_tail);
        self.heard.add(self.news.clone());
        let heard = std::mem::take(&mut self.heard);
        let started = std::mem::take(&mut self.started);
        let logprobs = std::mem::take(&mut self.logprobs);
        CompletionResult {
            job_id: None,
            model: started.model,
            model_sha256: started.sha256,
            text: heard.text,
            tool_calls: heard.calls,
            finish_reason: self.ear.reason(finished).unwrap_or("stop").to_owned(),
            seed: started.seed,
            usage: usage(finished),
            timings: timings(finished),
            logprobs: (!logprobs.is_empty()).then_some(logprobs),
            redactions: None,
        }
    }
}

/// Reads a generation to its end.
///
/// # Errors
/// As [`Generation::next`].
pub async fn collect(
    mut generation: Generation,
    offer: Option<Arc<Offer>>,
) -> Result<CompletionResult, ApiError> {
    let mut transcript = Transcript::new(offer);
    loop {
        if let Some(result) = transcript.add(generation.next().await?) {
            return Ok(result);
        }
    }
}

/// Tokens in and out.
#[must_use]
pub fn usage(finished: &v1::Finished) -> Usage {
    Usage {
        prompt_tokens: finished.prompt_tokens,
        completion_tokens: finished.output_tokens,
        total_tokens: finished.prompt_tokens.saturating_add(finished.output_tokens),
        cached_tokens: finished.cached_tokens,
    }
}

/// The token's log-probability with its alternatives, if the service gave it.
#[must_use]
pub fn token_logprob(token: v1::Token) -> Option<TokenLogprob> {
    let mut own = logprob(token.logprob?);
    own.top_logprobs = token.top_logprobs.into_iter().map(logprob).collect();
    Some(own)
}

fn logprob(logprob: v1::Logprob) -> TokenLogprob {
    let v1::Logprob { token, logprob, bytes } = logprob;
    TokenLogprob { token, logprob, bytes, top_logprobs: Vec::new() }
}

fn timings(finished: &v1::Finished) -> Timings {
    let ms = |us: u64| std::time::Duration::from_micros(us).as_secs_f64() * 1e3;
    let decode_ms = ms(finished.decode_us);
    let tokens = f64::from(finished.output_tokens);
    Timings {
        queue_ms: ms(finished.queue_us),
        prompt_ms: ms(finished.prompt_us),
        decode_ms,
        decode_tokens_per_s: if decode_ms > 0.0 { tokens * 1e3 / decode_ms } else { 0.0 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_and_the_tail_make_the_text() {
        let mut transcript = Transcript::new(None);
        let started = v1::Started { model: "m".into(), seed: 7, ..v1::Started::default() };
        assert_eq!(transcript.add(Event::Started(started)), None);
        let token = |text: &str| v1::Token {
            text: text.to_owned(),
            logprob: Some(v1::Logprob { token: text.into(), logprob: -1.0, bytes: vec![1] }),
            ..v1::Token::default()
        };
        assert_eq!(transcript.add(Event::Token(token("One"))), None);
        assert_eq!(transcript.add(Event::Token(token(", two"))), None);
        let finished = v1::Finished {
            reason: v1::FinishReason::Length.into(),
            prompt_tokens: 3,
            output_tokens: 2,
            decode_us: 500_000,
            text_tail: ".".to_owned(),
            ..v1::Finished::default()
        };
        let result = transcript.add(Event::Finished(finished)).unwrap();
        assert_eq!((result.text.as_str(), result.finish_reason.as_str()), ("One, two.", "length"));
        assert_eq!((result.seed, result.usage.total_tokens), (7, 5));
        assert_eq!(result.logprobs.unwrap().len(), 2);
        assert!((result.timings.decode_tokens_per_s - 4.0).abs() < 1e-9);
    }
}
