//! One query with polars: tables in, a result out. It runs inside a worker process, confined; in
//! tests and benchmarks also without one. It knows nothing of processes, sockets or gRPC.

mod allow;
mod csv_check;
mod error;
mod execute;
mod expression;
mod pipeline;
mod preview;
mod profile;
mod read;
mod sql;
#[cfg(test)]
mod tests;
mod types;
mod write;

use std::path::PathBuf;
use std::time::Instant;

use aisemble_protocol::ApiError;
use aisemble_protocol::data::{
    ColumnInfo, Operation, ProcessResult, ProcessTimings, ReadOptions, TableFormat,
};
use polars::prelude::LazyFrame;

pub(crate) use error::{of_text, out_of_memory};
pub use execute::Counters;

/// Columns of one table or result.
pub const COLUMNS_MAX: usize = 10_000;

/// One query.
#[derive(Debug)]
pub struct Task {
    /// The tables.
    pub tables: Vec<Table>,
    /// What to do with them.
    pub plan: Plan,
    /// The file to make, in a directory that exists.
    pub output: Option<(TableFormat, PathBuf)>,
    /// Bytes of the file at most.
    pub output_bytes_max: u64,
    /// Rows of the preview.
    pub preview_rows: usize,
    /// Whether the result is to be described column by column.
    pub profile: bool,
}

/// One table.
#[derive(Debug)]
pub struct Table {
    /// What SQL calls it.
    pub name: String,
    /// Its format.
    pub format: TableFormat,
    /// How to read it.
    pub options: ReadOptions,
    /// Where it is.
    pub source: Source,
}

/// Where a table's bytes are.
#[derive(Debug)]
pub enum Source {
    /// In memory.
    Bytes(Vec<u8>),
    /// In a file that nobody changes.
    File(PathBuf),
}

/// What to do.
#[derive(Debug)]
pub enum Plan {
    /// The only table as it is.
    AsItIs,
    /// One SQL statement.
    Sql(String),
    /// Operations on a table.
    Pipeline {
        /// The table that it begins with.
        from: String,
        /// One after the other.
        operations: Vec<Operation>,
    },
}

/// A table that was opened: its columns are known, its rows are not read.
pub(crate) struct Opened {
    pub(crate) name: String,
    pub(crate) frame: LazyFrame,
}

/// Runs `task`; `counters` can be read meanwhile. Timings of the queue and the process, the name of
/// the file and its digest are left for others to fill in.
///
/// # Errors
/// What is wrong with the request or its data, naming the field, the table or the line.
pub fn run(task: &Task, counters: &Counters) -> Result<ProcessResult, ApiError> {
    counters.enter("reading");
    let begin = Instant::now();
    let mut tables = Vec::with_capacity(task.tables.len());
    for (at, table) in task.tables.iter().enumerate() {
        tables.push(Opened { name: table.name.clone(), frame: read::open(table, at)? });
    }
    let opened = begin.elapsed();
    counters.enter("computing");
    let planned = plan(task, tables)?;
    let (frame, explain) = match planned {
        Planned::Frame(frame) => (*frame, None),
        Planned::Explained(text) => (LazyFrame::default(), Some(text)),
    };
    let mut result = if explain.is_some() {
        ProcessResult::default()
    } else {
        execute::execute(task, frame, counters).map_err(|error| read::explain(task, error))?
    };
    result.explain = explain;
    result.input_bytes = task.tables.iter().map(|table| table.source.bytes()).sum();
    result.timings = ProcessTimings {
        open_ms: opened.as_secs_f64() * 1e3,
        compute_ms: (begin.elapsed() - opened).as_secs_f64() * 1e3 - result.timings.profile_ms,
        ..result.timings
    };
    Ok(result)
}

/// Whether one SQL statement is within the allow-list. No table is looked at.
///
/// # Errors
/// What is not allowed, or where the statement cannot be read.
pub fn check_statement(text: &str) -> Result<(), ApiError> {
    allow::statement(text).map(drop)
}

/// The same of one expression of a pipeline.
///
/// # Errors
/// As [`check_statement`].
pub fn check_expression(text: &str) -> Result<(), ApiError> {
    allow::expression(text, "expression")
}

/// A plan: what is to be computed, or what EXPLAIN says of it.
enum Planned {
    Frame(Box<LazyFrame>),
    Explained(String),
}

fn plan(task: &Task, tables: Vec<Opened>) -> Result<Planned, ApiError> {
    let frame = |frame| Ok(Planned::Frame(Box::new(frame)));
    match &task.plan {
        Plan::Sql(text) => sql::plan(text, tables),
        Plan::Pipeline { from, operations } => frame(pipeline::plan(from, operations, &tables)?),
        Plan::AsItIs => match tables.into_iter().next() {
            Some(table) => frame(table.frame),
            None => Err(error::refused("tables", "no table is given")),
        },
    }
}

/// The columns as the API shows them.
fn columns(schema: &polars::prelude::Schema) -> Vec<ColumnInfo> {
    let info = |(name, data_type): (&polars::prelude::PlSmallStr, &polars::prelude::DataType)| {
        ColumnInfo { name: name.to_string(), data_type: types::name(data_type) }
    };
    schema.iter().map(info).collect()
}

impl Source {
    /// Its size; 0 should the file be gone.
    fn bytes(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(path) => std::fs::metadata(path).map_or(0, |found| found.len()),
        }
    }
}
