//! A disk that is full, for real: the folder of outputs on a small file system of its own. It is
//! mounted in a user namespace, which rootless containers need as well.

use std::path::Path;

use aisemble_protocol::ErrorCode;
use serde_json::json;

use crate::instance::{Instance, rows};

fn on_a_small_disk(folder: &Path) -> Vec<String> {
    let mount = "mount -t tmpfs -o size=4m,mode=0755 tmpfs \"$0\" && exec \"$@\"";
    let exchange = folder.join("exchange").display().to_string();
    let words = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, &exchange];
    words.map(str::to_owned).to_vec()
}

#[tokio::test]
async fn an_output_that_the_disk_has_no_room_for_leaves_nothing() {
    let instance = Instance::serving_by(on_a_small_disk, &[]);
    let output = |sql: &str, format: &str| {
        let numbers: String = (0..1500).map(|n| format!("{n}\n")).collect();
        json!({
            "tables": [{"name": "t", "csv": format!("n\n{numbers}")}],
            "sql": sql,
            "output": {"format": format},
        })
    };
    let many = "SELECT a.n * 7919 + b.n * 104729 AS x, a.n * b.n AS y FROM t a CROSS JOIN t b";
    for format in ["csv", "ndjson", "json", "parquet", "arrow"] {
        let error = instance.ask(output(many, format), &[]).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::StorageFull, "{format}: {error:?}");
        assert!(error.message.contains("no room"), "{format}: {error:?}");
        assert!(!error.message.contains('/'), "{format}: {error:?}");
    }
    assert!(instance.workers().is_empty());
    // It fits only when nothing of those was left.
    let some = "SELECT a.n AS x, b.n AS y, a.n * b.n AS z FROM t a CROSS JOIN t b LIMIT 180000";
    let answer = instance.ask(output(some, "csv"), &[]).await.unwrap();
    let view = answer.result.output.unwrap();
    assert!((1 << 21..1 << 22).contains(&view.bytes), "{} bytes", view.bytes);
    let body = json!({"tables": [{"name": "t", "csv": "a\n1\n"}], "sql": "SELECT a FROM t"});
    assert_eq!(rows(&instance.ask(body, &[]).await.unwrap()), json!([{"a": 1}]));
}
