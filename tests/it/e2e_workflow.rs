//! Workflows end to end with the real model: a public table labelled row by row, the same with
//! processes killed in the middle, and a batch through the store's own lines.

use std::collections::BTreeSet;
use std::time::Duration;

use aisemble_tests::http::Client;
use aisemble_tests::repository_root;
use aisemble_tests::stack::{MODEL, Stack};
use serde_json::{Value, json};

pub(crate) const PATIENCE: Duration = Duration::from_secs(240);

pub(crate) fn example(name: &str) -> Value {
    let path = repository_root().join("configs/examples").join(name);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Uploads the table of reviews and gives its id.
fn upload(client: &Client) -> String {
    let table = std::fs::read(repository_root().join("configs/examples/reviews.csv")).unwrap();
    let headers = [("content-type", "text/csv")];
    let answer = client.send("POST", "/files?filename=reviews.csv&purpose=data", &headers, &table);
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json["id"].as_str().unwrap().to_owned()
}

/// The ticket example over an uploaded table, its first step alone when `steps` is 1.
fn tickets(file: &str, steps: usize) -> Value {
    let mut workflow = example("tickets.json");
    workflow["inputs"]["table"]["file"] = json!(file);
    workflow["steps"].as_array_mut().unwrap().truncate(steps);
    workflow["steps"][0]["input"]["chunk_rows"] = json!(8);
    workflow
}

pub(crate) fn submit(client: &Client, workflow: &Value) -> String {
    let answer = client.post("/workflows", &[], workflow);
    assert_eq!(answer.status, 202, "{}", answer.text);
    answer.json["id"].as_str().unwrap().to_owned()
}

pub(crate) fn view(stack: &Stack, id: &str) -> Option<Value> {
    let answer = stack.client().get(&format!("/workflows/{id}"));
    (answer.status == 200).then_some(answer.json)
}

pub(crate) fn await_success(stack: &Stack, id: &str) -> Value {
    stack.eventually("the workflow succeeds", PATIENCE, || {
        let view = view(stack, id)?;
        let state = view["state"].as_str()?;
        assert!(!matches!(state, "failed" | "cancelled" | "expired"), "{view:#}");
        (state == "succeeded").then_some(view.clone())
    })
}

pub(crate) fn rows(stack: &Stack, file: &Value) -> Vec<Value> {
    let text = stack.client().get(&format!("/files/{}/content", file.as_str().unwrap())).text;
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Completions that the orchestrator has seen to their end, by its own counter.
pub(crate) fn generations(stack: &Stack) -> f64 {
    let page = stack.client().get("/metrics").text;
    let counted = page.lines().filter(|line| {
        line.starts_with("aisemble_generations_total")
            && (line.contains("outcome=\"stop\"") || line.contains("outcome=\"length\""))
    });
    counted.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

#[test]
fn a_public_table_is_labelled_counted_summarised_and_reported() {
    let stack = Stack::start(&[]);
    let client = stack.client();
    let before = generations(&stack);
    let id = submit(&client, &tickets(&upload(&client), 99));
    let view = await_success(&stack, &id);
    let steps = view["steps"].as_array().unwrap();
    let output = &steps[0]["output"];
    assert_eq!((&output["rows"], &output["failed"]), (&json!(60), &json!(0)), "{view:#}");
    let labelled = rows(&stack, &output["file"]);
    let ids: BTreeSet<_> = labelled.iter().map(|row| row["id"].to_string()).collect();
    assert_eq!(ids.len(), 60);
    let counts = steps[1]["output"]["rows"].as_array().unwrap();
    let counted: u64 = counts.iter().map(|group| group["value"].as_u64().unwrap()).sum();
    assert_eq!(counted, 60, "{counts:?}");
    let report = steps[4]["output"]["markdown"].as_str().unwrap();
    assert!(report.contains("| mood | map | succeeded |") && report.contains("<svg"), "{report}");
    let done = generations(&stack) - before;
    assert!((done - 61.0).abs() < 0.5, "60 rows and a summary, not {done}");
}

#[test]
fn a_map_survives_kills_with_the_same_result_and_no_row_twice() {
    let stack = Stack::start(&[]);
    let client = stack.client();
    let file = upload(&client);
    let quiet = await_success(&stack, &submit(&client, &tickets(&file, 1)));
    let expected = rows(&stack, &quiet["steps"][0]["output"]["file"]);

    let id = submit(&client, &tickets(&file, 1));
    let mut recorded = 0;
    for (round, name) in ["ai-semble-orchestrator", "ai-semble-llm", "ai-semble-orchestrator"]
        .into_iter()
        .enumerate()
    {
        let least = 8 * (round as u64 + 1);
        stack.eventually("some rows are done", PATIENCE, || {
            let view = view(&stack, &id)?;
            let done = view["steps"][0]["progress"]["rows_done"].as_u64().unwrap_or(0);
            let over = view["state"] == "succeeded";
            (done >= least || over).then_some(())
        });
        let old = stack.kill(name);
        stack.eventually("it is back", PATIENCE, || {
            stack.pid(name).filter(|pid| *pid != old)?;
            view(&stack, &id)
        });
        recorded = least;
    }
    let view = await_success(&stack, &id);
    let output = &view["steps"][0]["output"];
    assert_eq!(rows(&stack, &output["file"]), expected, "the same as without kills");
    // What the last orchestrator computed is at most what had not been recorded before it began.
    let computed = generations(&stack);
    let left = 60.0 - recorded as f64;
    assert!(computed <= left, "{computed} rows computed; {left} were left");
}

#[test]
fn a_batch_keeps_its_lines_through_a_kill() {
    let stack = Stack::start(&[]);
    let client = stack.client();
    let lines: String = (0..24)
        .map(|number| {
            let body = json!({"model": MODEL, "prompt": format!("Count: {number},"),
                "max_tokens": 4, "temperature": 0});
            format!(
                "{}\n",
                json!({"custom_id": format!("line-{number}"), "method": "POST",
                    "url": "/v1/completions", "body": body})
            )
        })
        .collect();
    let headers = [("content-type", "application/jsonl")];
    let stored = client.send("POST", "/v1/files?purpose=batch", &headers, lines.as_bytes());
    let body = json!({"input_file_id": stored.json["id"], "endpoint": "/v1/completions",
        "completion_window": "24h"});
    let made = client.post("/v1/batches", &[], &body);
    assert_eq!(made.status, 200, "{}", made.text);
    let path = format!("/v1/batches/{}", made.json["id"].as_str().unwrap());
    stack.eventually("some lines are done", PATIENCE, || {
        let batch = stack.client().get(&path).json;
        batch["request_counts"]["completed"].as_u64().filter(|done| *done >= 2)
    });
    stack.kill("ai-semble-orchestrator");
    let ended = stack.eventually("the batch completes", PATIENCE, || {
        let answer = stack.client().get(&path);
        let status = answer.json["status"].as_str()?.to_owned();
        assert!(!matches!(status.as_str(), "failed" | "cancelled" | "expired"), "{}", answer.text);
        (status == "completed").then_some(answer.json)
    });
    assert_eq!(ended["request_counts"], json!({"total": 24, "completed": 24, "failed": 0}));
    let answers = rows(&stack, &ended["output_file_id"]);
    let ids: Vec<_> = answers.iter().map(|row| row["custom_id"].clone()).collect();
    let expected: Vec<_> = (0..24).map(|number| json!(format!("line-{number}"))).collect();
    assert_eq!(ids, expected, "in order, each once");
}
