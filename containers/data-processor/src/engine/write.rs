//! Sinks: Parquet and Arrow are written by polars' own; CSV, NDJSON and JSON, and results that only
//! a preview is made of, go by in batches.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use aisemble_protocol::data::TableFormat;
use polars::prelude::{
    CsvWriter, DataFrame, FileWriteFormat, IpcCompression, IpcScanOptions, IpcWriterOptions,
    JsonFormat, JsonWriter, LazyFrame, ParquetWriteOptions, PlRefPath, PlanCallback, PolarsError,
    PolarsResult, ScanArgsParquet, Schema, SerWriter as _, SinkDestination, SinkTarget,
    UnifiedScanArgs, UnifiedSinkArgs, len,
};

use super::Task;
use super::execute::collect;

/// Rows of one batch.
const BATCH_ROWS: usize = 65_536;
/// Bytes that are written at a time.
const BUFFER_BYTES: usize = 1 << 20;

/// The plan, ended by polars' own sink.
pub(super) fn native(
    frame: LazyFrame,
    format: TableFormat,
    path: &Path,
) -> PolarsResult<LazyFrame> {
    let format = match format {
        TableFormat::Arrow => FileWriteFormat::Ipc(IpcWriterOptions {
            compression: Some(IpcCompression::LZ4),
            ..IpcWriterOptions::default()
        }),
        TableFormat::Parquet | TableFormat::Csv | TableFormat::Ndjson | TableFormat::Json => {
            FileWriteFormat::Parquet(Arc::new(ParquetWriteOptions::default()))
        }
    };
    let target = SinkTarget::Path(PlRefPath::new(path.to_string_lossy().as_ref()));
    frame.sink(SinkDestination::File { target }, format, UnifiedSinkArgs::default())
}

/// What [`native`] wrote, to be read.
pub(super) fn reopen(format: TableFormat, path: &Path) -> PolarsResult<LazyFrame> {
    let path = PlRefPath::new(path.to_string_lossy().as_ref());
    if format == TableFormat::Arrow {
        let args = UnifiedScanArgs { glob: false, ..UnifiedScanArgs::default() };
        return LazyFrame::scan_ipc(path, IpcScanOptions::default(), args);
    }
    let args = ScanArgsParquet { glob: false, ..ScanArgsParquet::default() };
    LazyFrame::scan_parquet(path, args)
}

/// How many rows a written table has, and the first of them.
pub(super) fn look(written: &LazyFrame, rows: usize) -> PolarsResult<(u64, DataFrame)> {
    let count = collect(written.clone().select([len().alias("rows")]))?;
    let total = count.column("rows")?.get(0)?.try_extract::<u64>()?;
    let first = collect(written.clone().limit(rows as polars::prelude::IdxSize))?;
    Ok((total, first))
}

/// The plan, ended by [`Batches`].
pub(super) fn batched(frame: LazyFrame, batches: &Arc<Mutex<Batches>>) -> PolarsResult<LazyFrame> {
    let batches = Arc::clone(batches);
    let take = PlanCallback::new(move |batch: DataFrame| {
        let mut batches = batches.lock().unwrap_or_else(PoisonError::into_inner);
        // True would end the query early.
        batches.take(batch).map(|()| false)
    });
    frame.sink_batches(take, true, NonZeroUsize::new(BATCH_ROWS))
}

/// Takes a result batch by batch: counts, keeps the first rows, writes a text file.
#[derive(Debug)]
pub(super) struct Batches {
    rows: u64,
    first: Option<DataFrame>,
    first_rows: usize,
    file: Option<TextFile>,
}

#[derive(Debug)]
struct TextFile {
    format: TableFormat,
    writer: Bounded,
    begun: bool,
}

/// A file with a size limit.
#[derive(Debug)]
struct Bounded {
    file: BufWriter<File>,
    left: u64,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.left = self
            .left
            .checked_sub(bytes.len() as u64)
            .ok_or_else(|| io::Error::other("the output is larger than its limit"))?;
        self.file.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Batches {
    /// Creates the file, if one is to be made.
    pub(super) fn create(task: &Task) -> PolarsResult<Self> {
        let file = match &task.output {
            None => None,
            Some((format, path)) => {
                let file = BufWriter::with_capacity(BUFFER_BYTES, File::create(path)?);
                let writer = Bounded { file, left: task.output_bytes_max };
                Some(TextFile { format: *format, writer, begun: false })
            }
        };
        Ok(Self { rows: 0, first: None, first_rows: task.preview_rows, file })
    }

    /// Rows so far.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// The first rows; a table without rows when there were none.
    pub(super) fn first(&mut self, schema: &Schema) -> DataFrame {
        self.first.take().unwrap_or_else(|| DataFrame::empty_with_schema(schema))
    }

    fn take(&mut self, batch: DataFrame) -> PolarsResult<()> {
        self.rows += batch.height() as u64;
        let missing =
            self.first_rows.saturating_sub(self.first.as_ref().map_or(0, DataFrame::height));
        if self.first.is_none() || missing > 0 {
            let head = batch.head(Some(missing));
            match &mut self.first {
                Some(first) => first.vstack_mut(&head).map(drop)?,
                None => self.first = Some(head),
            }
        }
        match &mut self.file {
            Some(file) => file.write(batch),
            None => Ok(()),
        }
    }

    /// Writes what is left to write.
    pub(super) fn finish(&mut self) -> PolarsResult<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        if file.format == TableFormat::Json {
            let end: &[u8] = if file.begun { b"\n]\n" } else { b"[]\n" };
            file.writer.write_all(end)?;
        }
        Ok(file.writer.flush()?)
    }
}

impl TextFile {
    fn write(&mut self, mut batch: DataFrame) -> PolarsResult<()> {
        match self.format {
            TableFormat::Csv => {
                let header = !self.begun;
                CsvWriter::new(&mut self.writer).include_header(header).finish(&mut batch)?;
            }
            TableFormat::Ndjson => lines(&mut self.writer, &mut batch)?,
            TableFormat::Json => {
                let mut text = Vec::new();
                lines(&mut text, &mut batch)?;
                // A line feed inside a value is written as \n, so each one ends a row.
                for row in text.split(|byte| *byte == b'\n').filter(|row| !row.is_empty()) {
                    self.writer.write_all(if self.begun { b",\n" } else { b"[\n" })?;
                    self.writer.write_all(row)?;
                    self.begun = true;
                }
                return Ok(());
            }
            TableFormat::Parquet | TableFormat::Arrow => {
                let text = "Parquet and Arrow are not written in batches";
                return Err(PolarsError::ComputeError(text.into()));
            }
        }
        self.begun = true;
        Ok(())
    }
}

fn lines(writer: &mut dyn Write, batch: &mut DataFrame) -> PolarsResult<()> {
    JsonWriter::new(writer).with_json_format(JsonFormat::JsonLines).finish(batch)
}
