//! A generation's events put together into the completion that they make.

use aisemble_protocol::completion::{CompletionResult, Timings, TokenLogprob, Usage};
use aisemble_protocol::v1::generate_event::Event;
use aisemble_protocol::{ApiError, v1};

use crate::dispatch::{Generation, reason_text};

/// What has come so far.
#[derive(Debug, Default)]
pub struct Transcript {
    text: String,
    logprobs: Vec<TokenLogprob>,
    started: v1::Started,
}

impl Transcript {
    /// Nothing has come.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an event; the last one gives the completion.
    pub fn add(&mut self, event: Event) -> Option<CompletionResult> {
        match event {
            Event::Started(started) => {
                self.started = started;
                None
            }
            Event::Token(token) => {
                self.text.push_str(&token.text);
                self.logprobs.extend(token_logprob(token));
                None
            }
            Event::Finished(finished) => Some(self.finish(&finished)),
        }
    }

    fn finish(&mut self, finished: &v1::Finished) -> CompletionResult {
        self.text.push_str(&finished.text_tail);
        let started = std::mem::take(&mut self.started);
        let logprobs = std::mem::take(&mut self.logprobs);
        CompletionResult {
            job_id: None,
            model: started.model,
            model_sha256: started.sha256,
            text: std::mem::take(&mut self.text),
            finish_reason: reason_text(finished.reason()).unwrap_or("stop").to_owned(),
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
pub async fn collect(mut generation: Generation) -> Result<CompletionResult, ApiError> {
    let mut transcript = Transcript::new();
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
        let mut transcript = Transcript::new();
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
