//! `POST /data/process`: tables and what to do with them as JSON, their check into a gRPC request,
//! and the answer.
//!
//! It must not know polars or SQL: an expression is a text here, bounded and not yet parsed.

mod check;
mod operation;
mod result;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::ApiError;
use crate::job::JobOptions;
use crate::v1;

pub use operation::{
    Aggregate, DataType, DateKind, Fill, JoinKind, Keep, Operation, SortKey, StringFunction,
    TemporalFunction, UnionKind,
};
pub use result::{
    ColumnInfo, ColumnProfile, HistogramBin, OutputView, ProcessResult, ProcessTimings,
    QuantileValue, ValueCount,
};

/// Limits of one request, each with its unit. A service may be configured lower.
pub mod limits {
    /// Tables of one request.
    pub const TABLES_MAX: usize = 64;
    /// Bytes of a table's name.
    pub const TABLE_NAME_BYTES_MAX: usize = 128;
    /// Rows of one table inside the request.
    pub const INLINE_ROWS_MAX: usize = 100_000;
    /// Bytes of an SQL text.
    pub const SQL_BYTES_MAX: usize = 128 * 1024;
    /// Bytes of one expression of a pipeline.
    pub const EXPRESSION_BYTES_MAX: usize = 16 * 1024;
    /// Operations of a pipeline.
    pub const OPERATIONS_MAX: usize = 256;
    /// Entries of one list of an operation (columns, keys).
    pub const LIST_MAX: usize = 4096;
    /// Bytes of the name of a column.
    pub const COLUMN_NAME_BYTES_MAX: usize = 4096;
    /// Rows of a preview.
    pub const PREVIEW_ROWS_MAX: u32 = 1000;
    /// Rows of a preview when the request names no number.
    pub const PREVIEW_ROWS_DEFAULT: u32 = 20;
    /// Bytes of a preview as JSON; fewer rows are given when it would be longer.
    pub const PREVIEW_BYTES_MAX: usize = 512 * 1024;
    /// Bytes of a string in a preview; a longer one is cut and ends in `…`.
    pub const PREVIEW_CELL_BYTES_MAX: usize = 4096;
    /// Distinct values of a pivoted column: each becomes a column.
    pub const PIVOT_COLUMNS_MAX: usize = 1000;
    /// Values that mean null in a CSV file.
    pub const NULL_VALUES_MAX: usize = 64;
    /// Time that a request may ask for, milliseconds (24 hours).
    pub const WALL_MS_MAX: u64 = 24 * 3_600_000;
}

/// Tables, what to do with them, and what to give back. Give `sql` or `pipeline`; with neither the
/// only table is taken as it is (to convert or to profile it).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ProcessRequest {
    /// The tables, 1 to 64; `sql` and `join` call them by their names.
    pub tables: Vec<TableInput>,
    /// One SELECT, WITH or EXPLAIN statement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sql: Option<String>,
    /// Operations, one after the other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pipeline: Option<Vec<Operation>>,
    /// The table that the pipeline begins with; absent = the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The file to make; absent = none, the preview only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<OutputRequest>,
    /// Rows of the preview; default 20, at most 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preview_rows: Option<u32>,
    /// Describe each column of the result: types, nulls, quantiles, top values, histogram.
    #[serde(default)]
    pub profile: bool,
    /// Limits below the service's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<ProcessLimits>,
    /// How the job is to be run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobOptions>,
}

/// A table: exactly one of `rows`, `csv` and `file`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct TableInput {
    /// What SQL calls it: a letter or `_`, then letters, digits and `_`.
    pub name: String,
    /// Rows as JSON objects; a column that a row leaves out is null there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Vec<Object>>))]
    pub rows: Option<Vec<serde_json::Map<String, serde_json::Value>>>,
    /// The text of a CSV file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csv: Option<String>,
    /// The id of an uploaded file, `file-...`. It may be compressed with gzip or zstd.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The format of `file`; absent = what the end of the file's name says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<TableFormat>,
    /// How to read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<ReadOptions>,
}

/// A format of tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum TableFormat {
    /// Delimited text (TSV with `"delimiter": "\t"`).
    Csv,
    /// One JSON array of objects.
    Json,
    /// A JSON object a line.
    Ndjson,
    /// Apache Parquet.
    Parquet,
    /// Apache Arrow IPC, the file format (Feather version 2).
    Arrow,
}

/// How a table is read. All but `columns` are for CSV.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ReadOptions {
    /// One ASCII character between fields; default `,`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delimiter: Option<String>,
    /// One ASCII character around fields, or empty for none; default `"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quote: Option<String>,
    /// Whether the first line names the columns; default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<bool>,
    /// Lines to leave out before the header.
    #[serde(default)]
    pub skip_lines: u32,
    /// Lines that begin with this are comments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Texts that mean null, beside the empty field.
    #[serde(default)]
    pub null_values: Vec<String>,
    /// Take texts that look like dates for dates.
    #[serde(default)]
    pub dates: bool,
    /// Bytes that are not UTF-8: an error (default), or replaced by `U+FFFD`.
    #[serde(default)]
    pub lossy: bool,
    /// Lines with more fields than the header: an error (default), or their end is left out.
    #[serde(default)]
    pub truncate_ragged_lines: bool,
    /// Rows that the columns' types are guessed from; default 10,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub infer_rows: Option<u32>,
    /// The types of columns, where the guess is not wanted.
    #[serde(default)]
    pub columns: BTreeMap<String, DataType>,
}

/// The file to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct OutputRequest {
    /// Its format.
    pub format: TableFormat,
    /// Its name in the list of files; absent = `output.` and the format's usual ending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Limits of one request; each counts only where it is below the service's own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ProcessLimits {
    /// Time of the query, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wall_ms: Option<u64>,
    /// Memory of the query, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// The output file, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_bytes: Option<u64>,
}

