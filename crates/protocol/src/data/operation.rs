//! The operations of a pipeline. Expressions are SQL expressions (`price * 1.2 AS gross`), parsed
//! and allow-listed by the service.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One operation: a table in, a table out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Operation {
    /// Only these columns: names, `*`, or expressions with `AS`.
    Select {
        /// The expressions.
        columns: Vec<String>,
    },
    /// These columns added, or in place of those of the same name.
    WithColumns {
        /// Expressions with `AS`.
        columns: Vec<String>,
    },
    /// Without these columns.
    Drop {
        /// Their names.
        columns: Vec<String>,
    },
    /// Columns under other names.
    Rename {
        /// Old name to new name.
        columns: BTreeMap<String, String>,
    },
    /// Only the rows for which the expression is true.
    Filter {
        /// The expression.
        #[serde(rename = "where")]
        predicate: String,
    },
    /// One row a group.
    GroupBy {
        /// The expressions that make the groups; none = one group.
        by: Vec<String>,
        /// What is computed of each group: `avg(price) AS price`.
        aggregate: Vec<String>,
        /// Groups in the order of their first rows.
        #[serde(default)]
        keep_order: bool,
    },
    /// The rows beside those of another table.
    Join {
        /// The other table.
        table: String,
        /// Which rows are kept.
        #[serde(default)]
        how: JoinKind,
        /// Columns that both tables have under the same name.
        #[serde(default)]
        on: Vec<String>,
        /// Or expressions over this table,
        #[serde(default)]
        left_on: Vec<String>,
        /// and over the other, as many.
        #[serde(default)]
        right_on: Vec<String>,
        /// What is put after a name of the other table that this one has too; default `_right`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        suffix: Option<String>,
    },
    /// The rows of other tables after those of this one.
    Union {
        /// The other tables.
        tables: Vec<String>,
        /// Whether their columns must be the same.
        #[serde(default)]
        how: UnionKind,
    },
    /// Rows in order.
    Sort {
        /// The keys, the first counts most.
        by: Vec<SortKey>,
    },
    /// Only some of the rows.
    Limit {
        /// How many.
        rows: u64,
        /// After how many.
        #[serde(default)]
        offset: u64,
    },
    /// Expressions computed within groups, without making them one row.
    Window {
        /// The expressions that make the groups.
        partition_by: Vec<String>,
        /// The order within a group.
        #[serde(default)]
        order_by: Vec<SortKey>,
        /// Expressions with `AS`: `sum(price) AS of_group`, `rank(price) AS place`.
        columns: Vec<String>,
    },
    /// One column for each value of a column; at most 1000.
    Pivot {
        /// The columns that stay: one row for each of their values.
        index: Vec<String>,
        /// The column whose values become names.
        on: String,
        /// The column that fills the cells.
        values: String,
        /// What becomes of several values for one cell.
        #[serde(default)]
        aggregate: Aggregate,
    },
    /// The inverse: columns become rows.
    Unpivot {
        /// The columns to turn; none = all but `index`.
        #[serde(default)]
        on: Vec<String>,
        /// The columns that stay.
        index: Vec<String>,
        /// Name of the column of names; default `variable`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        variable_name: Option<String>,
        /// Name of the column of values; default `value`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        value_name: Option<String>,
    },
    /// A row for each element of a list.
    Explode {
        /// Columns of lists, of the same lengths.
        columns: Vec<String>,
    },
    /// Rows drawn at random.
    Sample {
        /// How many,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rows: Option<u64>,
        /// or which share of them, 0 to 1.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fraction: Option<f64>,
        /// The same seed draws the same rows.
        #[serde(default)]
        seed: u64,
    },
    /// A value in the place of nulls.
    FillNull {
        /// The columns; none = all that can hold the value.
        #[serde(default)]
        columns: Vec<String>,
        /// What is put there.
        with: Fill,
    },
    /// Without the rows that have a null.
    DropNulls {
        /// In these columns; none = in any.
        #[serde(default)]
        columns: Vec<String>,
    },
    /// Columns of another type.
    Cast {
        /// Name to type.
        columns: BTreeMap<String, DataType>,
        /// Whether a value that does not fit is an error (default) or becomes null.
        #[serde(default = "yes")]
        strict: bool,
    },
    /// Texts read as dates or times.
    ParseDates {
        /// The columns.
        columns: Vec<String>,
        /// What they become.
        #[serde(default)]
        to: DateKind,
        /// The form, `%d.%m.%Y`; absent = guessed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        format: Option<String>,
        /// Whether a text that is no date is an error (default) or becomes null.
        #[serde(default = "yes")]
        strict: bool,
    },
    /// A function of texts that SQL has not, or not as handy.
    String {
        /// The column.
        column: String,
        /// The function.
        function: StringFunction,
        /// The name of the result; absent = in place.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        into: Option<String>,
    },
    /// A function of dates and times.
    Temporal {
        /// The column.
        column: String,
        /// The function.
        function: TemporalFunction,
        /// The name of the result; absent = in place.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        into: Option<String>,
    },
    /// Without rows that are there already.
    Distinct {
        /// The columns that make rows equal; none = all.
        #[serde(default)]
        columns: Vec<String>,
        /// Which of equal rows stays.
        #[serde(default)]
        keep: Keep,
        /// Rows stay in their order.
        #[serde(default)]
        keep_order: bool,
    },
    /// A column that counts the rows.
    RowNumber {
        /// Its name.
        name: String,
        /// The first number.
        #[serde(default)]
        start: u32,
    },
    /// A row a statistic: count, nulls, mean, standard deviation, minimum, quartiles, maximum.
    Describe {},
}

