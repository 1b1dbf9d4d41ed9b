//! Opens tables: from bytes or a file in one of the formats to a lazy frame whose columns are
//! known. Rows are read when the query runs.

use std::fs::File;
use std::io::{Cursor, Read as _};
use std::num::NonZeroUsize;
use std::path::Path;

use aisemble_protocol::ApiError;
use aisemble_protocol::data::TableFormat;
use polars::io::utils::compression::CompressedReader;
use polars::prelude::{
    CsvEncoding, IntoLazy as _, IpcScanOptions, IpcStreamReader, JsonReader, LazyCsvReader,
    LazyFileListReader as _, LazyFrame, LazyJsonLineReader, NullValues, PlRefPath, PlSmallStr,
    PolarsError, PolarsResult, ScanArgsParquet, ScanSources, Schema, SchemaRef, SerReader as _,
    UnifiedScanArgs,
};

use super::{COLUMNS_MAX, Source, Table, Task, csv_check, error, types};

/// Rows that the types of CSV and JSON are guessed from, when the request names no number.
const INFER_ROWS_DEFAULT: u32 = 10_000;
/// A JSON array is parsed as a whole; as NDJSON it could be larger. Bytes.
const JSON_BYTES_MAX: u64 = 1 << 30;
/// How Arrow's file format begins.
const ARROW_FILE_MAGIC: &[u8] = b"ARROW1";

/// Opens the table at position `at` of the request.
pub(super) fn open(table: &Table, at: usize) -> Result<LazyFrame, ApiError> {
    let param = format!("tables[{at}]");
    let failed = |error: PolarsError| named(table, &param, &error.to_string());
    if table.format == TableFormat::Csv {
        let head = head(&table.source, csv_check::LOOK_BYTES_MAX)
            .map_err(|error| named(table, &param, &error.to_string()))?;
        if !is_compressed(&head) {
            csv_check::look(&head, &table.options)
                .map_err(|sentence| named(table, &param, &sentence))?;
        }
    }
    let mut frame = match table.format {
        TableFormat::Csv => csv(table),
        TableFormat::Ndjson => ndjson(table),
        TableFormat::Json => json(table),
        TableFormat::Parquet => parquet(table),
        TableFormat::Arrow => arrow(table),
    }
    .map_err(failed)?;
    let columns = match frame.collect_schema() {
        Ok(schema) => schema.len(),
        Err(error) => return Err(explain_table(table, &param, &error.to_string())),
    };
    if columns > COLUMNS_MAX {
        let sentence = format!("it has {columns} columns; the limit is {COLUMNS_MAX}");
        return Err(named(table, &param, &sentence));
    }
    Ok(frame)
}

/// Says which line of which table is to blame for `error`, if one of them is.
pub(super) fn explain(task: &Task, error: ApiError) -> ApiError {
    if error.param.as_deref() == Some("limits.memory_bytes") {
        return error;
    }
    for (at, table) in task.tables.iter().enumerate() {
        if let Some(sentence) = blame(table) {
            return named(table, &format!("tables[{at}]"), &sentence);
        }
    }
    error
}

fn explain_table(table: &Table, param: &str, text: &str) -> ApiError {
    named(table, param, &blame(table).unwrap_or_else(|| text.to_owned()))
}

fn blame(table: &Table) -> Option<String> {
    if table.format != TableFormat::Csv {
        return None;
    }
    let text = head(&table.source, csv_check::BLAME_BYTES_MAX).ok()?;
    if is_compressed(&text) { None } else { csv_check::blame(&text, &table.options) }
}

fn named(table: &Table, param: &str, text: &str) -> ApiError {
    let mut said = error::of_text(param, text);
    if said.param.as_deref() == Some(param) {
        let sentence = said.message.strip_prefix(&format!("{param}: ")).unwrap_or(&said.message);
        said.message = format!("{param} ({}): {sentence}", table.name);
    }
    said
}

/// The first bytes of a source.
fn head(source: &Source, bytes_max: usize) -> std::io::Result<std::borrow::Cow<'_, [u8]>> {
    match source {
        Source::Bytes(bytes) => Ok(bytes[..bytes.len().min(bytes_max)].into()),
        Source::File(path) => {
            let mut bytes = Vec::new();
            File::open(path)?.take(bytes_max as u64).read_to_end(&mut bytes)?;
            Ok(bytes.into())
        }
    }
}

/// Whether it begins as gzip, zlib or zstd do.
fn is_compressed(head: &[u8]) -> bool {
    head.starts_with(&[0x1F, 0x8B]) || head.starts_with(&[0x28, 0xB5, 0x2F, 0xFD])
}

fn sources(table: &Table) -> ScanSources {
    match &table.source {
        Source::Bytes(bytes) => ScanSources::Buffers(vec![bytes.clone().into()].into()),
        Source::File(path) => ScanSources::Paths(vec![reference(path)].into()),
    }
}

