//! The kinds of jobs: what a request of each is, how it is checked, and how an attempt at it is
//! made. One table says which there are; doors, admission and the executor know no kind by name.
//!
//! It must not know HTTP, or how jobs are stored, claimed and retried.

mod attempt;
mod completion;
mod data;
mod nlp;
mod progress;
mod response;
mod vision;

use std::future::Future;

use aisemble_jobs::{ClaimedJob, JobFailure, JobFuture};
use aisemble_protocol::job::JobOptions;
use aisemble_protocol::nlp::{
    ClassifyRequest, EmbedRequest, EntitiesRequest, RedactRequest, RerankRequest,
};
use aisemble_protocol::{ApiError, ErrorCode, JobId};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use attempt::{Attempt, Bench};
pub use completion::Completion;
pub(crate) use completion::check_against;
pub use data::Processing;
pub use nlp::Nlp;
pub(crate) use nlp::{collect as collect_nlp, start as start_nlp};
pub use response::{KeptResponse, Response};
pub use vision::Analysis;

use crate::capability::Capability;
use crate::dispatch::Dispatch;

/// A kind of job.
pub trait Work: Send + Sync + 'static {
    /// The kind's name: `nlp.embed`, ...
    const KIND: &'static str;
    /// Whose services do it.
    const CAPABILITY: Capability;
    /// What is asked for: the job's payload, as JSON.
    type Request: Serialize + DeserializeOwned + Clone + Send + Sync + 'static;
    /// What comes of it: the job's result, as JSON. An object that may have a `job_id`, which is
    /// left out when it is made.
    type Answer: Serialize + Send;

    /// How the job is to be run.
    fn options(request: &Self::Request) -> Option<&JobOptions>;

    /// Whether the body asks for server-sent events.
    fn streams(request: &Self::Request) -> bool;

    /// Notes whether somebody follows the answer as it comes. Does not make it another request.
    fn set_streams(request: &mut Self::Request, streams: bool);

    /// Checks every field.
    ///
    /// # Errors
    /// `invalid_request` or `payload_too_large`, naming the field and its limit.
    fn check(request: &Self::Request) -> Result<(), ApiError>;

    /// Checks the request against who would do it.
    ///
    /// # Errors
    /// As [`Dispatch::resolve`].
    fn resolve(request: &Self::Request, dispatch: &Dispatch) -> Result<(), ApiError>;

    /// The uploaded files that it needs: the field that names each, and the id.
    fn files(_request: &Self::Request) -> Vec<(String, String)> {
        Vec::new()
    }

    /// Draws what the request leaves to chance, so that a retry does the same again.
    fn settle(_request: &mut Self::Request) {}

    /// Makes one attempt. Comes back soon once the attempt is cancelled.
    fn run(
        attempt: Attempt,
        request: Self::Request,
    ) -> impl Future<Output = Result<Self::Answer, JobFailure>> + Send;
}

/// A kind as the executor sees it.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// Its name.
    pub name: &'static str,
    run: fn(Attempt, ClaimedJob) -> JobFuture<'static>,
    check: fn(&serde_json::Value) -> Result<(), ApiError>,
}

/// Every kind.
pub const KINDS: &[Kind] = &[
    kind::<Completion>(),
    kind::<Response>(),
    kind::<Nlp<EmbedRequest>>(),
    kind::<Nlp<RerankRequest>>(),
    kind::<Nlp<ClassifyRequest>>(),
    kind::<Nlp<EntitiesRequest>>(),
    kind::<Nlp<RedactRequest>>(),
    kind::<Analysis>(),
    kind::<Processing>(),
];

const fn kind<W: Work>() -> Kind {
    Kind { name: W::KIND, run: run::<W>, check: check::<W> }
}

impl Kind {
    /// The kind of that name.
    ///
    /// # Errors
    /// `unprocessable` when this version does not know it.
    pub fn named(name: &str) -> Result<Self, JobFailure> {
        KINDS.iter().find(|kind| kind.name == name).copied().ok_or_else(|| {
            let message = format!("this version does not know jobs of kind {name}");
            JobFailure::new(ErrorCode::Unprocessable, message)
        })
    }

    /// Checks a request of this kind as its door would.
    ///
    /// # Errors
    /// `invalid_request` or `payload_too_large`, naming the field.
    pub fn check(self, request: &serde_json::Value) -> Result<(), ApiError> {
        (self.check)(request)
    }

    /// Makes one attempt at a job and gives its result, JSON.
    #[must_use]
    pub fn run(self, attempt: Attempt, job: ClaimedJob) -> JobFuture<'static> {
        (self.run)(attempt, job)
    }
}

fn check<W: Work>(request: &serde_json::Value) -> Result<(), ApiError> {
    let request: W::Request = serde_path_to_error::deserialize(request).map_err(|error| {
        let path = error.path().to_string();
        let message = format!("{path}: {}", error.into_inner());
        ApiError::invalid(&path, message)
    })?;
    W::check(&request)
}

fn run<W: Work>(attempt: Attempt, job: ClaimedJob) -> JobFuture<'static> {
    Box::pin(async move {
        let request: W::Request = serde_json::from_slice(&job.payload).map_err(|error| {
            let line = error.line();
            tracing::error!(job.id = %job.id, error.line = line, "a stored job is malformed");
            JobFailure::new(ErrorCode::Internal, "the stored job cannot be read")
        })?;
        drop(job.payload);
        let answer = W::run(attempt, request).await?;
        let written = serde_json::to_vec(&answer);
        written
            .map(|bytes| with_job_id(bytes, job.id))
            .map_err(|_| JobFailure::new(ErrorCode::Internal, "the result cannot be stored"))
    })
}

/// Puts the job's id into an object that is written already, without reading it again.
fn with_job_id(object: Vec<u8>, id: JobId) -> Vec<u8> {
    let Some((b'{', rest)) = object.split_first() else { return object };
    let separator = if rest.first() == Some(&b'}') { "" } else { "," };
    let mut bytes = format!("{{\"job_id\":\"{id}\"{separator}").into_bytes();
    bytes.extend_from_slice(rest);
    bytes
}

/// A JSON object's field `stream`, for every request that has one.
macro_rules! stream_field {
    () => {
        fn streams(request: &Self::Request) -> bool {
            request.stream
        }

        fn set_streams(request: &mut Self::Request, streams: bool) {
            request.stream = streams;
        }
    };
}
use stream_field;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_kind_is_there_once_and_begins_with_its_capability() {
        let names: BTreeSet<_> = KINDS.iter().map(|kind| kind.name).collect();
        assert_eq!(names.len(), KINDS.len());
        assert_eq!(Kind::named("llm.completion").unwrap().name, "llm.completion");
        assert_eq!(Kind::named("llm.poem").unwrap_err().code, ErrorCode::Unprocessable);
    }

    #[test]
    fn a_result_says_which_job_made_it() {
        let id = JobId::generate();
        let read = |bytes: &[u8]| {
            let with = with_job_id(bytes.to_vec(), id);
            serde_json::from_slice::<serde_json::Value>(&with).unwrap()
        };
        assert_eq!(read(b"{}"), serde_json::json!({"job_id": id}));
        assert_eq!(read(b"{\"a\":1}"), serde_json::json!({"job_id": id, "a": 1}));
    }
}
