//! The operations of a pipeline as polars plans, one after the other. After each the columns are
//! worked out, so that a mistake is said of the operation that made it.

mod columns;
mod reshape;

use aisemble_protocol::ApiError;
use aisemble_protocol::data::{JoinKind, Keep, Operation, UnionKind};
use polars::prelude::{
    JoinCoalesce, JoinType, LazyFrame, PolarsError, SortMultipleOptions, UnionArgs,
    UniqueKeepStrategy, col, concat, concat_lf_diagonal,
};

use super::{COLUMNS_MAX, Opened, error, expression};

/// One operation and where it stands in the request.
struct Step<'a> {
    param: String,
    tables: &'a [Opened],
}

/// The plan of `operations`, begun with the table `from`.
pub(super) fn plan(
    from: &str,
    operations: &[Operation],
    tables: &[Opened],
) -> Result<LazyFrame, ApiError> {
    let first = if from.is_empty() {
        tables.first().ok_or_else(|| error::refused("tables", "no table is given"))?
    } else {
        find(from, "from", tables)?
    };
    let mut frame = first.frame.clone();
    for (at, operation) in operations.iter().enumerate() {
        let step = Step { param: format!("pipeline[{at}]"), tables };
        frame = step.apply(frame, operation)?;
        let columns = frame.collect_schema().map_err(|error| step.failed(&error))?.len();
        if columns > COLUMNS_MAX {
            let message =
                format!("{} makes {columns} columns; the limit is {COLUMNS_MAX}", step.param);
            return Err(error::refused(&step.param, message));
        }
    }
    Ok(frame)
}

fn find<'a>(name: &str, param: &str, tables: &'a [Opened]) -> Result<&'a Opened, ApiError> {
    tables
        .iter()
        .find(|table| table.name == name)
        .ok_or_else(|| error::refused(param, format!("{param} names no table of the request")))
}

