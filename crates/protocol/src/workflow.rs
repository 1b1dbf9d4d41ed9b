//! Workflows as the HTTP API takes and shows them: named steps over the capabilities, joined by
//! references to earlier outputs.
//!
//! A request is validated as a whole ([`WorkflowRequest::validate`]) before anything runs. It must
//! not know how a step is carried out.

mod check;
mod graph;
mod reference;
mod shapes;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use check::{Fault, Plan};
pub use graph::{dot, mermaid};
pub use reference::{Reference, Source, columns, fill, references, resolve};
pub use shapes::{
    MapInput, MapOutput, MergeInput, MergeOp, OnRowError, ReduceInput, ReduceOp, ReportInput,
    ReportPlot, RowStep, RowsFormat, TableOutput, TableSource,
};

use crate::error::ErrorCode;
use crate::job::{JobId, JobOptions, JobState};

/// Steps of one workflow.
pub const STEPS_MAX: usize = 100;
/// Bytes of a step's id or a workflow's name.
pub const NAME_BYTES_MAX: usize = 64;
/// `inputs` of a workflow, encoded bytes.
pub const INPUTS_BYTES_MAX: usize = 1024 * 1024;
/// A step's own time, milliseconds (a day).
pub const STEP_TIMEOUT_MS_MAX: u64 = 24 * 3_600_000;
/// Repetitions of a failed step.
pub const STEP_RETRIES_MAX: u32 = 10;
/// Rows that one map takes.
pub const MAP_ROWS_MAX: u64 = 1_000_000;
/// Rows of one chunk.
pub const CHUNK_ROWS_MAX: u32 = 1_000;
/// Rows of one chunk when the request names no number.
pub const CHUNK_ROWS_DEFAULT: u32 = 32;
/// Rows of one map that are computed at the same time.
pub const MAP_CONCURRENCY_MAX: u32 = 256;
/// Rows at the same time when the request names no number.
pub const MAP_CONCURRENCY_DEFAULT: u32 = 16;
/// One row of a table, encoded bytes.
pub const ROW_BYTES_MAX: usize = 256 * 1024;

/// `POST /workflows`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct WorkflowRequest {
    /// What its owner calls it.
    pub name: String,
    /// What is done, in any order: `needs` and references say what comes first.
    pub steps: Vec<StepSpec>,
    /// Values that steps refer to as `{"from": "inputs.NAME"}`.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub inputs: Map<String, Value>,
    /// An earlier run, which has ended: what it finished is taken over where this one asks the same
    /// again, results of steps and rows of maps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub continue_from: Option<JobId>,
    /// Priority, deadline and metadata of the whole; `needs` are other jobs to wait for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobOptions>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct StepSpec {
    /// Its name within the workflow: letters, digits, `_` and `-`.
    pub id: String,
    /// What is done.
    pub kind: StepKind,
    /// Steps that must have ended before, besides those that `input` refers to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<String>,
    /// The request, in the shape of its kind. `{"from": "STEP.output.PATH"}` stands for what an
    /// earlier step gave, `{"from": "inputs.NAME"}` for an input.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub input: Value,
    /// Runs only when this holds; else it is skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<Condition>,
    /// Repetitions after failures that may pass. Default 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
    /// Milliseconds that the step may take. Default: as long as the workflow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// What its failure means for the rest.
    #[serde(default)]
    pub on_error: OnError,
}

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum StepKind {
    /// A completion: the body of `POST /ai/llm/completion`.
    #[serde(rename = "llm.completion")]
    LlmCompletion,
    /// The body of `POST /ai/nlp/embed`.
    #[serde(rename = "nlp.embed")]
    NlpEmbed,
    /// The body of `POST /ai/nlp/rerank`.
    #[serde(rename = "nlp.rerank")]
    NlpRerank,
    /// The body of `POST /ai/nlp/classify`.
    #[serde(rename = "nlp.classify")]
    NlpClassify,
    /// The body of `POST /ai/nlp/entities`.
    #[serde(rename = "nlp.entities")]
    NlpEntities,
    /// The body of `POST /ai/nlp/redact`.
    #[serde(rename = "nlp.redact")]
    NlpRedact,
    /// The body of `POST /ai/vision/analyze`.
    #[serde(rename = "vision.analyze")]
    VisionAnalyze,
    /// The body of `POST /data/process`.
    #[serde(rename = "data.process")]
    DataProcess,
    /// An AI step over the rows of a table.
    #[serde(rename = "map")]
    Map,
    /// Tables put together.
    #[serde(rename = "merge")]
    Merge,
    /// A column made into one value, or one a group.
    #[serde(rename = "reduce")]
    Reduce,
    /// Markdown and JSON about the run.
    #[serde(rename = "report")]
    Report,
}

impl StepKind {
    /// Every kind.
    pub const ALL: [Self; 12] = [
        Self::LlmCompletion,
        Self::NlpEmbed,
        Self::NlpRerank,
        Self::NlpClassify,
        Self::NlpEntities,
        Self::NlpRedact,
        Self::VisionAnalyze,
        Self::DataProcess,
        Self::Map,
        Self::Merge,
        Self::Reduce,
        Self::Report,
    ];

