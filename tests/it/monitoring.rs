//! The monitoring files ask only for figures that the orchestrator documents, and a figure that is
//! renamed there fails here.

use std::collections::BTreeSet;
use std::fs;

use aisemble_tests::repository_root;

/// Names in a text that look like one of our figures, less the suffixes that Prometheus adds.
fn figures(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("aisemble_") || word.starts_with("process_"))
        .map(|word| {
            let stem = word.strip_suffix("_bucket");
            stem.or_else(|| word.strip_suffix("_count")).unwrap_or(word).to_owned()
        })
        .collect()
}

/// The first column of the table in docs/metrics.md.
fn documented() -> BTreeSet<String> {
    let page = fs::read_to_string(repository_root().join("docs/metrics.md")).unwrap();
    page.lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next().map(str::to_owned))
        .collect()
}

fn check(file: &str, at_least: usize) {
    let path = repository_root().join("configs/monitoring").join(file);
    let asked = figures(&fs::read_to_string(path).unwrap());
    assert!(asked.len() >= at_least, "{file} names only {asked:?}");
    let unknown: Vec<_> = asked.difference(&documented()).cloned().collect();
    assert!(unknown.is_empty(), "{file} asks for figures that do not exist: {unknown:?}");
}

#[test]
fn alerts_ask_for_documented_figures() {
    check("ai-semble-alerts.yml", 10);
}

#[test]
fn the_dashboard_asks_for_documented_figures() {
    check("grafana-dashboard.json", 15);
}

#[test]
fn the_dashboard_is_json_with_a_panel_for_each_query() {
    let path = repository_root().join("configs/monitoring/grafana-dashboard.json");
    let board: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    for panel in board["panels"].as_array().unwrap() {
        let has_queries = panel["targets"].as_array().is_some_and(|targets| !targets.is_empty());
        assert_eq!(has_queries, panel["type"] != "row", "{}", panel["title"]);
    }
}
