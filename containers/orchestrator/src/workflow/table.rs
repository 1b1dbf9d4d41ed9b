//! Tables row by row: read from inline rows or files of a caller, written as NDJSON files. What is
//! malformed is named with its row; nothing is held in memory as a whole.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};

use aisemble_jobs::JobFailure;
use aisemble_protocol::file::{FileView, Purpose};
use aisemble_protocol::workflow::{MAP_ROWS_MAX, ROW_BYTES_MAX, RowsFormat, TableSource};
use aisemble_protocol::{ErrorCode, FileId, JobId};
use serde_json::{Map, Value};

use super::Engine;
use crate::files::{Incoming, NewFile};

/// A row of a table.
pub(super) type Row = Map<String, Value>;

/// Rows that are read at once.
const BATCH_ROWS: usize = 256;
/// Bytes of rows after which such a read ends early.
const BATCH_BYTES: usize = 1024 * 1024;
/// Columns of a table that is no JSON.
const COLUMNS_MAX: usize = 10_000;
/// Rows that a sample shows.
pub(super) const SAMPLE_ROWS: usize = 5;

/// Reads a table from its beginning.
#[derive(Debug)]
pub(super) struct TableReader {
    /// `None` only while a batch is being read.
    source: Option<Source>,
    rows: u64,
}

enum Source {
    Inline(std::vec::IntoIter<Row>),
    Lines(BufReader<File>),
    Csv { reader: csv::Reader<File>, names: Vec<String> },
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Inline(_) => "Inline",
            Self::Lines(_) => "Lines",
            Self::Csv { .. } => "Csv",
        })
    }
}

pub(super) fn invalid(message: impl Into<String>) -> JobFailure {
    JobFailure::new(ErrorCode::InvalidRequest, message)
}

impl TableReader {
    /// Opens a table of `owner`.
    ///
    /// # Errors
    /// `invalid_request` when it is neither rows nor a file, or its head is malformed; `not_found`.
    pub(super) async fn open(
        engine: &Engine,
        owner: &str,
        table: TableSource,
    ) -> Result<Self, JobFailure> {
        let source = match (table.rows, table.file) {
            (Some(rows), None) => Source::Inline(rows.into_iter()),
            (None, Some(id)) => {
                let blob = engine.files.open_blob(owner, id).await?;
                let format = table.format.unwrap_or_else(|| format_of(&blob.view.filename));
                blocking(move || open_file(&blob.path, format)).await?
            }
            (Some(_), Some(_)) => return Err(invalid("a table is rows or a file, not both")),
            (None, None) => return Err(invalid("there is no table: neither rows nor a file")),
        };
        Ok(Self { source: Some(source), rows: 0 })
    }

    /// The next rows; none at the end.
    ///
    /// # Errors
    /// `invalid_request`, naming the row that is malformed or too large.
    pub(super) async fn next(&mut self) -> Result<Vec<Row>, JobFailure> {
        let Some(mut source) = self.source.take() else { return Ok(Vec::new()) };
        let first = self.rows;
        let (source, batch) = blocking(move || {
            let batch = source.batch(first)?;
            Ok((source, batch))
        })
        .await?;
        self.source = Some(source);
        self.rows += batch.len() as u64;
        if self.rows > MAP_ROWS_MAX {
            return Err(invalid(format!("the table has over {MAP_ROWS_MAX} rows")));
        }
        Ok(batch)
    }

    /// Every row of a small table.
    ///
    /// # Errors
    /// As [`Self::next`]; `payload_too_large` beyond `rows_max`.
    pub(super) async fn all(mut self, rows_max: usize) -> Result<Vec<Row>, JobFailure> {
        let mut all = Vec::new();
        loop {
            let batch = self.next().await?;
            if batch.is_empty() {
                return Ok(all);
            }
            all.extend(batch);
            if all.len() > rows_max {
                let message =
                    format!("the table has over {rows_max} rows, which is the limit here");
                return Err(JobFailure::new(ErrorCode::PayloadTooLarge, message));
            }
        }
    }
}

