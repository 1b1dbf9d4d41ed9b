//! The inputs of the steps that the orchestrator does itself, and the outputs of those that give
//! tables.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::StepKind;
use crate::file::FileId;

/// Where a table comes from: one of `rows` and `file`. The output of a step that gives a table is
/// one, too: `{"from": "STEP.output"}`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TableSource {
    /// The rows themselves.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Vec<Object>>))]
    pub rows: Option<Vec<Map<String, Value>>>,
    /// A file of rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<FileId>,
    /// How the file is written; without it, as its name ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<RowsFormat>,
}

impl<'de> Deserialize<'de> for TableSource {
    /// Takes the outputs of steps as they are: `rows` may be their number, and what a data step
    /// wrote is in its `output`.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let map = Map::<String, Value>::deserialize(deserializer)?;
        let beside = map.get("output").and_then(Value::as_object);
        let field = |name: &str| {
            let found = map.get(name).or_else(|| beside?.get(name));
            found.filter(|value| !value.is_null()).cloned()
        };
        let rows = field("rows").filter(|rows| !rows.is_number());
        let file = field("file").or_else(|| field("file_id"));
        // A file has priority over the preview or count of its rows.
        let rows = if file.is_some() && !map.get("rows").is_some_and(Value::is_array) {
            None
        } else {
            rows
        };
        let read = |error: serde_json::Error| serde::de::Error::custom(error);
        Ok(Self {
            rows: rows.map(serde_json::from_value).transpose().map_err(read)?,
            file: file.map(serde_json::from_value).transpose().map_err(read)?,
            format: field("format").map(serde_json::from_value).transpose().map_err(read)?,
        })
    }
}

/// How a file of rows is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum RowsFormat {
    /// One JSON object a line.
    Ndjson,
    /// Comma-separated with a head; every value is a text.
    Csv,
    /// Tab-separated with a head; every value is a text.
    Tsv,
}

/// Input of a `map` step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct MapInput {
    /// The rows.
    pub table: TableSource,
    /// What is done with each.
    pub step: RowStep,
    /// The new column.
    #[serde(rename = "as")]
    pub column: String,
    /// What of the answer goes into it, as a path: `text`, `data.0.embedding`. Default: `text` for
    /// completions, else the whole answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub take: Option<String>,
    /// Columns of the table that are kept; default all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<Vec<String>>,
    /// Rows of one chunk; default 32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunk_rows: Option<u32>,
    /// Rows at the same time; default 16. The service's own bounds hold besides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// Rows that may begin in a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows_per_minute: Option<u32>,
    /// What a failed row means for the rest.
    #[serde(default)]
    pub on_row_error: OnRowError,
}

/// What a map does with each row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RowStep {
    /// A capability's kind.
    pub kind: StepKind,
    /// The request. `{{column}}` in a text stands for the row's value; a text that is nothing else
    /// becomes the value itself.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub input: Value,
}

/// What a failed row means for the rest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum OnRowError {
    /// It goes to the table of errors; the others go on.
    #[default]
    Collect,
    /// The step fails.
    Fail,
}

/// Output of a `map` step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MapOutput {
    /// The rows with their new column, in the order of the table: NDJSON.
    pub file: FileId,
    /// How the file is written.
    pub format: RowsFormat,
    /// SHA-256 of the file, hex.
    pub sha256: String,
    /// Rows in the file.
    pub rows: u64,
    /// Rows that failed; they are not in the file.
    pub failed: u64,
    /// The failed rows, each with its number and error: NDJSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errors_file: Option<FileId>,
    /// Tokens used, in and out.
    pub tokens: u64,
    /// The first rows.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<Object>))]
    pub sample: Vec<Value>,
}

/// Output of a step that makes a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TableOutput {
    /// The rows: NDJSON.
    pub file: FileId,
    /// How the file is written.
    pub format: RowsFormat,
    /// SHA-256 of the file, hex.
    pub sha256: String,
    /// Rows in the file.
    pub rows: u64,
    /// The first rows.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<Object>))]
    pub sample: Vec<Value>,
}

/// Input of a `merge` step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct MergeInput {
    /// How.
    pub op: MergeOp,
    /// The tables, 2 to 16.
    pub tables: Vec<TableSource>,
    /// The column whose values rows share; needed by `join` and `majority`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<String>,
    /// The column that is voted on; needed by `majority`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
}

/// How tables are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum MergeOp {
    /// One after the other.
    Concat,
    /// Rows of the first with the columns of the others, where `on` is the same.
    Join,
    /// Rows of the first; `column` becomes what most tables say.
    Majority,
}

/// Input of a `reduce` step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ReduceInput {
    /// The rows.
    pub table: TableSource,
    /// What is made of the column.
    pub op: ReduceOp,
    /// The column.
    pub column: String,
    /// One value for each value of this column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// What is made of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ReduceOp {
    /// Values that are not null.
    Count,
    /// The commonest value.
    Majority,
    /// Sum of the numbers.
    Sum,
    /// Mean of the numbers.
    Mean,
    /// The least number.
    Min,
    /// The greatest number.
    Max,
    /// The texts, one a line, up to 64 KiB.
    Text,
}

/// Input of a `report` step.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ReportInput {
    /// Heading; default the workflow's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Rows of each table that are shown; default 5, at most 50.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub samples: Option<u32>,
    /// Bars of how often each value of a column occurs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub plots: Vec<ReportPlot>,
}

/// A plot of a report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ReportPlot {
    /// The rows.
    pub table: TableSource,
    /// The column.
    pub column: String,
}
