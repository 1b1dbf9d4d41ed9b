//! `/files` and `/v1/files` over HTTP: uploads, ranges, quotas, owners.

use aisemble_protocol::keys::Scope;
use reqwest::Method;

use crate::stack::{Client, Stack};

async fn upload(client: &Client, path: &str, content: &[u8]) -> crate::stack::Answer {
    let kind = [("content-type", "application/octet-stream")];
    client.ask(Method::POST, path, &kind, content.to_vec()).await
}

fn form(fields: &[(&str, &str)], file: Option<(&str, &str)>) -> (String, Vec<u8>) {
    let boundary = "------------------------a1b2c3";
    let mut body = String::new();
    for (name, value) in fields {
        body.push_str(&format!(
            "--{boundary}\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
        ));
    }
    if let Some((name, content)) = file {
        body.push_str(&format!(
            "--{boundary}\r\ncontent-disposition: form-data; name=\"file\"; \
             filename=\"{name}\"\r\ncontent-type: text/csv\r\n\r\n{content}\r\n"
        ));
    }
    body.push_str(&format!("--{boundary}--\r\n"));
    (format!("multipart/form-data; boundary={boundary}"), body.into_bytes())
}

#[tokio::test]
async fn a_file_is_kept_shown_read_and_deleted() {
    let stack = Stack::start().await;
    let stored = upload(&stack.admin, "/files?filename=a.csv&purpose=data", b"hello").await;
    assert_eq!(stored.status, 200, "{}", stored.text);
    let id = stored.json["id"].as_str().unwrap().to_owned();
    assert!(id.starts_with("file-"));
    assert_eq!(stored.json["bytes"], 5);
    assert_eq!(
        (&stored.json["filename"], &stored.json["purpose"]),
        (&"a.csv".into(), &"data".into())
    );
    let path = format!("/files/{id}");
    assert_eq!(stack.admin.get(&path).await.json, stored.json);
    assert_eq!(stack.admin.get(&format!("/v1{path}")).await.json, stored.json);
    let whole = stack.admin.get(&format!("{path}/content")).await;
    assert_eq!((whole.status, whole.text.as_str()), (200, "hello"));
    assert_eq!(whole.header("x-content-type-options"), Some("nosniff"));
    let tag = whole.header("etag").unwrap().to_owned();
    let range = [("range", "bytes=1-2")];
    let part = stack.admin.ask(Method::GET, &format!("{path}/content"), &range, vec![]).await;
    assert_eq!((part.status, part.text.as_str()), (206, "el"));
    assert_eq!(part.header("content-range"), Some("bytes 1-2/5"));
    let none = [("range", "bytes=5-")];
    let none = stack.admin.ask(Method::GET, &format!("{path}/content"), &none, vec![]).await;
    assert_eq!(none.status, 416);
    let known = [("if-none-match", tag.as_str())];
    let same = stack.admin.ask(Method::GET, &format!("{path}/content"), &known, vec![]).await;
    assert_eq!(same.status, 304);
    let list = stack.admin.get("/files?purpose=data").await;
    assert_eq!(list.json["data"][0]["id"], id.as_str());
    assert_eq!(stack.admin.get("/files?purpose=vision").await.json["data"], serde_json::json!([]));
    let other = stack.client(&[Scope::Jobs]);
    other.get(&path).await.check_problem(404, "not_found", "there is no file");
    other.delete(&path).await.check_problem(404, "not_found", "there is no file");
    let theirs = upload(&other, "/files?filename=b.csv&purpose=data", b"theirs").await.json;
    let all = stack.admin.get("/files?purpose=data").await.json;
    assert_eq!(all["data"].as_array().unwrap().len(), 2, "an admin sees both: {all}");
    let path_of_theirs = format!("/files/{}", theirs["id"].as_str().unwrap());
    assert_eq!(stack.admin.get(&format!("{path_of_theirs}/content")).await.text, "theirs");
    assert_eq!(other.get("/files").await.json["data"], serde_json::json!([theirs]));
    assert_eq!(stack.admin.delete(&path_of_theirs).await.status, 200);
    let deleted = stack.admin.delete(&path).await;
    assert_eq!((deleted.status, &deleted.json["deleted"]), (200, &true.into()));
    stack.admin.get(&path).await.check_problem(404, "not_found", &id);
}

#[tokio::test]
async fn a_form_is_read_as_the_official_client_writes_it() {
    let stack = Stack::start().await;
    let fields = [
        ("purpose", "batch"),
        ("expires_after[anchor]", "created_at"),
        ("expires_after[seconds]", "3600"),
    ];
    let (kind, body) = form(&fields, Some(("../../etc/passwd", "a,b\n")));
    let stored = stack.admin.ask(Method::POST, "/v1/files", &[("content-type", &kind)], body).await;
    assert_eq!(stored.status, 200, "{}", stored.text);
    assert_eq!(stored.json["filename"], "../../etc/passwd", "only shown");
    assert_eq!(stored.json["purpose"], "batch");
    let (made, ends) = (&stored.json["created_at"], &stored.json["expires_at"]);
    assert_eq!(ends.as_u64().unwrap() - made.as_u64().unwrap(), 3600);
    let refused = async |fields: &[(&str, &str)], file, sentence: &str| {
        let (kind, body) = form(fields, file);
        let answer =
            stack.admin.ask(Method::POST, "/files", &[("content-type", &kind)], body).await;
        answer.check_problem(400, "invalid_request", sentence);
    };
    let file = Some(("a", "b"));
    refused(&[("purpose", "data")], None, "no file").await;
    refused(&[("purpose", "result")], file, "made here").await;
    refused(&[("purpose", "mischief")], file, "purpose is one of").await;
    refused(&[("nonsense", "x")], file, "unknown field nonsense").await;
    refused(&[("expires_after[seconds]", "5")], file, "between 3600").await;
    let cut = [("content-type", kind.as_str())];
    let answer = stack.admin.ask(Method::POST, "/files", &cut, b"--x".to_vec()).await;
    assert_eq!(answer.status, 400, "{}", answer.text);
    assert_eq!(stack.admin.get("/files").await.json["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn what_is_too_much_is_refused_and_leaves_nothing() {
    let change = |config: &mut aisemble_orchestrator::config::Config| {
        config.files.file_bytes_max = 1_000;
        config.files.bytes_per_key_max = 1_500;
    };
    let stack = Stack::start_with(change, Some((4, 4))).await;
    let large = upload(&stack.admin, "/files", &[b'x'; 1_001]).await;
    large.check_problem(413, "payload_too_large", "1000 bytes");
    assert_eq!(upload(&stack.admin, "/files", &[b'x'; 1_000]).await.status, 200);
    let quota = upload(&stack.admin, "/files", &[b'y'; 1_000]).await;
    quota.check_problem(413, "payload_too_large", "may keep");
    let other = stack.client(&[Scope::Jobs]);
    assert_eq!(upload(&other, "/files", &[b'y'; 1_000]).await.status, 200, "its own quota");
    let keyless = stack.client(&[Scope::Llm]);
    upload(&keyless, "/files", b"a").await.check_problem(403, "forbidden", "jobs");
    let wrong = stack.admin.get("/files/file-1/content").await;
    wrong.check_problem(400, "invalid_request", "`file-` and a UUID");
}