    /// The kind as JSON writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LlmCompletion => "llm.completion",
            Self::NlpEmbed => "nlp.embed",
            Self::NlpRerank => "nlp.rerank",
            Self::NlpClassify => "nlp.classify",
            Self::NlpEntities => "nlp.entities",
            Self::NlpRedact => "nlp.redact",
            Self::VisionAnalyze => "vision.analyze",
            Self::DataProcess => "data.process",
            Self::Map => "map",
            Self::Merge => "merge",
            Self::Reduce => "reduce",
            Self::Report => "report",
        }
    }

    /// The capability that carries it out; none for what the orchestrator does itself.
    #[must_use]
    pub fn capability(self) -> Option<&'static str> {
        match self {
            Self::LlmCompletion => Some("llm"),
            Self::NlpEmbed
            | Self::NlpRerank
            | Self::NlpClassify
            | Self::NlpEntities
            | Self::NlpRedact => Some("nlp"),
            Self::VisionAnalyze => Some("vision"),
            Self::DataProcess => Some("data"),
            Self::Map | Self::Merge | Self::Reduce | Self::Report => None,
        }
    }

    /// Whether its output is a table that a later step may read.
    #[must_use]
    pub fn gives_table(self) -> bool {
        match self {
            Self::DataProcess | Self::Map | Self::Merge | Self::Reduce => true,
            Self::LlmCompletion
            | Self::NlpEmbed
            | Self::NlpRerank
            | Self::NlpClassify
            | Self::NlpEntities
            | Self::NlpRedact
            | Self::VisionAnalyze
            | Self::Report => false,
        }
    }
}

/// What a step's failure means for the rest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// The workflow fails; steps that need it do not run.
    #[default]
    Fail,
    /// Steps that refer to its output are skipped; the others go on.
    Continue,
}

/// When a step runs. All tests that are given must hold.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// The value that is looked at: `STEP.output.PATH` or `inputs.NAME`.
    pub from: String,
    /// It is this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub equals: Option<Value>,
    /// It is anything else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub not_equals: Option<Value>,
    /// It is a number of at least this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_least: Option<f64>,
    /// It is a number of at most this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_most: Option<f64>,
    /// Whether it is there and not null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exists: Option<bool>,
}

impl Condition {
    /// Whether the value that `from` stands for passes all tests.
    #[must_use]
    pub fn holds(&self, value: &Value) -> bool {
        let number = value.as_f64();
        self.equals.as_ref().is_none_or(|expected| value == expected)
            && self.not_equals.as_ref().is_none_or(|other| value != other)
            && self.at_least.is_none_or(|min| number.is_some_and(|number| number >= min))
            && self.at_most.is_none_or(|max| number.is_some_and(|number| number <= max))
            && self.exists.is_none_or(|exists| exists != value.is_null())
    }

    /// Whether any test is given.
    #[must_use]
    pub fn tests_something(&self) -> bool {
        self.equals.is_some()
            || self.not_equals.is_some()
            || self.at_least.is_some()
            || self.at_most.is_some()
            || self.exists.is_some()
    }
}

/// A workflow as `GET /workflows/{id}` shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WorkflowView {
    /// Identity; also the id of its job.
    pub id: JobId,
    /// What its owner calls it.
    pub name: String,
    /// Where it stands.
    pub state: JobState,
    /// Its steps, in the order of the request.
    pub steps: Vec<StepView>,
    /// When it was accepted, milliseconds since 1970 (as all `_ms` times below).
    pub created_at_ms: u64,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at_ms: Option<u64>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at_ms: Option<u64>,
    /// Somebody asked to cancel it and it has not ended yet.
    #[serde(default)]
    pub cancel_requested: bool,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<StepError>,
}

/// Where a step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// Waits for other steps, or its turn.
    Pending,
    /// Is being done.
    Running,
    /// Has an output.
    Succeeded,
    /// Ended with an error.
    Failed,
    /// Was not to run.
    Skipped,
    /// Ended because somebody asked for it.
    Cancelled,
}

impl StepState {
    /// The state as JSON writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing moves it any more.
    #[must_use]
    pub fn is_final(self) -> bool {
        match self {
            Self::Succeeded | Self::Failed | Self::Skipped | Self::Cancelled => true,
            Self::Pending | Self::Running => false,
        }
    }
}

/// A step of a workflow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StepView {
    /// Its name.
    pub id: String,
    /// What it does.
    pub kind: StepKind,
    /// Where it stands.
    pub state: StepState,
    /// Its job, once there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<JobId>,
    /// Steps that come before it.
    pub needs: Vec<String>,
    /// When it began, milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at_ms: Option<u64>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at_ms: Option<u64>,
    /// How far it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// What it gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub output: Option<Value>,
    /// The step of an earlier run whose result it has taken over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_from: Option<JobId>,
    /// Why it failed or was skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<StepError>,
}

/// How far a map is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Progress {
    /// Rows that there are.
    pub rows: u64,
    /// Rows that have an answer.
    pub rows_done: u64,
    /// Rows that failed.
    pub rows_failed: u64,
    /// Tokens used, in and out.
    pub tokens: u64,
    /// When it is expected to end, milliseconds from now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta_ms: Option<u64>,
}

/// Why a step or a workflow failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StepError {
    /// For a machine.
    pub code: ErrorCode,
    /// For a person; names the step.
    pub message: String,
}

/// The answer to `POST /workflows/validate`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Validation {
    /// Whether it would be taken.
    pub valid: bool,
    /// What is wrong, each with its step.
    pub faults: Vec<Fault>,
    /// The steps in an order in which they can run; empty when it is not valid.
    pub order: Vec<String>,
}

#[cfg(test)]
mod tests;
