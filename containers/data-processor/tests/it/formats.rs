//! Every format in and out, compressed or not.

use aisemble_protocol::data::TableFormat;
use serde_json::json;

use crate::instance::{Instance, rows};

const CSV: &[u8] = b"name,born,height\nAda,1815-12-10,1.65\nAlan,1912-06-23,1.78\nGrace,,1.6\n";

#[tokio::test]
async fn a_table_survives_every_format() {
    let instance = Instance::serving(&[]);
    let body = |format: TableFormat| {
        json!({
            "tables": [{"name": "t", "file": "people.csv", "options": {"dates": true}}],
            "sql": "SELECT * FROM t WHERE height > 1.5",
            "output": {"format": format.as_str()},
            "preview_rows": 2,
        })
    };
    for format in TableFormat::ALL {
        let answer = instance.ask(body(format), &[("people.csv", CSV)]).await.unwrap();
        let first = json!([
            {"name": "Ada", "born": "1815-12-10", "height": 1.65},
            {"name": "Alan", "born": "1912-06-23", "height": 1.78},
        ]);
        assert_eq!(rows(&answer), first, "{format:?}");
        assert_eq!((answer.result.rows, answer.result.preview_truncated), (3, true));
        assert_eq!(answer.result.schema[1].data_type, "date");
        let path = answer.output.unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let view = answer.result.output.unwrap();
        assert_eq!((view.bytes, view.sha256), (bytes.len() as u64, instance.store(&bytes)));

        let name = format!("again.{}", format.as_str());
        let again = json!({
            "tables": [{"name": "t", "file": name, "options": {"columns": {"born": "date"}}}],
            "sql": "SELECT name, EXTRACT(year FROM born) AS year FROM t ORDER BY name",
        });
        let again = instance.ask(again, &[(&name, &bytes)]).await.unwrap();
        let years = json!([
            {"name": "Ada", "year": 1815}, {"name": "Alan", "year": 1912},
            {"name": "Grace", "year": null},
        ]);
        assert_eq!(rows(&again), years, "{format:?}");
    }
    assert_eq!(instance.outputs(), 5, "they wait for the orchestrator");
}

#[tokio::test]
async fn compressed_texts_are_read_as_they_are() {
    let instance = Instance::serving(&[]);
    for (name, tool) in [("people.csv.gz", "gzip"), ("people.csv.zst", "zstd")] {
        let packed = packed(tool, CSV);
        let body = json!({
            "tables": [{"name": "t", "file": name}], "sql": "SELECT COUNT(*) AS n FROM t",
        });
        let answer = instance.ask(body, &[(name, &packed)]).await.unwrap();
        assert_eq!(rows(&answer), json!([{"n": 3}]), "{name}");
    }
}

pub(crate) fn packed(tool: &str, bytes: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    use std::process::{Command, Stdio};
    let mut child = Command::new(tool)
        .arg("-c")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{tool} is needed: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    // It may write before it has read all.
    std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(bytes).unwrap());
        child.wait_with_output().unwrap().stdout
    })
}

#[tokio::test]
async fn a_table_is_profiled() {
    let instance = Instance::serving(&[]);
    let mut csv = "n,word\n".to_owned();
    for n in 0..100 {
        csv.push_str(&format!("{n},{}\n", if n % 4 == 0 { "" } else { ["a", "b"][n % 2] }));
    }
    let body = json!({"tables": [{"name": "t", "csv": csv}], "profile": true});
    let profile = instance.ask(body, &[]).await.unwrap().result.profile.unwrap();
    let (n, word) = (&profile[0], &profile[1]);
    assert_eq!((n.count, n.nulls, n.mean), (100, 0, Some(49.5)));
    assert_eq!((n.min.clone(), n.max.clone()), (Some(json!(0)), Some(json!(99))));
    assert_eq!(n.histogram.iter().map(|bin| bin.count).sum::<u64>(), 100);
    let median = n.quantiles.iter().find(|quantile| quantile.q == 0.5).unwrap();
    assert!((median.value - 49.5).abs() < 1e-9);
    assert_eq!((word.count, word.nulls, word.distinct), (75, 25, Some(2)));
    let top: Vec<_> = word.top.iter().map(|top| (top.value.clone(), top.count)).collect();
    assert_eq!(top, [(json!("b"), 50), (json!("a"), 25)]);
}
