//! Documents that are made from the code say what the code says. `AISEMBLE_UPDATE=1` writes them
//! anew.

use std::path::PathBuf;

use aisemble_orchestrator::http::{access_table, openapi_document};
use aisemble_orchestrator::metrics::{docs, families};
use serde_json::{Value, json};

use crate::stack::{PATH, Stack};

fn check(name: &str, made: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name);
    if std::env::var_os("AISEMBLE_UPDATE").is_some() {
        std::fs::write(&path, made).unwrap();
    }
    let checked_in = std::fs::read_to_string(&path).unwrap_or_default();
    let same = checked_in == made;
    assert!(same, "docs/{name} is out of date: AISEMBLE_UPDATE=1 writes it anew");
}

#[test]
fn the_openapi_document_is_checked_in() {
    check("openapi.json", &openapi_document());
}

#[test]
fn the_metrics_document_is_checked_in() {
    check("metrics.md", &docs::markdown());
}

#[test]
fn the_openapi_document_has_the_routes_of_the_table_and_their_scopes() {
    use aisemble_orchestrator::http::Access;
    let document: Value = serde_json::from_str(&openapi_document()).unwrap();
    let mut described: Vec<(String, String)> = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        described.extend(methods.as_object().unwrap().keys().map(|m| (path.clone(), m.clone())));
    }
    for (method, path, access) in access_table() {
        let method = method.as_str().to_lowercase();
        let operation = &document["paths"][path][&method];
        assert!(operation.is_object(), "{method} {path} is not described");
        let expected = match access {
            Access::Open => Value::Null,
            Access::AnyKey | Access::Browser => json!([{"key": []}]),
            Access::Key(scope) => json!([{"key": [scope.as_str()]}]),
        };
        assert_eq!(operation["security"], expected, "{method} {path}");
        described.retain(|(p, m)| (p.as_str(), m) != (path, &method));
    }
    assert_eq!(described, [], "described, but not there");
}

#[tokio::test]
async fn the_document_is_served() {
    let stack = Stack::start().await;
    assert_eq!(stack.admin.get("/openapi.json").await.text, openapi_document());
}

#[tokio::test]
async fn the_metrics_page_has_what_the_table_says_and_nothing_else() {
    let stack = Stack::start().await;
    let body = json!({"prompt": "tell a story", "max_tokens": 3});
    let answer = stack.admin.post(PATH, &[("prefer", "wait=20")], &body).await;
    assert_eq!(answer.status, 200);
    let page = stack.admin.get("/metrics").await;
    assert_eq!(page.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let types: Vec<(&str, &str)> = page
        .text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .collect();
    for (name, kind) in &types {
        let family = families::ALL.iter().find(|family| family.name == *name);
        assert_eq!(family.map(|family| family.kind.as_str()), Some(*kind), "{name}");
    }
    // Seen only after an error, after a second look, or after a call to another service.
    let late = [
        "aisemble_errors_total",
        "aisemble_batch_size",
        "aisemble_calls_total",
        "aisemble_call_duration_seconds",
    ];
    // And those of a GPU where a service reports one (metrics::gpu's own tests).
    let is_there = |name: &str| !late.contains(&name) && !name.starts_with("aisemble_gpu_");
    for family in families::ALL.iter().filter(|family| is_there(family.name)) {
        let count = types.iter().filter(|(name, _)| *name == family.name).count();
        assert_eq!(count, 1, "{} in\n{}", family.name, page.text);
    }
    for sample in [
        "aisemble_tokens_total{model=\"counting-words\",type=\"output\"} 3",
        "aisemble_generations_total{model=\"counting-words\",outcome=\"length\"} 1",
        "aisemble_time_to_first_token_seconds_count{model=\"counting-words\"} 1",
        "aisemble_inter_token_latency_seconds_count{model=\"counting-words\"} 2",
        "aisemble_job_events_total{event=\"succeeded\"} 1",
        "aisemble_service_ready{service=\"llm\",instance=\"llm\"} 1",
        "aisemble_sandbox{process=\"llm\",control=\"seccomp_mode\"} 2",
    ] {
        assert!(page.text.contains(&format!("{sample}\n")), "{sample} is not in\n{}", page.text);
    }
    let usage = page.text.lines().find(|line| line.starts_with("gen_ai_client_token_usage_sum"));
    let usage = usage.unwrap();
    assert!(usage.contains("gen_ai_operation_name=\"text_completion\""), "{usage}");
}
