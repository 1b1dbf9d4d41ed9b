//! One generation under way: its events, its deadline, its meter. Dropping it cancels the
//! generation in the service.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aisemble_protocol::v1::generate_event::Event;
use aisemble_protocol::{ApiError, ErrorCode, v1};
use tonic::{Code, Status, Streaming};

use super::instances::{Instance, Permit};
use super::rate::Rate;
use crate::metrics::{GenerationMeter, Tokens};

/// What marks an error that one of our services made; without it the transport did.
const OWN_ERROR_KEY: &str = "aisemble-code";
/// When to come again after a service went away in the middle.
const GONE_RETRY_MS: u64 = 2_000;

/// A generation under way.
#[derive(Debug)]
pub struct Generation {
    stream: Streaming<v1::GenerateEvent>,
    meter: GenerationMeter,
    deadline: Instant,
    finished: Arc<Rate>,
    permit: Permit,
}

impl Generation {
    pub(super) fn new(
        stream: Streaming<v1::GenerateEvent>,
        permit: Permit,
        meter: GenerationMeter,
        deadline: Instant,
        finished: Arc<Rate>,
    ) -> Self {
        Self { stream, meter, deadline, finished, permit }
    }

    /// The next event: Started, then a Token for each token, then Finished (with `stop` or
    /// `length`), after which nothing comes. Cancel-safe.
    ///
    /// # Errors
    /// `timeout` past the deadline, `unavailable` when the service goes away or stops, or what the
    /// service says. Nothing comes after an error.
    pub async fn next(&mut self) -> Result<Event, ApiError> {
        let received = tokio::time::timeout_at(self.deadline.into(), self.stream.message()).await;
        let event = match received {
            Ok(Ok(Some(v1::GenerateEvent { event: Some(event) }))) => self.checked(event),
            Ok(Ok(_)) => Err(gone(&self.permit.instance)),
            Ok(Err(status)) => Err(failure(status, &self.permit.instance)),
            Err(_) => Err(timed_out()),
        };
        if let Err(error) = &event {
            self.meter.failed(error.code);
            self.finished.ended(Instant::now());
        }
        event
    }

    fn checked(&mut self, event: Event) -> Result<Event, ApiError> {
        match &event {
            Event::Started(_) => {}
            Event::Token(_) => self.meter.token(),
            Event::Finished(finished) => {
                let Some(reason) = reason_text(finished.reason()) else {
                    return Err(gone(&self.permit.instance));
                };
                let tokens = Tokens {
                    input: finished.prompt_tokens,
                    cached: finished.cached_tokens,
                    output: finished.output_tokens,
                };
                self.meter.finished(reason, tokens, Duration::from_micros(finished.queue_us));
                self.finished.ended(Instant::now());
            }
        }
        Ok(event)
    }
}

/// `stop` or `length`; none when the generation did not come to an end of its own.
pub(crate) fn reason_text(reason: v1::FinishReason) -> Option<&'static str> {
    match reason {
        v1::FinishReason::Stop => Some("stop"),
        v1::FinishReason::Length => Some("length"),
        v1::FinishReason::Unspecified | v1::FinishReason::Cancelled => None,
    }
}

/// The error for the caller. An error of the transport means that the process is gone.
pub(super) fn failure(status: Status, instance: &Instance) -> ApiError {
    let transport = status.metadata().get(OWN_ERROR_KEY).is_none();
    let lost = [Code::Unavailable, Code::Unknown, Code::Internal, Code::Cancelled];
    if transport && lost.contains(&status.code()) { gone(instance) } else { status.into() }
}

fn gone(instance: &Instance) -> ApiError {
    instance.lost();
    ApiError::new(ErrorCode::Unavailable, "the service went away; come again")
        .with_retry_after_ms(GONE_RETRY_MS)
}

pub(super) fn timed_out() -> ApiError {
    ApiError::new(ErrorCode::Timeout, "the deadline passed before the completion was done")
}