/// An uploaded file as the service finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// Its digest, lower-case hex: the name it is stored under.
    pub sha256: String,
    /// The name it was uploaded under; only its ending counts.
    pub name: String,
}

impl TableFormat {
    /// Every format.
    pub const ALL: [Self; 5] = [Self::Csv, Self::Json, Self::Ndjson, Self::Parquet, Self::Arrow];

    /// As it is written in JSON and gRPC.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Json => "json",
            Self::Ndjson => "ndjson",
            Self::Parquet => "parquet",
            Self::Arrow => "arrow",
        }
    }

    /// The format that is written like this.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.as_str() == text)
    }

    /// The format that the end of a file's name stands for, `.gz` and `.zst` left aside.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        let lower = name.to_ascii_lowercase();
        let stem = lower.strip_suffix(".gz").or(lower.strip_suffix(".zst")).unwrap_or(&lower);
        match stem.rsplit_once('.')?.1 {
            "csv" | "tsv" | "txt" => Some(Self::Csv),
            "json" => Some(Self::Json),
            "ndjson" | "jsonl" => Some(Self::Ndjson),
            "parquet" | "pq" => Some(Self::Parquet),
            "arrow" | "ipc" | "feather" => Some(Self::Arrow),
            _ => None,
        }
    }
}

impl ProcessRequest {
    /// Checks every field that can be checked without reading a table or parsing an expression.
    ///
    /// # Errors
    /// `invalid_request` or `payload_too_large`, naming the field and its limit.
    pub fn validate(&self) -> Result<(), ApiError> {
        check::request(self)
    }

    /// The ids of the uploaded files that the tables are read from.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.tables.iter().filter_map(|table| table.file.as_deref())
    }

    /// The name of the file that is made, when one is.
    #[must_use]
    pub fn output_name(&self) -> Option<String> {
        let output = self.output.as_ref()?;
        let usual = || format!("output.{}", output.format.as_str());
        Some(output.name.clone().unwrap_or_else(usual))
    }

    /// Checks the request and gives it as the service takes it. `blobs` holds the file of each id
    /// of [`Self::files`].
    ///
    /// # Errors
    /// As [`Self::validate`]; `not_found` for an id that `blobs` does not hold; `invalid_request`
    /// for a file whose format neither `format` nor its name tells.
    pub fn to_process(
        &self,
        blobs: &BTreeMap<String, Blob>,
    ) -> Result<v1::ProcessRequest, ApiError> {
        self.validate()?;
        let tables = self.tables.iter().enumerate().map(|(at, table)| table.to_grpc(at, blobs));
        let plan = match (&self.sql, &self.pipeline) {
            (Some(sql), _) => Some(v1::process_request::Plan::Sql(sql.clone())),
            (None, Some(operations)) => {
                Some(v1::process_request::Plan::PipelineJson(json(operations)?))
            }
            (None, None) => None,
        };
        let limits = self.limits.unwrap_or_default();
        Ok(v1::ProcessRequest {
            request_id: String::new(),
            job_id: String::new(),
            tables: tables.collect::<Result<_, _>>()?,
            plan,
            pipeline_from: self.from.clone().unwrap_or_default(),
            output_format: self
                .output
                .as_ref()
                .map_or_else(String::new, |output| output.format.as_str().to_owned()),
            preview_rows_max: self.preview_rows.unwrap_or(limits::PREVIEW_ROWS_DEFAULT),
            profile: self.profile,
            limits: Some(v1::ProcessLimits {
                wall_ms_max: limits.wall_ms.unwrap_or(0),
                memory_bytes_max: limits.memory_bytes.unwrap_or(0),
                output_bytes_max: limits.output_bytes.unwrap_or(0),
            }),
        })
    }
}

impl TableInput {
    fn to_grpc(&self, at: usize, blobs: &BTreeMap<String, Blob>) -> Result<v1::Table, ApiError> {
        use v1::table::Source;
        let (format, source, is_tab) = if let Some(rows) = &self.rows {
            (TableFormat::Json, Source::Inline(json(rows)?.into_bytes()), false)
        } else if let Some(csv) = &self.csv {
            (TableFormat::Csv, Source::Inline(csv.clone().into_bytes()), false)
        } else {
            let id = self.file.as_deref().unwrap_or_default();
            let param = format!("tables[{at}].file");
            let blob = blobs.get(id).ok_or_else(|| {
                let message = format!("{param} names a file that does not exist");
                ApiError::new(crate::ErrorCode::NotFound, message).with_param(&param)
            })?;
            let named = || TableFormat::of_name(&blob.name);
            let format = self.format.or_else(named).ok_or_else(|| {
                let message = format!(
                    "tables[{at}].format is absent and the file's name does not tell it: say csv, \
                     json, ndjson, parquet or arrow"
                );
                ApiError::invalid(&format!("tables[{at}].format"), message)
            })?;
            let lower = blob.name.to_ascii_lowercase();
            let is_tab = lower.ends_with(".tsv") || lower.contains(".tsv.");
            (format, Source::Blob(blob.sha256.clone()), is_tab)
        };
        let mut options = self.options.clone().unwrap_or_default();
        if is_tab && options.delimiter.is_none() {
            options.delimiter = Some("\t".to_owned());
        }
        Ok(v1::Table {
            name: self.name.clone(),
            format: format.as_str().to_owned(),
            options_json: json(&options)?,
            source: Some(source),
        })
    }
}

fn json(value: &impl Serialize) -> Result<String, ApiError> {
    serde_json::to_string(value).map_err(|_never| {
        ApiError::new(crate::ErrorCode::Internal, "the request cannot be written as JSON")
    })
}
