//! Expressions of a pipeline: SQL expressions, through the same allow-list as whole statements.

use aisemble_protocol::ApiError;
use aisemble_protocol::data::SortKey;
use polars::prelude::{Expr, Selector, SortMultipleOptions, by_name};

use super::{allow, error};

/// One expression of the request's field `param`.
pub(super) fn one(text: &str, param: &str) -> Result<Expr, ApiError> {
    if text.trim() == "*" {
        return Ok(polars::prelude::all().as_expr());
    }
    allow::expression(text, param)?;
    polars_sql::sql_expr(text).map_err(|error| error::of_polars(param, &error))
}

/// Several.
pub(super) fn list(texts: &[String], param: &str) -> Result<Vec<Expr>, ApiError> {
    let each = texts.iter().enumerate();
    each.map(|(at, text)| one(text, &format!("{param}[{at}]"))).collect()
}

/// Keys of an order, and how each is ordered.
pub(super) fn order(
    keys: &[SortKey],
    param: &str,
) -> Result<(Vec<Expr>, SortMultipleOptions), ApiError> {
    let mut by = Vec::with_capacity(keys.len());
    for (at, key) in keys.iter().enumerate() {
        by.push(one(&key.by, &format!("{param}[{at}]"))?);
    }
    let options = SortMultipleOptions::default()
        .with_order_descending_multi(keys.iter().map(|key| key.descending))
        .with_nulls_last_multi(keys.iter().map(|key| key.nulls_last));
    Ok((by, options))
}

/// These columns, their names taken as they are.
pub(super) fn columns(names: &[String]) -> Selector {
    by_name(names.iter().map(String::as_str), true, false)
}

/// One column, its name taken as it is.
pub(super) fn column(name: &str) -> Expr {
    by_name([name], true, false).as_expr()
}
