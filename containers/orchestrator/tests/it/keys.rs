//! Who may do what: every route of the table, without a key, with a wrong one, with a wrong scope.

use aisemble_orchestrator::http::{Access, access_table};
use aisemble_protocol::keys::Scope;
use reqwest::Method;
use serde_json::json;

use crate::stack::{PATH, Stack};

fn concrete(path: &str) -> String {
    path.replace("{id}", "0197d7f2-0000-7000-8000-000000000000")
}

#[tokio::test]
async fn every_route_but_two_needs_a_key_and_its_scope() {
    let stack = Stack::start().await;
    let none = stack.stranger();
    let (seeing, scraping) = (stack.client(&[Scope::Vision]), stack.client(&[Scope::Metrics]));
    let mut open = Vec::new();
    for (method, path, access) in access_table() {
        let what = format!("{method} {path}");
        let method = Method::from_bytes(method.as_str().as_bytes()).unwrap();
        let ask = |client: &crate::stack::Client| {
            let (client, method, path) = (client.clone(), method.clone(), concrete(path));
            async move { client.ask(method, &path, &[], Vec::new()).await }
        };
        let wrong = if access == Access::Key(Scope::Vision) { &scraping } else { &seeing };
        let (stranger, scopeless) = (ask(&none).await, ask(wrong).await);
        match access {
            Access::Open => {
                open.push(path);
                assert_eq!(stranger.status, 200, "{what}");
            }
            Access::AnyKey | Access::Browser => {
                assert_eq!(stranger.status, 401, "{what}");
                assert_ne!(scopeless.status, 403, "{what}");
            }
            Access::Key(scope) => {
                assert_eq!((stranger.status, scopeless.status), (401, 403), "{what}");
                assert!(scopeless.text.contains(scope.as_str()), "{what}: {}", scopeless.text);
                let right = ask(&stack.client(&[scope])).await;
                assert!(![401, 403].contains(&right.status), "{what}: {}", right.text);
            }
        }
        let head = none.ask(Method::HEAD, &concrete(path), &[], Vec::new()).await;
        assert!(access == Access::Open || head.status == 401, "HEAD {what}: {}", head.status);
    }
    assert_eq!(open, ["/health", "/ready"]);
}

#[tokio::test]
async fn what_is_not_there_needs_a_key_too() {
    let stack = Stack::start().await;
    let none = stack.stranger().get("/nope").await;
    none.check_problem(401, "unauthenticated", "Authorization: Bearer");
    assert_eq!(none.header("www-authenticate"), Some("Bearer"));
    stack.admin.get("/nope").await.check_problem(404, "not_found", "/nope");
    let put = stack.admin.ask(Method::PUT, PATH, &[], Vec::new()).await;
    put.check_problem(405, "method_not_allowed", "PUT");
    assert_eq!(put.header("allow"), Some("POST"));
}

#[tokio::test]
async fn a_key_that_is_not_live_opens_nothing() {
    let stack = Stack::start().await;
    let unknown = [("authorization", "Bearer ais_00")];
    let basic = [("authorization", "Basic YTpi")];
    for headers in [unknown, basic] {
        let answer = stack.stranger().ask(Method::GET, "/jobs", &headers, Vec::new()).await;
        answer.check_problem(401, "unauthenticated", "key");
    }
    let scheme = format!("bearer  {}", stack.admin.key());
    let headers = [("authorization", scheme.as_str())];
    let answer = stack.stranger().ask(Method::GET, "/jobs", &headers, Vec::new()).await;
    assert_eq!(answer.status, 200, "the scheme's case does not matter");
}

#[tokio::test]
async fn a_scope_opens_its_routes_only() {
    let stack = Stack::start().await;
    let scraper = stack.client(&[Scope::Metrics]);
    assert_eq!(scraper.get("/metrics").await.status, 200);
    let refused = scraper.post(PATH, &[], &json!({"prompt": "a"})).await;
    refused.check_problem(403, "forbidden", "llm");
    let openai = scraper.post("/v1/completions", &[], &json!({"prompt": "a"})).await;
    assert_eq!(openai.status, 403);
    assert_eq!(openai.json["error"]["type"], "permission_error");
}
