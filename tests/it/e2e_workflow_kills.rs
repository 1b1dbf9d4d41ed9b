//! Workflows over tables and a model while processes are killed: one query's process at a given
//! step, and the orchestrator, the llm and query processes at random moments. The result is that of
//! a quiet run, and what was recorded is not computed again, by the services' own counters.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aisemble_tests::http::Client;
use aisemble_tests::stack::{Stack, signal};
use serde_json::{Value, json};

use crate::e2e_workflow::{PATIENCE, await_success, generations, rows, submit, view};

/// Rows of the table; an even number.
const ROWS: u64 = 48;
/// Kills of the run with random ones.
const KILLS: usize = 6;

/// SQL makes a table, the llm answers each row, SQL counts the answers. Each query takes long
/// enough to be met.
fn workflow() -> Value {
    let texts: String = (0..ROWS).map(|n| format!("{n},{}\n", n * n)).collect();
    let many: String = (0..3_000).map(|n| format!("{n}\n")).collect();
    let many = json!({"name": "many", "csv": format!("n\n{many}")});
    json!({"name": "kills", "steps": [
        {"id": "make", "kind": "data.process", "input": {
            "tables": [{"name": "t", "csv": format!("id,square\n{texts}")}, many],
            "sql": "SELECT t.id, t.square, w.s FROM t CROSS JOIN \
                (SELECT SUM(a.n * b.n) AS s FROM many a CROSS JOIN many b) w ORDER BY t.id",
            "output": {"format": "ndjson"}}},
        {"id": "say", "kind": "map", "input": {
            "table": {"from": "make.output"}, "as": "said", "chunk_rows": 4, "concurrency": 4,
            "step": {"kind": "llm.completion", "input": {
                "prompt": "Count on: {{id}}, {{square}},", "max_tokens": 4, "temperature": 0}}}},
        {"id": "count", "kind": "data.process", "input": {
            "tables": [{"name": "rows", "file": {"from": "say.output.file"}, "format": "ndjson"},
                many],
            "sql": "SELECT COUNT(*) AS n, COUNT(DISTINCT r.id) AS ids, SUM(r.square) AS squares, \
                MAX(w.s) AS s FROM rows r CROSS JOIN \
                (SELECT SUM(a.n * b.n) AS s FROM many a CROSS JOIN many b) w",
            "output": {"format": "parquet"}}},
    ]})
}

/// What a run gave: the rows with their answers, and the last table.
fn outcome(stack: &Stack, view: &Value) -> (Vec<Value>, Value) {
    let steps = view["steps"].as_array().unwrap();
    (rows(stack, &steps[1]["output"]["file"]), steps[2]["output"]["preview"].clone())
}

fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let all: Vec<String> = lists.collect();
    all.iter().flat_map(|list| list.split_whitespace()).filter_map(|id| id.parse().ok()).collect()
}

/// The processes of queries: children of the data processor's fork server.
fn workers(stack: &Stack) -> Vec<u32> {
    let service = stack.pid("ai-semble-data-processor");
    service.into_iter().flat_map(children).flat_map(children).collect()
}

fn state(view: &Value, step: usize) -> &str {
    view["steps"][step]["state"].as_str().unwrap_or_default()
}

