//! Rows as JSON, bounded in number and size.

use aisemble_protocol::data::limits;
use polars::prelude::{AnyValue, DataFrame};
use serde_json::{Map, Number, Value};

/// Whole numbers beyond this are not exact in JSON as JavaScript reads it: 2^53.
const EXACT_MAX: i128 = 1 << 53;
/// Elements of a list that are shown.
const ELEMENTS_MAX: usize = 256;

/// The rows, or as many of them as the size allows.
pub(super) fn rows(frame: &DataFrame) -> Vec<Map<String, Value>> {
    let mut rows = Vec::with_capacity(frame.height());
    let mut bytes = 0;
    for at in 0..frame.height() {
        let mut row = Map::with_capacity(frame.width());
        for column in frame.columns() {
            let cell = column.get(at).map_or(Value::Null, |cell| value(&cell));
            bytes += column.name().len() + size(&cell);
            row.insert(column.name().to_string(), cell);
        }
        if bytes > limits::PREVIEW_BYTES_MAX {
            break;
        }
        rows.push(row);
    }
    rows
}

/// One value.
#[expect(clippy::wildcard_enum_match_arm, reason = "polars writes dates and the rest as ISO text")]
pub(super) fn value(cell: &AnyValue<'_>) -> Value {
    match cell {
        AnyValue::Null => Value::Null,
        AnyValue::Boolean(value) => Value::Bool(*value),
        AnyValue::String(text) => text_value(text),
        AnyValue::StringOwned(text) => text_value(text),
        AnyValue::Float64(number) => float(*number),
        // Through text, so that 0.1 stays 0.1.
        AnyValue::Float32(number) => float(number.to_string().parse().unwrap_or(f64::NAN)),
        AnyValue::UInt8(number) => whole(i128::from(*number)),
        AnyValue::UInt16(number) => whole(i128::from(*number)),
        AnyValue::UInt32(number) => whole(i128::from(*number)),
        AnyValue::UInt64(number) => whole(i128::from(*number)),
        AnyValue::Int8(number) => whole(i128::from(*number)),
        AnyValue::Int16(number) => whole(i128::from(*number)),
        AnyValue::Int32(number) => whole(i128::from(*number)),
        AnyValue::Int64(number) => whole(i128::from(*number)),
        AnyValue::List(series) | AnyValue::Array(series, _) => {
            let shown = series.iter().take(ELEMENTS_MAX).map(|element| value(&element));
            Value::Array(shown.collect())
        }
        AnyValue::Binary(bytes) => Value::String(format!("{} bytes", bytes.len())),
        AnyValue::BinaryOwned(bytes) => Value::String(format!("{} bytes", bytes.len())),
        AnyValue::Struct(..) | AnyValue::StructOwned(_) => structure(cell),
        AnyValue::Datetime(..) | AnyValue::DatetimeOwned(..) => {
            Value::String(cell.to_string().replacen(' ', "T", 1))
        }
        other => text_value(&other.to_string()),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "called for structures only")]
fn structure(cell: &AnyValue<'_>) -> Value {
    let mut object = Map::new();
    let fields: Vec<(String, Value)> = match cell {
        AnyValue::Struct(_, _, fields) => cell
            ._iter_struct_av()
            .zip(fields.iter())
            .map(|(cell, field)| (field.name().to_string(), value(&cell)))
            .collect(),
        AnyValue::StructOwned(owned) => owned
            .0
            .iter()
            .zip(&owned.1)
            .map(|(cell, field)| (field.name().to_string(), value(cell)))
            .collect(),
        _ => Vec::new(),
    };
    object.extend(fields);
    Value::Object(object)
}

fn whole(number: i128) -> Value {
    match i64::try_from(number) {
        Ok(number) if i128::from(number).abs() <= EXACT_MAX => Value::from(number),
        Ok(_) | Err(_) => Value::String(number.to_string()),
    }
}

fn float(number: f64) -> Value {
    Number::from_f64(number).map_or_else(|| Value::String(number.to_string()), Value::Number)
}

fn text_value(text: &str) -> Value {
    let limit = limits::PREVIEW_CELL_BYTES_MAX;
    if text.len() <= limit {
        return Value::String(text.to_owned());
    }
    let end = (0..=limit).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    Value::String(format!("{}…", &text[..end]))
}

/// About how long a value is as JSON.
fn size(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 5,
        Value::Number(_) => 12,
        Value::String(text) => text.len() + 4,
        Value::Array(values) => values.iter().map(size).sum::<usize>() + 2,
        Value::Object(map) => map.iter().map(|(key, value)| key.len() + size(value) + 4).sum(),
    }
}
