//! Workflows that go on where an earlier run was: what it finished is taken over, and the service
//! is asked only for the rest, by its own count.

use aisemble_protocol::keys::Scope;
use serde_json::{Value, json};

use crate::stack::Stack;

/// A label for each row, in one chunk, row after row.
fn label(rows: Value) -> Value {
    json!({"id": "label", "kind": "map", "input": {"table": {"rows": rows}, "as": "label",
        "chunk_rows": 100, "concurrency": 1, "on_row_error": "fail",
        "step": {"kind": "llm.completion",
            "input": {"prompt": "{{text}}", "max_tokens": 2, "temperature": 0}}}})
}

fn table(count: usize) -> Value {
    (0..count).map(|n| json!({"id": n, "text": format!("ticket number {n}")})).collect()
}

async fn run(stack: &Stack, body: &Value) -> Value {
    let answer = stack.admin.post("/workflows", &[], body).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    over(stack, answer.json["id"].as_str().unwrap()).await
}

async fn over(stack: &Stack, id: &str) -> Value {
    let path = format!("/workflows/{id}");
    let done = async || {
        let state = stack.admin.get(&path).await.json["state"].clone();
        ["succeeded", "failed", "cancelled"].iter().any(|end| state == *end)
    };
    stack.eventually(&format!("{id} ended"), done).await;
    stack.admin.get(&path).await.json
}

#[tokio::test]
async fn a_retry_keeps_finished_steps_and_a_changed_input_does_not() {
    let stack = Stack::start().await;
    let body = |file: Value| {
        json!({"name": "w", "inputs": {"other": {"file": file}}, "steps": [
            label(table(6)),
            {"id": "count", "kind": "reduce", "needs": ["label"], "input": {
                "table": {"from": "inputs.other"}, "op": "count", "column": "a"}},
        ]})
    };
    let first = run(&stack, &body(json!("file-01980000-0000-7000-8000-000000000001"))).await;
    assert_eq!((&first["state"], stack.peer().calls()), (&json!("failed"), 6), "{first:#}");

    let path = format!("/jobs/{}/retry", first["id"].as_str().unwrap());
    let again = stack.admin.post(&path, &[], &json!({})).await;
    assert_eq!(again.status, 202, "{}", again.text);
    let again = over(&stack, again.json["id"].as_str().unwrap()).await;
    assert_eq!((&again["state"], stack.peer().calls()), (&json!("failed"), 6), "{again:#}");
    assert_eq!(again["steps"][0]["kept_from"], first["steps"][0]["job_id"], "{again:#}");
    assert_eq!(again["steps"][0]["output"], first["steps"][0]["output"]);

    let stored = stack
        .admin
        .ask(reqwest::Method::POST, "/files?filename=t.csv&purpose=data", &[], b"a\n1\n2\n".into())
        .await;
    let mut mended = body(stored.json["id"].clone());
    mended["continue_from"] = again["id"].clone();
    let last = run(&stack, &mended).await;
    assert_eq!((&last["state"], stack.peer().calls()), (&json!("succeeded"), 6), "{last:#}");
    assert_eq!(last["steps"][0]["kept_from"], first["steps"][0]["job_id"], "a retry of a retry");
    assert_eq!(last["steps"][1]["output"]["value"], 2);
    assert_eq!(last["steps"][1]["kept_from"], Value::Null);

    // A file of the kept step is gone: then it is computed again.
    let file = last["steps"][0]["output"]["file"].as_str().unwrap();
    assert_eq!(stack.admin.delete(&format!("/files/{file}")).await.status, 200);
    mended["continue_from"] = last["id"].clone();
    let anew = run(&stack, &mended).await;
    assert_eq!(anew["state"], "succeeded", "{anew:#}");
    assert_eq!(anew["steps"][0]["kept_from"], Value::Null);
    assert_eq!(stack.peer().calls(), 6, "but its rows are still there");
}

