//! The socket across lives: a dead process leaves it, a living one keeps it, a channel finds it
//! again.

use std::os::unix::fs::PermissionsExt;

use aisemble_protocol::{ApiError, ErrorCode};

use crate::lifecycle::text;
use crate::process::{Home, begins};

#[tokio::test]
async fn a_channel_finds_the_next_life_of_a_service_that_was_killed() {
    let home = Home::new();
    let mut llm = home.llm();
    let early = ApiError::from(llm.tokenize(text("x")).await.unwrap_err());
    assert_eq!(early.code, ErrorCode::Unavailable, "nobody there yet");

    let first = home.serving(&[]);
    assert_eq!(llm.tokenize(text("one")).await.unwrap().into_inner().ids, [3]);
    let mode = std::fs::metadata(home.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    first.kill();
    assert!(home.socket().exists(), "stale");
    assert!(llm.tokenize(text("x")).await.is_err());

    let second = home.serving(&[]);
    second.log.line("removed the socket of a process that is gone");
    // The broken connection may be noticed by one more call.
    let again = match llm.tokenize(text("three")).await {
        Ok(answer) => answer,
        Err(_) => llm.tokenize(text("three")).await.unwrap(),
    };
    assert_eq!(again.into_inner().ids, [5]);
}

#[tokio::test]
async fn a_second_process_is_refused_and_the_first_serves_on() {
    let home = Home::new();
    let _first = home.serving(&[]);
    let (code, lines) = home.start(&[]).end();
    assert_eq!(code, Some(1));
    let expected =
        format!("not started: another process serves {} already", home.socket().display());
    let line = lines.iter().find(|line| begins(line, &expected)).unwrap();
    assert!(line["hint"].is_string());
    assert_eq!(home.llm().tokenize(text("four")).await.unwrap().into_inner().ids, [4]);
}
