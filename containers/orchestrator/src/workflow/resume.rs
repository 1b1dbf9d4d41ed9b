//! What a workflow takes over from earlier runs of the same owner: the results of steps that are
//! asked the same again, and the rows of maps. What is gone meanwhile is computed again.

use std::collections::HashSet;

use aisemble_jobs::{EventSink, JobFailure, RowResult};
use aisemble_protocol::workflow::{
    Plan, Source, StepKind, StepSpec, StepState, WorkflowRequest, references,
};
use aisemble_protocol::{ErrorCode, FileId, JobId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::chunk::Chunk;
use super::step::step_id;
use super::{CHUNK_KIND, Engine, StepResult, WORKFLOW_KIND, store_failure};

/// Earlier runs that are looked at: a retry of a retry, and so on.
const RUNS_MAX: usize = 8;

/// What earlier runs have of a step, decided when the step is submitted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    /// The step whose result is taken over as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) result: Option<JobId>,
    /// The steps whose rows are, latest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) rows: Vec<JobId>,
}

/// A run that is over.
struct Run {
    id: JobId,
    request: WorkflowRequest,
    plan: Plan,
}

/// What is there of each step of `request`, by its number.
///
/// # Errors
/// The store's.
pub(super) async fn kept(
    engine: &Engine,
    owner: &str,
    (request, plan): (&WorkflowRequest, &Plan),
) -> Result<Vec<Kept>, JobFailure> {
    let mut all = vec![Kept::default(); request.steps.len()];
    for run in runs(engine, owner, request).await? {
        for number in &plan.order {
            let spec = &request.steps[*number];
            let earlier = step_id(run.id, &spec.id);
            if spec.kind == StepKind::Map {
                all[*number].rows.push(earlier);
            }
            // What comes before must be what it was then.
            let same = run.asked((request, plan), *number)
                && plan.needs[*number].iter().all(|need| all[*need].result.is_some());
            if same && all[*number].result.is_none() && given(engine, earlier).await?.is_some() {
                all[*number].result = Some(earlier);
            }
        }
    }
    Ok(all)
}

/// The runs that a workflow continues, latest first.
async fn runs(
    engine: &Engine,
    owner: &str,
    request: &WorkflowRequest,
) -> Result<Vec<Run>, JobFailure> {
    let mut runs = Vec::new();
    let mut next = request.continue_from;
    while let Some(id) = next.filter(|_| runs.len() < RUNS_MAX) {
        let job = engine.jobs.get(id).await.map_err(|error| store_failure(&error))?;
        let own = job.filter(|job| job.owner == owner && job.view.kind == WORKFLOW_KIND);
        let request =
            own.and_then(|job| serde_json::from_slice::<WorkflowRequest>(&job.payload).ok());
        let read = request.and_then(|request| Some((request.validate().ok()?, request)));
        let Some((plan, request)) = read else { break };
        next = request.continue_from;
        runs.push(Run { id, request, plan });
    }
    Ok(runs)
}

impl Run {
    /// Whether this run asked of the step what `request` asks of its step `number`.
    fn asked(&self, (request, plan): (&WorkflowRequest, &Plan), number: usize) -> bool {
        let spec = &request.steps[number];
        let here = self.request.steps.iter().position(|known| known.id == spec.id);
        let Some(here) = here else { return false };
        let known = &self.request.steps[here];
        // A report tells of the whole run, so each run has its own.
        if spec.kind == StepKind::Report || !same_work(spec, known) {
            return false;
        }
        let names = |request: &WorkflowRequest, needs: &[usize]| -> HashSet<String> {
            needs.iter().map(|need| request.steps[*need].id.clone()).collect()
        };
        let (needs, inputs) = (&plan.needs[number], inputs(spec));
        names(request, needs) == names(&self.request, &self.plan.needs[here])
            && inputs.iter().all(|name| request.inputs.get(name) == self.request.inputs.get(name))
    }
}

fn same_work(one: &StepSpec, other: &StepSpec) -> bool {
    one.kind == other.kind && one.input == other.input && one.when == other.when
}

/// Names of the workflow's inputs that a step refers to.
fn inputs(spec: &StepSpec) -> Vec<String> {
    let mut found = references(&spec.input).unwrap_or_default();
    let when = spec.when.as_ref().map(|when| &when.from);
    found.extend(when.and_then(|from| aisemble_protocol::workflow::Reference::parse(from).ok()));
    found
        .into_iter()
        .filter_map(|reference| match reference.source {
            Source::Input(name) => Some(name),
            Source::Step(_) => None,
        })
        .collect()
}

