//! Workflows, batches, schedules and queues over HTTP, with a service that counts words.

use std::time::Duration;

use aisemble_protocol::keys::Scope;
use reqwest::Method;
use serde_json::{Value, json};

use crate::stack::{Answer, Stack};

fn tickets(count: usize) -> Vec<Value> {
    (0..count).map(|n| json!({"id": n, "text": format!("ticket number {n}")})).collect()
}

fn label(table: Value) -> Value {
    json!({"id": "label", "kind": "map", "input": {"table": table, "as": "label",
        "chunk_rows": 4, "step": {"kind": "llm.completion",
            "input": {"prompt": "{{text}}", "max_tokens": 2, "temperature": 0}}}})
}

async fn submit(stack: &Stack, body: &Value) -> String {
    let answer = stack.admin.post("/workflows", &[], body).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    let id = answer.json["id"].as_str().unwrap().to_owned();
    assert_eq!(answer.header("location"), Some(format!("/workflows/{id}").as_str()));
    id
}

async fn ended(stack: &Stack, id: &str, state: &str) -> Value {
    let path = format!("/workflows/{id}");
    let done = async || {
        let state = stack.admin.get(&path).await.json["state"].clone();
        !["pending", "scheduled", "queued", "running"].iter().any(|open| state == *open)
    };
    stack.eventually(&format!("{id} ended"), done).await;
    let view = stack.admin.get(&path).await.json;
    assert_eq!(view["state"], state, "{view:#}");
    view
}

async fn rows(stack: &Stack, file: &Value) -> Vec<Value> {
    let path = format!("/files/{}/content", file.as_str().unwrap());
    let text = stack.admin.get(&path).await.text;
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn step<'v>(view: &'v Value, id: &str) -> &'v Value {
    view["steps"].as_array().unwrap().iter().find(|step| step["id"] == id).unwrap()
}

#[tokio::test]
async fn a_table_is_labelled_counted_and_reported() {
    let stack = Stack::start().await;
    let body = json!({"name": "tickets", "inputs": {"tickets": {"rows": tickets(10)}}, "steps": [
        label(json!({"from": "inputs.tickets"})),
        {"id": "counts", "kind": "reduce", "input": {"table": {"from": "label.output"},
            "op": "count", "column": "label", "by": "label"}},
        {"id": "report", "kind": "report", "input": {
            "plots": [{"table": {"from": "label.output"}, "column": "label"}]},
            "needs": ["counts"]},
    ]});
    let id = submit(&stack, &body).await;
    let view = ended(&stack, &id, "succeeded").await;
    let output = &step(&view, "label")["output"];
    assert_eq!((&output["rows"], &output["failed"]), (&json!(10), &json!(0)), "{view:#}");
    let labelled = rows(&stack, &output["file"]).await;
    let ids: Vec<_> = labelled.iter().map(|row| row["id"].as_u64().unwrap()).collect();
    assert_eq!(ids, (0..10).collect::<Vec<_>>(), "in the order of the table");
    assert!(labelled.iter().all(|row| !row["label"].as_str().unwrap().is_empty()), "{labelled:?}");
    let groups = step(&view, "counts")["output"]["rows"].as_array().unwrap().clone();
    let counted: u64 = groups.iter().map(|group| group["value"].as_u64().unwrap()).sum();
    assert_eq!(counted, 10);
    let report = &step(&view, "report")["output"];
    let markdown = report["markdown"].as_str().unwrap();
    assert!(markdown.contains("| label | map | succeeded |") && markdown.contains("<svg"));
    let events = stack.admin.events(&format!("/workflows/{id}/events"), &[]).await.rest().await;
    let told = |name: &str, state: &str| {
        events.iter().any(|event| {
            event.name == "step" && event.json()["id"] == name && event.json()["state"] == state
        })
    };
    assert!(told("label", "succeeded") && told("report", "succeeded"), "{events:?}");
    let graph = stack.admin.get(&format!("/workflows/{id}/graph")).await.text;
    assert!(graph.starts_with("flowchart") && graph.contains(":::succeeded"), "{graph}");
    let dot = stack.admin.get(&format!("/workflows/{id}/graph?format=dot")).await.text;
    assert!(dot.starts_with("digraph"), "{dot}");
    let stranger = stack.client(&[Scope::Jobs, Scope::Llm]);
    let hidden = stranger.get(&format!("/workflows/{id}")).await;
    hidden.check_problem(404, "not_found", "no workflow");
}

