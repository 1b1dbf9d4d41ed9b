//! What callers ask of workflows, batches, schedules and queues: check, submit, show, cancel. It
//! knows owners and rights, but no HTTP.

use aisemble_jobs::{Idempotency, Job, JobFailure, JobState, JobView, NewJob, Submitted};
use aisemble_protocol::job::JobOptions;
use aisemble_protocol::keys::Scope;
use aisemble_protocol::workflow::{
    Fault, Plan, Progress, StepError, StepKind, StepSpec, StepState, StepView, Validation,
    WorkflowRequest, WorkflowView, dot, mermaid,
};
use aisemble_protocol::{ApiError, ErrorCode, JobId};
use serde_json::Value;

use super::step::step_id;
use super::{Engine, StepResult, WORKFLOW_KIND, WORKFLOWS, store_failure};
use crate::app::{Caller, Origin, now_ms, store_error};
use crate::work::Kind;

/// Output of a step that is shown with the workflow, encoded bytes; a larger one is in the step's
/// job.
const OUTPUT_SHOWN_BYTES_MAX: usize = 64 * 1024;
/// Workflows that may wait.
const WAITING_MAX: u64 = 10_000;

/// The desk where callers are served.
#[derive(Debug, Clone)]
pub struct Desk {
    pub(super) engine: Engine,
}

impl Desk {
    /// A desk before that machinery.
    #[must_use]
    pub fn new(engine: Engine) -> Self {
        Self { engine }
    }

    /// Checks a workflow as submitting it would, and does nothing.
    #[must_use]
    pub fn validate(&self, request: &WorkflowRequest) -> Validation {
        match check(request) {
            Ok(plan) => {
                let order = plan.order.iter().map(|number| request.steps[*number].id.clone());
                Validation { valid: true, faults: Vec::new(), order: order.collect() }
            }
            Err(faults) => Validation { valid: false, faults, order: Vec::new() },
        }
    }

    /// Takes a workflow in. It is durable when this returns.
    ///
    /// # Errors
    /// `invalid_request`, naming the step; `forbidden` when the key does not open what a step
    /// needs; `overloaded`; the store's.
    pub async fn submit(
        &self,
        origin: &Origin,
        request: WorkflowRequest,
    ) -> Result<(WorkflowView, bool), ApiError> {
        let plan = check(&request).map_err(|faults| refusal(&faults))?;
        for scope in scopes(&request) {
            origin.caller.require(scope)?;
        }
        if let Some(earlier) = request.continue_from {
            self.may_continue(&origin.caller, earlier).await?;
        }
        self.admit().await?;
        let mut job = new_job(&origin.caller.key_id, &request)?;
        job.trace_parent = Some(origin.trace.to_string());
        job.idempotency = origin.idempotency_key.as_ref().map(|key| Idempotency {
            key: key.clone(),
            fingerprint: *blake3::hash(&job.payload).as_bytes(),
        });
        let submitted = self.engine.jobs.submit(job).await.map_err(|e| store_error(&e))?;
        let (view, replayed) = match submitted {
            Submitted::Created(view) => (view, false),
            Submitted::Existing(view) => (view, true),
        };
        tracing::info!(
            job.id = %view.id,
            job.kind = WORKFLOW_KIND,
            job.replayed = replayed,
            key.id = origin.caller.key_id,
            "job accepted"
        );
        Ok((self.shown(view, &request, &plan).await?, replayed))
    }

    /// Whether the caller has that earlier run, and it has ended.
    async fn may_continue(&self, caller: &Caller, id: JobId) -> Result<(), ApiError> {
        let job = self.engine.jobs.get(id).await.map_err(|error| store_error(&error))?;
        let own = |job: &Job| job.view.kind == WORKFLOW_KIND && job.owner == caller.key_id;
        let missing = || ApiError::new(ErrorCode::NotFound, format!("there is no workflow {id}"));
        let job = job.filter(own).ok_or_else(missing)?;
        if job.view.state.is_final() {
            return Ok(());
        }
        let message = format!("workflow {id} has not ended: it is {}", job.view.state.as_str());
        Err(ApiError::new(ErrorCode::Conflict, message).with_param("continue_from"))
    }

    async fn admit(&self) -> Result<(), ApiError> {
        let depth = self.engine.jobs.depth().await.map_err(|error| store_error(&error))?;
        let waiting = [JobState::Pending, JobState::Scheduled, JobState::Queued];
        let waiting: u64 = waiting.iter().map(|state| depth.count(WORKFLOWS, *state)).sum();
        if waiting < WAITING_MAX {
            return Ok(());
        }
        let message = format!("{WAITING_MAX} workflows wait, which is as many as may");
        Err(ApiError::new(ErrorCode::Overloaded, message).with_retry_after_ms(30_000))
    }

    /// The caller's workflow.
    ///
    /// # Errors
    /// `not_found`; the store's.
    pub async fn show(&self, caller: &Caller, id: JobId) -> Result<WorkflowView, ApiError> {
        let (view, request, plan) = self.find(caller, id).await?;
        self.shown(view, &request, &plan).await
    }