/// What a step has given, if it succeeded.
async fn given(engine: &Engine, step: JobId) -> Result<Option<StepResult>, JobFailure> {
    let result = engine.jobs.result(step).await.map_err(|error| store_failure(&error))?;
    let result = result.and_then(|bytes| serde_json::from_slice::<StepResult>(&bytes).ok());
    Ok(result.filter(|result| result.status == StepState::Succeeded))
}

/// The result of an earlier run's step as this one's; none when it, or a file of it, is gone.
///
/// # Errors
/// The store's.
pub(super) async fn take(
    engine: &Engine,
    owner: &str,
    earlier: JobId,
) -> Result<Option<StepResult>, JobFailure> {
    let Some(mut result) = given(engine, earlier).await? else { return Ok(None) };
    for file in files(&result.output) {
        match engine.files.open_blob(owner, file).await {
            Ok(_) => {}
            Err(error) if error.code == ErrorCode::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
    result.kept_from = result.kept_from.or(Some(earlier));
    Ok(Some(result))
}

/// The files that an output names.
fn files(output: &Value) -> Vec<FileId> {
    let places = ["/file", "/errors_file", "/output/file"];
    let named = places.iter().filter_map(|place| output.pointer(place)?.as_str());
    named.filter_map(|id| id.parse().ok()).collect()
}

/// Records those rows of `earlier` that `chunk` has, too, and that are not `done`. Rows that failed
/// are tried again.
///
/// # Errors
/// The store's.
pub(super) async fn take_rows(
    engine: &Engine,
    (owner, earlier): (&str, JobId),
    (chunk, done): (&Chunk, &mut HashSet<u32>),
    events: &EventSink,
) -> Result<(), JobFailure> {
    let failed = |error: aisemble_jobs::JobsError| store_failure(&error);
    let job = engine.jobs.get(earlier).await.map_err(failed)?;
    let own = job.filter(|job| job.owner == owner && job.view.kind == CHUNK_KIND);
    let known = own.and_then(|job| serde_json::from_slice::<Chunk>(&job.payload).ok());
    let Some(known) = known.filter(|known| known.task == chunk.task) else { return Ok(()) };
    let mut from = 0;
    loop {
        let page = engine.jobs.store().rows(earlier, from).await.map_err(failed)?;
        let Some(last) = page.last() else { return Ok(()) };
        from = last.row + 1;
        let wanted = |row: &RowResult| {
            let place = row.row as usize;
            let same = known.rows.get(place).is_some_and(|k| chunk.rows.get(place) == Some(k));
            !row.failed && same && done.insert(row.row)
        };
        let rows: Vec<_> = page.into_iter().filter(wanted).collect();
        if !rows.is_empty() {
            events.put_rows(rows).await.map_err(failed)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run(steps: Value, inputs: Value) -> Run {
        let request = json!({"name": "w", "inputs": inputs, "steps": steps});
        let request: WorkflowRequest = serde_json::from_value(request).unwrap();
        Run { id: JobId::generate(), plan: request.validate().unwrap(), request }
    }

    #[test]
    fn only_what_is_asked_the_same_is_taken_over() {
        let count = |column: &str| {
            json!({"id": "n", "kind": "reduce", "retries": 1, "input": {
                "table": {"from": "inputs.t"}, "op": "count", "column": column}})
        };
        let report = json!({"id": "r", "kind": "report", "needs": ["n"]});
        let inputs = |word: &str| json!({"t": {"rows": [{"a": word, "b": 1}]}, "u": word});
        let old = run(json!([count("a"), report]), inputs("x"));
        let check = |new: &Run, expected: bool| {
            assert_eq!(old.asked((&new.request, &new.plan), 0), expected);
        };
        let mut other = count("a");
        (other["retries"], other["on_error"]) = (json!(5), json!("continue"));
        check(&run(json!([other, report]), inputs("x")), true);
        check(&run(json!([count("b"), report]), inputs("x")), false);
        check(&run(json!([count("a"), report]), inputs("y")), false);
        let mut later = count("a");
        later["needs"] = json!(["first"]);
        let first = json!({"id": "first", "kind": "report"});
        check(&run(json!([later, first]), inputs("x")), false);
        assert!(!old.asked((&old.request, &old.plan), 1), "a report is made anew");
    }

    #[test]
    fn outputs_name_their_files() {
        let id = FileId::generate();
        let check = |output: Value, count: usize| assert_eq!(files(&output), vec![id; count]);
        check(json!({"file": id, "rows": 3, "errors_file": id}), 2);
        check(json!({"output": {"file": id}, "preview": [{"file": "x"}]}), 1);
        check(json!({"file": "not an id"}), 0);
        check(json!({"value": 3}), 0);
    }
}
