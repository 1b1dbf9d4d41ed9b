//! A defect in a handler costs the one call, and the log tells where it was but not what it said.

use aisemble_protocol::{ApiError, ErrorCode};

use crate::lifecycle::{prompt, text};
use crate::process::{Home, begins};

#[tokio::test]
async fn a_panic_ends_the_call_and_nothing_else() {
    let home = Home::new();
    let tiny = home.serving(&[]);
    let mut llm = home.llm();
    let mut other = llm.generate(prompt("forever")).await.unwrap().into_inner();
    other.message().await.unwrap().unwrap();

    let mut request = tonic::Request::new(text("panic"));
    request.metadata_mut().insert("x-request-id", "req-9".parse().unwrap());
    let error = ApiError::from(llm.tokenize(request).await.unwrap_err());
    assert_eq!((error.code, error.message.as_str()), (ErrorCode::Internal, "the service failed"));

    let mut events = llm.generate(prompt("panic-midway")).await.unwrap().into_inner();
    assert!(events.message().await.unwrap().is_some());
    let error = ApiError::from(events.message().await.unwrap_err());
    assert_eq!(error.code, ErrorCode::Internal);

    assert_eq!(llm.tokenize(text("four")).await.unwrap().into_inner().ids, [4]);
    let pending = tokio::time::timeout(std::time::Duration::ZERO, other.message()).await;
    assert!(pending.is_err(), "the other call on the same connection runs on");

    // The log is read on a thread of its own, which may be behind.
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let lines = loop {
        let lines = tiny.log.lines();
        let defects = lines.iter().filter(|line| begins(line, "a defect")).count();
        if defects >= 2 || std::time::Instant::now() > patience {
            break lines;
        }
        tokio::task::yield_now().await;
    };
    let defects: Vec<_> = lines.iter().filter(|line| begins(line, "a defect")).collect();
    assert_eq!(defects.len(), 2, "{lines:#?}");
    assert_eq!(defects[0]["request.id"], "req-9");
    assert!(defects[0]["panic.location"].as_str().unwrap().contains("tiny_main.rs:"));
    assert!(!format!("{lines:?}").contains("secret"), "{lines:#?}");
}

#[test]
fn a_panic_while_loading_is_an_error_of_the_start() {
    let home = Home::new();
    let (code, lines) = home.start(&["model.fail=panic".to_owned()]).end();
    assert_eq!(code, Some(1));
    assert!(lines.iter().any(|line| begins(line, "not started: a defect: loading panicked")));
    assert!(!format!("{lines:?}").contains("secret"), "{lines:#?}");
}