    /// The caller's workflow as a picture.
    ///
    /// # Errors
    /// `not_found`; the store's.
    pub async fn graph(
        &self,
        caller: &Caller,
        id: JobId,
        graphviz: bool,
    ) -> Result<String, ApiError> {
        let (_, request, plan) = self.find(caller, id).await?;
        let steps = step_views(&self.engine, id, (&request, &plan)).await.map_err(public)?;
        let states: Vec<_> = steps.iter().map(|step| step.state).collect();
        let draw = if graphviz { dot } else { mermaid };
        Ok(draw(&request, &plan, &states))
    }

    /// Cancels the caller's workflow and everything that it made.
    ///
    /// # Errors
    /// `not_found`; `conflict` when it has ended otherwise; the store's.
    pub async fn cancel(&self, caller: &Caller, id: JobId) -> Result<WorkflowView, ApiError> {
        let (_, request, plan) = self.find(caller, id).await?;
        let jobs = &self.engine.jobs;
        let view = jobs.cancel(id).await.map_err(|error| store_error(&error))?;
        match view.state {
            JobState::Succeeded | JobState::Failed | JobState::Expired => {
                let message = format!("the workflow has ended: it is {}", view.state.as_str());
                return Err(ApiError::new(ErrorCode::Conflict, message));
            }
            // It does not run, so nobody else stops what it made.
            JobState::Cancelled => self.cancel_below(id).await?,
            JobState::Pending | JobState::Scheduled | JobState::Queued | JobState::Running => {}
        }
        self.shown(view, &request, &plan).await
    }

    async fn cancel_below(&self, id: JobId) -> Result<(), ApiError> {
        let jobs = &self.engine.jobs;
        jobs.cancel_children(id).await.map_err(|error| store_error(&error))?;
        for child in jobs.children(id).await.map_err(|error| store_error(&error))? {
            jobs.cancel_children(child.id).await.map_err(|error| store_error(&error))?;
        }
        Ok(())
    }

    async fn find(
        &self,
        caller: &Caller,
        id: JobId,
    ) -> Result<(JobView, WorkflowRequest, Plan), ApiError> {
        let job = self.engine.jobs.get(id).await.map_err(|error| store_error(&error))?;
        let own = job.filter(|job| {
            job.view.kind == WORKFLOW_KIND && (caller.is_admin() || job.owner == caller.key_id)
        });
        let missing = || ApiError::new(ErrorCode::NotFound, format!("there is no workflow {id}"));
        let job = own.ok_or_else(missing)?;
        let broken = || ApiError::new(ErrorCode::Internal, "the stored workflow cannot be read");
        let request: WorkflowRequest =
            serde_json::from_slice(&job.payload).map_err(|_| broken())?;
        let plan = request.validate().map_err(|_| broken())?;
        Ok((job.view, request, plan))
    }

    async fn shown(
        &self,
        view: JobView,
        request: &WorkflowRequest,
        plan: &Plan,
    ) -> Result<WorkflowView, ApiError> {
        let steps = step_views(&self.engine, view.id, (request, plan)).await.map_err(public)?;
        Ok(WorkflowView {
            id: view.id,
            name: request.name.clone(),
            state: view.state,
            steps,
            created_at_ms: view.created_at_ms,
            started_at_ms: view.started_at_ms,
            finished_at_ms: view.finished_at_ms,
            cancel_requested: view.cancel_requested,
            error: view.error.map(|e| StepError { code: e.code, message: e.message }),
        })
    }
}

pub(super) fn public(failure: JobFailure) -> ApiError {
    ApiError::new(failure.code, failure.message)
}

/// Validates the whole, and each request whose values are known against its capability.
pub(super) fn check(request: &WorkflowRequest) -> Result<Plan, Vec<Fault>> {
    let plan = request.validate()?;
    let faults: Vec<_> = request.steps.iter().filter_map(fault_of).collect();
    if faults.is_empty() { Ok(plan) } else { Err(faults) }
}

fn fault_of(step: &StepSpec) -> Option<Fault> {
    step.kind.capability()?;
    let known = aisemble_protocol::workflow::references(&step.input).is_ok_and(|r| r.is_empty());
    let kind = Kind::named(step.kind.as_str());
    let error = match kind {
        Err(failure) => ApiError::new(failure.code, failure.message),
        Ok(kind) if known => kind.check(&step.input).err()?,
        Ok(_) => return None,
    };
    let param = error.param.map_or_else(|| "input".to_owned(), |param| format!("input.{param}"));
    Some(Fault { step: Some(step.id.clone()), field: param, message: error.message })
}

