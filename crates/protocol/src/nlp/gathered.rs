//! Puts the events of `Nlp.Run` together: results come in any order, each text's exactly once.

use super::{AnswerFacts, NlpTimings, NlpUsage};
use crate::error::{ApiError, ErrorCode};
use crate::{limits, v1};

/// What has come of an answer so far.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Gathered {
    started: Option<v1::NlpStarted>,
    results: Vec<Option<v1::TextResult>>,
    finished: Option<v1::NlpFinished>,
}

impl Gathered {
    /// Takes in one event.
    ///
    /// # Errors
    /// `internal` when the service breaks the order of events, or answers a text twice or one that
    /// is not there.
    pub fn push(&mut self, event: v1::NlpEvent) -> Result<(), ApiError> {
        use v1::nlp_event::Event;
        match event.event {
            Some(Event::Started(started)) if self.started.is_none() => {
                if started.texts as usize > limits::NLP_TEXTS_MAX {
                    return Err(broken());
                }
                self.results = vec![None; started.texts as usize];
                self.started = Some(started);
            }
            Some(Event::Part(part)) => {
                for result in part.results {
                    match self.results.get_mut(result.index as usize) {
                        Some(place) if place.is_none() => *place = Some(result),
                        Some(_) | None => return Err(broken()),
                    }
                }
            }
            Some(Event::Finished(finished)) if self.finished.is_none() => {
                self.finished = Some(finished);
            }
            Some(Event::Started(_) | Event::Finished(_)) | None => return Err(broken()),
        }
        Ok(())
    }

    /// Texts that are answered, and texts in all.
    #[must_use]
    pub fn progress(&self) -> (usize, usize) {
        (self.results.iter().flatten().count(), self.results.len())
    }

    /// The results in the order of the request, and what else is known.
    ///
    /// # Errors
    /// `unavailable` when the stream ended before the answer did.
    pub fn complete(self) -> Result<(Vec<v1::TextResult>, AnswerFacts), ApiError> {
        let (Some(started), Some(finished)) = (self.started, self.finished) else {
            return Err(unfinished());
        };
        let results: Option<Vec<_>> = self.results.into_iter().collect();
        let facts = AnswerFacts {
            model: started.model,
            model_sha256: started.sha256,
            usage: NlpUsage { tokens: finished.tokens, windows: started.windows },
            timings: NlpTimings {
                queue_ms: finished.queue_us as f64 / 1e3,
                compute_ms: finished.compute_us as f64 / 1e3,
                batches: finished.batches,
            },
        };
        Ok((results.ok_or_else(unfinished)?, facts))
    }
}

fn broken() -> ApiError {
    ApiError::new(ErrorCode::Internal, "the service broke the order of its answer")
}

fn unfinished() -> ApiError {
    ApiError::new(ErrorCode::Unavailable, "the service went away before the answer was complete")
        .with_retry_after_ms(1000)
}
