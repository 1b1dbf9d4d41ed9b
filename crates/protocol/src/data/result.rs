//! What comes back of a query.

use serde::{Deserialize, Serialize};

use crate::job::JobId;

/// What came out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ProcessResult {
    /// The job that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<JobId>,
    /// The columns.
    pub schema: Vec<ColumnInfo>,
    /// Rows of the whole result, not of the preview.
    pub rows: u64,
    /// The first rows as JSON objects. Dates and times are ISO texts; numbers that JSON has not
    /// (NaN, infinities) and whole numbers beyond 2^53 are texts.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<Object>))]
    pub preview: Vec<serde_json::Map<String, serde_json::Value>>,
    /// Whether there are more rows than the preview shows.
    pub preview_truncated: bool,
    /// What EXPLAIN says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explain: Option<String>,
    /// The file, if one was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<OutputView>,
    /// One entry a column, if asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<Vec<ColumnProfile>>,
    /// Where the time went.
    pub timings: ProcessTimings,
    /// Bytes of the input tables as they are stored or were sent.
    pub input_bytes: u64,
    /// The most memory that the query held, bytes.
    pub memory_peak_bytes: u64,
}

/// A column of the result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ColumnInfo {
    /// Its name.
    pub name: String,
    /// Its type: `int64`, `string`, `datetime[us]`, `list[float64]`, ...
    #[serde(rename = "type")]
    pub data_type: String,
}

/// The file that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OutputView {
    /// Its id for `GET /files/{id}/content`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Its name.
    pub name: String,
    /// Its format.
    pub format: super::TableFormat,
    /// Its size.
    pub bytes: u64,
    /// Its digest, lower-case hex.
    pub sha256: String,
}

/// Where the time went, milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ProcessTimings {
    /// Waiting for a free worker.
    pub queue_ms: f64,
    /// Making the worker and confining it.
    pub start_ms: f64,
    /// Looking at the tables: types, sizes.
    pub open_ms: f64,
    /// Reading, computing and writing, which go hand in hand.
    pub compute_ms: f64,
    /// The profile.
    pub profile_ms: f64,
    /// All of it, as the service saw it.
    pub total_ms: f64,
}

/// What a column is like.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ColumnProfile {
    /// Its name.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub data_type: String,
    /// Values that are not null.
    pub count: u64,
    /// Nulls.
    pub nulls: u64,
    /// About how many different values; absent for lists and structures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distinct: Option<u64>,
    /// The smallest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub min: Option<serde_json::Value>,
    /// The largest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub max: Option<serde_json::Value>,
    /// Mean, of numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean: Option<f64>,
    /// Standard deviation, of numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub std: Option<f64>,
    /// Values below which 1, 5, 25, 50, 75, 95 and 99 % lie, of numbers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quantiles: Vec<QuantileValue>,
    /// The most frequent values, the most frequent first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub top: Vec<ValueCount>,
    /// Spans of equal width from the smallest to the largest, of numbers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub histogram: Vec<HistogramBin>,
}

/// A quantile.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct QuantileValue {
    /// The share of values below, 0 to 1.
    pub q: f64,
    /// The value.
    pub value: f64,
}

/// A value and how often it is there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ValueCount {
    /// The value.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub value: serde_json::Value,
    /// How often.
    pub count: u64,
}

/// One span of a histogram.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HistogramBin {
    /// Where it begins, included.
    pub low: f64,
    /// Where it ends; included in the last span only.
    pub high: f64,
    /// How many values lie in it.
    pub count: u64,
}
