//! One stream of `/v1/completions`, read with the time of each token. It knows nothing of what the
//! times are for.

use std::time::Instant;

use aisemble_client::Client;
use futures_util::StreamExt as _;
use serde_json::{Value, json};

use crate::failure::{Exit, Failure, Outcome};

/// Words that are one token each, with their space, in common vocabularies.
const WORDS: [&str; 16] = [
    " the", " of", " and", " to", " in", " is", " was", " for", " on", " that", " with", " as",
    " by", " at", " from", " it",
];

/// What is asked for.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    pub(super) model: String,
    pub(super) prompt: String,
    pub(super) output_tokens: u32,
    pub(super) temperature: f32,
}

/// An answer that was read to its end.
#[derive(Debug, Clone)]
pub(super) struct Timed {
    pub(super) begun: Instant,
    /// When each piece of text came: nearly always one token.
    pub(super) pieces: Vec<Instant>,
    pub(super) prompt_tokens: u32,
    pub(super) cached_tokens: u32,
    pub(super) output_tokens: u32,
}

impl Timed {
    /// Milliseconds to the first token.
    pub(super) fn first_ms(&self) -> f64 {
        let first = self.pieces.first().copied().unwrap_or(self.begun);
        first.saturating_duration_since(self.begun).as_secs_f64() * 1e3
    }

    /// Tokens that came after `start`, up to `end`. Tokens without text of their own are spread
    /// over the others.
    pub(super) fn tokens_between(&self, start: Instant, end: Instant) -> f64 {
        let pieces = self.pieces.iter().filter(|at| **at > start && **at <= end).count();
        pieces as f64 * f64::from(self.output_tokens) / self.pieces.len().max(1) as f64
    }
}

/// Reads an answer. `piece` hears how many pieces have come, and ends the reading with false.
pub(super) async fn read(
    client: &Client,
    ask: &Ask,
    mut piece: impl FnMut(&[Instant]) -> bool,
) -> Outcome<Timed> {
    let body = json!({
        "model": ask.model,
        "prompt": ask.prompt,
        "max_tokens": ask.output_tokens,
        "temperature": ask.temperature,
        "ignore_eos": true,
        "stream": true,
        "stream_options": { "include_usage": true },
    });
    let begun = Instant::now();
    let mut timed =
        Timed { begun, pieces: Vec::new(), prompt_tokens: 0, cached_tokens: 0, output_tokens: 0 };
    let mut events = client.stream_json("/v1/completions", &body).await?;
    while let Some(event) = events.next().await {
        let event = event?;
        if let Some(error) = event.get("error") {
            return Err(Failure::new(Exit::Failed, format!("the stream broke off: {error}")));
        }
        if event["choices"][0]["text"].as_str().is_some_and(|text| !text.is_empty()) {
            timed.pieces.push(Instant::now());
            if !piece(&timed.pieces) {
                return Ok(timed);
            }
        }
        let count = |value: &Value| value.as_u64().and_then(|n| u32::try_from(n).ok());
        if let Some(output) = count(&event["usage"]["completion_tokens"]) {
            timed.output_tokens = output;
            timed.prompt_tokens = count(&event["usage"]["prompt_tokens"]).unwrap_or(0);
            let cached = &event["usage"]["prompt_tokens_details"]["cached_tokens"];
            timed.cached_tokens = count(cached).unwrap_or(0);
        }
    }
    if timed.pieces.is_empty() || timed.output_tokens == 0 {
        return Err(Failure::new(Exit::Failed, "the stream ended without text or usage"));
    }
    Ok(timed)
}

/// About `tokens` tokens that differ from the first word on for each `salt`.
pub(super) fn prompt(tokens: usize, salt: u64) -> String {
    let mut state = salt.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut text = String::from("Once");
    for _ in 1..tokens {
        // xorshift64: only variety is wanted here.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        text.push_str(WORDS[(state >> 60) as usize]);
    }
    text
}

/// Differs from run to run, so that no prompt is in the server's prefix cache.
pub(super) fn salt() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(1, |since| since.as_secs().wrapping_mul(1_000_003))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn prompts_differ_and_have_their_length() {
        let (one, two) = (prompt(256, 1), prompt(256, 2));
        assert_ne!(one, two);
        assert_eq!(one.split(' ').count(), 256);
        let same = one.bytes().zip(two.bytes()).take_while(|(a, b)| a == b).count();
        assert!(same < 40, "a long common prefix: {same}");
    }

    #[test]
    fn tokens_without_text_count_with_the_others() {
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let timed = Timed {
            begun,
            pieces: vec![at(10), at(20), at(30), at(40)],
            prompt_tokens: 5,
            cached_tokens: 0,
            output_tokens: 8,
        };
        assert!((timed.first_ms() - 10.0).abs() < 1e-6);
        assert!((timed.tokens_between(at(10), at(30)) - 4.0).abs() < 1e-9);
    }
}