/// How a file of that name is written.
fn format_of(name: &str) -> RowsFormat {
    let name = name.to_ascii_lowercase();
    if name.ends_with(".csv") {
        RowsFormat::Csv
    } else if name.ends_with(".tsv") {
        RowsFormat::Tsv
    } else {
        RowsFormat::Ndjson
    }
}

fn open_file(path: &std::path::Path, format: RowsFormat) -> Result<Source, JobFailure> {
    let gone = |_| JobFailure::new(ErrorCode::Internal, "the table's content is gone");
    let file = File::open(path).map_err(gone)?;
    let delimiter = match format {
        RowsFormat::Ndjson => return Ok(Source::Lines(BufReader::new(file))),
        RowsFormat::Csv => b',',
        RowsFormat::Tsv => b'\t',
    };
    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(file);
    let names = reader.headers().map_err(|error| csv_error(&error))?;
    let names: Vec<String> =
        names.iter().map(|name| name.trim_start_matches('\u{feff}').to_owned()).collect();
    if names.len() > COLUMNS_MAX {
        return Err(invalid(format!("the table has over {COLUMNS_MAX} columns")));
    }
    for (place, name) in names.iter().enumerate() {
        if names[..place].contains(name) {
            return Err(invalid(format!("the table has two columns {name:?}")));
        }
    }
    Ok(Source::Csv { reader, names })
}

fn csv_error(error: &csv::Error) -> JobFailure {
    invalid(format!("the table is not valid: {error}"))
}

impl Source {
    fn batch(&mut self, first: u64) -> Result<Vec<Row>, JobFailure> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while batch.len() < BATCH_ROWS && bytes < BATCH_BYTES {
            let number = first + batch.len() as u64;
            let Some((row, size)) = self.row(number)? else { break };
            if size > ROW_BYTES_MAX {
                return Err(invalid(format!("row {number} has over {ROW_BYTES_MAX} bytes")));
            }
            bytes += size;
            batch.push(row);
        }
        Ok(batch)
    }

    fn row(&mut self, number: u64) -> Result<Option<(Row, usize)>, JobFailure> {
        match self {
            Self::Inline(rows) => Ok(rows.next().map(|row| {
                let size = serde_json::to_string(&row).map_or(usize::MAX, |text| text.len());
                (row, size)
            })),
            Self::Lines(reader) => line(reader, number),
            Self::Csv { reader, names } => {
                let mut record = csv::StringRecord::new();
                if !reader.read_record(&mut record).map_err(|error| csv_error(&error))? {
                    return Ok(None);
                }
                let size = record.as_slice().len();
                let values = record.iter().map(|value| Value::from(value.to_owned()));
                Ok(Some((names.iter().cloned().zip(values).collect(), size)))
            }
        }
    }
}

