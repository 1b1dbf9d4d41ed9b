//! Which requests are taken, and what is said of those that are not.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Blob, Operation, ProcessRequest, TableFormat};
use crate::{ErrorCode, v1};

fn refused(change: Value, param: &str, sentence: &str) {
    let mut body = json!({"tables": [{"name": "t", "rows": [{"a": 1}]}]});
    for (key, value) in change.as_object().unwrap() {
        body[key] = value.clone();
    }
    let request: ProcessRequest = serde_json::from_value(body).unwrap();
    let error = request.validate().unwrap_err();
    assert_eq!(error.param.as_deref(), Some(param), "{}", error.message);
    assert!(error.message.contains(sentence), "{}", error.message);
}

#[test]
fn each_wrong_field_is_named_with_its_limit() {
    refused(json!({"tables": []}), "tables", "between 1 and 64");
    refused(json!({"tables": [{"name": "a b", "csv": "x"}]}), "tables[0].name", "a letter or _");
    refused(json!({"tables": [{"name": "t"}]}), "tables[0]", "exactly one of rows, csv and file");
    let twice = json!([{"name": "t", "csv": "x"}, {"name": "T", "csv": "x"}]);
    refused(json!({ "tables": twice }), "tables[1].name", "another table");
    let delimiter = json!([{"name": "t", "csv": "x", "options": {"delimiter": "ab"}}]);
    refused(json!({ "tables": delimiter }), "tables[0].options.delimiter", "one ASCII");
    refused(json!({"sql": ""}), "sql", "empty");
    refused(json!({"sql": "x".repeat(200_000)}), "sql", "the limit is 131072");
    refused(json!({"sql": "SELECT 1", "pipeline": []}), "pipeline", "not both");
    refused(json!({"from": "u"}), "from", "not in tables");
    refused(json!({"preview_rows": 1001}), "preview_rows", "at most 1000");
    refused(json!({"limits": {"wall_ms": 0}}), "limits.wall_ms", "between 1 and");
    for name in ["", ".", "..", "a/b", "a\u{0}b"] {
        let output = json!({"output": {"format": "csv", "name": name}});
        refused(output, "output.name", "without a path");
    }
}

#[test]
fn each_wrong_operation_is_named_with_its_place() {
    let cases = [
        (json!({"op": "select", "columns": []}), "pipeline[0].columns"),
        (json!({"op": "filter", "where": ""}), "pipeline[0].where"),
        (json!({"op": "group_by", "by": [], "aggregate": []}), "pipeline[0].aggregate"),
        (json!({"op": "join", "table": "u", "on": ["a"]}), "pipeline[0].table"),
        (json!({"op": "join", "table": "t"}), "pipeline[0]"),
        (json!({"op": "join", "table": "t", "how": "cross", "on": ["a"]}), "pipeline[0]"),
        (json!({"op": "sample"}), "pipeline[0]"),
        (json!({"op": "sample", "fraction": 1.5}), "pipeline[0].fraction"),
        (json!({"op": "fill_null", "with": {"value": []}}), "pipeline[0].with"),
        (
            json!({"op": "temporal", "column": "a", "function": {"name": "offset", "by": "x"}}),
            "pipeline[0].function",
        ),
    ];
    for (operation, param) in cases {
        refused(json!({ "pipeline": [operation] }), param, "");
    }
}

#[test]
fn an_unknown_field_or_operation_is_refused_by_name() {
    for (text, word) in [
        (r#"{"op":"filter","where":"a","wher":1}"#, "wher"),
        (r#"{"op":"read_csv","path":"/etc/passwd"}"#, "read_csv"),
    ] {
        let error = serde_json::from_str::<Operation>(text).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn a_file_becomes_its_blob_and_its_name_tells_the_format() {
    let request: ProcessRequest = serde_json::from_value(json!({
        "tables": [{"name": "t", "file": "file-1"}],
        "output": {"format": "parquet"},
    }))
    .unwrap();
    let blob = |name: &str| Blob { sha256: "ab".repeat(32), name: name.to_owned() };
    let send = |name| request.to_process(&BTreeMap::from([("file-1".to_owned(), blob(name))]));
    let sent = send("flights.TSV.gz").unwrap();
    assert_eq!((sent.tables[0].format.as_str(), sent.output_format.as_str()), ("csv", "parquet"));
    assert!(sent.tables[0].options_json.contains(r#""delimiter":"\t""#));
    assert_eq!(sent.tables[0].source, Some(v1::table::Source::Blob("ab".repeat(32))));
    assert_eq!(send("table.xlsx").unwrap_err().param.as_deref(), Some("tables[0].format"));
    let unknown = request.to_process(&BTreeMap::new()).unwrap_err();
    assert_eq!(unknown.code, ErrorCode::NotFound);
    for format in TableFormat::ALL {
        assert_eq!(TableFormat::parse(format.as_str()), Some(format));
        assert_eq!(TableFormat::of_name(&format!("a.{}", format.as_str())), Some(format));
        assert_eq!(serde_json::to_value(format).unwrap(), format.as_str());
    }
}

proptest! {
    #[test]
    fn whatever_is_sent_is_taken_or_refused(
        name in ".{0,16}", sql in proptest::option::of(".{0,64}"),
        columns in proptest::collection::vec(".{0,16}", 0..4), rows in any::<Option<u32>>(),
    ) {
        let body = json!({
            "tables": [{"name": name, "csv": "a"}], "sql": sql, "preview_rows": rows,
            "pipeline": [{"op": "select", "columns": columns}],
        });
        let request: ProcessRequest = serde_json::from_value(body).unwrap();
        let taken = request.to_process(&BTreeMap::new());
        prop_assert_eq!(taken.is_ok(), request.validate().is_ok());
    }
}
