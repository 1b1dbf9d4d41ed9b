//! A column made into one value, or into one for each value of another column.

use std::collections::BTreeMap;

use aisemble_jobs::{ClaimedJob, JobFailure};
use aisemble_protocol::workflow::{ReduceInput, ReduceOp};
use serde_json::{Value, json};

use super::Engine;
use super::table::{Row, TableReader, invalid};

/// Groups of one step.
const GROUPS_MAX: usize = 10_000;
/// Different values of one group that are counted to find the commonest.
const VALUES_MAX: usize = 100_000;
/// Bytes of the texts of one group.
const TEXT_BYTES_MAX: usize = 64 * 1024;

/// Runs a reduce step.
pub(super) async fn run(
    engine: &Engine,
    job: &ClaimedJob,
    input: Value,
) -> Result<(Value, u64), JobFailure> {
    let reduce: ReduceInput = serde_json::from_value(input)
        .map_err(|error| invalid(format!("the step's input is not valid: {error}")))?;
    let mut table = TableReader::open(engine, &job.owner, reduce.table.clone()).await?;
    let mut groups = Groups::new(reduce);
    loop {
        let batch = table.next().await?;
        if batch.is_empty() {
            return Ok((groups.output(), 0));
        }
        for row in &batch {
            groups.add(row)?;
        }
    }
}

/// What was seen of each group, in the order of their names.
struct Groups {
    reduce: ReduceInput,
    rows: u64,
    all: BTreeMap<String, Group>,
}

#[derive(Default)]
struct Group {
    /// The value of the other column.
    name: Value,
    count: u64,
    numbers: u64,
    sum: f64,
    min: Option<f64>,
    max: Option<f64>,
    values: BTreeMap<String, (u64, u64)>,
    text: String,
}

impl Groups {
    fn new(reduce: ReduceInput) -> Self {
        Self { reduce, rows: 0, all: BTreeMap::new() }
    }

    fn add(&mut self, row: &Row) -> Result<(), JobFailure> {
        self.rows += 1;
        let missing = |name: &String| invalid(format!("a row has no column {name:?}"));
        let column = &self.reduce.column;
        let value = row.get(column).ok_or_else(|| missing(column))?;
        let name = match &self.reduce.by {
            Some(by) => row.get(by).ok_or_else(|| missing(by))?.clone(),
            None => Value::Null,
        };
        if self.all.len() >= GROUPS_MAX && !self.all.contains_key(&name.to_string()) {
            return Err(invalid(format!("there are over {GROUPS_MAX} groups")));
        }
        let group = self.all.entry(name.to_string()).or_default();
        group.name = name;
        group.add(value, self.reduce.op, self.rows)
    }

    fn output(&self) -> Value {
        let op = self.reduce.op;
        if self.reduce.by.is_none() {
            let value = self.all.values().next().map_or(Value::Null, |group| group.value(op));
            return json!({"value": value, "rows": self.rows});
        }
        let groups: Vec<_> = self
            .all
            .values()
            .map(
                |group| json!({"group": group.name, "value": group.value(op), "rows": group.count}),
            )
            .collect();
        // As rows, so that a later step may read them as a table.
        json!({"rows": groups, "rows_read": self.rows})
    }
}

impl Group {
    fn add(&mut self, value: &Value, op: ReduceOp, place: u64) -> Result<(), JobFailure> {
        if value.is_null() {
            return Ok(());
        }
        self.count += 1;
        // Tables without types have numbers as texts.
        let number = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok());
        match op {
            ReduceOp::Count => {}
            ReduceOp::Majority => {
                let full = self.values.len() >= VALUES_MAX;
                let seen = value.to_string();
                if full && !self.values.contains_key(&seen) {
                    return Err(invalid(format!("there are over {VALUES_MAX} different values")));
                }
                self.values.entry(seen).or_insert((0, place)).0 += 1;
            }
            ReduceOp::Sum | ReduceOp::Mean | ReduceOp::Min | ReduceOp::Max => {
                let shown: String = value.to_string().chars().take(40).collect();
                let number = number.filter(|number: &f64| number.is_finite());
                let number = number.ok_or_else(|| invalid(format!("{shown} is not a number")))?;
                self.numbers += 1;
                self.sum += number;
                self.min = Some(self.min.map_or(number, |min| min.min(number)));
                self.max = Some(self.max.map_or(number, |max| max.max(number)));
            }
            ReduceOp::Text => {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                if self.text.len() + text.len() < TEXT_BYTES_MAX {
                    if !self.text.is_empty() {
                        self.text.push('\n');
                    }
                    self.text.push_str(&text);
                }
            }
        }
        Ok(())
    }

    fn value(&self, op: ReduceOp) -> Value {
        match op {
            ReduceOp::Count => self.count.into(),
            ReduceOp::Majority => {
                // The commonest; of several, the one that came first.
                let best = self
                    .values
                    .iter()
                    .max_by_key(|(_, (count, place))| (*count, std::cmp::Reverse(*place)));
                best.and_then(|(text, _)| serde_json::from_str(text).ok()).unwrap_or(Value::Null)
            }
            ReduceOp::Sum => json!(self.sum),
            ReduceOp::Mean if self.numbers == 0 => Value::Null,
            ReduceOp::Mean => json!(self.sum / self.numbers as f64),
            ReduceOp::Min => json!(self.min),
            ReduceOp::Max => json!(self.max),
            ReduceOp::Text => self.text.clone().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(op: &str, by: Option<&str>, expected: Value) {
        let rows = json!([
            {"g": "b", "v": "2"}, {"g": "a", "v": 4}, {"g": "b", "v": 3}, {"g": "b", "v": null},
            {"g": "b", "v": 3},
        ]);
        let reduce = json!({"table": {}, "op": op, "column": "v", "by": by});
        let mut groups = Groups::new(serde_json::from_value(reduce).unwrap());
        for row in rows.as_array().unwrap() {
            groups.add(row.as_object().unwrap()).unwrap();
        }
        assert_eq!(groups.output(), expected, "{op}");
    }

    #[test]
    fn a_column_becomes_a_value_or_one_a_group() {
        check("count", None, json!({"value": 4, "rows": 5}));
        check("sum", None, json!({"value": 12.0, "rows": 5}));
        check("mean", None, json!({"value": 3.0, "rows": 5}));
        check("min", None, json!({"value": 2.0, "rows": 5}));
        check("majority", None, json!({"value": 3, "rows": 5}));
        check("text", None, json!({"value": "2\n4\n3\n3", "rows": 5}));
        let groups = json!([
            {"group": "a", "value": 4.0, "rows": 1}, {"group": "b", "value": 3.0, "rows": 3}
        ]);
        check("max", Some("g"), json!({"rows": groups, "rows_read": 5}));
    }

    #[test]
    fn what_is_no_number_is_named() {
        let reduce = json!({"table": {}, "op": "sum", "column": "v"});
        let mut groups = Groups::new(serde_json::from_value(reduce).unwrap());
        let row = json!({"v": "many"});
        let failure = groups.add(row.as_object().unwrap()).unwrap_err();
        assert!(failure.message.contains("\"many\" is not a number"), "{}", failure.message);
    }
}
