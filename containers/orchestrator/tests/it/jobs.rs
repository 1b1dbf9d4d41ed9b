//! Jobs: listed, cancelled, followed, and nobody else's.

use aisemble_protocol::keys::Scope;
use reqwest::Method;
use serde_json::{Value, json};

use crate::stack::{PATH, Stack};

#[tokio::test]
async fn a_running_job_is_asked_to_stop_and_its_generation_ends() {
    let stack = Stack::start().await;
    let id = stack.submit(&json!({"prompt": "hold on"})).await;
    stack.await_state(&id, "running").await;
    let answer = stack.admin.delete(&format!("/jobs/{id}")).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    assert_eq!(answer.json["cancel_requested"], true);
    stack.peer().cancelled().await;
    stack.await_state(&id, "cancelled").await;
    let result = stack.admin.get(&format!("/jobs/{id}/result")).await;
    result.check_problem(409, "cancelled", "cancelled");
    let again = stack.admin.delete(&format!("/jobs/{id}")).await;
    assert_eq!((again.status, &again.json["state"]), (200, &json!("cancelled")));
}

#[tokio::test]
async fn a_waiting_job_is_cancelled_at_once_and_an_ended_one_cannot_be() {
    let stack = Stack::start_with(|_| {}, None).await;
    let id = stack.submit(&json!({"prompt": "a"})).await;
    let pending = stack.admin.get(&format!("/jobs/{id}/result")).await;
    pending.check_problem(409, "conflict", "no result yet: it is queued");
    assert_eq!(pending.retry_after_s(), 1);
    let answer = stack.admin.delete(&format!("/jobs/{id}")).await;
    assert_eq!((answer.status, &answer.json["state"]), (200, &json!("cancelled")));

    let stack = Stack::start().await;
    let id = stack.submit(&json!({"prompt": "a"})).await;
    stack.await_state(&id, "succeeded").await;
    let answer = stack.admin.delete(&format!("/jobs/{id}")).await;
    answer.check_problem(409, "conflict", "it is succeeded");
    assert_eq!(answer.header("x-should-retry"), Some("false"));
}

#[tokio::test]
async fn events_are_numbered_and_resume_where_the_reader_was() {
    let stack = Stack::start().await;
    let id = stack.submit(&json!({"prompt": "tell"})).await;
    let path = format!("/jobs/{id}/events");
    let all = stack.admin.events(&path, &[]).await.rest().await;
    let numbers: Vec<u64> = all.iter().map(|event| event.id.parse().unwrap()).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    let kinds: Vec<_> = all.iter().map(|event| event.name.as_str()).collect();
    assert_eq!(kinds, ["state", "state", "started", "tokens", "state"], "{all:?}");
    assert_eq!(all[2].json()["prompt_tokens"], 1);
    assert_eq!(all[3].json()["count"], 6, "five words and the end in one event");
    assert_eq!(all[4].json()["state"], "succeeded");
    let rest = stack.admin.events(&path, &[("last-event-id", "3")]).await.rest().await;
    assert_eq!(rest, all[3..]);
    let wrong = [("last-event-id", "last")];
    let answer = stack.admin.ask(Method::GET, &path, &wrong, Vec::new()).await;
    answer.check_problem(400, "invalid_request", "number");
}

#[tokio::test]
async fn events_come_live() {
    let stack = Stack::start().await;
    let id = stack.submit(&json!({"prompt": "hold on"})).await;
    let mut events = stack.admin.events(&format!("/jobs/{id}/events"), &[]).await;
    let mut started = false;
    while !started {
        started = events.next().await.unwrap().name == "started";
    }
    stack.peer().let_go(100);
    let rest = events.rest().await;
    assert_eq!(rest.last().unwrap().json()["state"], "succeeded");
}

#[tokio::test]
async fn another_key_s_jobs_are_not_there_and_an_admin_sees_all() {
    let stack = Stack::start().await;
    let [mine, theirs] = [(); 2].map(|()| stack.client(&[Scope::Llm, Scope::Jobs]));
    let made = mine.post(PATH, &[], &json!({"prompt": "a"})).await;
    let id = made.json["id"].as_str().unwrap();
    for path in ["", "/result", "/events"] {
        let answer = theirs.get(&format!("/jobs/{id}{path}")).await;
        answer.check_problem(404, "not_found", id);
    }
    theirs.delete(&format!("/jobs/{id}")).await.check_problem(404, "not_found", id);
    assert_eq!(theirs.get("/jobs").await.json["jobs"], json!([]));
    assert_eq!(mine.get("/jobs").await.json["jobs"][0]["id"], id);
    assert_eq!(stack.admin.get("/jobs").await.json["jobs"][0]["id"], id);
    assert_eq!(stack.admin.get(&format!("/jobs/{id}")).await.status, 200);
}

#[tokio::test]
async fn lists_come_in_pages_and_are_filtered() {
    let stack = Stack::start_with(|_| {}, None).await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.insert(0, stack.submit(&json!({"prompt": "a"})).await);
    }
    stack.admin.delete(&format!("/jobs/{}", ids[0])).await;
    let mut seen = Vec::new();
    let mut path = "/jobs?state=queued&kind=llm.completion&limit=3".to_owned();
    loop {
        let page = stack.admin.get(&path).await;
        assert_eq!(page.status, 200, "{}", page.text);
        let jobs = page.json["jobs"].as_array().unwrap().clone();
        seen.extend(jobs.iter().map(|job| job["id"].as_str().unwrap().to_owned()));
        let Some(cursor) = page.json["next_cursor"].as_str() else { break };
        path = format!("/jobs?state=queued&kind=llm.completion&limit=3&cursor={cursor}");
    }
    assert_eq!(seen, ids[1..], "newest first, each once");
    for (query, param) in [
        ("state=asleep", "state"),
        ("limit=0", "limit"),
        ("limit=many", "limit"),
        ("cursor=%00", "cursor"),
        ("color=red", "color"),
    ] {
        let answer = stack.admin.get(&format!("/jobs?{query}")).await;
        answer.check_problem(400, "invalid_request", param);
    }
}

#[tokio::test]
async fn a_job_is_run_as_its_options_say() {
    let stack = Stack::start().await;
    let metadata = json!({"ward": 3});
    let options = json!({"priority": "batch", "attempts_max": 1, "metadata": metadata});
    let first = stack.submit(&json!({"prompt": "die", "job": options})).await;
    let job = stack.await_state(&first, "failed").await;
    assert_eq!((&job["attempt"], &job["metadata"]), (&json!(1), &metadata));
    assert_eq!(job["priority"], "batch");
    let result = stack.admin.get(&format!("/jobs/{first}/result")).await;
    result.check_problem(503, "unavailable", "went away");
    assert_eq!(result.header("retry-after"), None, "it has ended");
    assert_eq!(result.header("x-should-retry"), Some("false"));

    let needs = json!({"prompt": "a", "job": {"needs": [first]}});
    let answer = stack.admin.post(PATH, &[], &needs).await;
    let id: &Value = &answer.json["id"];
    stack.await_state(id.as_str().unwrap(), "failed").await;

    let late = json!({"prompt": "hold", "job": {"deadline_ms": 300}});
    let id = stack.submit(&late).await;
    stack.await_state(&id, "expired").await;
    let result = stack.admin.get(&format!("/jobs/{id}/result")).await;
    result.check_problem(504, "timeout", "deadline");
}
