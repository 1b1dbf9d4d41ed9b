//! `ai-semble data query`: SQL over files of this machine.

use std::fs;
use std::path::{Path, PathBuf};

use aisemble_client::Client;
use aisemble_protocol::FileId;
use aisemble_protocol::data::{
    ColumnProfile, OutputRequest, ProcessRequest, ProcessResult, ReadOptions, TableFormat,
    TableInput, limits,
};
use aisemble_protocol::file::Purpose;
use serde_json::Value;

use super::texts::short;
use super::{connect, files, work};
use crate::args::{DataCommand, DataQuery, Global};
use crate::failure::{Exit, Failure, Outcome};
use crate::terminal::{Terminal, size};

/// CSV up to this length goes along with the query, bytes.
const INLINE_BYTES_MAX: u64 = 256 * 1024;
const CELL_CHARS: usize = 40;

/// Runs the command.
///
/// # Errors
/// As the call; when a file cannot be read or written.
pub async fn run(global: &Global, command: DataCommand, terminal: Terminal) -> Outcome<()> {
    let DataCommand::Query(options) = command;
    let client = connect(global)?;
    let named = options.tables.iter().map(|text| table(text)).collect::<Outcome<Vec<_>>>()?;
    let output = options.output.as_deref().map(output_of).transpose()?;
    if options.rows > limits::PREVIEW_ROWS_MAX {
        let message = format!("--rows is at most {}", limits::PREVIEW_ROWS_MAX);
        return Err(Failure::new(Exit::Usage, message).hint("the whole result: --output FILE"));
    }
    let mut tables = Vec::new();
    let mut uploaded = Vec::new();
    let sent = send(&client, &options, &named, terminal, (&mut tables, &mut uploaded)).await;
    let done = match sent {
        Ok(()) => query(&client, &options, tables, output, terminal).await,
        Err(failure) => Err(failure),
    };
    for id in uploaded {
        if options.keep {
            terminal.note(&format!("Kept {id}"));
        } else {
            // The query has its answer: a file that cannot be deleted now ends with its time.
            let _ = client.delete_file(id).await;
        }
    }
    let result = done?;
    if terminal.json {
        return terminal.data(&result);
    }
    show(&result, terminal)
}

/// `TABLE=FILE`, or a file whose name is the table's.
fn table(text: &str) -> Outcome<(String, PathBuf)> {
    // A path may hold `=`, too: a table's name has no separators.
    let given = text.split_once('=').filter(|(name, _)| is_name(name));
    if let Some((name, path)) = given {
        return Ok((name.to_owned(), path.into()));
    }
    let path = PathBuf::from(text);
    let stem = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let stem: String = stem
        .split('.')
        .next()
        .unwrap_or_default()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect();
    if is_name(&stem) {
        return Ok((stem, path));
    }
    Err(Failure::new(Exit::Usage, format!("the table in {text:?} has no name"))
        .hint("name it, as in: orders=2024-orders.csv"))
}

fn is_name(text: &str) -> bool {
    let starts_well = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    starts_well && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn output_of(path: &Path) -> Outcome<OutputRequest> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let format =
        TableFormat::of_name(name).filter(|_| !name.ends_with(".gz") && !name.ends_with(".zst"));
    let Some(format) = format else {
        let known = TableFormat::ALL.map(TableFormat::as_str).join(", ");
        let message = format!("the ending of {} says no format", path.display());
        return Err(Failure::new(Exit::Usage, message).hint(format!("it can be: {known}")));
    };
    Ok(OutputRequest { format, name: Some(name.to_owned()) })
}

async fn send(
    client: &Client,
    options: &DataQuery,
    named: &[(String, PathBuf)],
    terminal: Terminal,
    (tables, uploaded): (&mut Vec<TableInput>, &mut Vec<FileId>),
) -> Outcome<()> {
    for (name, path) in named {
        let mut table = TableInput { name: name.clone(), ..TableInput::default() };
        table.options = read_options(options);
        let text = path.to_string_lossy();
        let bytes = match fs::metadata(path) {
            Ok(data) => data.len(),
            // A file that was uploaded before.
            Err(_) if text.parse::<FileId>().is_ok() => {
                table.file = Some(text.into_owned());
                table.format = options.format;
                tables.push(table);
                continue;
            }
            Err(error) => return Err(Failure::file("read", path, error)),
        };
        check_format(path, options)?;
        let is_csv = text.to_ascii_lowercase().ends_with(".csv");
        let content = (is_csv && bytes <= INLINE_BYTES_MAX).then(|| fs::read_to_string(path).ok());
        if let Some(Some(content)) = content {
            table.csv = Some(content);
        } else {
            let file = files::upload(client, path, Purpose::Data, terminal).await?;
            uploaded.push(file.id);
            table.file = Some(file.id.to_string());
            table.format = options.format;
        }
        tables.push(table);
    }
    Ok(())
}

