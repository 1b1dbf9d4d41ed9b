//! Work on texts: every task as a job, followed item by item, waited for, retried, cancelled; and
//! the routes of other servers that keep no job.

use aisemble_orchestrator::capability::Capability;
use aisemble_protocol::keys::Scope;
use serde_json::{Value, json};

use crate::services::vector;
use crate::stack::Stack;

const EMBED: &str = "/ai/nlp/embed";

async fn stack() -> Stack {
    Stack::of(&[Capability::Nlp]).await
}

#[tokio::test]
async fn every_task_is_a_job_and_its_result_says_which() {
    let stack = stack().await;
    let texts = json!({"texts": ["one", "three"]});
    let query = json!({"query": "q", "documents": ["one", "three"]});
    let check = async |task: &str, body: &Value, path: &str, expected: Value| {
        let answer = stack.admin.post(&format!("/ai/nlp/{task}"), &[], body).await;
        assert_eq!(answer.status, 202, "{task}: {}", answer.text);
        let id = answer.json["id"].as_str().unwrap().to_owned();
        assert_eq!(answer.json["kind"], format!("nlp.{task}"));
        assert_eq!(answer.header("location"), Some(format!("/jobs/{id}").as_str()));
        stack.await_state(&id, "succeeded").await;
        let result = stack.admin.get(&format!("/jobs/{id}/result")).await;
        assert_eq!(result.json["job_id"], id, "{}", result.text);
        assert_eq!(result.json.pointer(path), Some(&expected), "{task}: {}", result.text);
    };
    check("embed", &texts, "/results/1/embedding", json!([5.0, 1.0])).await;
    check("rerank", &query, "/results/0", json!({"index": 1, "score": 5.0, "windows": 1})).await;
    check("classify", &texts, "/results/0/labels/0/label", json!("good")).await;
    check("entities", &texts, "/results/1/entities/0/end", json!(5)).await;
    check("redact", &json!({"texts": "two"}), "/results/0/text", json!("[WORD]")).await;
    let sparse = json!({"texts": "a", "representation": "sparse"});
    check("embed", &sparse, "/results/0/sparse", json!([{"index": 7, "value": 0.5}])).await;
    check("embed", &sparse, "/model", json!("splade")).await;
}

#[tokio::test]
async fn a_waited_for_task_answers_with_its_result() {
    let stack = stack().await;
    let body = json!({"texts": "four", "model": "mini"});
    let answer = stack.admin.post(EMBED, &[("prefer", "wait=20")], &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.header("preference-applied"), Some("wait=20"));
    assert_eq!(answer.json["results"][0]["embedding"], json!(vector(4)));
    assert_eq!(answer.json["usage"], json!({"tokens": 3, "windows": 1}));
    assert_eq!(answer.json["model"], "mini");
}

#[tokio::test]
async fn items_come_as_they_are_done() {
    let stack = stack().await;
    let body = json!({"texts": ["hold", "it"]});
    let accept = [("accept", "text/event-stream")];
    let mut events = stack.admin.post_events(EMBED, &accept, &body).await;
    assert_eq!(events.next().await.unwrap().name, "job");
    // The service's word that it has begun is a part, too.
    stack.service(Capability::Nlp).let_go(2);
    let item = events.next().await.unwrap();
    assert_eq!((item.name.as_str(), &item.json()["index"]), ("item", &json!(0)));
    assert_eq!(item.json()["embedding"], json!(vector(4)));
    stack.service(Capability::Nlp).let_go(1);
    let rest = events.rest().await;
    let names: Vec<&str> = rest.iter().map(|event| event.name.as_str()).collect();
    let without_progress: Vec<_> = names.into_iter().filter(|name| *name != "progress").collect();
    assert_eq!(without_progress, ["item", "result"]);
    assert_eq!(rest.last().unwrap().json()["results"][1]["embedding"], json!(vector(2)));
}

#[tokio::test]
async fn a_service_that_dies_in_the_middle_costs_an_attempt_and_nothing_else() {
    let stack = stack().await;
    let body = json!({"texts": ["die", "once"], "stream": true});
    let events = stack.admin.post_events(EMBED, &[], &body).await.rest().await;
    let result = events.last().unwrap();
    assert_eq!(result.name, "result", "{events:?}");
    assert_eq!(result.json()["results"].as_array().unwrap().len(), 2);
    let id = result.json()["job_id"].as_str().unwrap().to_owned();
    let job = stack.admin.get(&format!("/jobs/{id}")).await.json;
    assert_eq!((&job["state"], &job["attempt"]), (&json!("succeeded"), &json!(2)));
    assert_eq!(stack.service(Capability::Nlp).calls(), 2);
}

#[tokio::test]
async fn a_cancelled_job_ends_in_the_service_too() {
    let stack = stack().await;
    let answer = stack.admin.post(EMBED, &[], &json!({"texts": ["hold", "on"]})).await;
    let id = answer.json["id"].as_str().unwrap();
    stack.await_state(id, "running").await;
    let service = stack.service(Capability::Nlp);
    stack
        .eventually("called", async || {
            stack.admin.get("/health").await;
            service.calls() == 1
        })
        .await;
    assert_eq!(stack.admin.delete(&format!("/jobs/{id}")).await.status, 202);
    service.cancelled().await;
    stack.await_state(id, "cancelled").await;
}

