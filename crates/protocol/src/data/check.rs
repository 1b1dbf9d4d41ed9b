//! The limits of a request, field by field.

use super::{
    Fill, Operation, OutputRequest, ProcessRequest, ReadOptions, SortKey, StringFunction,
    TableInput, TemporalFunction, limits,
};
use crate::error::{ApiError, ErrorCode};

/// Bytes of a short text: a pattern, a form of dates, a suffix.
const TEXT_BYTES_MAX: usize = 1024;
/// Bytes of the name of an output file.
const FILE_NAME_BYTES_MAX: usize = 255;
/// Rows that types may be guessed from.
const INFER_ROWS_MAX: u32 = 10_000_000;

pub(super) fn request(request: &ProcessRequest) -> Result<(), ApiError> {
    count("tables", request.tables.len(), 1, limits::TABLES_MAX)?;
    for (at, table) in request.tables.iter().enumerate() {
        self::table(table, &format!("tables[{at}]"))?;
        let before = &request.tables[..at];
        if before.iter().any(|other| other.name.eq_ignore_ascii_case(&table.name)) {
            let param = format!("tables[{at}].name");
            let message = format!("{param} is {:?}, as that of another table", table.name);
            return Err(ApiError::invalid(&param, message));
        }
    }
    plan(request)?;
    if let Some(output) = &request.output {
        self::output(output)?;
    }
    let rows = request.preview_rows.unwrap_or(0);
    if rows > limits::PREVIEW_ROWS_MAX {
        let limit = limits::PREVIEW_ROWS_MAX;
        let message = format!("preview_rows is {rows}; it must be at most {limit}");
        return Err(ApiError::invalid("preview_rows", message));
    }
    let asked = request.limits.unwrap_or_default();
    for (name, value, limit) in [
        ("limits.wall_ms", asked.wall_ms, limits::WALL_MS_MAX),
        ("limits.memory_bytes", asked.memory_bytes, u64::MAX),
        ("limits.output_bytes", asked.output_bytes, u64::MAX),
    ] {
        if value.is_some_and(|value| value == 0 || value > limit) {
            let message = format!("{name} must be between 1 and {limit}");
            return Err(ApiError::invalid(name, message));
        }
    }
    Ok(())
}

fn plan(request: &ProcessRequest) -> Result<(), ApiError> {
    match (&request.sql, &request.pipeline) {
        (Some(_), Some(_)) => {
            return Err(ApiError::invalid("pipeline", "give sql or pipeline, not both"));
        }
        (Some(sql), None) => text("sql", sql, limits::SQL_BYTES_MAX)?,
        (None, Some(operations)) => {
            count("pipeline", operations.len(), 0, limits::OPERATIONS_MAX)?;
            for (at, operation) in operations.iter().enumerate() {
                self::operation(operation, &format!("pipeline[{at}]"), request)?;
            }
        }
        (None, None) if request.tables.len() > 1 => {
            let message = "sql or pipeline is required with more than one table";
            return Err(ApiError::invalid("sql", message));
        }
        (None, None) => {}
    }
    match &request.from {
        Some(_) if request.sql.is_some() => {
            Err(ApiError::invalid("from", "from goes with pipeline; SQL names its tables itself"))
        }
        Some(from) => known_table(request, from, "from"),
        None => Ok(()),
    }
}

fn known_table(request: &ProcessRequest, name: &str, param: &str) -> Result<(), ApiError> {
    if request.tables.iter().any(|table| table.name == name) {
        return Ok(());
    }
    let shown: String = name.chars().take(64).collect();
    Err(ApiError::invalid(param, format!("{param} names {shown:?}, which is not in tables")))
}

/// Whether SQL takes `name` for a table's without quotes around it.
fn is_identifier(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && name.len() <= limits::TABLE_NAME_BYTES_MAX
}

