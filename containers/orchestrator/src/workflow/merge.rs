//! Tables put together: one after the other, side by side, or by what most of them say.

use std::collections::HashMap;

use aisemble_jobs::{ClaimedJob, JobFailure};
use aisemble_protocol::file::Purpose;
use aisemble_protocol::workflow::{MergeInput, MergeOp, RowsFormat, TableOutput};
use serde_json::{Value, json};

use super::Engine;
use super::table::{Row, TableReader, TableWriter, invalid};

/// Rows of a table that is held in memory to be joined.
const JOIN_ROWS_MAX: usize = 200_000;

/// Runs a merge step.
pub(super) async fn run(
    engine: &Engine,
    job: &ClaimedJob,
    input: Value,
) -> Result<(Value, u64), JobFailure> {
    let merge: MergeInput = serde_json::from_value(input)
        .map_err(|error| invalid(format!("the step's input is not valid: {error}")))?;
    let mut out = TableWriter::new(engine).await?;
    match merge.op {
        MergeOp::Concat => {
            for source in merge.tables {
                let mut table = TableReader::open(engine, &job.owner, source).await?;
                loop {
                    let batch = table.next().await?;
                    if batch.is_empty() {
                        break;
                    }
                    for row in batch {
                        out.write(row).await?;
                    }
                }
            }
        }
        MergeOp::Join | MergeOp::Majority => {
            let on = merge.on.clone().ok_or_else(|| invalid("`on` is needed"))?;
            let mut tables = Vec::new();
            for source in merge.tables.clone() {
                let table = TableReader::open(engine, &job.owner, source).await?;
                tables.push(table.all(JOIN_ROWS_MAX).await?);
            }
            let rows = match (merge.op, &merge.column) {
                (MergeOp::Majority, Some(column)) => majority(tables, &on, column)?,
                (MergeOp::Majority, None) => return Err(invalid("`column` is needed")),
                (MergeOp::Join | MergeOp::Concat, _) => join(tables, &on)?,
            };
            for row in rows {
                out.write(row).await?;
            }
        }
    }
    let (rows, sample) = (out.rows, out.sample.clone());
    let name = (job.id, "merged.ndjson");
    let file = out.finish(engine, &job.owner, name, Purpose::Result).await?;
    let (file, format, sha256) = (file.id, RowsFormat::Ndjson, file.sha256);
    Ok((json!(TableOutput { file, format, sha256, rows, sample }), 0))
}

/// What rows are joined by, as text that tells values of different types apart.
fn key(row: &Row, on: &str) -> Result<String, JobFailure> {
    let value = row.get(on).ok_or_else(|| invalid(format!("a row has no column {on:?}")))?;
    Ok(value.to_string())
}

/// The rows of the first table with the columns of the others where `on` is the same. Of several
/// rows with the same value the first counts; where there is none, the row stays as it is.
fn join(tables: Vec<Vec<Row>>, on: &str) -> Result<Vec<Row>, JobFailure> {
    let mut tables = tables.into_iter();
    let mut rows = tables.next().unwrap_or_default();
    for table in tables {
        let mut others: HashMap<String, Row> = HashMap::with_capacity(table.len());
        for row in table {
            others.entry(key(&row, on)?).or_insert(row);
        }
        for row in &mut rows {
            if let Some(other) = others.get(&key(row, on)?) {
                for (name, value) in other {
                    row.entry(name.clone()).or_insert_with(|| value.clone());
                }
            }
        }
    }
    Ok(rows)
}

/// The rows of the first table; `column` becomes the value that most tables have for the same `on`,
/// the earliest of them when several do.
fn majority(tables: Vec<Vec<Row>>, on: &str, column: &str) -> Result<Vec<Row>, JobFailure> {
    let mut votes: HashMap<String, Vec<(Value, usize)>> = HashMap::new();
    for row in tables.iter().flatten() {
        let Some(value) = row.get(column) else { continue };
        let votes = votes.entry(key(row, on)?).or_default();
        match votes.iter_mut().find(|(known, _)| known == value) {
            Some((_, count)) => *count += 1,
            None => votes.push((value.clone(), 1)),
        }
    }
    let mut rows = tables.into_iter().next().unwrap_or_default();
    for row in &mut rows {
        let Some(votes) = votes.get(&key(row, on)?) else { continue };
        let most = votes.iter().map(|(_, count)| *count).max().unwrap_or(0);
        if let Some((value, _)) = votes.iter().find(|(_, count)| *count == most) {
            row.insert(column.to_owned(), value.clone());
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: Value) -> Vec<Row> {
        serde_json::from_value(rows).unwrap()
    }

    #[test]
    fn rows_are_joined_where_the_column_is_the_same() {
        let left = table(json!([{"id": 1, "a": "x"}, {"id": "1"}, {"id": 3}]));
        let right = table(json!([{"id": 1, "a": "no", "b": 2}, {"id": 1, "b": 9}, {"id": 7}]));
        let joined = join(vec![left, right], "id").unwrap();
        assert_eq!(json!(joined), json!([{"id": 1, "a": "x", "b": 2}, {"id": "1"}, {"id": 3}]));
        assert!(join(vec![table(json!([{"x": 1}])), table(json!([{"id": 1}]))], "id").is_err());
    }

    #[test]
    fn most_tables_decide_and_the_first_breaks_a_tie() {
        let vote = |label: &str| table(json!([{"id": 1, "l": label}, {"id": 2, "l": "same"}]));
        let rows = majority(vec![vote("a"), vote("b"), vote("b")], "id", "l").unwrap();
        assert_eq!(json!(rows), json!([{"id": 1, "l": "b"}, {"id": 2, "l": "same"}]));
        let tie = majority(vec![vote("a"), vote("b")], "id", "l").unwrap();
        assert_eq!(tie[0]["l"], "a");
    }
}