impl Step<'_> {
    fn failed(&self, error: &PolarsError) -> ApiError {
        error::of_polars(&self.param, error)
    }

    fn field(&self, name: &str) -> String {
        format!("{}.{name}", self.param)
    }

    fn apply(&self, frame: LazyFrame, operation: &Operation) -> Result<LazyFrame, ApiError> {
        use Operation as Op;
        match operation {
            Op::Select { columns } => {
                Ok(frame.select(expression::list(columns, &self.field("columns"))?))
            }
            Op::WithColumns { columns } => {
                Ok(frame.with_columns(expression::list(columns, &self.field("columns"))?))
            }
            Op::Drop { columns } => Ok(frame.drop(expression::columns(columns))),
            Op::Rename { columns } => Ok(frame.rename(columns.keys(), columns.values(), true)),
            Op::Filter { predicate } => {
                Ok(frame.filter(expression::one(predicate, &self.field("where"))?))
            }
            Op::GroupBy { by, aggregate, keep_order } => {
                self.group_by(frame, by, aggregate, *keep_order)
            }
            Op::Join { .. } => self.join(frame, operation),
            Op::Union { tables, how } => self.union(frame, tables, *how),
            Op::Sort { by } => {
                let (by, options) = expression::order(by, &self.field("by"))?;
                Ok(frame.sort_by_exprs(by, options.with_maintain_order(true)))
            }
            Op::Limit { rows, offset } => Ok(frame.slice(clamp(*offset), clamp_rows(*rows))),
            Op::Window { partition_by, order_by, columns } => {
                self.window(frame, partition_by, order_by, columns)
            }
            Op::Pivot { .. } => reshape::pivot(self, frame, operation),
            Op::Unpivot { .. } => Ok(reshape::unpivot(frame, operation)),
            Op::Explode { columns } => Ok(reshape::explode(frame, columns)),
            Op::Sample { rows, fraction, seed } => {
                Ok(reshape::sample(frame, *rows, *fraction, *seed))
            }
            Op::Describe {} => reshape::describe(self, frame),
            Op::DropNulls { columns } => {
                let subset = (!columns.is_empty()).then(|| expression::columns(columns));
                Ok(frame.drop_nulls(subset))
            }
            Op::Distinct { columns, keep, keep_order } => {
                let subset = (!columns.is_empty()).then(|| expression::columns(columns));
                let keep = match keep {
                    Keep::Any => UniqueKeepStrategy::Any,
                    Keep::First => UniqueKeepStrategy::First,
                    Keep::Last => UniqueKeepStrategy::Last,
                    Keep::None => UniqueKeepStrategy::None,
                };
                Ok(if *keep_order {
                    frame.unique_stable(subset, keep)
                } else {
                    frame.unique(subset, keep)
                })
            }
            Op::RowNumber { name, start } => Ok(frame.with_row_index(name.as_str(), Some(*start))),
            Op::FillNull { .. }
            | Op::Cast { .. }
            | Op::ParseDates { .. }
            | Op::String { .. }
            | Op::Temporal { .. } => columns::apply(self, frame, operation),
        }
    }

    fn group_by(
        &self,
        frame: LazyFrame,
        by: &[String],
        aggregate: &[String],
        keep_order: bool,
    ) -> Result<LazyFrame, ApiError> {
        let keys = expression::list(by, &self.field("by"))?;
        let values = expression::list(aggregate, &self.field("aggregate"))?;
        if keys.is_empty() {
            return Ok(frame.select(values));
        }
        let groups = if keep_order { frame.group_by_stable(keys) } else { frame.group_by(keys) };
        Ok(groups.agg(values))
    }

    fn join(&self, frame: LazyFrame, operation: &Operation) -> Result<LazyFrame, ApiError> {
        let Operation::Join { table, how, on, left_on, right_on, suffix } = operation else {
            return Ok(frame);
        };
        let other = find(table, &self.field("table"), self.tables)?.frame.clone();
        let suffix = suffix.as_deref().unwrap_or("_right");
        let how = match how {
            JoinKind::Cross => {
                return Ok(frame.cross_join(other, Some(suffix.into())));
            }
            JoinKind::Inner => JoinType::Inner,
            JoinKind::Left => JoinType::Left,
            JoinKind::Right => JoinType::Right,
            JoinKind::Full => JoinType::Full,
            JoinKind::Semi => JoinType::Semi,
            JoinKind::Anti => JoinType::Anti,
        };
        let builder = frame.join_builder().with(other).how(how).suffix(suffix);
        Ok(if on.is_empty() {
            let left = expression::list(left_on, &self.field("left_on"))?;
            let right = expression::list(right_on, &self.field("right_on"))?;
            builder.left_on(left).right_on(right).finish()
        } else {
            let on: Vec<_> = on.iter().map(|name| col(name.as_str())).collect();
            builder.on(on).coalesce(JoinCoalesce::CoalesceColumns).finish()
        })
    }

    fn union(
        &self,
        frame: LazyFrame,
        tables: &[String],
        how: UnionKind,
    ) -> Result<LazyFrame, ApiError> {
        let mut frames = vec![frame];
        for table in tables {
            frames.push(find(table, &self.field("tables"), self.tables)?.frame.clone());
        }
        let args = UnionArgs { to_supertypes: true, ..UnionArgs::default() };
        match how {
            UnionKind::Same => concat(frames, args),
            UnionKind::Fill => concat_lf_diagonal(frames, args),
        }
        .map_err(|error| self.failed(&error))
    }

    fn window(
        &self,
        frame: LazyFrame,
        partition_by: &[String],
        order_by: &[aisemble_protocol::data::SortKey],
        columns: &[String],
    ) -> Result<LazyFrame, ApiError> {
        let groups = expression::list(partition_by, &self.field("partition_by"))?;
        let (order, options) = expression::order(order_by, &self.field("order_by"))?;
        let mut windows = Vec::with_capacity(columns.len());
        for expr in expression::list(columns, &self.field("columns"))? {
            windows.push(expr.over(groups.clone()).map_err(|error| self.failed(&error))?);
        }
        if order.is_empty() {
            return Ok(frame.with_columns(windows));
        }
        let sorted: SortMultipleOptions = options.with_maintain_order(true);
        Ok(frame.sort_by_exprs(order, sorted).with_columns(windows))
    }
}

/// polars' sizes are signed here; nobody has that many rows.
fn clamp(rows: u64) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

/// Without the feature for more, polars counts rows in 32 bits.
fn clamp_rows(rows: u64) -> polars::prelude::IdxSize {
    polars::prelude::IdxSize::try_from(rows).unwrap_or(polars::prelude::IdxSize::MAX)
}
