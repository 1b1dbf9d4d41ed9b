//! What strangers send: each is answered with a sentence that names the table and the line, and the
//! service goes on.

use aisemble_protocol::ErrorCode;
use serde_json::{Value, json};

use crate::instance::{Instance, rows};

async fn refused(instance: &Instance, body: Value, files: &[(&str, &[u8])]) -> String {
    let error = instance.ask(body, files).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Unprocessable, "{error:?}");
    error.message
}

async fn still_answers(instance: &Instance) {
    let body = json!({"tables": [{"name": "t", "csv": "a\n1\n"}], "sql": "SELECT a FROM t"});
    assert_eq!(rows(&instance.ask(body, &[]).await.unwrap()), json!([{"a": 1}]));
}

#[tokio::test]
async fn malformed_tables_are_named_with_the_line() {
    let instance = Instance::serving(&[]);
    let wide = ("a,".repeat(999_999) + "a\n").into_bytes();
    let cases: [(&str, &[u8], &str); 8] = [
        ("ragged.csv", b"a,b\n1,2\n3,4,5\n", "line 3 has 3 fields, the first has 2"),
        ("latin.csv", b"a,b\n1,caf\xE9\n", "line 2 is not UTF-8 (byte 6"),
        ("nul.csv", b"a,b\n1,2\n3,\0\n", "line 3 holds a NUL byte"),
        ("utf16.csv", b"\xFF\xFEa\0,\0b\0\n\0", "UTF-16"),
        ("wide.csv", &wide, "1000000 columns; the limit is 10000"),
        ("a.parquet", b"PAR1 this is no such file PAR1", ""),
        ("a.arrow", b"ARROW1\0\0nonsense", ""),
        ("a.json", b"[{\"a\": 1}, {\"a\": ", ""),
    ];
    for (name, bytes, sentence) in cases {
        let body = json!({"tables": [{"name": "mine", "file": name}], "preview_rows": 5});
        let said = refused(&instance, body, &[(name, bytes)]).await;
        assert!(said.contains("tables[0] (mine): "), "{name}: {said}");
        assert!(said.contains(sentence), "{name}: {said}");
        assert!(!said.contains("blobs"), "{name}: {said}");
    }
    let answer = packed_bomb(&instance).await;
    assert!(answer.contains("limits."), "{answer}");
    let lossy = json!({"tables": [{"name": "t", "file": "l.csv", "options": {"lossy": true}}]});
    let answer = instance.ask(lossy, &[("l.csv", b"a\ncaf\xE9\n")]).await.unwrap();
    assert_eq!(rows(&answer), json!([{"a": "caf\u{FFFD}"}]));
    still_answers(&instance).await;
}

/// A line that unfolds to more than a query may have; the parameter of the refusal.
async fn packed_bomb(instance: &Instance) -> String {
    let line = "x".repeat(256 << 20);
    let bytes = crate::formats::packed("gzip", line.as_bytes());
    assert!(bytes.len() < 2 << 20, "{} bytes", bytes.len());
    let body = json!({
        "tables": [{"name": "t", "file": "bomb.csv.gz"}],
        "limits": {"memory_bytes": 16 << 20},
    });
    let error = instance.ask(body, &[("bomb.csv.gz", &bytes)]).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Unprocessable, "{error:?}");
    error.param.unwrap_or_default()
}

#[tokio::test]
async fn sql_reads_only_the_tables_of_its_request() {
    let instance = Instance::serving(&[]);
    for function in ["read_csv", "read_parquet", "read_ipc", "read_json", "read_ndjson"] {
        let sql = format!("SELECT * FROM {function}('/etc/passwd')");
        let body = json!({"tables": [{"name": "t", "csv": "a\n1\n"}], "sql": sql});
        let said = refused(&instance, body, &[]).await;
        assert!(said.contains(&format!("the table function {function}() is not taken")), "{said}");
    }
    let statements = [
        "CREATE TABLE u AS SELECT * FROM t",
        "DROP TABLE t",
        "DELETE FROM t",
        "TRUNCATE TABLE t",
        "INSERT INTO t VALUES (1)",
        "UPDATE t SET a = 1",
        "COPY t TO '/tmp/x'",
        "SHOW TABLES",
        "EXPLAIN DROP TABLE t",
        "EXPLAIN ANALYZE SELECT * FROM t",
        "WITH x AS (INSERT INTO t VALUES (1)) SELECT * FROM t",
        "SELECT * INTO u FROM t",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM \"/etc/passwd\"",
        "SELECT * FROM other.t",
        "SELECT load_extension('x') FROM t",
        "SELECT * FROM generate_series(1, 1000000000)",
    ];
    for sql in statements {
        let body = json!({"tables": [{"name": "t", "csv": "a\n1\n"}], "sql": sql});
        let said = refused(&instance, body, &[]).await;
        assert!(!said.contains("root:"), "{sql}: {said}");
    }
    still_answers(&instance).await;
}

#[tokio::test]
async fn nesting_and_length_end_before_the_stack_does() {
    let instance = Instance::serving(&[]);
    // As deep as the length allows, at most 10,000.
    let deep = |open: &str, close: &str| {
        let times = 10_000.min(130_000 / (open.len() + close.len()));
        format!("SELECT {}a{} FROM t", open.repeat(times), close.repeat(times))
    };
    let texts = [
        deep("(", ")"),
        deep("abs(", ")"),
        deep("- ", ""),
        deep("NOT ", ""),
        deep("CASE WHEN a THEN ", " END"),
        format!("SELECT {} FROM t", vec!["a"; 9_000].join(" + ")),
        format!("SELECT * FROM {}t{}", "(SELECT * FROM ".repeat(5000), ")".repeat(5000)),
        vec!["SELECT a FROM t"; 3_000].join(" UNION ALL "),
    ];
    for sql in texts {
        let shown: String = sql.chars().take(40).collect();
        let body = json!({"tables": [{"name": "t", "csv": "a\n1\n"}], "sql": sql});
        let said = refused(&instance, body, &[]).await;
        assert!(!said.contains("crashed"), "{shown}: {said}");
    }
    still_answers(&instance).await;
}