#[tokio::test]
async fn what_is_wrong_is_named_before_anything_runs() {
    let stack = Stack::start().await;
    let body = json!({"name": "w", "steps": [
        {"id": "a", "kind": "report", "needs": ["b"]},
        {"id": "b", "kind": "llm.completion", "input": {"prompt": "x", "temperature": 9}},
    ]});
    let checked = stack.admin.post("/workflows/validate", &[], &body).await;
    assert_eq!((checked.status, &checked.json["valid"]), (200, &json!(false)));
    assert_eq!(checked.json["faults"][0]["step"], "b");
    let refused = stack.admin.post("/workflows", &[], &body).await;
    refused.check_problem(400, "invalid_request", "step b: input.temperature");
    let good = json!({"name": "w", "steps": [label(json!({"rows": tickets(1)}))]});
    let checked = stack.admin.post("/workflows/validate", &[], &good).await;
    assert_eq!(checked.json, json!({"valid": true, "faults": [], "order": ["label"]}));
    let narrow = stack.client(&[Scope::Jobs]);
    let refused = narrow.post("/workflows", &[], &good).await;
    refused.check_problem(403, "forbidden", "scope llm");
    assert_eq!(stack.admin.get("/jobs").await.json["jobs"], json!([]), "nothing was made");
    let missing = json!({"name": "w", "steps": [
        label(json!({"file": "file-01980000-0000-7000-8000-000000000001"}))]});
    let id = submit(&stack, &missing).await;
    let view = ended(&stack, &id, "failed").await;
    let message = view["error"]["message"].as_str().unwrap();
    assert!(message.contains("step label: there is no file"), "{message}");
}

