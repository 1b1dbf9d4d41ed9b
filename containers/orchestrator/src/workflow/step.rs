//! A step: waits for nothing any more, so its references can be followed; then it is done or
//! skipped.

use std::collections::BTreeMap;
use std::time::Duration;

use aisemble_jobs::{ClaimedJob, JobContext, JobFailure};
use aisemble_protocol::workflow::{
    OnError, Reference, Source, StepError, StepKind, StepSpec, StepState, WorkflowRequest, resolve,
};
use aisemble_protocol::{ErrorCode, JobId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::call::Caller;
use super::cancelled;
use super::resume::{self, Kept};
use super::{Engine, StepResult, encode, map, merge, reduce, report, store_failure, unreadable};

/// What a step's job has as its payload: where to read the rest.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct StepPayload {
    pub(super) workflow: JobId,
    /// Number of the step in the request.
    pub(super) step: usize,
    /// What earlier runs have of it.
    #[serde(default)]
    pub(super) kept: Kept,
}

/// The id of a step's job.
pub(super) fn step_id(workflow: JobId, step: &str) -> JobId {
    workflow.child(&format!("step/{step}"))
}

/// Why a step goes no further.
enum Stop {
    /// It is not to run.
    Skip(String),
    Failed(JobFailure),
}

impl From<JobFailure> for Stop {
    fn from(failure: JobFailure) -> Self {
        Self::Failed(failure)
    }
}

impl From<String> for Stop {
    fn from(message: String) -> Self {
        Self::Failed(JobFailure::new(ErrorCode::InvalidRequest, message))
    }
}

/// What steps see of the workflow.
pub(super) struct Scene<'e> {
    pub(super) engine: &'e Engine,
    pub(super) job: &'e ClaimedJob,
    pub(super) context: &'e JobContext,
    pub(super) workflow: JobId,
    pub(super) request: WorkflowRequest,
    /// Steps of earlier runs whose rows may be taken over.
    earlier: &'e [JobId],
    /// Results of the steps that were asked for.
    results: BTreeMap<String, StepResult>,
}

/// Runs a step.
pub(super) async fn run(
    engine: &Engine,
    job: ClaimedJob,
    context: JobContext,
) -> Result<Vec<u8>, JobFailure> {
    let payload: StepPayload = serde_json::from_slice(&job.payload).map_err(|e| unreadable(&e))?;
    if let Some(earlier) = payload.kept.result
        && let Some(result) = resume::take(engine, &job.owner, earlier).await?
    {
        return encode(&result);
    }
    let request = request(engine, payload.workflow).await?;
    let gone = || JobFailure::new(ErrorCode::Internal, "the workflow has no such step");
    let spec = request.steps.get(payload.step).cloned().ok_or_else(gone)?;
    let (workflow, results) = (payload.workflow, BTreeMap::new());
    let (job, context, earlier) = (&job, &context, payload.kept.rows.as_slice());
    let mut scene = Scene { engine, job, context, workflow, request, earlier, results };
    let timeout = spec.timeout_ms.map_or(Duration::MAX, Duration::from_millis);
    let done = tokio::select! {
        done = tokio::time::timeout(timeout, scene.perform(&spec)) => done.unwrap_or_else(|_| {
            let ms = timeout.as_millis();
            let message = format!("the step took longer than its {ms} ms");
            Err(Stop::Failed(JobFailure::new(ErrorCode::Timeout, message)))
        }),
        // A map gives its chunks time to stop.
        () = context.cancel.cancelled() => Err(Stop::Failed(cancelled())),
    };
    match done {
        Ok((output, tokens)) => {
            let status = StepState::Succeeded;
            encode(&StepResult { status, output, error: None, tokens, kept_from: None })
        }
        Err(Stop::Skip(message)) => {
            let error = Some(StepError { code: ErrorCode::Unprocessable, message });
            let (status, output) = (StepState::Skipped, Value::Null);
            encode(&StepResult { status, output, error, tokens: 0, kept_from: None })
        }
        Err(Stop::Failed(failure)) => failed(engine, job, &spec, failure).await,
    }
}