#[tokio::test]
async fn rows_that_have_an_answer_are_not_asked_again() {
    let stack = Stack::start().await;
    let mut rows = table(12);
    rows[5]["text"] = json!("");
    let first = run(&stack, &json!({"name": "w", "steps": [label(rows)]})).await;
    assert_eq!((&first["state"], stack.peer().calls()), (&json!("failed"), 5), "{first:#}");
    let id = first["id"].as_str().unwrap();
    let mended = json!({"name": "w", "steps": [label(table(12))], "continue_from": id});
    let second = run(&stack, &mended).await;
    assert_eq!(second["state"], "succeeded", "{second:#}");
    assert_eq!(second["steps"][0]["output"]["rows"], 12);
    assert_eq!(stack.peer().calls(), 12, "five were there, seven were asked for");
}

#[tokio::test]
async fn only_an_own_run_that_is_over_is_continued() {
    let stack = Stack::start().await;
    let body = json!({"name": "w", "steps": [label(table(2))]});
    let done = run(&stack, &body).await;
    let continuing = |id: &Value| {
        let mut next = body.clone();
        next["continue_from"] = id.clone();
        next
    };
    let stranger = stack.client(&[Scope::Jobs, Scope::Llm]);
    let refused = stranger.post("/workflows", &[], &continuing(&done["id"])).await;
    refused.check_problem(404, "not_found", "there is no workflow");
    stack.admin.post("/queues/map/pause", &[], &json!({})).await;
    let open = stack.admin.post("/workflows", &[], &body).await.json;
    let refused = stack.admin.post("/workflows", &[], &continuing(&open["id"])).await;
    refused.check_problem(409, "conflict", "has not ended");
    let schedule = json!({"cron": "@daily", "workflow": continuing(&done["id"])});
    let refused = stack.admin.post("/schedules", &[], &schedule).await;
    refused.check_problem(400, "invalid_request", "continues no earlier run");
    let step = done["steps"][0]["job_id"].clone();
    let refused = stack.admin.post("/workflows", &[], &continuing(&step)).await;
    refused.check_problem(404, "not_found", "there is no workflow");
}

#[tokio::test]
async fn what_cannot_run_is_refused_whole_and_names_its_step() {
    let stack = Stack::start().await;
    let check = async |steps: Value, sentence: &str| {
        let body = json!({"name": "w", "steps": steps});
        let refused = stack.admin.post("/workflows", &[], &body).await;
        refused.check_problem(400, "invalid_request", sentence);
    };
    let report = |id: &str, needs: &str| json!({"id": id, "kind": "report", "needs": [needs]});
    check(json!([report("a", "b"), report("b", "c"), report("c", "a")]), "wait for each other")
        .await;
    check(json!([report("a", "a")]), "wait for each other: a").await;
    check(json!([report("a", "nobody")]), "\"nobody\"").await;
    let mut lost = label(json!([]));
    lost["input"]["table"] = json!({"from": "ghost.output"});
    check(json!([lost]), "no step \"ghost\"").await;
    check(json!([label(json!([{"id": 1}]))]), "no column \"text\"").await;
    assert_eq!(stack.admin.get("/jobs").await.json["jobs"], json!([]), "nothing was made");

    // Of a file it is known only when it is read.
    for (name, content, sentence) in [
        ("t.csv", &b"id,body\n1,x\n"[..], "no column \"text\""),
        ("t.csv", b"id,text\n1,a,b\n", "line: 2"),
        ("t.csv", b"id,text\n1,caf\xE9\n", "UTF-8"),
        ("t.ndjson", b"{\"text\": \"a\"}\n{\"text\": ", "row 1 of the table"),
    ] {
        let path = format!("/files?filename={name}&purpose=data");
        let stored = stack.admin.ask(reqwest::Method::POST, &path, &[], content.into()).await;
        let mut map = label(json!([]));
        map["input"]["table"] = json!({"file": stored.json["id"]});
        let view = run(&stack, &json!({"name": "w", "steps": [map]})).await;
        let message = view["error"]["message"].as_str().unwrap_or_default();
        assert!(message.contains("step label: ") && message.contains(sentence), "{view:#}");
    }
}