/// Our paths are made of hexadecimal digits and the configuration's directory.
fn reference(path: &Path) -> PlRefPath {
    PlRefPath::new(path.to_string_lossy().as_ref())
}

/// The types that the request gives for columns.
fn given_types(table: &Table) -> Option<SchemaRef> {
    let columns = &table.options.columns;
    let field =
        |(name, wanted): (&String, &_)| (PlSmallStr::from(name.as_str()), types::wanted(*wanted));
    (!columns.is_empty()).then(|| columns.iter().map(field).collect::<Schema>().into())
}

fn csv(table: &Table) -> PolarsResult<LazyFrame> {
    let options = &table.options;
    let byte = |text: &Option<String>, usual: Option<u8>| match text {
        Some(text) => text.bytes().next(),
        None => usual,
    };
    let nulls: Vec<PlSmallStr> = options.null_values.iter().map(PlSmallStr::from).collect();
    let encoding = if options.lossy { CsvEncoding::LossyUtf8 } else { CsvEncoding::Utf8 };
    let rows = options.infer_rows.unwrap_or(INFER_ROWS_DEFAULT) as usize;
    LazyCsvReader::new_with_sources(sources(table))
        .with_glob(false)
        .with_has_header(options.header.unwrap_or(true))
        .with_separator(byte(&options.delimiter, None).unwrap_or(b','))
        .with_quote_char(byte(&options.quote, Some(b'"')))
        .with_skip_lines(options.skip_lines as usize)
        .with_comment_prefix(options.comment.as_deref().map(PlSmallStr::from))
        .with_null_values((!nulls.is_empty()).then_some(NullValues::AllColumns(nulls)))
        .with_try_parse_dates(options.dates)
        .with_encoding(encoding)
        .with_truncate_ragged_lines(options.truncate_ragged_lines)
        .with_infer_schema_length(Some(rows))
        .with_dtype_overwrite(given_types(table))
        .finish()
}

fn ndjson(table: &Table) -> PolarsResult<LazyFrame> {
    let rows = table.options.infer_rows.unwrap_or(INFER_ROWS_DEFAULT) as usize;
    LazyJsonLineReader::new_with_sources(sources(table))
        .with_infer_schema_length(NonZeroUsize::new(rows))
        .with_schema_overwrite(given_types(table))
        .finish()
}

fn json(table: &Table) -> PolarsResult<LazyFrame> {
    let bytes = match &table.source {
        Source::Bytes(bytes) => bytes.clone(),
        Source::File(path) => {
            let file = File::open(path)?;
            if file.metadata()?.len() > JSON_BYTES_MAX {
                let text = format!(
                    "a JSON array may have {JSON_BYTES_MAX} bytes; give a larger one as NDJSON"
                );
                return Err(PolarsError::ComputeError(text.into()));
            }
            let mut bytes = Vec::new();
            File::open(path)?.take(JSON_BYTES_MAX).read_to_end(&mut bytes)?;
            bytes
        }
    };
    let mut text = Vec::new();
    // More than the limit is cut off, and no JSON then.
    CompressedReader::try_new(bytes.into())?.take(JSON_BYTES_MAX).read_to_end(&mut text)?;
    let rows = table.options.infer_rows.unwrap_or(INFER_ROWS_DEFAULT) as usize;
    let overwrite = given_types(table);
    let mut reader = JsonReader::new(Cursor::new(text)).infer_schema_len(NonZeroUsize::new(rows));
    if let Some(schema) = &overwrite {
        reader = reader.with_schema_overwrite(schema);
    }
    Ok(reader.finish()?.lazy())
}

fn parquet(table: &Table) -> PolarsResult<LazyFrame> {
    let args = ScanArgsParquet { glob: false, ..ScanArgsParquet::default() };
    cast(LazyFrame::scan_parquet_sources(sources(table), args)?, table)
}

fn arrow(table: &Table) -> PolarsResult<LazyFrame> {
    let head = head(&table.source, ARROW_FILE_MAGIC.len())?;
    if *head == *ARROW_FILE_MAGIC {
        let args = UnifiedScanArgs { glob: false, ..UnifiedScanArgs::default() };
        let options = IpcScanOptions::default();
        return cast(LazyFrame::scan_ipc_sources(sources(table), options, args)?, table);
    }
    // The streaming format has no footer: it is read as a whole.
    let frame = match &table.source {
        Source::Bytes(bytes) => IpcStreamReader::new(Cursor::new(bytes)).finish()?,
        Source::File(path) => IpcStreamReader::new(File::open(path)?).finish()?,
    };
    cast(frame.lazy(), table)
}

/// Formats that bring their types along: what the request says instead is a cast.
fn cast(frame: LazyFrame, table: &Table) -> PolarsResult<LazyFrame> {
    let Some(schema) = given_types(table) else { return Ok(frame) };
    let types = schema.iter().map(|(name, wanted)| (name.as_str(), wanted.clone())).collect();
    Ok(frame.cast(types, true))
}