fn table(table: &TableInput, param: &str) -> Result<(), ApiError> {
    if !is_identifier(&table.name) {
        let (param, limit) = (format!("{param}.name"), limits::TABLE_NAME_BYTES_MAX);
        let message = format!(
            "{param} must be a letter or _, then letters, digits and _, at most {limit} bytes"
        );
        return Err(ApiError::invalid(&param, message));
    }
    let given = [table.rows.is_some(), table.csv.is_some(), table.file.is_some()];
    if given.iter().filter(|given| **given).count() != 1 {
        let message = format!("{param} needs exactly one of rows, csv and file");
        return Err(ApiError::invalid(param, message));
    }
    if table.format.is_some() && table.file.is_none() {
        let param = format!("{param}.format");
        let message = format!("{param} goes with file; rows and csv say their format themselves");
        return Err(ApiError::invalid(&param, message));
    }
    if let Some(rows) = &table.rows {
        count(&format!("{param}.rows"), rows.len(), 1, limits::INLINE_ROWS_MAX)?;
    }
    if table.file.as_ref().is_some_and(|file| file.is_empty() || file.len() > TEXT_BYTES_MAX) {
        let param = format!("{param}.file");
        return Err(ApiError::invalid(&param, format!("{param} is not the id of a file")));
    }
    table.options.as_ref().map_or(Ok(()), |options| self::options(options, param))
}

fn options(options: &ReadOptions, table: &str) -> Result<(), ApiError> {
    let characters = [("delimiter", &options.delimiter, 1), ("quote", &options.quote, 0)];
    for (name, value, least) in characters {
        let one = |text: &String| text.is_ascii() && (least..=1).contains(&text.len());
        if value.as_ref().is_some_and(|text| !one(text)) {
            let param = format!("{table}.options.{name}");
            let message = format!("{param} must be one ASCII character");
            return Err(ApiError::invalid(&param, message));
        }
    }
    let nulls = format!("{table}.options.null_values");
    count(&nulls, options.null_values.len(), 0, limits::NULL_VALUES_MAX)?;
    for value in options.null_values.iter().chain(&options.comment) {
        text(&format!("{table}.options"), value, TEXT_BYTES_MAX)?;
    }
    let infer = format!("{table}.options.infer_rows");
    count(&infer, options.infer_rows.unwrap_or(1) as usize, 1, INFER_ROWS_MAX as usize)?;
    let columns = format!("{table}.options.columns");
    count(&columns, options.columns.len(), 0, limits::LIST_MAX)?;
    names(&columns, options.columns.keys())
}

fn output(output: &OutputRequest) -> Result<(), ApiError> {
    let Some(name) = &output.name else { return Ok(()) };
    let plain = !name.is_empty()
        && name.len() <= FILE_NAME_BYTES_MAX
        && name != "."
        && name != ".."
        && !name.chars().any(|c| c.is_control() || c == '/' || c == '\\');
    if plain {
        return Ok(());
    }
    let message = format!(
        "output.name must be a file's name without a path, at most {FILE_NAME_BYTES_MAX} bytes"
    );
    Err(ApiError::invalid("output.name", message))
}

