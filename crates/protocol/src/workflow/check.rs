//! Validation of a whole workflow before anything runs: every fault, each with its step.

use std::collections::{HashMap, HashSet};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::reference::{Reference, Source, columns, fill, references};
use super::shapes::{MapInput, MergeInput, MergeOp, ReduceInput, ReportInput};
use super::{
    CHUNK_ROWS_MAX, INPUTS_BYTES_MAX, MAP_CONCURRENCY_MAX, NAME_BYTES_MAX, STEP_RETRIES_MAX,
    STEP_TIMEOUT_MS_MAX, STEPS_MAX, StepKind, StepSpec, WorkflowRequest,
};
use crate::completion::CompletionRequest;

/// Tables that one merge takes.
const MERGE_TABLES_MAX: usize = 16;
/// Plots of one report.
const PLOTS_MAX: usize = 16;
/// Faults that are told at once.
const FAULTS_MAX: usize = 50;

/// Something that is wrong with a workflow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Fault {
    /// The step at fault; none for the whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Its field.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.step {
            Some(step) => write!(f, "step {step}: {}: {}", self.field, self.message),
            None => write!(f, "{}: {}", self.field, self.message),
        }
    }
}

/// How a valid workflow is to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Numbers of the steps in an order in which they can run.
    pub order: Vec<usize>,
    /// For each step, the numbers of those before it: `needs` and references together.
    pub needs: Vec<Vec<usize>>,
}

struct Faults {
    all: Vec<Fault>,
    step: Option<String>,
}

impl Faults {
    fn add(&mut self, field: &str, message: impl Into<String>) {
        if self.all.len() < FAULTS_MAX {
            let (step, field) = (self.step.clone(), field.to_owned());
            self.all.push(Fault { step, field, message: message.into() });
        }
    }

    fn check(&mut self, holds: bool, field: &str, message: impl FnOnce() -> String) {
        if !holds {
            self.add(field, message());
        }
    }
}

impl WorkflowRequest {
    /// Checks the whole and gives the order of its steps.
    ///
    /// # Errors
    /// Every fault, up to 50.
    pub fn validate(&self) -> Result<Plan, Vec<Fault>> {
        let mut faults = Faults { all: Vec::new(), step: None };
        check_name(&self.name, "name", &mut faults);
        let count = self.steps.len();
        let counted = (1..=STEPS_MAX).contains(&count);
        faults.check(counted, "steps", || format!("{count} steps; 1 to {STEPS_MAX} are taken"));
        let bytes = serde_json::to_string(&self.inputs).map_or(usize::MAX, |text| text.len());
        let fits = bytes <= INPUTS_BYTES_MAX;
        faults.check(fits, "inputs", || format!("over {INPUTS_BYTES_MAX} bytes"));
        if !counted {
            return Err(faults.all);
        }
        let mut numbers = HashMap::new();
        for (number, step) in self.steps.iter().enumerate() {
            faults.step = Some(shown(&step.id));
            check_step_id(&step.id, &mut faults);
            let first = numbers.insert(step.id.as_str(), number).is_none();
            faults.check(first, "id", || "another step has the same id".to_owned());
        }
        let mut needs = Vec::with_capacity(count);
        for step in &self.steps {
            faults.step = Some(shown(&step.id));
            needs.push(self.needs_of(step, &numbers, &mut faults));
            check_options(step, &mut faults);
            self.check_input(step, &numbers, &mut faults);
        }
        faults.step = None;
        let order = self.order(&needs, &mut faults);
        if faults.all.is_empty() { Ok(Plan { order, needs }) } else { Err(faults.all) }
    }

    fn needs_of(
        &self,
        step: &StepSpec,
        numbers: &HashMap<&str, usize>,
        faults: &mut Faults,
    ) -> Vec<usize> {
        let mut needs = Vec::new();
        for name in &step.needs {
            match numbers.get(name.as_str()) {
                Some(number) => needs.push(*number),
                None => faults.add("needs", format!("there is no step {:?}", shown(name))),
            }
        }
        let mut sources = Vec::new();
        match references(&step.input) {
            Ok(found) => sources.extend(found.into_iter().map(|one| ("input", one))),
            Err(reason) => faults.add("input", reason),
        }
        if let Some(when) = &step.when {
            match Reference::parse(&when.from) {
                Ok(reference) => sources.push(("when", reference)),
                Err(reason) => faults.add("when", reason),
            }
            let tests = when.tests_something();
            faults.check(tests, "when", || "names no test: equals, at_least, exists".to_owned());
        }
        for (field, reference) in sources {
            match reference.source {
                Source::Input(name) if self.inputs.contains_key(&name) => {}
                Source::Input(name) => {
                    faults.add(field, format!("there is no input {:?}", shown(&name)));
                }
                Source::Step(name) => match numbers.get(name.as_str()) {
                    Some(number) => needs.push(*number),
                    None => faults.add(field, format!("there is no step {:?}", shown(&name))),
                },
            }
        }
        needs.sort_unstable();
        needs.dedup();
        needs
    }