/// The refusal of a workflow: the first fault, and how many more there are.
pub(super) fn refusal(faults: &[Fault]) -> ApiError {
    let mut message = faults.first().map(ToString::to_string).unwrap_or_default();
    if faults.len() > 1 {
        message.push_str(&format!(" (and {} more: POST /workflows/validate)", faults.len() - 1));
    }
    let param = faults.first().map_or("steps", |fault| fault.field.as_str());
    ApiError::invalid(param, message)
}

/// What a key must open for the steps.
pub(super) fn scopes(request: &WorkflowRequest) -> Vec<Scope> {
    let mut scopes: Vec<_> = request
        .steps
        .iter()
        .filter_map(|step| {
            let kind = if step.kind == StepKind::Map {
                let kind = step.input["step"]["kind"].as_str()?;
                StepKind::ALL.into_iter().find(|known| known.as_str() == kind)?
            } else {
                step.kind
            };
            Scope::parse(kind.capability()?)
        })
        .collect();
    scopes.sort_unstable();
    scopes.dedup();
    scopes
}

/// The job that is a workflow.
pub(super) fn new_job(owner: &str, request: &WorkflowRequest) -> Result<NewJob, ApiError> {
    let broken = |_| ApiError::new(ErrorCode::Internal, "the workflow cannot be stored");
    let payload = serde_json::to_vec(request).map_err(broken)?;
    let options = request.job.clone().unwrap_or_else(|| JobOptions {
        priority: aisemble_jobs::Priority::Batch,
        ..JobOptions::default()
    });
    let mut job = NewJob::new(WORKFLOW_KIND, WORKFLOWS, owner, payload);
    job.priority = options.priority;
    job.needs = options.needs;
    job.deadline_at_ms = options.deadline_ms.map(|ms| now_ms().saturating_add(ms));
    // Steps are repeated, not the whole; a crash costs it nothing.
    job.attempts_max = 1;
    job.resumes = true;
    job.metadata = options.metadata;
    Ok(job)
}

/// Where each step of a workflow stands, in the order of the request.
pub(super) async fn step_views(
    engine: &Engine,
    workflow: JobId,
    (request, plan): (&WorkflowRequest, &Plan),
) -> Result<Vec<StepView>, JobFailure> {
    let jobs = engine.jobs.children(workflow).await.map_err(|error| store_failure(&error))?;
    let mut views = Vec::with_capacity(request.steps.len());
    for (number, spec) in request.steps.iter().enumerate() {
        let id = step_id(workflow, &spec.id);
        let job = jobs.iter().find(|job| job.id == id);
        let needs = plan.needs[number].iter();
        let mut view = StepView {
            id: spec.id.clone(),
            kind: spec.kind,
            state: StepState::Pending,
            job_id: job.map(|job| job.id),
            needs: needs.map(|need| request.steps[*need].id.clone()).collect(),
            started_at_ms: job.and_then(|job| job.started_at_ms),
            finished_at_ms: job.and_then(|job| job.finished_at_ms),
            progress: None,
            output: None,
            kept_from: None,
            error: None,
        };
        if let Some(job) = job {
            fill_view(engine, &mut view, job).await?;
        }
        views.push(view);
    }
    Ok(views)
}

async fn fill_view(engine: &Engine, view: &mut StepView, job: &JobView) -> Result<(), JobFailure> {
    let error = job.error.clone().map(|e| StepError { code: e.code, message: e.message });
    match job.state {
        JobState::Pending => {}
        JobState::Scheduled | JobState::Queued | JobState::Running => {
            view.state = if job.attempt > 0 { StepState::Running } else { StepState::Pending };
            view.error = error;
            if view.kind == StepKind::Map && job.attempt > 0 {
                view.progress = progress(engine, job).await?;
            }
        }
        JobState::Succeeded => {
            let result = engine.jobs.result(job.id).await.map_err(|e| store_failure(&e))?;
            let result = result.as_deref().map(serde_json::from_slice::<StepResult>);
            let Some(Ok(result)) = result else { return Ok(()) };
            view.state = result.status;
            (view.error, view.kept_from) = (result.error, result.kept_from);
            let shown = result.output.to_string().len() <= OUTPUT_SHOWN_BYTES_MAX;
            view.output = Some(result.output).filter(|output| shown && *output != Value::Null);
        }
        // One that never ran fails because of those before it.
        JobState::Failed if job.started_at_ms.is_none() => {
            view.state = StepState::Skipped;
            view.error = error;
        }
        JobState::Failed | JobState::Expired => {
            view.state = StepState::Failed;
            view.error = error;
        }
        JobState::Cancelled => view.state = StepState::Cancelled,
    }
    Ok(())
}

/// The last thing that a map told of itself, with what its rows come to now.
async fn progress(engine: &Engine, job: &JobView) -> Result<Option<Progress>, JobFailure> {
    let after = job.event_seq.saturating_sub(8);
    let page = engine.jobs.store().events(job.id, after).await.map_err(|e| store_failure(&e))?;
    let last = page.events.into_iter().rfind(|event| event.kind == "progress");
    Ok(last.and_then(|event| serde_json::from_value(event.data).ok()))
}
