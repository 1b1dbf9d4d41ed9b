//! What each column is like: counts, range, quantiles, the most frequent values, a histogram. Two
//! passes over the table and one for each column's most frequent values; nothing is held whole.

use aisemble_protocol::ApiError;
use aisemble_protocol::data::{ColumnProfile, HistogramBin, QuantileValue, ValueCount};
use polars::prelude::{
    AnyValue, DataType, Expr, LazyFrame, PolarsResult, QuantileMethod, Schema, SortMultipleOptions,
    len, lit,
};

use super::execute::collect;
use super::{error, expression, preview, types};

/// Columns that are profiled at most.
const COLUMNS_MAX: usize = 1000;
/// Spans of a histogram.
const BINS: usize = 20;
/// Values of a column that are named.
const TOP_MAX: u32 = 10;
/// The quantiles.
const QUANTILES: [f64; 7] = [0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99];

/// The profile of a table of `rows` rows.
pub(super) fn profile(
    table: &LazyFrame,
    schema: &Schema,
    rows: u64,
) -> Result<Vec<ColumnProfile>, ApiError> {
    if schema.len() > COLUMNS_MAX {
        let message = format!("a profile is made of at most {COLUMNS_MAX} columns");
        return Err(error::refused("profile", message));
    }
    let made = || -> PolarsResult<Vec<ColumnProfile>> {
        let mut columns = figures(table, schema, rows)?;
        histograms(table, &mut columns)?;
        for (column, (name, data_type)) in columns.iter_mut().zip(schema.iter()) {
            if !data_type.is_nested() {
                column.top = top(table, name)?;
            }
        }
        Ok(columns)
    };
    made().map_err(|source| error::of_polars("profile", &source))
}

fn figures(table: &LazyFrame, schema: &Schema, rows: u64) -> PolarsResult<Vec<ColumnProfile>> {
    let mut wanted: Vec<Expr> = Vec::new();
    for (at, (name, data_type)) in schema.iter().enumerate() {
        let column = expression::column(name);
        let mut want = |what: &str, expr: Expr| wanted.push(expr.alias(format!("{at}.{what}")));
        want("nulls", column.clone().null_count());
        if !data_type.is_nested() {
            want("distinct", column.clone().approx_n_unique());
        }
        if is_ordered(data_type) {
            want("min", column.clone().min());
            want("max", column.clone().max());
        }
        if data_type.is_primitive_numeric() {
            let number = column.cast(DataType::Float64);
            want("mean", number.clone().mean());
            want("std", number.clone().std(1));
            for q in QUANTILES {
                let value = number.clone().quantile(lit(q), QuantileMethod::Linear);
                want(&format!("q{q}"), value);
            }
        }
    }
    let found = collect(table.clone().select(wanted))?;
    let cell = |at: usize, what: &str| -> Option<AnyValue<'_>> {
        let column = found.column(&format!("{at}.{what}")).ok()?;
        column.get(0).ok().filter(|cell| !cell.is_null())
    };
    let number = |at: usize, what: &str| cell(at, what)?.try_extract::<f64>().ok();
    let columns = schema.iter().enumerate().map(|(at, (name, data_type))| {
        let nulls = number(at, "nulls").unwrap_or(0.0) as u64;
        let quantile = |q: &f64| {
            let value = number(at, &format!("q{q}")).filter(|value| value.is_finite())?;
            Some(QuantileValue { q: *q, value })
        };
        ColumnProfile {
            name: name.to_string(),
            data_type: types::name(data_type),
            count: rows.saturating_sub(nulls),
            nulls,
            // polars counts null as a value.
            distinct: number(at, "distinct")
                .map(|count| (count as u64).saturating_sub(u64::from(nulls > 0))),
            min: cell(at, "min").map(|cell| preview::value(&cell)),
            max: cell(at, "max").map(|cell| preview::value(&cell)),
            mean: number(at, "mean").filter(|mean| mean.is_finite()),
            std: number(at, "std").filter(|std| std.is_finite()),
            quantiles: QUANTILES.iter().filter_map(quantile).collect(),
            top: Vec::new(),
            histogram: Vec::new(),
        }
    });
    Ok(columns.collect())
}

fn is_ordered(data_type: &DataType) -> bool {
    data_type.is_primitive_numeric() || data_type.is_temporal() || data_type.is_string()
}

/// Counts values into spans of equal width, for all columns of numbers in one pass.
fn histograms(table: &LazyFrame, columns: &mut [ColumnProfile]) -> PolarsResult<()> {
    let mut wanted: Vec<Expr> = Vec::new();
    for (at, column) in columns.iter().enumerate() {
        let Some((low, high)) = range(column) else { continue };
        let value = expression::column(&column.name).cast(DataType::Float64);
        for (bin, span) in spans(low, high).enumerate() {
            let last = bin + 1 == BINS || low >= high;
            let below =
                if last { value.clone().lt_eq(lit(span.1)) } else { value.clone().lt(lit(span.1)) };
            let inside = value.clone().gt_eq(lit(span.0)).and(below);
            wanted.push(inside.sum().alias(format!("{at}.{bin}")));
        }
    }
    if wanted.is_empty() {
        return Ok(());
    }
    let found = collect(table.clone().select(wanted))?;
    for (at, column) in columns.iter_mut().enumerate() {
        let Some((low, high)) = range(column) else { continue };
        for (bin, (low, high)) in spans(low, high).enumerate() {
            let cell = found.column(&format!("{at}.{bin}"))?.get(0)?;
            let count = cell.try_extract::<u64>().unwrap_or(0);
            column.histogram.push(HistogramBin { low, high, count });
        }
    }
    Ok(())
}

/// The smallest and the largest value, of a column of finite numbers.
fn range(column: &ColumnProfile) -> Option<(f64, f64)> {
    let end = |value: &Option<serde_json::Value>| value.as_ref()?.as_f64();
    column.mean?;
    Some((end(&column.min)?, end(&column.max)?))
}

/// The spans between two values: one if they are the same.
fn spans(low: f64, high: f64) -> impl Iterator<Item = (f64, f64)> {
    let bins = if low < high { BINS } else { 1 };
    let width = (high - low) / bins as f64;
    let edge = move |bin: usize| if bin == bins { high } else { low + width * bin as f64 };
    (0..bins).map(move |bin| (edge(bin), edge(bin + 1)))
}

fn top(table: &LazyFrame, name: &str) -> PolarsResult<Vec<ValueCount>> {
    const COUNT: &str = "__aisemble_count";
    let column = expression::column(name);
    let counted = table
        .clone()
        .filter(column.clone().is_not_null())
        .group_by([column.alias("value")])
        .agg([len().alias(COUNT)])
        .sort(
            [COUNT, "value"],
            SortMultipleOptions::default()
                .with_order_descending_multi([true, false])
                .with_maintain_order(true),
        )
        .limit(TOP_MAX);
    let found = collect(counted)?;
    let (values, counts) = (found.column("value")?, found.column(COUNT)?);
    (0..found.height())
        .map(|at| {
            let count = counts.get(at)?.try_extract::<u64>()?;
            Ok(ValueCount { value: preview::value(&values.get(at)?), count })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_cover_the_range_without_a_gap() {
        let spans: Vec<_> = spans(-1.0, 2.0).collect();
        assert_eq!((spans.len(), spans[0].0, spans[BINS - 1].1), (BINS, -1.0, 2.0));
        assert!(spans.windows(2).all(|pair| pair[0].1 == pair[1].0));
        assert_eq!(super::spans(3.0, 3.0).collect::<Vec<_>>(), [(3.0, 3.0)]);
    }
}
