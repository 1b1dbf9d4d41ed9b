//! What is offered, and what is said of what is not; several instances of one service.

use aisemble_orchestrator::capability::Capability;
use serde_json::{Value, json};

use crate::stack::Stack;

#[tokio::test]
async fn only_what_is_configured_is_ready_and_the_rest_says_that_it_is_not_there() {
    let stack = Stack::of(&[Capability::Nlp, Capability::Data]).await;
    let ready = stack.stranger().get("/ready").await;
    let capabilities = ready.json["capabilities"].as_object().unwrap();
    let mut names: Vec<_> = capabilities.keys().cloned().collect();
    names.sort_unstable();
    assert_eq!((ready.status, names), (200, vec!["data".to_owned(), "nlp".to_owned()]));
    let vision = json!({"images": [{"data": "YWJj"}], "tasks": ["classify"]});
    for (path, body, name) in [
        ("/ai/llm/completion", json!({"prompt": "a"}), "llm"),
        ("/ai/vision/analyze", vision, "vision"),
    ] {
        let answer = stack.admin.post(path, &[], &body).await;
        answer.check_problem(422, "unprocessable", &format!("services.{name}"));
    }
    let chat = json!({"messages": [{"role": "user", "content": "a"}]});
    let chat = stack.admin.post("/v1/chat/completions", &[], &chat).await;
    assert_eq!(chat.status, 400, "{}", chat.text);
    let models = stack.admin.get("/v1/models").await.json;
    let listed: Vec<_> = models["data"].as_array().unwrap().iter().map(|m| &m["id"]).collect();
    assert_eq!(listed, ["mini", "splade", "tagger"]);
    assert_eq!(models["data"][0]["capability"], "nlp");
    assert_eq!(models["data"][0]["tasks"], json!(["embed", "classify"]));
    assert_eq!(models["data"][0].get("labels"), None);
    let shown = stack.admin.get("/v1/models/mini").await.json;
    assert_eq!(shown["labels"], json!(["good"]));
    let page = stack.admin.get("/metrics").await.text;
    assert!(page.contains("aisemble_queue_depth{capability=\"data\"} 0\n"), "{page}");
    assert!(!page.contains("capability=\"llm\""), "{page}");
}

const CHAT: &str = "/v1/completions";

#[tokio::test]
async fn a_call_goes_to_an_instance_that_hosts_its_model() {
    let (stack, peers) = Stack::of_llms(&["one", "two", "one"], (4, 4)).await;
    for _ in 0..4 {
        let body = json!({"prompt": "a", "model": "two"});
        let answer = stack.admin.post(CHAT, &[], &body).await;
        assert_eq!((answer.status, &answer.json["model"]), (200, &json!("two")));
    }
    assert_eq!([peers[0].calls(), peers[1].calls(), peers[2].calls()], [0, 4, 0]);
    for _ in 0..4 {
        let body = json!({"prompt": "a", "model": "one"});
        assert_eq!(stack.admin.post(CHAT, &[], &body).await.status, 200);
    }
    assert_eq!((peers[0].calls(), peers[2].calls()), (2, 2), "equals take turns");
    let job = json!({"prompt": "a", "model": "two"});
    let answer = stack.admin.post("/ai/llm/completion", &[("prefer", "wait=20")], &job).await;
    assert_eq!((answer.status, peers[1].calls()), (200, 5), "jobs, too");
    let models = stack.admin.get("/v1/models").await.json;
    let listed: Vec<_> = models["data"].as_array().unwrap().iter().map(|m| &m["id"]).collect();
    assert_eq!(listed, ["one", "two"], "each once");
}

#[tokio::test]
async fn what_begins_alike_stays_together_until_its_instance_is_clearly_busier() {
    let (stack, peers) = Stack::of_llms(&["one", "one"], (4, 4)).await;
    let same = "hold: a careful assistant of the third ward answers. ".repeat(22);
    let prompt = |number: usize| json!({"prompt": format!("{same} {number}"), "max_tokens": 1});
    let call = |body: Value| {
        let client = stack.admin.clone();
        tokio::spawn(async move { client.post(CHAT, &[], &body).await.status })
    };
    let calls = || (peers[0].calls(), peers[1].calls());
    let arrived = async |count: u64| {
        stack
            .eventually("they arrive", async || {
                stack.admin.get("/health").await;
                calls().0 + calls().1 == count
            })
            .await;
    };
    let mut held = Vec::new();
    for number in 0..3 {
        held.push(call(prompt(number)));
        arrived(u64::try_from(number).unwrap() + 1).await;
    }
    assert!(matches!(calls(), (3, 0) | (0, 3)), "together: {:?}", calls());
    held.push(call(prompt(3)));
    arrived(4).await;
    assert!(matches!(calls(), (3, 1) | (1, 3)), "half a batch busier: {:?}", calls());
    for peer in &peers {
        peer.let_go(100);
    }
    for held in held {
        assert_eq!(held.await.unwrap(), 200);
    }
}

#[tokio::test]
async fn calls_are_counted_by_capability_and_task() {
    let stack = Stack::of(&[Capability::Nlp]).await;
    let wait = [("prefer", "wait=20")];
    stack.admin.post("/ai/nlp/embed", &wait, &json!({"texts": "a"})).await;
    stack.admin.post("/ai/nlp/embed", &wait, &json!({"texts": "a", "dimensions": 9})).await;
    let page = stack.admin.get("/metrics").await.text;
    for sample in [
        "aisemble_calls_total{capability=\"nlp\",outcome=\"ok\",task=\"embed\"} 1",
        "aisemble_calls_total{capability=\"nlp\",outcome=\"invalid_request\",task=\"embed\"} 1",
        "aisemble_call_duration_seconds_count{capability=\"nlp\",task=\"embed\"} 2",
        "aisemble_service_ready{service=\"nlp\",instance=\"nlp\"} 1",
    ] {
        assert!(page.contains(&format!("{sample}\n")), "{sample} is not in\n{page}");
    }
}

#[tokio::test]
async fn the_documentation_is_a_page_that_a_browser_can_open() {
    let stack = Stack::of(&[Capability::Data]).await;
    let page = stack.admin.get("/docs").await;
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert!(page.header("content-security-policy").unwrap().contains("default-src 'none'"));
    assert!(page.text.contains("<code>/data/process</code>"));
    let stranger = stack.stranger();
    assert_eq!(stranger.get("/docs").await.status, 401);
    let basic = |text: &str| {
        use base64::Engine as _;
        format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(text))
    };
    let right = basic(&format!("me:{}", stack.admin.key()));
    let headers = [("authorization", right.as_str())];
    let page = stranger.ask(reqwest::Method::GET, "/docs", &headers, Vec::new()).await;
    assert_eq!(page.status, 200, "the key as a password");
    let jobs = stranger.ask(reqwest::Method::GET, "/jobs", &headers, Vec::new()).await;
    assert_eq!(jobs.status, 401, "for the page only");
    let wrong = basic("me:ais_0");
    let headers = [("authorization", wrong.as_str())];
    let refused = stranger.ask(reqwest::Method::GET, "/docs", &headers, Vec::new()).await;
    assert_eq!(refused.status, 401);
}

#[tokio::test]
async fn operations_have_names_of_their_own() {
    let document: Value =
        serde_json::from_str(&aisemble_orchestrator::http::openapi_document()).unwrap();
    let mut names = std::collections::BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let name = operation["operationId"].as_str().unwrap();
            assert!(names.insert(name.to_owned()), "{method} {path}: {name} is there twice");
        }
    }
}
