//! Types of columns: ours to polars' and back to words.

use aisemble_protocol::data::DataType as Wanted;
use polars::prelude::{Categories, DataType, TimeUnit};

/// polars' type for one that a request names.
pub(super) fn wanted(data_type: Wanted) -> DataType {
    match data_type {
        Wanted::Bool => DataType::Boolean,
        Wanted::Int8 => DataType::Int8,
        Wanted::Int16 => DataType::Int16,
        Wanted::Int32 => DataType::Int32,
        Wanted::Int64 => DataType::Int64,
        Wanted::Uint8 => DataType::UInt8,
        Wanted::Uint16 => DataType::UInt16,
        Wanted::Uint32 => DataType::UInt32,
        Wanted::Uint64 => DataType::UInt64,
        Wanted::Float32 => DataType::Float32,
        Wanted::Float64 => DataType::Float64,
        Wanted::String => DataType::String,
        Wanted::Binary => DataType::Binary,
        Wanted::Date => DataType::Date,
        Wanted::Datetime => DataType::Datetime(TimeUnit::Microseconds, None),
        Wanted::Time => DataType::Time,
        Wanted::Duration => DataType::Duration(TimeUnit::Microseconds),
        Wanted::Categorical => DataType::from_categories(Categories::global()),
    }
}

/// A type in the API's words: `int64`, `datetime[us]`, `list[string]`.
#[expect(clippy::wildcard_enum_match_arm, reason = "polars' own names fit all other types")]
pub(super) fn name(data_type: &DataType) -> String {
    match data_type {
        DataType::Boolean => "bool".to_owned(),
        DataType::Datetime(unit, None) => format!("datetime[{unit}]"),
        DataType::Datetime(unit, Some(zone)) => format!("datetime[{unit}, {zone}]"),
        DataType::Duration(unit) => format!("duration[{unit}]"),
        DataType::List(inner) => format!("list[{}]", name(inner)),
        DataType::Array(inner, width) => format!("array[{}, {width}]", name(inner)),
        DataType::Struct(fields) => {
            let field = |field: &polars::prelude::Field| {
                format!("{}: {}", field.name(), name(field.dtype()))
            };
            format!("struct[{}]", fields.iter().map(field).collect::<Vec<_>>().join(", "))
        }
        DataType::Decimal(precision, scale) => format!("decimal[{precision}, {scale}]"),
        DataType::Categorical(..) => "categorical".to_owned(),
        DataType::Enum(..) => "enum".to_owned(),
        plain => format!("{plain:?}").to_ascii_lowercase(),
    }
}