/// Requests that the llm itself has counted.
fn llm_requests(client: &Client) -> f64 {
    let page = client.get("/metrics").text;
    let counted = page.lines().filter(|line| {
        line.starts_with("aisemble_service_requests_total{") && line.contains("service=\"llm\"")
    });
    counted.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

#[test]
fn a_query_killed_within_a_workflow_is_run_again_and_no_row_is() {
    let stack = Stack::with(&["llm", "data-processor"], &[]);
    let client = stack.client();
    let quiet = outcome(&stack, &await_success(&stack, &submit(&client, &workflow())));
    let asked = stack.eventually("the llm has counted them", PATIENCE, || {
        Some(llm_requests(&client)).filter(|count| *count >= ROWS as f64)
    });
    let before = generations(&stack);

    let id = submit(&client, &workflow());
    for step in [0, 2] {
        stack.eventually("its process is there and is killed", PATIENCE, || {
            let worker = workers(&stack).first().copied();
            let view = view(&stack, &id)?;
            assert_ne!(view["state"], "succeeded", "step {step} was not met: {view:#}");
            let worker = worker.filter(|_| state(&view, step) == "running")?;
            signal(worker, "KILL");
            Some(())
        });
    }
    let ended = await_success(&stack, &id);
    assert_eq!(outcome(&stack, &ended), quiet, "the same as without kills");
    for step in [0, 2] {
        let job = ended["steps"][step]["job_id"].as_str().unwrap();
        let job = client.get(&format!("/jobs/{job}")).json;
        assert_eq!(job["attempt"], 2, "{job}");
    }
    let done = generations(&stack) - before;
    assert!((done - ROWS as f64).abs() < 0.5, "{ROWS} rows, {done} generations");
    let last = stack.eventually("the llm has counted these, too", PATIENCE, || {
        Some(llm_requests(&client)).filter(|count| *count >= asked + ROWS as f64)
    });
    assert!((last - asked - ROWS as f64).abs() < 0.5, "{ROWS} rows, {} requests", last - asked);
}

#[test]
fn random_kills_of_three_services_change_nothing() {
    let stack = Stack::with(&["llm", "data-processor"], &[]);
    let client = stack.client();
    let quiet = outcome(&stack, &await_success(&stack, &submit(&client, &workflow())));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = u64::from(now.subsec_nanos()) | 1;
    let mut drawn = seed;
    let mut draw = |below: u64| {
        drawn ^= drawn << 13;
        drawn ^= drawn >> 7;
        drawn ^= drawn << 17;
        drawn % below
    };

    let id = submit(&client, &workflow());
    let mut killed: BTreeMap<&str, usize> = BTreeMap::new();
    // Rows that were recorded before the orchestrator that runs now began.
    let mut recorded = 0;
    for round in 0..KILLS {
        // A moment within the run: after so many more rows, or so much time where none are made.
        let least = progress(&stack, &id) + draw(ROWS / KILLS as u64);
        let patience = Duration::from_millis(200 + draw(1_500));
        let begun = std::time::Instant::now();
        stack.eventually("the moment has come", PATIENCE, || {
            (progress(&stack, &id) > least || begun.elapsed() > patience).then_some(())
        });
        let victim = ["ai-semble-orchestrator", "ai-semble-llm", "worker"][round % 3];
        let shown = view(&stack, &id);
        if shown.is_some_and(|view| view["state"] == "succeeded") {
            break;
        }
        if victim == "worker" {
            // There is none while the model works.
            for worker in workers(&stack) {
                signal(worker, "KILL");
                *killed.entry(victim).or_default() += 1;
            }
            continue;
        }
        if victim == "ai-semble-orchestrator" {
            let (done, made) = (progress(&stack, &id), generations(&stack));
            let left = (ROWS - recorded) as f64 + if recorded == 0 { ROWS as f64 } else { 0.0 };
            assert!(made <= left, "seed {seed}: {made} generations, {left} rows were left");
            recorded = done;
        }
        let old = stack.kill(victim);
        *killed.entry(victim).or_default() += 1;
        stack.eventually("it is back", PATIENCE, || {
            stack.pid(victim).filter(|pid| *pid != old)?;
            view(&stack, &id)
        });
    }
    let ended = await_success(&stack, &id);
    assert_eq!(outcome(&stack, &ended), quiet, "seed {seed}, killed {killed:?}");
    assert!(killed.contains_key("ai-semble-orchestrator"), "seed {seed}, killed {killed:?}");
    let (made, left) = (generations(&stack), (ROWS - recorded) as f64);
    assert!(made <= left, "seed {seed}: {made} generations by the last, {left} rows were left");
}

/// Rows that are recorded, as far as it is known.
fn progress(stack: &Stack, id: &str) -> u64 {
    let view = view(stack, id).unwrap_or_default();
    let of = |field: &str| view["steps"][1][field].clone();
    let done = of("progress")["rows_done"].as_u64().unwrap_or(0);
    if of("state") == "succeeded" { ROWS } else { done }
}