fn line(reader: &mut BufReader<File>, number: u64) -> Result<Option<(Row, usize)>, JobFailure> {
    let broken = |_| JobFailure::new(ErrorCode::Internal, "the table's content cannot be read");
    loop {
        let mut line = Vec::new();
        // One byte more than may be, to see that it is too long without reading all of it.
        let mut limited = reader.by_ref().take(ROW_BYTES_MAX as u64 + 2);
        if limited.read_until(b'\n', &mut line).map_err(broken)? == 0 {
            return Ok(None);
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        if line.len() > ROW_BYTES_MAX + 1 {
            return Err(invalid(format!("row {number} has over {ROW_BYTES_MAX} bytes")));
        }
        let size = line.len();
        let row = serde_json::from_slice::<Row>(line.trim_ascii());
        let row = row.map_err(|error| {
            invalid(format!("row {number} of the table is not a JSON object: {error}"))
        })?;
        return Ok(Some((row, size.min(ROW_BYTES_MAX))));
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, JobFailure> + Send + 'static,
) -> Result<T, JobFailure> {
    let broken = |_| JobFailure::new(ErrorCode::Internal, "reading a table broke off");
    tokio::task::spawn_blocking(work).await.map_err(broken)?
}

/// Writes a table of its own, NDJSON.
#[derive(Debug)]
pub(super) struct TableWriter {
    incoming: Incoming,
    pub(super) rows: u64,
    pub(super) sample: Vec<Value>,
    /// Seconds after which the file is deleted by itself.
    pub(super) expires_after_s: Option<u64>,
}

impl TableWriter {
    /// An empty table.
    ///
    /// # Errors
    /// The file store's.
    pub(super) async fn new(engine: &Engine) -> Result<Self, JobFailure> {
        let incoming = engine.files.incoming().await?;
        Ok(Self { incoming, rows: 0, sample: Vec::new(), expires_after_s: None })
    }

    /// Adds a row.
    ///
    /// # Errors
    /// The file store's.
    pub(super) async fn write(&mut self, row: Row) -> Result<(), JobFailure> {
        let mut line = super::encode(&row)?;
        line.push(b'\n');
        self.incoming.write(&line).await?;
        self.rows += 1;
        if self.sample.len() < SAMPLE_ROWS {
            self.sample.push(Value::Object(row));
        }
        Ok(())
    }

    /// Makes it a file of `owner`, under an id that follows from `job` and `name`.
    ///
    /// # Errors
    /// The file store's.
    pub(super) async fn finish(
        self,
        engine: &Engine,
        owner: &str,
        (job, name): (JobId, &str),
        purpose: Purpose,
    ) -> Result<FileView, JobFailure> {
        let content = self.incoming.finish().await?;
        let mut new = NewFile::new(name, purpose).with_id(file_id(job, name));
        new.expires_after_s = self.expires_after_s;
        Ok(engine.files.publish(owner, new, content).await?)
    }
}

/// The id of the file that `job` makes under that name.
pub(super) fn file_id(job: JobId, name: &str) -> FileId {
    FileId(job.child(&format!("file/{name}")).0)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(text: &[u8], format: RowsFormat) -> Result<Vec<Row>, String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text).unwrap();
        let mut source = open_file(file.path(), format).map_err(|failure| failure.message)?;
        let mut all = Vec::new();
        loop {
            let batch = source.batch(all.len() as u64).map_err(|failure| failure.message)?;
            if batch.is_empty() {
                return Ok(all);
            }
            all.extend(batch);
        }
    }

    #[test]
    fn rows_are_read_as_their_format_has_them() {
        let expected = json!([{"a": "1", "b": "x, \"y\""}, {"a": "2", "b": ""}]);
        let csv = read(b"\xef\xbb\xbfa,b\r\n1,\"x, \"\"y\"\"\"\r\n2,\r\n", RowsFormat::Csv);
        assert_eq!(json!(csv.unwrap()), expected);
        let tsv = read(b"a\tb\n1\tz\n", RowsFormat::Tsv).unwrap();
        assert_eq!(json!(tsv), json!([{"a": "1", "b": "z"}]));
        let lines = read(b"{\"a\":1}\n\n  {\"a\":{\"b\":null}}", RowsFormat::Ndjson).unwrap();
        assert_eq!(json!(lines), json!([{"a": 1}, {"a": {"b": null}}]));
        assert_eq!(format_of("T.CSV"), RowsFormat::Csv);
        assert_eq!(format_of("rows"), RowsFormat::Ndjson);
    }

    #[test]
    fn what_is_malformed_is_named() {
        let check = |text: &[u8], format, sentence: &str| {
            let message = read(text, format).unwrap_err();
            assert!(message.contains(sentence), "{message}");
        };
        check(b"a,b\n1\n", RowsFormat::Csv, "line: 2");
        check(b"a,a\n1,2\n", RowsFormat::Csv, "two columns \"a\"");
        check(b"a\n\xff\xfe\n", RowsFormat::Csv, "UTF-8");
        check(b"{\"a\":1}\n[1]\n", RowsFormat::Ndjson, "row 1 of the table is not a JSON object");
        let long = format!("{{\"a\":\"{}\"}}", "x".repeat(ROW_BYTES_MAX));
        check(long.as_bytes(), RowsFormat::Ndjson, "row 0 has over");
        let columns = vec!["c"; COLUMNS_MAX + 1].join(",");
        check(columns.as_bytes(), RowsFormat::Csv, "over 10000 columns");
    }

    proptest! {
        #[test]
        fn any_bytes_are_rows_or_refused(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            for format in [RowsFormat::Ndjson, RowsFormat::Csv, RowsFormat::Tsv] {
                let _ = read(&text, format);
            }
        }
    }
}
