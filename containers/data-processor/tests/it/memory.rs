//! Tables that are larger than the memory of a query: what can be streamed is computed, what cannot
//! is told so, and nobody else is harmed.

use serde_json::{Value, json};

use crate::instance::{Instance, rows};

/// Rows and columns of the first table, squared in the second.
const SIDE: u64 = 5_500;
/// What a query may have, beside what every process has (160 MiB).
const MEMORY_BYTES: u64 = 64 << 20;

fn small(sql: &str, output: Option<&str>) -> Value {
    let numbers: String = (0..SIDE).map(|n| format!("{n}\n")).collect();
    let mut body = json!({"tables": [{"name": "t", "csv": format!("n\n{numbers}")}], "sql": sql});
    if let Some(format) = output {
        body["output"] = json!({ "format": format });
    }
    body
}

fn large(sql: &str) -> Value {
    json!({
        "tables": [{"name": "large", "file": "large.parquet"}],
        "sql": sql,
        "output": {"format": "parquet"},
        "limits": {"memory_bytes": MEMORY_BYTES},
    })
}

#[tokio::test]
async fn a_table_larger_than_memory_is_streamed_or_refused() {
    let instance = Instance::serving(&["workers.threads=2"]);
    let make = "SELECT a.n AS x, b.n AS y FROM t a CROSS JOIN t b";
    let made = instance.ask(small(make, Some("parquet")), &[]).await.unwrap();
    let count = made.result.rows;
    assert_eq!(count, SIDE * SIDE);
    // Two columns of eight bytes: more than twice what a query has altogether.
    assert!(count * 16 > 2 * (MEMORY_BYTES + (160 << 20)));
    let file = std::fs::read(made.output.unwrap()).unwrap();
    let files = [("large.parquet", file.as_slice())];

    let filter = "SELECT x, y FROM large WHERE (x + y) % 2 = 0";
    let half = instance.ask(large(filter), &files).await.unwrap().result;
    assert_eq!(half.rows, count / 2);

    let group = "SELECT x % 100 AS g, COUNT(*) AS n, SUM(y) AS s FROM large WHERE y >= 100 \
        GROUP BY x % 100";
    let grouped = instance.ask(large(group), &files).await.unwrap();
    let left = SIDE - 100;
    assert_eq!(grouped.result.rows, 100);
    let of_each = SIDE / 100;
    let each = json!([left * of_each, (100 + SIDE - 1) * left / 2 * of_each]);
    for row in rows(&grouped).as_array().unwrap() {
        assert_eq!(json!([row["n"], row["s"]]), each, "{row}");
    }

    // A sort needs all of it at once: that job is told so, another beside it is not concerned.
    let sort = instance.ask(large("SELECT x, y FROM large ORDER BY y DESC, x"), &files);
    let beside = instance.ask(small("SELECT SUM(n) AS s FROM t", None), &[]);
    let (sort, beside) = tokio::join!(sort, beside);
    let error = sort.unwrap_err();
    assert_eq!(error.param.as_deref(), Some("limits.memory_bytes"), "{error:?}");
    assert!(error.message.contains(&MEMORY_BYTES.to_string()), "{error:?}");
    assert_eq!(rows(&beside.unwrap()), json!([{"s": SIDE * (SIDE - 1) / 2}]));
    assert!(instance.workers().is_empty());
}