#[tokio::test]
async fn failed_rows_go_to_their_own_table() {
    let stack = Stack::start().await;
    let mut table = tickets(6);
    table[2]["text"] = json!("");
    table[4] = json!({"id": 4});
    let text: String = table.iter().map(|row| format!("{row}\n")).collect();
    let stored = stack
        .admin
        .ask(Method::POST, "/files?filename=t.ndjson&purpose=data", &[], text.into_bytes())
        .await;
    let file = json!({"file": stored.json["id"]});
    let id = submit(&stack, &json!({"name": "w", "steps": [label(file.clone())]})).await;
    let view = ended(&stack, &id, "succeeded").await;
    let output = &step(&view, "label")["output"];
    assert_eq!((&output["rows"], &output["failed"]), (&json!(4), &json!(2)), "{output:#}");
    let errors = rows(&stack, &output["errors_file"]).await;
    let numbers: Vec<_> = errors.iter().map(|row| row["row"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [2, 4]);
    assert!(errors[0]["error"]["message"].as_str().unwrap().contains("prompt is empty"));
    assert!(errors[1]["error"]["message"].as_str().unwrap().contains("no column \"text\""));
    let mut strict = label(file);
    strict["input"]["on_row_error"] = json!("fail");
    strict["on_error"] = json!("continue");
    let report = json!({"id": "report", "kind": "report", "needs": ["label"]});
    let counts = json!({"id": "counts", "kind": "reduce", "input": {
        "table": {"from": "label.output"}, "op": "count", "column": "label"}});
    let id = submit(&stack, &json!({"name": "w", "steps": [strict, counts, report]})).await;
    let view = ended(&stack, &id, "succeeded").await;
    assert_eq!(step(&view, "label")["state"], "failed");
    assert_eq!(step(&view, "counts")["state"], "skipped", "{view:#}");
    assert_eq!(step(&view, "report")["state"], "succeeded");
}

#[tokio::test]
async fn a_step_runs_only_when_it_is_to() {
    let stack = Stack::start().await;
    let body = json!({"name": "w", "inputs": {"mode": "short"}, "steps": [
        {"id": "long", "kind": "llm.completion", "input": {"prompt": "a", "max_tokens": 2},
            "when": {"from": "inputs.mode", "equals": "long"}},
        {"id": "short", "kind": "llm.completion", "input": {"prompt": {"from": "inputs.mode"},
            "max_tokens": 2}, "when": {"from": "inputs.mode", "equals": "short"}},
        {"id": "after", "kind": "llm.completion",
            "input": {"prompt": {"from": "short.output.text"}, "max_tokens": 1}},
        {"id": "lost", "kind": "llm.completion",
            "input": {"prompt": {"from": "long.output.text"}, "max_tokens": 1}},
    ]});
    let id = submit(&stack, &body).await;
    let view = ended(&stack, &id, "succeeded").await;
    let states: Vec<_> =
        view["steps"].as_array().unwrap().iter().map(|step| step["state"].clone()).collect();
    assert_eq!(json!(states), json!(["skipped", "succeeded", "succeeded", "skipped"]), "{view:#}");
}

#[tokio::test]
async fn a_cancelled_workflow_stops_all_that_it_made() {
    let stack = Stack::start().await;
    stack.admin.post("/queues/map/pause", &[], &json!({})).await;
    let body = json!({"name": "w", "steps": [label(json!({"rows": tickets(20)}))]});
    let id = submit(&stack, &body).await;
    let chunks = async || {
        let jobs = stack.admin.get("/jobs?kind=map.chunk").await.json;
        jobs["jobs"].as_array().unwrap().len() == 5
    };
    stack.eventually("five chunks wait", chunks).await;
    let queues = stack.admin.get("/queues").await.json;
    let map = queues["queues"].as_array().unwrap().iter().find(|q| q["capability"] == "map");
    assert_eq!((&map.unwrap()["paused"], &map.unwrap()["queued"]), (&json!(true), &json!(5)));
    assert_eq!(stack.admin.delete(&format!("/workflows/{id}")).await.status, 202);
    ended(&stack, &id, "cancelled").await;
    let open = async || {
        let jobs = stack.admin.get("/jobs?state=pending,scheduled,queued,running").await.json;
        jobs["jobs"].as_array().unwrap().is_empty()
    };
    stack.eventually("nothing is left", open).await;
    let again = stack.admin.delete(&format!("/workflows/{id}")).await;
    assert_eq!(again.status, 202, "cancelled is what it is: {}", again.text);
    stack.admin.post("/queues/map/resume", &[], &json!({})).await;
    let unknown = stack.admin.post("/queues/nonsense/pause", &[], &json!({})).await;
    unknown.check_problem(404, "not_found", "there is llm");
}

#[tokio::test]
async fn the_same_key_gives_the_same_workflow() {
    let stack = Stack::start().await;
    let body = json!({"name": "w", "steps": [label(json!({"rows": tickets(2)}))]});
    let key = [("idempotency-key", "once")];
    let first = stack.admin.post("/workflows", &key, &body).await;
    let second = stack.admin.post("/workflows", &key, &body).await;
    assert_eq!(first.json["id"], second.json["id"]);
    assert_eq!(second.header("idempotency-replayed"), Some("true"));
    let other = json!({"name": "other", "steps": body["steps"]});
    let refused = stack.admin.post("/workflows", &key, &other).await;
    refused.check_problem(422, "unprocessable", "different request");
}

async fn batch(stack: &Stack, lines: &[Value]) -> Answer {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let stored =
        stack.admin.ask(Method::POST, "/v1/files?purpose=batch", &[], text.into_bytes()).await;
    let body = json!({"input_file_id": stored.json["id"], "endpoint": "/v1/chat/completions",
        "completion_window": "24h", "metadata": {"ward": "3"}});
    stack.admin.post("/v1/batches", &[], &body).await
}

fn line(id: &str, content: &str) -> Value {
    json!({"custom_id": id, "method": "POST", "url": "/v1/chat/completions", "body":
        {"model": "", "messages": [{"role": "user", "content": content}], "max_tokens": 2}})
}

async fn batch_ended(stack: &Stack, id: &str) -> Value {
    let path = format!("/v1/batches/{id}");
    let open = ["validating", "in_progress", "finalizing", "cancelling"];
    let done = async || {
        let status = stack.admin.get(&path).await.json["status"].clone();
        !open.iter().any(|one| status == *one)
    };
    stack.eventually(&format!("{id} ended"), done).await;
    stack.admin.get(&path).await.json
}

#[tokio::test]
async fn a_batch_answers_each_line_as_its_route_would() {
    let stack = Stack::start().await;
    let mut wrong = line("wrong", "a");
    wrong["body"]["temperature"] = json!(9);
    let made = batch(&stack, &[line("one", "say one"), wrong, line("two", "say two")]).await;
    assert_eq!(made.status, 200, "{}", made.text);
    let id = made.json["id"].as_str().unwrap().to_owned();
    assert!(id.starts_with("batch_"));
    let ended = batch_ended(&stack, &id).await;
    assert_eq!(ended["status"], "completed", "{ended:#}");
    assert_eq!(ended["request_counts"], json!({"total": 3, "completed": 2, "failed": 1}));
    assert_eq!(ended["metadata"]["ward"], "3");
    let answers = rows(&stack, &ended["output_file_id"]).await;
    let ids: Vec<_> = answers.iter().map(|row| row["custom_id"].clone()).collect();
    assert_eq!(json!(ids), json!(["one", "two"]));
    let body = &answers[0]["response"]["body"];
    assert_eq!(
        (&body["object"], &body["usage"]["completion_tokens"]),
        (&json!("chat.completion"), &json!(2))
    );
    let errors = rows(&stack, &ended["error_file_id"]).await;
    assert_eq!(errors[0]["custom_id"], "wrong");
    assert_eq!(errors[0]["response"]["status_code"], 400);
    let message = errors[0]["response"]["body"]["error"]["message"].as_str().unwrap();
    assert!(message.contains("temperature"), "{message}");
    let list = stack.admin.get("/v1/batches?limit=1").await.json;
    assert_eq!((&list["data"][0]["id"], &list["has_more"]), (&json!(id), &json!(false)));
    let late = stack.admin.post(&format!("/v1/batches/{id}/cancel"), &[], &json!({})).await;
    assert_eq!(late.status, 409, "{}", late.text);
}

#[tokio::test]
async fn a_malformed_batch_says_which_line() {
    let stack = Stack::start().await;
    let mut other = line("b", "x");
    other["url"] = json!("/v1/embeddings");
    let made = batch(&stack, &[line("a", "x"), line("a", "x"), other]).await;
    let ended = batch_ended(&stack, made.json["id"].as_str().unwrap()).await;
    assert_eq!(ended["status"], "failed");
    let faults = ended["errors"]["data"].as_array().unwrap();
    let lines: Vec<_> = faults.iter().map(|fault| fault["line"].as_u64().unwrap()).collect();
    assert_eq!(lines, [2, 3], "{faults:?}");
    let nothing = stack.admin.get("/v1/batches/batch_00").await;
    assert_eq!(nothing.status, 404, "{}", nothing.text);
    let body = json!({"input_file_id": "file-1", "endpoint": "/v1/chat/completions",
        "completion_window": "24h"});
    assert_eq!(stack.admin.post("/v1/batches", &[], &body).await.status, 400);
}

#[tokio::test]
async fn a_cancelled_batch_keeps_what_is_done() {
    let stack = Stack::start().await;
    stack.admin.post("/queues/map/pause", &[], &json!({})).await;
    let lines: Vec<_> = (0..40).map(|n| line(&format!("l{n}"), "x")).collect();
    let made = batch(&stack, &lines).await;
    let id = made.json["id"].as_str().unwrap().to_owned();
    let waiting = async || {
        stack.admin.get(&format!("/v1/batches/{id}")).await.json["status"] == "in_progress"
    };
    stack.eventually("in progress", waiting).await;
    let chunks = async || {
        stack.admin.get("/jobs?kind=map.chunk").await.json["jobs"].as_array().unwrap().len() == 2
    };
    stack.eventually("two chunks", chunks).await;
    let cancelled = stack.admin.post(&format!("/v1/batches/{id}/cancel"), &[], &json!({})).await;
    assert_eq!(cancelled.status, 200, "{}", cancelled.text);
    let ended = batch_ended(&stack, &id).await;
    assert_eq!(ended["status"], "cancelled", "{ended:#}");
    assert_eq!(ended["request_counts"], json!({"total": 40, "completed": 0, "failed": 40}));
    let errors = rows(&stack, &ended["error_file_id"]).await;
    assert_eq!((errors.len(), &errors[0]["error"]["code"]), (40, &json!("batch_cancelled")));
}

#[tokio::test]
async fn a_restart_goes_on_where_it_was() {
    let mut stack = Stack::start().await;
    stack.admin.post("/queues/map/pause", &[], &json!({})).await;
    let body = json!({"name": "w", "steps": [label(json!({"rows": tickets(9)}))]});
    let id = submit(&stack, &body).await;
    let chunks = async || {
        stack.admin.get("/jobs?kind=map.chunk").await.json["jobs"].as_array().unwrap().len() == 3
    };
    stack.eventually("three chunks", chunks).await;
    stack.stop(Duration::from_millis(200));
    stack.ended().await;
    let stack = stack.restart().await;
    stack.admin.post("/queues/map/resume", &[], &json!({})).await;
    let view = ended(&stack, &id, "succeeded").await;
    assert_eq!(step(&view, "label")["output"]["rows"], 9, "{view:#}");
    let chunks = stack.admin.get("/jobs?kind=map.chunk").await.json;
    assert_eq!(chunks["jobs"].as_array().unwrap().len(), 3, "none was made twice");
}

#[tokio::test]
async fn schedules_are_kept_checked_and_owned() {
    let stack = Stack::start().await;
    let workflow = json!({"name": "w", "steps": [{"id": "r", "kind": "report"}]});
    let body = json!({"cron": "*/5 * * * *", "workflow": workflow, "missed": "all"});
    let made = stack.admin.post("/schedules", &[], &body).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let next = made.json["next_at_ms"].as_u64().unwrap();
    assert_eq!(next % 300_000, 0);
    let path = format!("/schedules/{}", made.json["id"].as_str().unwrap());
    let mut rests = body.clone();
    rests["paused"] = json!(true);
    let put = stack
        .admin
        .ask(Method::PUT, &path, &[("content-type", "application/json")], rests.to_string().into())
        .await;
    assert_eq!((put.status, &put.json["next_at_ms"]), (200, &Value::Null), "{}", put.text);
    let stranger = stack.client(&[Scope::Jobs]);
    stranger.get(&path).await.check_problem(404, "not_found", "no schedule");
    assert_eq!(stranger.get("/schedules").await.json["schedules"], json!([]));
    let wrong = json!({"cron": "61 * * * *", "workflow": workflow});
    let refused = stack.admin.post("/schedules", &[], &wrong).await;
    refused.check_problem(400, "invalid_request", "minute: \"61\" is not between 0 and 59");
    assert_eq!(stack.admin.delete(&path).await.status, 204);
    assert_eq!(stack.admin.get("/schedules").await.json["schedules"], json!([]));
}

#[tokio::test]
async fn a_dead_letter_is_submitted_again() {
    let stack = Stack::start().await;
    let body = json!({"name": "w", "steps": [
        label(json!({"file": "file-01980000-0000-7000-8000-000000000001"}))]});
    let id = submit(&stack, &body).await;
    ended(&stack, &id, "failed").await;
    let again = stack.admin.post(&format!("/jobs/{id}/retry"), &[], &json!({})).await;
    assert_eq!(again.status, 202, "{}", again.text);
    assert_ne!(again.json["id"], id.as_str());
    let twice = stack.admin.post(&format!("/jobs/{id}/retry"), &[], &json!({})).await;
    assert_eq!(twice.json["id"], again.json["id"], "one retry of one letter");
    let steps = stack.admin.get("/jobs?kind=workflow.step").await.json;
    let step = steps["jobs"][0]["id"].as_str().unwrap();
    let part = stack.admin.post(&format!("/jobs/{step}/retry"), &[], &json!({})).await;
    part.check_problem(409, "conflict", "a part of job");
}
