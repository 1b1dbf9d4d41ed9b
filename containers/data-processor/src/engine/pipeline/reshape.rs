//! Operations that change which rows and columns there are: pivot, unpivot, explode, sample,
//! describe.

use std::sync::Arc;

use aisemble_protocol::ApiError;
use aisemble_protocol::data::{Aggregate, Operation, limits};
use polars::prelude::{
    Column, DataFrame, ExplodeOptions, Expr, IntoLazy as _, LazyFrame, PolarsResult,
    QuantileMethod, UniqueKeepStrategy, UnpivotArgsDSL, all, element, lit,
};

use super::super::execute::collect;
use super::super::{error, expression};
use super::Step;

/// The rows of [`describe`].
const STATISTICS: [&str; 9] = ["count", "nulls", "mean", "std", "min", "25%", "50%", "75%", "max"];

pub(super) fn pivot(
    step: &Step<'_>,
    frame: LazyFrame,
    operation: &Operation,
) -> Result<LazyFrame, ApiError> {
    let Operation::Pivot { index, on, values, aggregate } = operation else {
        return Ok(frame);
    };
    let failed = |error: polars::error::PolarsError| step.failed(&error);
    // The names of the new columns must be known before the plan is.
    let limit = limits::PIVOT_COLUMNS_MAX;
    let names = frame
        .clone()
        .select([expression::column(on)])
        .unique_stable(None, UniqueKeepStrategy::First)
        .limit(limit as u32 + 1);
    let names = collect(names).map_err(failed)?;
    if names.height() > limit {
        let message = format!("{}: {on:?} has more than {limit} different values", step.param);
        return Err(error::refused(&step.param, message));
    }
    let cell = element();
    let cell = match aggregate {
        Aggregate::First => cell.first(),
        Aggregate::Last => cell.last(),
        Aggregate::Sum => cell.sum(),
        Aggregate::Mean => cell.mean(),
        Aggregate::Median => cell.median(),
        Aggregate::Min => cell.min(),
        Aggregate::Max => cell.max(),
        Aggregate::Count => cell.count(),
    };
    let one = |name: &String| expression::columns(std::slice::from_ref(name));
    Ok(frame.pivot(
        one(on),
        Arc::new(names),
        expression::columns(index),
        one(values),
        cell,
        true,
        "_".into(),
        polars::frame::PivotColumnNaming::Auto,
    ))
}

pub(super) fn unpivot(frame: LazyFrame, operation: &Operation) -> LazyFrame {
    let Operation::Unpivot { on, index, variable_name, value_name } = operation else {
        return frame;
    };
    frame.unpivot(UnpivotArgsDSL {
        on: (!on.is_empty()).then(|| expression::columns(on)),
        index: expression::columns(index),
        variable_name: variable_name.as_deref().map(Into::into),
        value_name: value_name.as_deref().map(Into::into),
    })
}

pub(super) fn explode(frame: LazyFrame, columns: &[String]) -> LazyFrame {
    let options = ExplodeOptions { empty_as_null: true, keep_nulls: true };
    frame.explode(expression::columns(columns), options)
}

/// Draws without putting back; the rows keep their order.
pub(super) fn sample(
    frame: LazyFrame,
    rows: Option<u64>,
    fraction: Option<f64>,
    seed: u64,
) -> LazyFrame {
    let total = polars::prelude::len();
    // As many as asked for, or all when there are fewer.
    let wanted = match (rows, fraction) {
        (Some(rows), _) => total.clone().clip_max(lit(rows)),
        (None, Some(fraction)) => (total.clone().cast(polars::prelude::DataType::Float64)
            * lit(fraction))
        .round(0, polars::prelude::RoundMode::default())
        .cast(polars::prelude::DataType::UInt64),
        (None, None) => total.clone(),
    };
    let drawn: Expr =
        polars::prelude::int_range(lit(0), total, 1, polars::prelude::DataType::UInt32)
            .sample_n(wanted, false, Some(true), Some(seed))
            .sort(polars::prelude::SortOptions::default());
    frame.select([all().as_expr().gather(drawn, false)])
}

pub(super) fn describe(step: &Step<'_>, mut frame: LazyFrame) -> Result<LazyFrame, ApiError> {
    let failed = |error: polars::error::PolarsError| step.failed(&error);
    let schema = frame.collect_schema().map_err(failed)?;
    let mut wanted: Vec<Expr> = Vec::new();
    for (at, (name, data_type)) in schema.iter().enumerate() {
        let column = expression::column(name);
        let named = |expr: Expr, row: usize| expr.alias(format!("{at}.{row}"));
        let text = polars::prelude::DataType::String;
        let numeric = data_type.is_primitive_numeric();
        let ordered = numeric || data_type.is_temporal() || data_type.is_string();
        let nothing = || lit(polars::prelude::NULL).cast(text.clone());
        let of =
            |wanted: bool, expr: Expr| if wanted { expr.cast(text.clone()) } else { nothing() };
        let quantile =
            |q: f64| of(numeric, column.clone().quantile(lit(q), QuantileMethod::Linear));
        wanted.extend([
            named(column.clone().count().cast(text.clone()), 0),
            named(column.clone().null_count().cast(text.clone()), 1),
            named(of(numeric, column.clone().mean()), 2),
            named(of(numeric, column.clone().std(1)), 3),
            named(of(ordered, column.clone().min()), 4),
            named(quantile(0.25), 5),
            named(quantile(0.5), 6),
            named(quantile(0.75), 7),
            named(of(ordered, column.clone().max()), 8),
        ]);
    }
    let found = collect(frame.select(wanted)).map_err(failed)?;
    described(&schema, &found).map_err(failed)
}

/// One row a statistic, as numbers where the column is one.
fn described(schema: &polars::prelude::Schema, found: &DataFrame) -> PolarsResult<LazyFrame> {
    let mut columns = vec![Column::new("statistic".into(), STATISTICS)];
    for (at, (name, data_type)) in schema.iter().enumerate() {
        let mut cells: Vec<Option<String>> = Vec::with_capacity(STATISTICS.len());
        for row in 0..STATISTICS.len() {
            let cell = found.column(&format!("{at}.{row}"))?;
            cells.push(cell.str()?.get(0).map(str::to_owned));
        }
        let column = Column::new(name.clone(), cells);
        columns.push(if data_type.is_primitive_numeric() {
            column.cast(&polars::prelude::DataType::Float64)?
        } else {
            column
        });
    }
    Ok(DataFrame::new_infer_height(columns)?.lazy())
}
