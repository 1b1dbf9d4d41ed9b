//! What `kill -9` of each process costs: time, and nothing else.

use std::time::Duration;

use aisemble_tests::http::Client;
use aisemble_tests::stack::Stack;
use serde_json::{Value, json};

const PATH: &str = "/ai/llm/completion";
const PATIENCE: Duration = Duration::from_secs(90);

fn long_story(tokens: u32) -> Value {
    json!({"prompt": "Once upon a time", "max_tokens": tokens, "ignore_eos": true, "seed": 3})
}

fn job(client: &Client, id: &str) -> Option<Value> {
    let answer = client.get(&format!("/jobs/{id}"));
    (answer.status == 200).then_some(answer.json)
}

fn submit_and_await_running(stack: &Stack, tokens: u32) -> String {
    let client = stack.client();
    let answer = client.post(PATH, &[], &long_story(tokens));
    assert_eq!(answer.status, 202, "{}", answer.text);
    let id = answer.json["id"].as_str().unwrap().to_owned();
    stack.eventually("the job runs", PATIENCE, || {
        job(&client, &id).filter(|job| job["state"] == "running")
    });
    id
}

fn await_success(stack: &Stack, id: &str) -> Value {
    let client = stack.client();
    stack.eventually("the job succeeds", PATIENCE, || {
        let job = job(&client, id)?;
        let state = job["state"].as_str()?.to_owned();
        assert!(!matches!(state.as_str(), "failed" | "cancelled" | "expired"), "{job}");
        (state == "succeeded").then_some(job)
    })
}

#[test]
fn killing_the_llm_retries_its_job_and_leaves_the_orchestrator_alone() {
    let stack = Stack::start(&[]);
    let id = submit_and_await_running(&stack, 900);
    let orchestrator = stack.pid("ai-semble-orchestrator").unwrap();
    let llm = stack.kill("ai-semble-llm");

    let client = stack.client();
    let refused = stack.eventually("a request is refused meanwhile", PATIENCE, || {
        let body = json!({"model": "smollm2-135m-instruct", "prompt": "a", "max_tokens": 1});
        let answer = client.post("/v1/completions", &[], &body);
        (answer.status == 503).then_some(answer)
    });
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "retry-after {wait}");
    assert_eq!(client.get("/health").status, 200);

    let job = await_success(&stack, &id);
    assert!(job["attempt"].as_u64().unwrap() >= 2, "{job}");
    assert_eq!(stack.pid("ai-semble-orchestrator"), Some(orchestrator));
    assert_ne!(stack.pid("ai-semble-llm"), Some(llm));
    assert_eq!(client.get("/ready").status, 200);
}

#[test]
fn killing_the_orchestrator_loses_no_job() {
    let stack = Stack::start(&[]);
    let id = submit_and_await_running(&stack, 600);
    let waiting: Vec<String> = (0..5)
        .map(|_| {
            let answer = stack.client().post(PATH, &[], &long_story(8));
            assert_eq!(answer.status, 202, "{}", answer.text);
            answer.json["id"].as_str().unwrap().to_owned()
        })
        .collect();
    let llm = stack.pid("ai-semble-llm");
    let old = stack.kill("ai-semble-orchestrator");
    stack.eventually("a new orchestrator", PATIENCE, || {
        stack.pid("ai-semble-orchestrator").filter(|pid| *pid != old)
    });
    for id in waiting.iter().chain([&id]) {
        await_success(&stack, id);
    }
    assert_eq!(stack.pid("ai-semble-llm"), llm, "the llm was left alone");
}
