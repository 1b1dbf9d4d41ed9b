//! Bytes that no honest client sends, or too slowly, or too many.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::stack::{PATH, PATIENCE, Stack};

/// Sends the pieces and reads until the server closes the connection.
async fn raw(stack: &Stack, pieces: &[&[u8]]) -> String {
    let mut stream = TcpStream::connect(stack.address()).await.unwrap();
    for piece in pieces {
        if stream.write_all(piece).await.is_err() {
            break;
        }
    }
    let mut answer = Vec::new();
    // A reset after the answer is as good as an end.
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "the connection was kept open");
    String::from_utf8_lossy(&answer).into_owned()
}

fn head(stack: &Stack, more: &str) -> String {
    let key = stack.admin.key();
    format!(
        "POST {PATH} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\
         content-type: application/json\r\n{more}\r\n\r\n"
    )
}

#[tokio::test]
async fn a_body_of_50_mb_is_refused() {
    let stack = Stack::start().await;
    let head = head(&stack, "content-length: 52428800");
    let piece = vec![b'a'; 1024 * 1024];
    let mut pieces = vec![head.as_bytes()];
    pieces.extend(std::iter::repeat_n(piece.as_slice(), 50));
    let answer = raw(&stack, &pieces).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("payload_too_large") && answer.contains("4194304"), "{answer}");
}

#[tokio::test]
async fn a_body_without_a_length_is_cut_at_the_limit() {
    let stack = Stack::start().await;
    let head = head(&stack, "transfer-encoding: chunked");
    let chunk = [b"100000\r\n".as_slice(), &vec![b'a'; 0x10_0000], b"\r\n"].concat();
    let mut pieces = vec![head.as_bytes()];
    pieces.extend(std::iter::repeat_n(chunk.as_slice(), 6));
    pieces.push(b"0\r\n\r\n");
    let answer = raw(&stack, &pieces).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[tokio::test]
async fn a_client_that_waits_for_leave_to_send_too_much_gets_none() {
    let stack = Stack::start().await;
    let head = head(&stack, "content-length: 52428800\r\nexpect: 100-continue");
    let answer = raw(&stack, &[head.as_bytes()]).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[tokio::test]
async fn a_slow_body_and_a_slow_head_are_cut_off() {
    let short = |config: &mut aisemble_orchestrator::config::Config| {
        config.limits.body_ms_max = 200;
        config.limits.head_ms_max = 200;
    };
    let stack = Stack::start_with(short, Some((1, 1))).await;
    let begun = head(&stack, "content-length: 100");
    let answer = raw(&stack, &[begun.as_bytes(), b"{\"prompt\""]).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("request_timeout") && answer.contains("200 ms"), "{answer}");
    let answer = raw(&stack, &[b"POST /v1/completions HTTP/1.1\r\nhost: x\r\nx-slow: "]).await;
    assert_eq!(answer, "", "closed without a word");
    let answer = raw(&stack, &[]).await;
    assert_eq!(answer, "", "an idle connection is not kept");
}

#[tokio::test]
async fn what_is_not_http_is_refused() {
    let stack = Stack::start().await;
    let many = (0..200).map(|n| format!("x-{n}: y\r\n")).collect::<String>();
    let many = format!("GET /health HTTP/1.1\r\nhost: x\r\n{many}\r\n");
    let long = format!("GET /health HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(200_000));
    for request in ["\0\x01\x02\r\n\r\n", "GET\r\n\r\n", many.as_str(), long.as_str()] {
        let answer = raw(&stack, &[request.as_bytes()]).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    assert_eq!(stack.admin.get("/health").await.status, 200);
}

#[tokio::test]
async fn one_connection_too_many_is_told_so() {
    let few = |config: &mut aisemble_orchestrator::config::Config| {
        config.limits.connections_max = 2;
    };
    let stack = Stack::start_with(few, Some((1, 1))).await;
    // One is the client's own, kept open; this is the second.
    let mut second = TcpStream::connect(stack.address()).await.unwrap();
    second.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut buffer = [0; 16];
    second.read_exact(&mut buffer).await.unwrap();
    assert_eq!(&buffer[..12], b"HTTP/1.1 200");
    let answer = raw(&stack, &[]).await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("retry-after: 1"), "{answer}");
    let page = stack.admin.get("/metrics").await.text;
    assert!(page.contains("aisemble_http_connections 2\n"), "{page}");
    assert!(page.contains("aisemble_http_connections_refused_total 1\n"));
}

#[tokio::test]
async fn a_caller_who_goes_away_ends_the_generation_but_not_the_job() {
    let stack = Stack::start().await;
    let body = json!({"prompt": "hold on"}).to_string();
    let length = body.len();
    for path in ["/v1/completions", PATH] {
        let key = stack.admin.key();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\nprefer: wait=30\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        let calls = stack.peer().calls();
        let mut stream = TcpStream::connect(stack.address()).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stack
            .eventually("the call arrives", async || {
                stack.admin.get("/health").await;
                stack.peer().calls() > calls
            })
            .await;
        drop(stream);
        if path != PATH {
            tokio::time::timeout(PATIENCE, stack.peer().cancelled()).await.unwrap();
        }
    }
    stack.peer().let_go(100);
    let jobs = stack.admin.get("/jobs").await;
    let id = jobs.json["jobs"][0]["id"].as_str().unwrap();
    stack.await_state(id, "succeeded").await;
    let none: Duration = Duration::ZERO;
    assert!(tokio::time::timeout(none, stack.peer().cancelled()).await.is_err());
}
