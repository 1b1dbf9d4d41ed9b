//! A workflow: submits its steps, each as a job that needs those before it, and waits until all
//! have ended. What it tells as events is its steps' way.

use std::collections::BTreeMap;
use std::time::Duration;

use aisemble_jobs::{ClaimedJob, JobContext, JobFailure, JobView, NewJob};
use aisemble_protocol::workflow::{Plan, StepState, StepView, WorkflowRequest};
use aisemble_protocol::{ErrorCode, JobId};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde::Serialize;
use serde_json::json;

use super::cancelled;
use super::desk::step_views;
use super::resume;
use super::step::{StepPayload, step_id};
use super::{Engine, STEP_KIND, STEPS, encode, stops_for_good, store_failure, unreadable};

/// How often steps are looked at for what they tell in between.
const LOOK: Duration = Duration::from_millis(500);
/// How long one wait for a step lasts before it is begun anew.
const WAIT_ROUND: Duration = Duration::from_secs(600);
/// Attempts at a step when the request does not say.
const RETRIES_DEFAULT: u32 = 2;
/// How long steps have to stop after a cancel.
const STOP_MAX: Duration = Duration::from_secs(8);

/// What a workflow's job has as its result.
#[derive(Debug, Serialize)]
struct Summary<'w> {
    name: &'w str,
    steps: Vec<StepView>,
}

/// Runs a workflow.
pub(super) async fn run(
    engine: &Engine,
    job: ClaimedJob,
    context: JobContext,
) -> Result<Vec<u8>, JobFailure> {
    let request: WorkflowRequest =
        serde_json::from_slice(&job.payload).map_err(|error| unreadable(&error))?;
    let refused = |faults: Vec<aisemble_protocol::workflow::Fault>| {
        let first = faults.first().map(ToString::to_string).unwrap_or_default();
        JobFailure::new(ErrorCode::InvalidRequest, format!("the workflow is not valid: {first}"))
    };
    let plan = request.validate().map_err(refused)?;
    let work = follow(engine, &job, &context, (&request, &plan));
    let ended = tokio::select! {
        ended = work => ended,
        () = context.cancel.cancelled() => Err(cancelled()),
    };
    if let Err(failure) = ended {
        if failure.code == ErrorCode::Cancelled && stops_for_good(engine, job.id).await {
            stop(engine, job.id).await?;
        }
        return Err(failure);
    }
    let steps = step_views(engine, job.id, (&request, &plan)).await?;
    let failed = steps.iter().find(|step| {
        let spec = request.steps.iter().find(|spec| spec.id == step.id);
        let tolerated =
            spec.is_none_or(|spec| spec.on_error == aisemble_protocol::workflow::OnError::Continue);
        step.state == StepState::Failed && !tolerated
    });
    if let Some(step) = failed {
        let (id, error) = (&step.id, step.error.as_ref());
        let message = error.map_or("it failed", |error| error.message.as_str());
        let code = error.map_or(ErrorCode::Internal, |error| error.code);
        return Err(JobFailure::new(code, format!("step {id}: {message}")));
    }
    if steps.iter().any(|step| step.state == StepState::Cancelled) {
        return Err(JobFailure::new(ErrorCode::Unprocessable, "a step was cancelled"));
    }
    encode(&Summary { name: &request.name, steps })
}

async fn submit(
    engine: &Engine,
    job: &ClaimedJob,
    (request, plan): (&WorkflowRequest, &Plan),
) -> Result<Vec<JobId>, JobFailure> {
    let mut ids = Vec::with_capacity(plan.order.len());
    let mut kept = resume::kept(engine, &job.owner, (request, plan)).await?;
    for number in &plan.order {
        let spec = &request.steps[*number];
        let kept = std::mem::take(&mut kept[*number]);
        let payload = encode(&StepPayload { workflow: job.id, step: *number, kept })?;
        let mut new = NewJob::new(STEP_KIND, STEPS, &job.owner, payload);
        let needs = plan.needs[*number].iter();
        new.needs = needs.map(|need| step_id(job.id, &request.steps[*need].id)).collect();
        new.priority = job.priority;
        new.parent = Some(job.id);
        new.resumes = true;
        new.attempts_max = spec.retries.unwrap_or(RETRIES_DEFAULT) + 1;
        new.deadline_at_ms = job.deadline_at_ms;
        new.trace_parent.clone_from(&job.trace_parent);
        let id = step_id(job.id, &spec.id);
        engine.jobs.submit_as(id, new).await.map_err(|error| store_failure(&error))?;
        ids.push(id);
    }
    Ok(ids)
}

/// Waits for the steps and tells of each change.
async fn follow(
    engine: &Engine,
    job: &ClaimedJob,
    context: &JobContext,
    shape: (&WorkflowRequest, &Plan),
) -> Result<(), JobFailure> {
    let ids = submit(engine, job, shape).await?;
    let mut waits: FuturesUnordered<_> =
        ids.iter().map(|id| engine.jobs.wait(*id, WAIT_ROUND)).collect();
    let mut told = Told::default();
    loop {
        told.tell(engine, job.id, context, shape).await?;
        let ended: Option<Result<JobView, _>> = tokio::select! {
            ended = waits.next() => match ended {
                None => break,
                ended => ended,
            },
            () = tokio::time::sleep(LOOK) => None,
        };
        if let Some(view) = ended {
            let view = view.map_err(|error| store_failure(&error))?;
            if !view.state.is_final() {
                waits.push(engine.jobs.wait(view.id, WAIT_ROUND));
            }
        }
    }
    told.tell(engine, job.id, context, shape).await
}

/// What was told of each step.
#[derive(Default)]
struct Told {
    steps: BTreeMap<String, (StepState, u64)>,
}

impl Told {
    async fn tell(
        &mut self,
        engine: &Engine,
        workflow: JobId,
        context: &JobContext,
        shape: (&WorkflowRequest, &Plan),
    ) -> Result<(), JobFailure> {
        for mut step in step_views(engine, workflow, shape).await? {
            let done = step.progress.as_ref().map_or(0, |progress| progress.rows_done);
            let news = (step.state, done);
            let known = self.steps.get(&step.id).copied();
            if known == Some(news) || (known.is_none() && step.state == StepState::Pending) {
                continue;
            }
            self.steps.insert(step.id.clone(), news);
            // Outputs are read where the workflow is shown.
            step.output = None;
            let told = context.events.emit("step", json!(step)).await;
            if let Err(error @ aisemble_jobs::JobsError::LeaseLost { .. }) = told {
                return Err(store_failure(&error));
            }
        }
        Ok(())
    }
}

/// Cancels every step and its chunks, and waits a little for them to stop.
async fn stop(engine: &Engine, workflow: JobId) -> Result<(), JobFailure> {
    engine.jobs.cancel_children(workflow).await.map_err(|error| store_failure(&error))?;
    let steps = engine.jobs.children(workflow).await.map_err(|error| store_failure(&error))?;
    for step in &steps {
        engine.jobs.cancel_children(step.id).await.map_err(|error| store_failure(&error))?;
    }
    let all = async {
        for step in steps {
            // One that is gone has stopped.
            let _ = engine.jobs.wait(step.id, STOP_MAX).await;
        }
    };
    let _ = tokio::time::timeout(STOP_MAX, all).await;
    Ok(())
}