async fn failed(
    engine: &Engine,
    job: &ClaimedJob,
    spec: &StepSpec,
    failure: JobFailure,
) -> Result<Vec<u8>, JobFailure> {
    let stopped = failure.code == ErrorCode::Cancelled;
    let for_good = !stopped || super::stops_for_good(engine, job.id).await;
    let again = failure.code.retryable() && job.attempt < job.attempts_max;
    if for_good && !again {
        // Nobody waits for its chunks any more.
        engine.jobs.cancel_children(job.id).await.map_err(|error| store_failure(&error))?;
    }
    if stopped || again || spec.on_error == OnError::Fail {
        return Err(failure);
    }
    let message = format!("step {}: {}", spec.id, failure.message);
    let error = Some(StepError { code: failure.code, message });
    let (status, output) = (StepState::Failed, Value::Null);
    encode(&StepResult { status, output, error, tokens: 0, kept_from: None })
}

/// The request of a workflow.
pub(super) async fn request(
    engine: &Engine,
    workflow: JobId,
) -> Result<WorkflowRequest, JobFailure> {
    let job = engine.jobs.get(workflow).await.map_err(|error| store_failure(&error))?;
    let gone = || JobFailure::new(ErrorCode::Unprocessable, "the workflow is gone");
    serde_json::from_slice(&job.ok_or_else(gone)?.payload).map_err(|error| unreadable(&error))
}

impl Scene<'_> {
    async fn perform(&mut self, spec: &StepSpec) -> Result<(Value, u64), Stop> {
        if let Some(when) = &spec.when {
            let reference = Reference::parse(&when.from)?;
            self.load(&reference).await?;
            let value = self.value(&reference, true)?;
            if !when.holds(&value) {
                return Err(Stop::Skip(format!("`when` does not hold: {}", when.from)));
            }
        }
        let wanted = aisemble_protocol::workflow::references(&spec.input)?;
        for reference in &wanted {
            self.load(reference).await?;
        }
        // A report tells of what was skipped, too.
        let lenient = spec.kind == StepKind::Report;
        let input = resolve::<Stop>(&spec.input, &mut |reference| self.value(reference, lenient))?;
        Ok(self.dispatch(spec, input).await?)
    }

    async fn dispatch(&self, spec: &StepSpec, input: Value) -> Result<(Value, u64), JobFailure> {
        match spec.kind {
            StepKind::Map => {
                map::run(self.engine, self.job, self.context, (input, self.earlier)).await
            }
            StepKind::Merge => merge::run(self.engine, self.job, input).await,
            StepKind::Reduce => reduce::run(self.engine, self.job, input).await,
            StepKind::Report => report::run(self, input).await,
            StepKind::LlmCompletion
            | StepKind::NlpEmbed
            | StepKind::NlpRerank
            | StepKind::NlpClassify
            | StepKind::NlpEntities
            | StepKind::NlpRedact
            | StepKind::VisionAnalyze
            | StepKind::DataProcess => {
                let caller = Caller::new(self.engine, self.job, self.context);
                let answer = caller.call("call", spec.kind, input).await?;
                Ok((answer.value, answer.tokens))
            }
        }
    }

    /// Reads the result of the step that a reference points into.
    async fn load(&mut self, reference: &Reference) -> Result<(), JobFailure> {
        let Source::Step(name) = &reference.source else { return Ok(()) };
        if self.results.contains_key(name) {
            return Ok(());
        }
        let id = step_id(self.workflow, name);
        let result = self.engine.jobs.result(id).await.map_err(|error| store_failure(&error))?;
        let gone = || JobFailure::new(ErrorCode::Internal, "an earlier step has no result");
        let result = serde_json::from_slice(&result.ok_or_else(gone)?);
        let result = result.map_err(|error| unreadable(&error))?;
        self.results.insert(name.clone(), result);
        Ok(())
    }

    /// What a reference stands for. Of a step that gave nothing: null when `lenient`, else this one
    /// is skipped, too.
    fn value(&self, reference: &Reference, lenient: bool) -> Result<Value, Stop> {
        match &reference.source {
            Source::Input(name) => {
                let input = self.request.inputs.get(name).unwrap_or(&Value::Null);
                Ok(reference.within(input).clone())
            }
            Source::Step(name) => match self.results.get(name) {
                Some(result) if result.status == StepState::Succeeded || lenient => {
                    Ok(reference.within(&result.output).clone())
                }
                Some(result) => {
                    Err(Stop::Skip(format!("step {name} was {}", result.status.as_str())))
                }
                None => Err(Stop::Skip(format!("step {name} has no result"))),
            },
        }
    }
}