#[tokio::test]
async fn a_trace_goes_on_to_the_service() {
    let stack = stack().await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for (path, body) in [
        (EMBED, json!({"texts": "a"})),
        ("/v1/embeddings", json!({"input": "a"})),
        ("/v1/rerank", json!({"query": "a", "documents": ["b"]})),
        ("/embed_sparse", json!({"inputs": "a"})),
    ] {
        let headers = [("traceparent", trace), ("prefer", "wait=20")];
        let answer = stack.admin.post(path, &headers, &body).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        let seen = stack.service(Capability::Nlp).traces();
        assert_eq!(seen.last().unwrap()[..35], trace[..35], "{path}");
    }
}

#[tokio::test]
async fn each_wrong_request_is_answered_with_what_is_wrong() {
    let stack = stack().await;
    let check = async |task: &str, body: Value, status: u16, code: &str, sentence: &str| {
        let path = format!("/ai/nlp/{task}");
        let answer = stack.admin.post(&path, &[("prefer", "wait=20")], &body).await;
        answer.check_problem(status, code, sentence);
    };
    let invalid = "invalid_request";
    check("embed", json!({}), 400, invalid, "texts or tokens is required").await;
    check("embed", json!({"texts": ""}), 400, invalid, "texts[0] is empty").await;
    check("embed", json!({"texts": []}), 400, invalid, "between 1 and 2048").await;
    check("embed", json!({"texts": vec!["a"; 10_000]}), 400, invalid, "10000 texts").await;
    check("embed", json!({"texts": "a", "tokens": [[1]]}), 400, invalid, "not both").await;
    check("embed", json!({"texts": "a", "dimensions": 0}), 400, invalid, "dimensions is 0").await;
    check("embed", json!({"texts": "a", "dimensions": 9}), 400, invalid, "the model has 2").await;
    check("embed", json!({"texts": "a", "colour": 1}), 400, invalid, "`colour`").await;
    check("embed", json!({"texts": "a", "job": {"attempts_max": 0}}), 400, invalid, "attempts")
        .await;
    check("rerank", json!({"query": "a"}), 400, invalid, "missing field `documents`").await;
    check("rerank", json!({"query": "", "documents": ["a"]}), 400, invalid, "query").await;
    check("entities", json!({"texts": "a", "score_min": 2}), 400, invalid, "score_min is 2").await;
    check("redact", json!({"texts": "a", "rules": ["cat"]}), 400, invalid, "rules[0]").await;
    let long = json!({"texts": "a".repeat(2_200_000)});
    check("classify", long, 413, "payload_too_large", "the limit is 2097152").await;
    let unknown = json!({"texts": "a", "model": "gpt-9"});
    check("embed", unknown, 404, "not_found", "there is mini (embed, classify)").await;
    let other = json!({"texts": "a", "model": "tagger"});
    check("classify", other, 422, "unprocessable", "does not do classify; what does is mini").await;
    assert_eq!(stack.service(Capability::Nlp).calls(), 1, "only the wrong number of dimensions");
}

