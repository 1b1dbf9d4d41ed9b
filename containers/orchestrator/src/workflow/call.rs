//! One call of a capability as a part of a job: the same work as a job of its own, without one.

use aisemble_jobs::{ClaimedJob, JobContext, JobFailure};
use aisemble_protocol::JobId;
use aisemble_protocol::workflow::StepKind;
use serde_json::Value;

use super::{Engine, encode, unreadable};
use crate::work::{Attempt, Kind};

/// A place from which calls are made: the attempt at the job that they are a part of.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    job: ClaimedJob,
    attempt: Attempt,
}

/// What a call gave.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    /// The answer, without the id of a job that is none.
    pub(super) value: Value,
    /// Tokens that it took, in and out.
    pub(super) tokens: u64,
}

impl Caller {
    /// Calls as a part of `job`. Their events are not recorded: the job has its own.
    pub(super) fn new(engine: &Engine, job: &ClaimedJob, context: &JobContext) -> Self {
        let mut context = context.clone();
        context.events = context.events.muted();
        let job = ClaimedJob { payload: Vec::new(), ..job.clone() };
        Self { attempt: Attempt::new(engine.bench.clone(), &job, context), job }
    }

    /// Whose calls they are.
    pub(super) fn owner(&self) -> &str {
        &self.job.owner
    }

    /// Makes one call. `name` tells it from others of the same job: a call of the same name draws
    /// the same random numbers.
    ///
    /// # Errors
    /// As the capability.
    pub(super) async fn call(
        &self,
        name: &str,
        kind: StepKind,
        mut request: Value,
    ) -> Result<Answer, JobFailure> {
        let id = self.job.id.child(name);
        if let (StepKind::LlmCompletion, Value::Object(request)) = (kind, &mut request) {
            request.entry("seed").or_insert_with(|| Value::from(seed(id)));
        }
        let work = Kind::named(kind.as_str())?;
        work.check(&request)?;
        let job = ClaimedJob {
            id,
            kind: kind.as_str().to_owned(),
            capability: kind.capability().unwrap_or_default().to_owned(),
            payload: encode(&request)?,
            ..self.job.clone()
        };
        let attempt = Attempt { id, ..self.attempt.clone() };
        let bytes = work.run(attempt, job).await?;
        let mut value: Value = serde_json::from_slice(&bytes).map_err(|e| unreadable(&e))?;
        if let Value::Object(map) = &mut value {
            map.remove("job_id");
        }
        let tokens = value["usage"]["total_tokens"].as_u64().unwrap_or(0);
        Ok(Answer { value, tokens })
    }
}

/// A seed below 2^53 that follows from the id.
fn seed(id: JobId) -> u64 {
    id.0.as_u64_pair().1 >> 11
}
