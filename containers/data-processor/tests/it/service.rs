//! What the service answers over its socket, and what it is.

use aisemble_protocol::{ErrorCode, v1};
use serde_json::json;

use crate::instance::{Instance, rows};

#[tokio::test]
async fn it_answers_confined_and_says_what_it_is() {
    let instance = Instance::serving(&[]);
    let described = instance.model().describe(v1::DescribeRequest {}).await.unwrap().into_inner();
    assert_eq!(described.service, "data-processor");
    assert_eq!(described.models[0].tasks, ["process"]);
    let sandbox = described.sandbox.unwrap();
    assert!(sandbox.locked_down && sandbox.no_new_privs && sandbox.seccomp_mode == 2);
    let checks = instance.model().self_check(v1::SelfCheckRequest {}).await.unwrap().into_inner();
    let failed: Vec<_> = checks.checks.iter().filter(|check| !check.passed).collect();
    assert!(!checks.checks.is_empty() && failed.is_empty(), "{failed:#?}");

    let body = json!({
        "tables": [
            {"name": "sales", "csv": "shop,amount\nnorth,1\nsouth,5\nnorth,3\n"},
            {"name": "shops", "rows": [{"shop": "north", "city": "Oslo"}, {"shop": "south"}]},
        ],
        "sql": "WITH t AS (SELECT shop, SUM(amount) AS total FROM sales GROUP BY shop) \
                SELECT city, total FROM t JOIN shops ON t.shop = shops.shop ORDER BY total",
    });
    let answer = instance.ask(body, &[]).await.unwrap();
    assert_eq!(rows(&answer), json!([{"city": "Oslo", "total": 4}, {"city": null, "total": 5}]));
    let result = &answer.result;
    assert_eq!((result.rows, result.preview_truncated), (2, false));
    assert_eq!(result.schema[1].data_type, "int64");
    assert!(result.timings.total_ms > 0.0 && result.memory_peak_bytes > 1 << 20, "{result:?}");
    assert_eq!(answer.phases[..2], ["queued", "starting"]);

    let stats = instance.stats().await;
    assert_eq!((stats.requests_total, stats.requests_running), (2, 0), "the warm-up counts");
    let (code, log) = instance.terminate();
    assert_eq!(code, Some(0));
    let log = serde_json::to_string(&log).unwrap();
    for said in ["north", "Oslo", "SELECT", "amount"] {
        assert!(!log.contains(said), "the log contains what was said: {said}");
    }
}

#[tokio::test]
async fn bad_requests_are_told_what_is_wrong() {
    let instance = Instance::serving(&[]);
    let check = async |body, code, param: &str, sentence: &str| {
        let error = instance.ask(body, &[("a.csv", b"x\n1\n")]).await.unwrap_err();
        assert_eq!((error.code, error.param.as_deref()), (code, Some(param)), "{error:?}");
        assert!(error.message.contains(sentence), "{error:?}");
    };
    let unprocessable = ErrorCode::Unprocessable;
    let table = json!([{"name": "t", "csv": "a,b\n1,2\n"}]);
    let sql = |text: &str| json!({"tables": table, "sql": text});
    check(sql("SELECT c FROM t"), unprocessable, "sql", "c").await;
    check(sql("SELECT a FROM other"), unprocessable, "sql", "the tables are t").await;
    check(sql("SELECT FROM WHERE"), unprocessable, "sql", "").await;
    check(sql("SELECT 1; SELECT 2"), unprocessable, "sql", "exactly one").await;
    let step = json!([{"op": "filter", "where": "a > 1"}, {"op": "drop", "columns": ["zz"]}]);
    let body = json!({"tables": table, "pipeline": step});
    check(body, unprocessable, "pipeline[1]", "zz").await;
    let step = json!([{"op": "filter", "where": "a > (SELECT max(a) FROM t)"}]);
    let body = json!({"tables": table, "pipeline": step});
    check(body, unprocessable, "pipeline[0].where", "must not hold a query").await;

    let mut request = instance.request(json!({"tables": table}), &[]);
    request.tables[0].source = Some(v1::table::Source::Blob("../../etc/passwd".to_owned()));
    let error = instance.run(request.clone()).await.unwrap_err();
    assert_eq!((error.code, error.param.as_deref()), (ErrorCode::NotFound, Some("tables[0]")));
    request.tables[0].source = Some(v1::table::Source::Blob("0".repeat(64)));
    assert_eq!(instance.run(request).await.unwrap_err().code, ErrorCode::NotFound);
    assert_eq!(instance.outputs(), 0);
}

#[tokio::test]
async fn explain_shows_the_plan_and_no_path() {
    let instance = Instance::serving(&[]);
    let body = json!({
        "tables": [{"name": "t", "file": "a.csv"}],
        "sql": "EXPLAIN SELECT a FROM t WHERE a > 1",
    });
    let answer = instance.ask(body, &[("a.csv", b"a,b\n1,2\n")]).await.unwrap();
    let explained = answer.result.explain.unwrap();
    assert!(explained.contains("SCAN") && !explained.contains("blobs"), "{explained}");
}