    /// The steps in an order in which they can run; names those that wait for each other.
    fn order(&self, needs: &[Vec<usize>], faults: &mut Faults) -> Vec<usize> {
        let mut open: Vec<usize> = needs.iter().map(Vec::len).collect();
        let mut order: Vec<usize> = (0..open.len()).filter(|number| open[*number] == 0).collect();
        let mut at = 0;
        while let Some(done) = order.get(at).copied() {
            at += 1;
            for (number, needs) in needs.iter().enumerate() {
                if needs.contains(&done) {
                    open[number] -= 1;
                    if open[number] == 0 {
                        order.push(number);
                    }
                }
            }
        }
        if order.len() < needs.len() {
            let done: HashSet<_> = order.iter().copied().collect();
            let circle = (0..needs.len()).filter(|number| !done.contains(number));
            let names: Vec<_> = circle.map(|number| shown(&self.steps[number].id)).collect();
            let message = format!("these steps wait for each other: {}", names.join(", "));
            faults.add("steps", message);
        }
        order
    }

    fn check_input(&self, step: &StepSpec, numbers: &HashMap<&str, usize>, faults: &mut Faults) {
        for reference in table_references(&step.input) {
            let Source::Step(name) = &reference.source else { continue };
            let Some(source) = numbers.get(name.as_str()).map(|number| &self.steps[*number]) else {
                continue;
            };
            // A path into an output may lead to a list of rows; the whole must be a table.
            let is_table = source.kind.gives_table() || !reference.path.is_empty();
            faults.check(is_table, "input.table", || {
                format!("step {name} is {}, which gives no table", source.kind.as_str())
            });
        }
        match step.kind {
            StepKind::Map => check_map(&step.input, faults),
            StepKind::Merge => check_merge(&step.input, faults),
            StepKind::Reduce => {
                if let Some(input) = typed::<ReduceInput>(&step.input, faults) {
                    faults.check(!input.column.is_empty(), "input.column", || {
                        "must not be empty".to_owned()
                    });
                }
            }
            StepKind::Report => {
                let empty = Value::Object(Map::new());
                let input = if step.input.is_null() { &empty } else { &step.input };
                if let Some(input) = typed::<ReportInput>(input, faults) {
                    faults.check(input.plots.len() <= PLOTS_MAX, "input.plots", || {
                        format!("at most {PLOTS_MAX} are taken")
                    });
                }
            }
            StepKind::LlmCompletion
            | StepKind::NlpEmbed
            | StepKind::NlpRerank
            | StepKind::NlpClassify
            | StepKind::NlpEntities
            | StepKind::NlpRedact
            | StepKind::VisionAnalyze
            | StepKind::DataProcess => {
                faults.check(step.input.is_object(), "input", || {
                    format!("must be the body of a {} request", step.kind.as_str())
                });
                if references(&step.input).is_ok_and(|found| found.is_empty()) {
                    check_request(step.kind, &step.input, "input", faults);
                }
            }
        }
    }
}

fn shown(name: &str) -> String {
    name.chars().take(NAME_BYTES_MAX).collect()
}

fn check_name(name: &str, field: &str, faults: &mut Faults) {
    let fits = (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control);
    faults.check(fits, field, || format!("must have 1 to {NAME_BYTES_MAX} bytes of text"));
}

fn check_step_id(id: &str, faults: &mut Faults) {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    let fits = (1..=NAME_BYTES_MAX).contains(&id.len()) && id.bytes().all(word);
    faults.check(fits && id != "inputs", "id", || {
        format!("must have 1 to {NAME_BYTES_MAX} letters, digits, `_` or `-`, and not be `inputs`")
    });
}

fn check_options(step: &StepSpec, faults: &mut Faults) {
    let retries = step.retries.unwrap_or(0);
    faults.check(retries <= STEP_RETRIES_MAX, "retries", || {
        format!("must be at most {STEP_RETRIES_MAX}")
    });
    let in_time = step.timeout_ms.is_none_or(|ms| (1..=STEP_TIMEOUT_MS_MAX).contains(&ms));
    faults.check(in_time, "timeout_ms", || format!("must be 1 to {STEP_TIMEOUT_MS_MAX}"));
}

/// Whether a value is one reference.
fn as_reference(value: &Value) -> Option<Reference> {
    match references(value).ok()?.as_slice() {
        [one] if value.as_object().is_some_and(|map| map.contains_key("from")) => Some(one.clone()),
        _ => None,
    }
}

