//! Operations that change columns one by one: casts, dates, texts, nulls.

use aisemble_protocol::ApiError;
use aisemble_protocol::data::{DateKind, Fill, Operation, StringFunction, TemporalFunction};
use polars::prelude::{
    DataType, Expr, FillNullStrategy, LazyFrame, PolarsResult, StrptimeOptions, TimeUnit, lit,
};

use super::super::{error, expression, types};
use super::Step;

pub(super) fn apply(
    step: &Step<'_>,
    frame: LazyFrame,
    operation: &Operation,
) -> Result<LazyFrame, ApiError> {
    match operation {
        Operation::FillNull { columns, with } => fill_null(step, frame, columns, with),
        Operation::Cast { columns, strict } => {
            let cast = |(name, wanted): (&String, &_)| {
                let column = expression::column(name);
                let wanted = types::wanted(*wanted);
                if *strict { column.strict_cast(wanted) } else { column.cast(wanted) }
            };
            Ok(frame.with_columns(columns.iter().map(cast).collect::<Vec<_>>()))
        }
        Operation::ParseDates { columns, to, format, strict } => {
            let options = StrptimeOptions {
                format: format.as_deref().map(Into::into),
                strict: *strict,
                ..StrptimeOptions::default()
            };
            let parse = |name: &String| {
                let text = expression::column(name).str();
                match to {
                    DateKind::Date => text.to_date(options.clone()),
                    DateKind::Datetime => text.to_datetime(
                        Some(TimeUnit::Microseconds),
                        None,
                        options.clone(),
                        lit("raise"),
                    ),
                    DateKind::Time => text.to_time(options.clone()),
                }
            };
            Ok(frame.with_columns(columns.iter().map(parse).collect::<Vec<_>>()))
        }
        Operation::String { column, function, into } => {
            let expr = string(expression::column(column), function);
            Ok(frame.with_column(expr.alias(into.as_deref().unwrap_or(column))))
        }
        Operation::Temporal { column, function, into } => {
            let expr = temporal(expression::column(column), function);
            Ok(frame.with_column(expr.alias(into.as_deref().unwrap_or(column))))
        }
        Operation::Select { .. }
        | Operation::WithColumns { .. }
        | Operation::Drop { .. }
        | Operation::Rename { .. }
        | Operation::Filter { .. }
        | Operation::GroupBy { .. }
        | Operation::Join { .. }
        | Operation::Union { .. }
        | Operation::Sort { .. }
        | Operation::Limit { .. }
        | Operation::Window { .. }
        | Operation::Pivot { .. }
        | Operation::Unpivot { .. }
        | Operation::Explode { .. }
        | Operation::Sample { .. }
        | Operation::DropNulls { .. }
        | Operation::Distinct { .. }
        | Operation::RowNumber { .. }
        | Operation::Describe {} => Ok(frame),
    }
}

fn fill_null(
    step: &Step<'_>,
    mut frame: LazyFrame,
    columns: &[String],
    with: &Fill,
) -> Result<LazyFrame, ApiError> {
    let schema = frame.collect_schema().map_err(|error| step.failed(&error))?;
    let named = |name: &str| columns.is_empty() || columns.iter().any(|wanted| wanted == name);
    let mut fitting = Vec::new();
    for (name, data_type) in schema.iter().filter(|(name, _)| named(name)) {
        if fits(data_type, with) {
            fitting.push(name.clone());
        } else if !columns.is_empty() {
            let message = format!(
                "{}: the column {name:?} is of type {}, which cannot hold that value",
                step.param,
                types::name(data_type)
            );
            return Err(error::refused(&step.param, message));
        }
    }
    if let Some(wanted) = columns.iter().find(|wanted| !schema.contains(wanted.as_str())) {
        let message = format!("{}: there is no column {wanted:?}", step.param);
        return Err(error::refused(&step.param, message));
    }
    let filled: PolarsResult<Vec<Expr>> =
        fitting.into_iter().map(|name| fill(expression::column(&name), with)).collect();
    Ok(frame.with_columns(filled.map_err(|error| step.failed(&error))?))
}

fn fits(data_type: &DataType, with: &Fill) -> bool {
    use serde_json::Value;
    match with {
        Fill::Forward | Fill::Backward => true,
        Fill::Mean => data_type.is_primitive_numeric(),
        Fill::Min | Fill::Max => data_type.is_primitive_numeric() || data_type.is_temporal(),
        Fill::Value(Value::Bool(_)) => data_type.is_bool(),
        Fill::Value(Value::Number(_)) => data_type.is_primitive_numeric(),
        Fill::Value(Value::String(_)) => data_type.is_string(),
        Fill::Value(Value::Null | Value::Array(_) | Value::Object(_)) => false,
    }
}

fn fill(column: Expr, with: &Fill) -> PolarsResult<Expr> {
    use serde_json::Value;
    Ok(match with {
        Fill::Forward => column.fill_null_with_strategy(FillNullStrategy::Forward(None)),
        Fill::Backward => column.fill_null_with_strategy(FillNullStrategy::Backward(None)),
        Fill::Mean => column.clone().fill_null(column.mean()),
        Fill::Min => column.clone().fill_null(column.min()),
        Fill::Max => column.clone().fill_null(column.max()),
        Fill::Value(Value::Bool(value)) => column.fill_null(lit(*value)),
        Fill::Value(Value::String(value)) => column.fill_null(lit(value.as_str())),
        Fill::Value(Value::Number(value)) => match value.as_i64() {
            Some(whole) => column.fill_null(lit(whole)),
            None => column.fill_null(lit(value.as_f64().unwrap_or(f64::NAN))),
        },
        Fill::Value(Value::Null | Value::Array(_) | Value::Object(_)) => column,
    })
}

fn string(column: Expr, function: &StringFunction) -> Expr {
    let text = column.str();
    match function {
        StringFunction::Lower {} => text.to_lowercase(),
        StringFunction::Upper {} => text.to_uppercase(),
        StringFunction::Trim {} => text.strip_chars(lit(polars::prelude::NULL)),
        StringFunction::Length {} => text.len_chars(),
        StringFunction::Split { by } => text.split(lit(by.as_str())),
        StringFunction::Extract { pattern, group } => {
            text.extract(lit(pattern.as_str()), usize::from(*group))
        }
        StringFunction::Count { pattern } => text.count_matches(lit(pattern.as_str()), false),
        StringFunction::Replace { pattern, with } => {
            text.replace_all(lit(pattern.as_str()), lit(with.as_str()), false)
        }
        StringFunction::Slice { offset, length } => {
            let length = length.map_or(lit(polars::prelude::NULL), lit);
            text.slice(lit(*offset), length)
        }
    }
}

fn temporal(column: Expr, function: &TemporalFunction) -> Expr {
    use TemporalFunction as F;
    let time = column.dt();
    match function {
        F::Year {} => time.year(),
        F::Quarter {} => time.quarter(),
        F::Month {} => time.month(),
        F::Week {} => time.week(),
        F::Weekday {} => time.weekday(),
        F::Day {} => time.day(),
        F::Hour {} => time.hour(),
        F::Minute {} => time.minute(),
        F::Date {} => time.date(),
        F::Epoch {} => time.timestamp(TimeUnit::Milliseconds).floor_div(lit(1000_i64)),
        F::Truncate { every } => time.truncate(lit(every.as_str())),
        F::Offset { by } => time.offset_by(lit(by.as_str())),
        F::Format { format } => time.strftime(format),
    }
}