#[tokio::test]
async fn openai_s_embeddings_take_every_form_of_input() {
    let stack = stack().await;
    let check = async |body: Value, expected: &[&[f32]]| {
        let answer = stack.admin.post("/v1/embeddings", &[], &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert_eq!(
            (&answer.json["object"], &answer.json["model"]),
            (&json!("list"), &json!("mini"))
        );
        for (index, vector) in expected.iter().enumerate() {
            let one = json!({"object": "embedding", "index": index, "embedding": vector});
            assert_eq!(answer.json["data"][index], one);
        }
        let tokens = 3 * expected.len();
        let usage = json!({"prompt_tokens": tokens, "total_tokens": tokens});
        assert_eq!(answer.json["usage"], usage);
    };
    check(json!({"input": "abc", "model": "mini"}), &[&[3.0, 1.0]]).await;
    check(json!({"input": ["a", "bc"], "user": "u"}), &[&[1.0, 1.0], &[2.0, 1.0]]).await;
    check(json!({"input": [5, 6, 7], "encoding_format": "float"}), &[&[3.0, 1.0]]).await;
    check(json!({"input": [[5], [6, 7]], "dimensions": null}), &[&[1.0, 1.0], &[2.0, 1.0]]).await;
    let body = json!({"input": "abc", "encoding_format": "base64"});
    let answer = stack.admin.post("/v1/embeddings", &[], &body).await;
    assert_eq!(answer.json["data"][0]["embedding"], "AABAQAAAgD8=");
    assert_eq!(stack.admin.get("/jobs").await.json["jobs"], json!([]), "nothing is kept");
}

#[tokio::test]
async fn openai_s_embeddings_refuse_as_openai_does() {
    let stack = stack().await;
    let check = async |body: Value, status: u16, param: Value, sentence: &str| {
        let answer = stack.admin.post("/v1/embeddings", &[], &body).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.text);
        let error = &answer.json["error"];
        let fields = error.as_object().unwrap();
        let mut keys: Vec<_> = fields.keys().map(String::as_str).collect();
        keys.sort_unstable();
        assert_eq!(keys, ["code", "message", "param", "type"]);
        assert_eq!(error["type"], "invalid_request_error");
        assert_eq!(error["param"], param, "{body}: {}", answer.text);
        assert!(error["message"].as_str().unwrap().contains(sentence), "{}", answer.text);
    };
    check(json!({}), 400, json!("input"), "must provide input").await;
    check(json!({"input": ""}), 400, json!("input"), "empty string").await;
    check(json!({"input": []}), 400, json!("input"), "between 1 and 2048").await;
    check(json!({"input": ["a", 3]}), 400, json!("input"), "must be a string").await;
    check(json!({"input": "a", "dimensions": 0}), 400, json!("dimensions"), "at least 1").await;
    check(json!({"input": "a", "dimensions": 7}), 400, json!("dimensions"), "has 2").await;
    let format = json!({"input": "a", "encoding_format": "hex"});
    check(format, 400, json!("encoding_format"), "unknown variant").await;
    check(json!({"input": "a", "n": 2}), 400, json!("n"), "Unrecognized request argument").await;
    let long = json!({"input": "a".repeat(2_200_000)});
    check(long, 413, json!("input"), "the limit is").await;
    let model = json!({"input": "a", "model": "gpt-9"});
    check(model, 404, json!("model"), "there is no model").await;
    check(json!({"input": "a", "model": "tagger"}), 404, json!("model"), "does not do embed").await;
    let elsewhere = stack.client(&[Scope::Llm]);
    let refused = elsewhere.post("/v1/embeddings", &[], &json!({"input": "a"})).await;
    assert_eq!((refused.status, &refused.json["error"]["type"]), (403, &json!("permission_error")));
}

#[tokio::test]
async fn rerank_and_sparse_have_the_shapes_of_their_own_clients() {
    let stack = stack().await;
    let documents = json!(["one", {"text": "three"}, "four"]);
    let body = json!({"query": "q", "documents": documents, "top_n": 2, "return_documents": true});
    let answer = stack.admin.post("/v1/rerank", &[], &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let results = json!([
        {"index": 1, "relevance_score": 5.0, "document": {"text": "three"}},
        {"index": 2, "relevance_score": 4.0, "document": {"text": "four"}},
    ]);
    assert_eq!(answer.json["results"], results);
    assert_eq!(answer.json["model"], "splade");
    assert_eq!(answer.json["usage"]["total_tokens"], 9);
    let plain = json!({"query": "q", "documents": ["a"]});
    let plain = stack.admin.post("/v1/rerank", &[], &plain).await;
    assert_eq!(plain.json["results"][0].get("document"), None);
    let wrong = json!({"query": "q", "documents": ["a"], "max_chunks_per_doc": 3});
    let wrong = stack.admin.post("/v1/rerank", &[], &wrong).await;
    assert_eq!((wrong.status, &wrong.json["error"]["param"]), (400, &json!("max_chunks_per_doc")));

    let body = json!({"inputs": ["a", "b"], "truncate": true});
    let answer = stack.admin.post("/embed_sparse", &[], &body).await;
    let terms = json!([[{"index": 7, "value": 0.5}], [{"index": 7, "value": 0.5}]]);
    assert_eq!((answer.status, answer.json), (200, terms));
    let empty = stack.admin.post("/embed_sparse", &[], &json!({"inputs": ""})).await;
    empty.check_problem(400, "invalid_request", "is empty");
    assert_eq!(empty.json["param"], "inputs");
}

#[tokio::test]
async fn a_completion_is_redacted_before_anybody_sees_it() {
    let stack = Stack::of(&[Capability::Llm, Capability::Nlp]).await;
    let body =
        json!({"prompt": "count", "seed": 2, "stream": true, "redact": {"rules": ["email"]}});
    let events = stack.admin.post_events("/ai/llm/completion", &[], &body).await.rest().await;
    let names: Vec<&str> = events.iter().map(|event| event.name.as_str()).collect();
    assert_eq!(names, ["job", "token", "result"], "the text comes as a whole");
    let result = events.last().unwrap().json();
    let text = result["text"].as_str().unwrap();
    assert_eq!(events[1].json()["text"], text);
    assert!(text.contains("[WORD]0") && !text.contains("two"), "{text}");
    assert_eq!(result["redactions"][0]["label"], "WORD");
    let id = result["job_id"].as_str().unwrap();
    let recorded = stack.admin.events(&format!("/jobs/{id}/events"), &[]).await.rest().await;
    assert!(recorded.iter().all(|event| !event.data.contains("two")), "{recorded:?}");

    let alone = Stack::of(&[Capability::Llm]).await;
    let refused = alone.admin.post("/ai/llm/completion", &[], &body).await;
    refused.check_problem(422, "unprocessable", "does no nlp work");
}
