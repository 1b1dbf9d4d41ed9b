//! Queries that take too much: each is ended by its own limit, and the service goes on.

use std::time::Instant;

use aisemble_protocol::{ErrorCode, v1};
use serde_json::{Value, json};

use crate::instance::{Instance, rows};

/// A table of `rows` rows.
fn numbers(rows: usize) -> Vec<u8> {
    let mut csv = "n\n".to_owned();
    for n in 0..rows {
        csv.push_str(&n.to_string());
        csv.push('\n');
    }
    csv.into_bytes()
}

/// Each row with each, four times: 10^16 rows.
fn explosion(limits: Value) -> Value {
    json!({
        "tables": [{"name": "t", "file": "n.csv"}],
        "sql": "SELECT SUM(a.n + b.n + c.n + d.n) AS s FROM t a CROSS JOIN t b CROSS JOIN t c \
                CROSS JOIN t d",
        "limits": limits,
    })
}

async fn still_answers(instance: &Instance) {
    let body = json!({"tables": [{"name": "t", "csv": "a\n1\n"}], "sql": "SELECT a FROM t"});
    assert_eq!(rows(&instance.ask(body, &[]).await.unwrap()), json!([{"a": 1}]));
}

#[tokio::test]
async fn a_cross_join_that_explodes_is_ended_by_its_limit() {
    let instance = Instance::serving(&[]);
    let table = numbers(10_000);
    let began = Instant::now();
    let body = explosion(json!({"wall_ms": 1500}));
    let error = instance.ask(body, &[("n.csv", &table)]).await.unwrap_err();
    let limited = matches!(error.param.as_deref(), Some("limits.wall_ms" | "limits.memory_bytes"));
    assert!(limited, "{error:?}");
    assert!(began.elapsed().as_secs() < 60, "{:?}", began.elapsed());
    assert!(instance.workers().is_empty());
    still_answers(&instance).await;
}

#[tokio::test]
async fn a_query_that_wants_more_memory_than_it_may_have_is_told_so() {
    let instance = Instance::serving(&["workers.threads=2"]);
    let table = numbers(20_000);
    let body = json!({
        "tables": [{"name": "t", "file": "n.csv"}],
        "sql": "SELECT a.n * 20000 + b.n AS x FROM t a CROSS JOIN t b ORDER BY x DESC",
        "limits": {"memory_bytes": 200_000_000},
        "output": {"format": "parquet"},
    });
    let error = instance.ask(body, &[("n.csv", &table)]).await.unwrap_err();
    assert_eq!(error.param.as_deref(), Some("limits.memory_bytes"), "{error:?}");
    assert!(error.message.contains("200000000 bytes"), "{error:?}");
    assert_eq!((instance.outputs(), instance.workers().len()), (0, 0));
    still_answers(&instance).await;
}

#[tokio::test]
async fn a_parquet_file_that_unfolds_is_held_by_its_limits() {
    let instance = Instance::serving(&["workers.threads=2"]);
    // Some kilobytes that are 100 million rows.
    let table = numbers(10_000);
    let body = json!({
        "tables": [{"name": "t", "file": "n.csv"}],
        "sql": "SELECT 7 AS x FROM t a CROSS JOIN t b",
        "output": {"format": "parquet"},
    });
    let made = instance.ask(body, &[("n.csv", &table)]).await.unwrap();
    let bomb = std::fs::read(made.output.unwrap()).unwrap();
    assert_eq!(made.result.rows, 100_000_000);
    assert!(bomb.len() < 4_000_000, "{} bytes", bomb.len());
    let body = json!({
        "tables": [{"name": "bomb", "file": "bomb.parquet"}],
        "sql": "SELECT x, ROW_NUMBER() OVER (ORDER BY x) AS r FROM bomb ORDER BY r DESC",
        "limits": {"memory_bytes": 200_000_000, "wall_ms": 60_000},
    });
    let error = instance.ask(body, &[("bomb.parquet", &bomb)]).await.unwrap_err();
    assert!(error.param.as_deref().is_some_and(|param| param.starts_with("limits.")), "{error:?}");
    still_answers(&instance).await;
}

#[tokio::test]
async fn an_output_ends_at_its_limit() {
    let instance = Instance::serving(&[]);
    for format in ["csv", "ndjson", "json", "parquet", "arrow"] {
        let body = json!({
            "tables": [{"name": "t", "file": "n.csv"}],
            "sql": "SELECT a.n * b.n AS x, a.n AS y FROM t a CROSS JOIN t b",
            "output": {"format": format},
            "limits": {"output_bytes": 100_000},
        });
        let error = instance.ask(body, &[("n.csv", &numbers(1000))]).await.unwrap_err();
        assert_eq!(error.param.as_deref(), Some("limits.output_bytes"), "{format}: {error:?}");
        assert_eq!(instance.outputs(), 0, "{format}");
    }
}

#[tokio::test]
async fn who_leaves_ends_his_query_and_a_full_queue_says_when_to_come_again() {
    let instance = Instance::serving(&["workers.running_max=1", "workers.queue_depth_max=0"]);
    let request = instance.request(explosion(json!({})), &[("n.csv", &numbers(10_000))]);
    let mut stream = instance.data().process(request.clone()).await.unwrap().into_inner();
    // Until its process is there.
    while instance.workers().is_empty() {
        assert!(stream.message().await.unwrap().is_some());
    }
    let error = instance.run(request).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Overloaded, "{error:?}");
    assert!(error.retry_after_ms.is_some_and(|ms| ms >= 100), "{error:?}");
    assert_eq!(instance.stats().await.requests_running, 1);

    drop(stream);
    let gone = async {
        while instance.stats().await.requests_running > 0 || !instance.workers().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), gone).await.unwrap();
    assert_eq!(instance.stats().await.requests_cancelled_total, 1);
    still_answers(&instance).await;
}

#[tokio::test]
async fn a_process_that_is_killed_takes_only_its_query_with_it() {
    let instance = Instance::serving(&[]);
    let request = instance.request(explosion(json!({})), &[("n.csv", &numbers(10_000))]);
    let mut stream = instance.data().process(request).await.unwrap().into_inner();
    while instance.workers().is_empty() {
        assert!(stream.message().await.unwrap().is_some());
    }
    let worker = instance.workers()[0];
    let status = std::fs::read_to_string(format!("/proc/{worker}/status")).unwrap();
    assert!(status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2"), "{status}");
    let killed = std::process::Command::new("kill").args(["-9", &worker.to_string()]).status();
    assert!(killed.unwrap().success());
    let error = loop {
        match stream.message().await {
            Ok(Some(event)) => {
                assert!(matches!(event.event, Some(v1::process_event::Event::Progress(_))))
            }
            Ok(None) => panic!("the stream ended without an end"),
            Err(status) => break aisemble_protocol::ApiError::from(status),
        }
    };
    // Who asked may ask again: a job is tried again by itself.
    assert_eq!(error.code, ErrorCode::Unavailable, "{error:?}");
    assert!(error.retry_after_ms.is_some(), "{error:?}");
    still_answers(&instance).await;
}
