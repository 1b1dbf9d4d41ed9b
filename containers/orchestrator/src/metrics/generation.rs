//! One generation, metered: time to its first token, between tokens, tokens in and out; under our
//! names and under those of the OpenTelemetry GenAI conventions.

use std::time::{Duration, Instant};

use aisemble_protocol::ErrorCode;
use prometheus::Histogram;

use super::Metrics;

/// Value of the attribute `gen_ai.provider.name`.
const PROVIDER: &str = "ai-semble";

/// Value of the attribute `gen_ai.operation.name`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Messages through the chat template.
    Chat,
    /// A prompt as it is.
    TextCompletion,
}

impl Operation {
    /// As the conventions write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::TextCompletion => "text_completion",
        }
    }
}

/// Tokens of one generation.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tokens {
    /// Of the prompt.
    pub(crate) input: u32,
    /// Of those, not computed again.
    pub(crate) cached: u32,
    /// Generated.
    pub(crate) output: u32,
}

/// Meters one generation from the call on. Dropped without an end, it counts as cancelled.
#[derive(Debug)]
pub struct GenerationMeter {
    metrics: Metrics,
    operation: Operation,
    model: String,
    inter_token: Histogram,
    started: Instant,
    first_token: Option<Instant>,
    last_token: Option<Instant>,
    ended: bool,
}

impl GenerationMeter {
    pub(super) fn start(metrics: Metrics, operation: Operation, model: &str) -> Self {
        let inter_token = metrics.inter_token.with_label_values(&[model]);
        Self {
            metrics,
            operation,
            model: model.to_owned(),
            inter_token,
            started: Instant::now(),
            first_token: None,
            last_token: None,
            ended: false,
        }
    }

    /// A token came.
    pub(crate) fn token(&mut self) {
        let now = Instant::now();
        if let Some(last) = self.last_token.replace(now) {
            self.inter_token.observe((now - last).as_secs_f64());
            return;
        }
        self.first_token = Some(now);
        let seconds = (now - self.started).as_secs_f64();
        self.metrics.first_token.with_label_values(&[&self.model]).observe(seconds);
        self.metrics.gen_ai_first_token.with_label_values(&self.labels()).observe(seconds);
    }

    /// It ended as `reason` says: `stop` or `length`.
    pub(crate) fn finished(&mut self, reason: &str, tokens: Tokens, queue: Duration) {
        self.end(reason, "");
        let metrics = &self.metrics;
        metrics.service_queue.with_label_values(&[&self.model]).observe(queue.as_secs_f64());
        for (kind, count) in
            [("input", tokens.input), ("cached", tokens.cached), ("output", tokens.output)]
        {
            metrics.tokens.with_label_values(&[&self.model, kind]).inc_by(count.into());
        }
        let [operation, provider, model, response] = self.labels();
        for (kind, count) in [("input", tokens.input), ("output", tokens.output)] {
            let labels = [operation, provider, model, response, kind];
            metrics.gen_ai_token_usage.with_label_values(&labels).observe(count.into());
        }
        if let (Some(first), Some(last)) = (self.first_token, self.last_token)
            && tokens.output > 1
        {
            let mean = (last - first).as_secs_f64() / f64::from(tokens.output - 1);
            metrics.gen_ai_output_token.with_label_values(&self.labels()).observe(mean);
        }
    }

    /// It failed.
    pub(crate) fn failed(&mut self, code: ErrorCode) {
        self.end(code.as_str(), code.as_str());
    }

    fn end(&mut self, outcome: &str, error: &str) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        self.metrics.generations.with_label_values(&[&self.model, outcome]).inc();
        let [operation, provider, model, response] = self.labels();
        let labels = [operation, provider, model, response, error];
        let seconds = self.started.elapsed().as_secs_f64();
        self.metrics.gen_ai_request.with_label_values(&labels).observe(seconds);
    }

    fn labels(&self) -> [&str; 4] {
        [self.operation.as_str(), PROVIDER, &self.model, &self.model]
    }
}

impl Drop for GenerationMeter {
    fn drop(&mut self) {
        self.failed(ErrorCode::Cancelled);
    }
}