/// The references that stand where a table is wanted.
fn table_references(input: &Value) -> Vec<Reference> {
    let tables = input["tables"].as_array().into_iter().flatten();
    let plots = input["plots"].as_array().into_iter().flatten().map(|plot| &plot["table"]);
    let all = std::iter::once(&input["table"]).chain(tables).chain(plots);
    all.filter_map(as_reference).collect()
}

/// The input with nothing in the place of tables, files and rows that are references: what is left
/// can be checked before they are known.
fn without_tables(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut kept = Map::new();
            for (key, value) in map {
                let refers = as_reference(value).is_some();
                match key.as_str() {
                    "table" if refers => {
                        kept.insert(key.clone(), Value::Object(Map::new()));
                    }
                    "tables" => {
                        let blank = |one: &Value| match as_reference(one) {
                            Some(_) => Value::Object(Map::new()),
                            None => without_tables(one),
                        };
                        let list = value.as_array().map(|list| list.iter().map(blank).collect());
                        kept.insert(key.clone(), list.map_or_else(|| value.clone(), Value::Array));
                    }
                    "file" | "file_id" | "rows" if refers => {}
                    // Rows and requests are the caller's own: nothing in them is a table of ours.
                    "rows" | "step" => {
                        kept.insert(key.clone(), value.clone());
                    }
                    _ => {
                        kept.insert(key.clone(), without_tables(value));
                    }
                }
            }
            Value::Object(kept)
        }
        Value::Array(list) => Value::Array(list.iter().map(without_tables).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

fn typed<T: DeserializeOwned>(input: &Value, faults: &mut Faults) -> Option<T> {
    match serde_json::from_value(without_tables(input)) {
        Ok(input) => Some(input),
        Err(error) => {
            faults.add("input", error.to_string());
            None
        }
    }
}

fn check_map(input: &Value, faults: &mut Faults) {
    let Some(map) = typed::<MapInput>(input, faults) else { return };
    check_name(&map.column, "input.as", faults);
    let within = |value: Option<u32>, max: u32| value.is_none_or(|n| (1..=max).contains(&n));
    faults.check(within(map.chunk_rows, CHUNK_ROWS_MAX), "input.chunk_rows", || {
        format!("must be 1 to {CHUNK_ROWS_MAX}")
    });
    faults.check(within(map.concurrency, MAP_CONCURRENCY_MAX), "input.concurrency", || {
        format!("must be 1 to {MAP_CONCURRENCY_MAX}")
    });
    faults.check(within(map.rows_per_minute, u32::MAX), "input.rows_per_minute", || {
        "must be at least 1".to_owned()
    });
    let is_row_step = map.step.kind.capability().is_some_and(|name| name != "data");
    faults.check(is_row_step, "input.step.kind", || {
        format!("{} cannot be done row by row", map.step.kind.as_str())
    });
    let names = columns(&map.step.input);
    faults.check(!names.is_empty(), "input.step.input", || {
        "names no column: write {{column}} where a row's value is to stand".to_owned()
    });
    for row in map.table.rows.iter().flatten() {
        if let Some(name) = names.iter().find(|name| !row.contains_key(*name)) {
            faults.add("input.step.input", format!("a row has no column {:?}", shown(name)));
            return;
        }
    }
    let sample = names.into_iter().map(|name| (name, Value::from("x"))).collect();
    if references(&map.step.input).is_ok_and(|found| found.is_empty())
        && let Ok(filled) = fill(&map.step.input, &sample)
    {
        check_request(map.step.kind, &filled, "input.step.input", faults);
    }
}

/// Checks a request whose values are all known.
fn check_request(kind: StepKind, input: &Value, field: &str, faults: &mut Faults) {
    if kind != StepKind::LlmCompletion {
        return;
    }
    match serde_json::from_value::<CompletionRequest>(input.clone()) {
        Ok(request) => {
            if let Err(error) = request.to_generate() {
                let param = error.param.as_deref().unwrap_or_default();
                faults.add(&format!("{field}.{param}"), error.message);
            }
        }
        Err(error) => faults.add(field, error.to_string()),
    }
}

fn check_merge(input: &Value, faults: &mut Faults) {
    let Some(merge) = typed::<MergeInput>(input, faults) else { return };
    let counted = (2..=MERGE_TABLES_MAX).contains(&merge.tables.len());
    faults.check(counted, "input.tables", || format!("must be 2 to {MERGE_TABLES_MAX}"));
    let (needs_on, needs_column) = match merge.op {
        MergeOp::Concat => (false, false),
        MergeOp::Join => (true, false),
        MergeOp::Majority => (true, true),
    };
    faults.check(!needs_on || merge.on.is_some(), "input.on", || "is needed".to_owned());
    let has_column = !needs_column || merge.column.is_some();
    faults.check(has_column, "input.column", || "is needed".to_owned());
}