fn operation(operation: &Operation, param: &str, request: &ProcessRequest) -> Result<(), ApiError> {
    use Operation as Op;
    let at = |field: &str| format!("{param}.{field}");
    match operation {
        Op::Select { columns } | Op::WithColumns { columns } => {
            expressions(&at("columns"), columns, 1)
        }
        Op::Drop { columns } | Op::Explode { columns } => {
            count(&at("columns"), columns.len(), 1, limits::LIST_MAX)?;
            names(&at("columns"), columns)
        }
        Op::ParseDates { columns, format, .. } => {
            count(&at("columns"), columns.len(), 1, limits::LIST_MAX)?;
            names(&at("columns"), columns)?;
            let format = format.as_deref();
            format.map_or(Ok(()), |format| text(&at("format"), format, TEXT_BYTES_MAX))
        }
        Op::Rename { columns } => {
            count(&at("columns"), columns.len(), 1, limits::LIST_MAX)?;
            names(&at("columns"), columns.keys().chain(columns.values()))
        }
        Op::Cast { columns, .. } => {
            count(&at("columns"), columns.len(), 1, limits::LIST_MAX)?;
            names(&at("columns"), columns.keys())
        }
        Op::Filter { predicate } => text(&at("where"), predicate, limits::EXPRESSION_BYTES_MAX),
        Op::GroupBy { by, aggregate, .. } => {
            expressions(&at("by"), by, 0)?;
            expressions(&at("aggregate"), aggregate, usize::from(by.is_empty()))
        }
        Op::Join { .. } => join(operation, param, request),
        Op::Union { tables, .. } => {
            count(&at("tables"), tables.len(), 1, limits::TABLES_MAX)?;
            tables.iter().try_for_each(|table| known_table(request, table, &at("tables")))
        }
        Op::Sort { by } => sort_keys(&at("by"), by, 1),
        Op::Window { partition_by, order_by, columns } => {
            expressions(&at("partition_by"), partition_by, 1)?;
            sort_keys(&at("order_by"), order_by, 0)?;
            expressions(&at("columns"), columns, 1)
        }
        Op::Pivot { index, on, values, .. } => {
            count(&at("index"), index.len(), 1, limits::LIST_MAX)?;
            names(param, index.iter().chain([on, values]))
        }
        Op::Unpivot { on, index, variable_name, value_name } => {
            count(&at("on"), on.len(), 0, limits::LIST_MAX)?;
            count(&at("index"), index.len(), 0, limits::LIST_MAX)?;
            names(param, on.iter().chain(index).chain(variable_name).chain(value_name))
        }
        Op::Sample { rows, fraction, .. } => sample(*rows, *fraction, param),
        Op::FillNull { columns, with } => {
            count(&at("columns"), columns.len(), 0, limits::LIST_MAX)?;
            names(&at("columns"), columns)?;
            fill(with, &at("with"))
        }
        Op::DropNulls { columns } | Op::Distinct { columns, .. } => {
            count(&at("columns"), columns.len(), 0, limits::LIST_MAX)?;
            names(&at("columns"), columns)
        }
        Op::String { column, function, into } => {
            names(param, [column].into_iter().chain(into))?;
            string_function(function, &at("function"))
        }
        Op::Temporal { column, function, into } => {
            names(param, [column].into_iter().chain(into))?;
            temporal_function(function, &at("function"))
        }
        Op::RowNumber { name, .. } => names(&at("name"), [name]),
        Op::Limit { .. } | Op::Describe {} => Ok(()),
    }
}

fn join(operation: &Operation, param: &str, request: &ProcessRequest) -> Result<(), ApiError> {
    let Operation::Join { table, how, on, left_on, right_on, suffix } = operation else {
        return Ok(());
    };
    known_table(request, table, &format!("{param}.table"))?;
    for (name, list) in [("left_on", left_on), ("right_on", right_on)] {
        expressions(&format!("{param}.{name}"), list, 0)?;
    }
    count(&format!("{param}.on"), on.len(), 0, limits::LIST_MAX)?;
    names(&format!("{param}.on"), on.iter().chain(suffix))?;
    let keyed = match (on.is_empty(), left_on.is_empty() && right_on.is_empty()) {
        (false, true) => true,
        (true, false) => left_on.len() == right_on.len(),
        (true, true) => false,
        (false, false) => {
            let message = format!("{param} takes on, or left_on with right_on, not both");
            return Err(ApiError::invalid(param, message));
        }
    };
    let cross = *how == super::JoinKind::Cross;
    if cross && (keyed || !left_on.is_empty() || !right_on.is_empty()) {
        return Err(ApiError::invalid(param, format!("{param} is a cross join: it has no keys")));
    }
    if !cross && !keyed {
        let message = format!("{param} needs on, or left_on and right_on of the same length");
        return Err(ApiError::invalid(param, message));
    }
    Ok(())
}

fn sample(rows: Option<u64>, fraction: Option<f64>, param: &str) -> Result<(), ApiError> {
    match (rows, fraction) {
        (Some(_), None) => Ok(()),
        (None, Some(share)) if (0.0..=1.0).contains(&share) => Ok(()),
        (None, Some(share)) => {
            let message = format!("{param}.fraction is {share}; it must be between 0 and 1");
            Err(ApiError::invalid(&format!("{param}.fraction"), message))
        }
        (Some(_), Some(_)) | (None, None) => {
            Err(ApiError::invalid(param, format!("{param} needs either rows or fraction")))
        }
    }
}