/// One key of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SortKey {
    /// An expression.
    pub by: String,
    /// The largest first.
    #[serde(default)]
    pub descending: bool,
    /// Nulls at the end instead of the beginning.
    #[serde(default)]
    pub nulls_last: bool,
}

/// Which rows a join keeps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum JoinKind {
    /// Those with a partner.
    #[default]
    Inner,
    /// All of this table.
    Left,
    /// All of the other.
    Right,
    /// All of both.
    Full,
    /// Those of this table with a partner, which is not shown.
    Semi,
    /// Those of this table without a partner.
    Anti,
    /// Each with each.
    Cross,
}

/// Whether tables that are put one after the other must have the same columns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum UnionKind {
    /// The same, in the same order.
    #[default]
    Same,
    /// A column that a table has not is null in its rows.
    Fill,
}

/// What becomes of several values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Aggregate {
    /// The first.
    #[default]
    First,
    /// The last.
    Last,
    /// Their sum.
    Sum,
    /// Their mean.
    Mean,
    /// Their median.
    Median,
    /// The smallest.
    Min,
    /// The largest.
    Max,
    /// How many.
    Count,
}

/// What is put in the place of nulls.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Fill {
    /// This number, text or truth value.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    Value(serde_json::Value),
    /// The value before.
    Forward,
    /// The value after.
    Backward,
    /// The column's mean.
    Mean,
    /// The column's smallest value.
    Min,
    /// The column's largest value.
    Max,
}

/// A type of columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it; numbers are bits")]
pub enum DataType {
    Bool,
    Int8,
    Int16,
    Int32,
    Int64,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Float32,
    Float64,
    String,
    Binary,
    Date,
    Datetime,
    Time,
    Duration,
    Categorical,
}

/// What a text is read as.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum DateKind {
    #[default]
    Date,
    Datetime,
    Time,
}

/// A function of texts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "name", rename_all = "snake_case", deny_unknown_fields)]
pub enum StringFunction {
    /// Lower case.
    Lower {},
    /// Upper case.
    Upper {},
    /// Without white space at both ends.
    Trim {},
    /// Characters.
    Length {},
    /// A list of the parts between `by`.
    Split {
        /// What is between them.
        by: String,
    },
    /// What a group of a regular expression matches; null where it does not.
    Extract {
        /// The regular expression.
        pattern: String,
        /// The group; 0 is the whole match.
        #[serde(default)]
        group: u16,
    },
    /// How often a regular expression matches.
    Count {
        /// The regular expression.
        pattern: String,
    },
    /// Each match of a regular expression replaced.
    Replace {
        /// The regular expression.
        pattern: String,
        /// What is put there; `$1` is a group.
        with: String,
    },
    /// A part, by characters.
    Slice {
        /// Where it begins; negative counts from the end.
        offset: i64,
        /// Its length; absent = to the end.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        length: Option<u64>,
    },
}

/// A function of dates and times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "name", rename_all = "snake_case", deny_unknown_fields)]
pub enum TemporalFunction {
    /// The year.
    Year {},
    /// The quarter, 1 to 4.
    Quarter {},
    /// The month, 1 to 12.
    Month {},
    /// The ISO week, 1 to 53.
    Week {},
    /// The day of the week, Monday is 1.
    Weekday {},
    /// The day of the month.
    Day {},
    /// The hour.
    Hour {},
    /// The minute.
    Minute {},
    /// The date of a date and time.
    Date {},
    /// Seconds since 1970.
    Epoch {},
    /// The begin of the span that it lies in: `1mo`, `1w`, `15m`.
    Truncate {
        /// The span.
        every: String,
    },
    /// Moved by a span: `-3d`, `1mo`.
    Offset {
        /// The span.
        by: String,
    },
    /// As text: `%Y-%m`.
    Format {
        /// The form.
        format: String,
    },
}

fn yes() -> bool {
    true
}

/// Which of equal rows stays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// Any of them.
    #[default]
    Any,
    /// The first.
    First,
    /// The last.
    Last,
    /// None: rows that are there more than once go altogether.
    None,
}