/// How CSV is read, when it is not read the usual way.
fn read_options(options: &DataQuery) -> Option<ReadOptions> {
    let is_usual = options.null.is_empty() && options.delimiter.is_none();
    (!is_usual).then(|| ReadOptions {
        null_values: options.null.clone(),
        delimiter: options.delimiter.clone(),
        ..ReadOptions::default()
    })
}

/// Says before anything is sent what cannot be read.
fn check_format(path: &Path, options: &DataQuery) -> Outcome<()> {
    let name = path.to_string_lossy();
    if options.format.is_some() || TableFormat::of_name(&name).is_some() {
        return Ok(());
    }
    let known = TableFormat::ALL.map(TableFormat::as_str).join(", ");
    Err(Failure::new(Exit::Usage, format!("the ending of {name} says no format"))
        .hint(format!("say it with --format: {known}")))
}

async fn query(
    client: &Client,
    options: &DataQuery,
    tables: Vec<TableInput>,
    output: Option<OutputRequest>,
    terminal: Terminal,
) -> Outcome<ProcessResult> {
    let request = ProcessRequest {
        tables,
        sql: Some(options.sql.clone()),
        output,
        preview_rows: Some(options.rows),
        profile: options.profile,
        ..ProcessRequest::default()
    };
    let result = work::run(client, &request, terminal).await.map_err(|failure| {
        let is_about_text = failure.message.contains("`str`") || failure.message.contains("string");
        if failure.hint.is_none() && is_about_text && options.null.is_empty() {
            return failure.hint("is a column text because of marks like NA? name them: --null NA");
        }
        failure
    })?;
    if let (Some(path), Some(made)) = (&options.output, &result.output) {
        let Some(id) = &made.file else {
            return Err(Failure::new(Exit::Failed, "the server kept no file of the result"));
        };
        let file = client.file(files::parse(id)?).await?;
        files::save(client, &file, path, true, terminal).await?;
        terminal.note(&format!("Wrote {} ({})", path.display(), size(made.bytes)));
        if !options.keep {
            let _ = client.delete_file(file.id).await;
        }
    }
    Ok(result)
}

fn show(result: &ProcessResult, terminal: Terminal) -> Outcome<()> {
    if let Some(plan) = &result.explain {
        return terminal.line(plan);
    }
    let names: Vec<_> = result.schema.iter().map(|column| column.name.as_str()).collect();
    let rows: Vec<Vec<String>> = result
        .preview
        .iter()
        .map(|row| names.iter().map(|name| cell(row.get(*name))).collect())
        .collect();
    if let Some(profile) = &result.profile {
        profiled(profile, terminal)?;
        terminal.line("")?;
    }
    terminal.table(&names, &rows)?;
    let more = if result.preview_truncated {
        format!(", {} shown (--rows, --output)", result.preview.len())
    } else {
        String::new()
    };
    terminal.note(&format!(
        "[{} rows{more}; {} in {:.0} ms]",
        result.rows,
        size(result.input_bytes),
        result.timings.total_ms
    ));
    Ok(())
}

fn profiled(profile: &[ColumnProfile], terminal: Terminal) -> Outcome<()> {
    let number = |value: Option<f64>| value.map(|value| format!("{value:.3}")).unwrap_or_default();
    let rows: Vec<_> = profile
        .iter()
        .map(|column| {
            vec![
                column.name.clone(),
                column.data_type.clone(),
                column.count.to_string(),
                column.nulls.to_string(),
                column.distinct.map(|count| count.to_string()).unwrap_or_default(),
                cell(column.min.as_ref()),
                cell(column.max.as_ref()),
                number(column.mean),
                number(column.std),
            ]
        })
        .collect();
    let head = ["COLUMN", "TYPE", "VALUES", "NULLS", "DISTINCT", "MIN", "MAX", "MEAN", "STD"];
    terminal.table(&head, &rows)
}

fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => short(text, CELL_CHARS),
        Some(other) => short(&other.to_string(), CELL_CHARS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_named_or_takes_its_file_s_name() {
        let check = |text: &str, expect: Option<(&str, &str)>| {
            let found = table(text).ok();
            let found = found.as_ref().map(|(name, path)| (name.as_str(), path.to_str().unwrap()));
            assert_eq!(found, expect, "{text}");
        };
        check("t=a/b.csv", Some(("t", "a/b.csv")));
        check("a/flights-2013.csv.gz", Some(("flights_2013", "a/flights-2013.csv.gz")));
        check("a=b=c.csv", Some(("a", "b=c.csv")));
        check("./x/a=b.csv", Some(("a_b", "./x/a=b.csv")));
        check("2013.csv", None);
        assert!(output_of(Path::new("r.parquet")).is_ok());
        for wrong in ["r", "r.xls", "r.csv.gz"] {
            assert!(output_of(Path::new(wrong)).unwrap_err().hint.is_some(), "{wrong}");
        }
    }
}