fn fill(with: &Fill, param: &str) -> Result<(), ApiError> {
    use serde_json::Value;
    match with {
        Fill::Value(Value::String(value)) if value.len() > limits::EXPRESSION_BYTES_MAX => {
            text(param, value, limits::EXPRESSION_BYTES_MAX)
        }
        Fill::Value(Value::Bool(_) | Value::Number(_) | Value::String(_))
        | Fill::Forward
        | Fill::Backward
        | Fill::Mean
        | Fill::Min
        | Fill::Max => Ok(()),
        Fill::Value(Value::Null | Value::Array(_) | Value::Object(_)) => {
            let message = format!("{param}.value must be a number, a text, true or false");
            Err(ApiError::invalid(param, message))
        }
    }
}

fn string_function(function: &StringFunction, param: &str) -> Result<(), ApiError> {
    match function {
        StringFunction::Split { by } => text(param, by, TEXT_BYTES_MAX),
        StringFunction::Extract { pattern, .. } | StringFunction::Count { pattern } => {
            text(param, pattern, TEXT_BYTES_MAX)
        }
        StringFunction::Replace { pattern, with } => {
            text(param, pattern, TEXT_BYTES_MAX)?;
            within(param, with.len(), TEXT_BYTES_MAX)
        }
        StringFunction::Lower {}
        | StringFunction::Upper {}
        | StringFunction::Trim {}
        | StringFunction::Length {}
        | StringFunction::Slice { .. } => Ok(()),
    }
}

fn temporal_function(function: &TemporalFunction, param: &str) -> Result<(), ApiError> {
    use TemporalFunction as F;
    match function {
        F::Truncate { every: span } | F::Offset { by: span } => {
            text(param, span, TEXT_BYTES_MAX)?;
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
            if span.bytes().all(plain) && span.bytes().any(|byte| byte.is_ascii_digit()) {
                return Ok(());
            }
            let message = format!("{param} needs a span like 1mo, 1w, 15m or -3d");
            Err(ApiError::invalid(param, message))
        }
        F::Format { format } => text(param, format, TEXT_BYTES_MAX),
        F::Year {}
        | F::Quarter {}
        | F::Month {}
        | F::Week {}
        | F::Weekday {}
        | F::Day {}
        | F::Hour {}
        | F::Minute {}
        | F::Date {}
        | F::Epoch {} => Ok(()),
    }
}

fn sort_keys(param: &str, keys: &[SortKey], least: usize) -> Result<(), ApiError> {
    count(param, keys.len(), least, limits::LIST_MAX)?;
    keys.iter().try_for_each(|key| text(param, &key.by, limits::EXPRESSION_BYTES_MAX))
}

fn expressions(param: &str, list: &[String], least: usize) -> Result<(), ApiError> {
    count(param, list.len(), least, limits::LIST_MAX)?;
    list.iter().try_for_each(|entry| text(param, entry, limits::EXPRESSION_BYTES_MAX))
}

fn names<'a>(param: &str, list: impl IntoIterator<Item = &'a String>) -> Result<(), ApiError> {
    list.into_iter().try_for_each(|name| text(param, name, limits::COLUMN_NAME_BYTES_MAX))
}

fn text(param: &str, value: &str, limit: usize) -> Result<(), ApiError> {
    if value.is_empty() {
        return Err(ApiError::invalid(param, format!("{param}: an empty text is given")));
    }
    within(param, value.len(), limit)
}

fn within(param: &str, bytes: usize, limit: usize) -> Result<(), ApiError> {
    if bytes <= limit {
        return Ok(());
    }
    let message = format!("{param} has {bytes} bytes; the limit is {limit}");
    Err(ApiError::new(ErrorCode::PayloadTooLarge, message).with_param(param))
}

fn count(param: &str, given: usize, least: usize, limit: usize) -> Result<(), ApiError> {
    if (least..=limit).contains(&given) {
        return Ok(());
    }
    let message = format!("{param}: {given} are given; between {least} and {limit} are taken");
    Err(ApiError::invalid(param, message))
}
