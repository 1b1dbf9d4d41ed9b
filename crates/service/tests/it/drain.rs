//! The end: running calls are finished, or given up at the deadline, and the log says which.

use aisemble_protocol::v1::generate_event::Event;
use aisemble_protocol::{ApiError, ErrorCode, v1};
use rustix::process::Signal;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;

use crate::lifecycle::{prompt, text};
use crate::process::{Home, begins, pipe};

fn token(event: Option<v1::GenerateEvent>) -> String {
    match event.and_then(|event| event.event) {
        Some(Event::Token(token)) => token.text,
        other => panic!("not a token: {other:?}"),
    }
}

#[tokio::test]
async fn a_running_call_is_finished() {
    let home = Home::new();
    let tiny = home.serving(&[]);
    let mut watch = home.health().watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    let mut events = home.llm().generate(prompt("until-drain")).await.unwrap().into_inner();
    assert_eq!(token(events.message().await.unwrap()), "first");

    tiny.signal(Signal::TERM);
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    assert_eq!(token(events.message().await.unwrap()), "last");
    assert!(events.message().await.unwrap().is_none(), "the call ends as any call");
    let (code, lines) = tiny.end();
    let line = lines.iter().find(|line| begins(line, "drained")).unwrap();
    assert_eq!((code, &line["drain.met"]), (Some(0), &true.into()));
}

#[tokio::test]
async fn a_call_that_is_longer_than_the_deadline_is_given_up() {
    let home = Home::new();
    let tiny = home.serving(&["drain.deadline_ms=50".to_owned()]);
    let mut events = home.llm().generate(prompt("forever")).await.unwrap().into_inner();
    assert_eq!(token(events.message().await.unwrap()), "first");
    tiny.signal(Signal::INT);
    assert!(events.message().await.is_err(), "broken off");
    let (code, lines) = tiny.end();
    let line = lines.iter().find(|line| begins(line, "the drain deadline was not met")).unwrap();
    assert_eq!((code, &line["drain.met"]), (Some(1), &false.into()));
}

#[tokio::test]
async fn while_it_drains_new_calls_are_refused_and_a_second_signal_ends_it() {
    let home = Home::new();
    let tiny = home.serving(&["drain.deadline_ms=600000".to_owned()]);
    let mut llm = home.llm();
    let mut events = llm.generate(prompt("forever")).await.unwrap().into_inner();
    assert_eq!(token(events.message().await.unwrap()), "first");
    let mut watch = home.health().watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    watch.message().await.unwrap();
    tiny.signal(Signal::TERM);
    let told = watch.message().await.unwrap().unwrap();
    assert_eq!(told.status(), ServingStatus::NotServing);
    let error = ApiError::from(llm.tokenize(text("late")).await.unwrap_err());
    assert_eq!(error.code, ErrorCode::Unavailable);
    assert_eq!(error.message, "the service is stopping");
    home.model().stats(v1::StatsRequest {}).await.expect("figures are given to the end");
    tiny.signal(Signal::TERM);
    let (code, lines) = tiny.end();
    assert!(lines.iter().any(|line| begins(line, "a second signal")), "{lines:#?}");
    assert_eq!(code, Some(1));
}

#[test]
fn a_signal_ends_a_load() {
    let home = Home::new();
    let gate = home.path("gate");
    pipe(&gate);
    let tiny = home.start(&[format!("model.gate={}", gate.display())]);
    tiny.log.line("loading");
    tiny.signal(Signal::TERM);
    let (code, lines) = tiny.end();
    assert!(lines.iter().any(|line| begins(line, "stopped before")), "{lines:#?}");
    assert_eq!(code, Some(0));
}
