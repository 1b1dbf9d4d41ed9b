//! From start to serving: health, what callers are told meanwhile, what every service answers.

use std::os::unix::net::UnixDatagram;

use aisemble_protocol::{ApiError, ErrorCode, v1};
use rustix::process::Signal;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::process::{Home, begins, pipe};

pub(crate) fn prompt(text: &str) -> v1::GenerateRequest {
    let input = Some(v1::generate_request::Input::Prompt(text.to_owned()));
    v1::GenerateRequest { input, ..v1::GenerateRequest::default() }
}

pub(crate) fn text(text: &str) -> v1::TokenizeRequest {
    let input = Some(v1::tokenize_request::Input::Prompt(text.to_owned()));
    v1::TokenizeRequest { input, add_special: false }
}

#[tokio::test]
async fn it_serves_only_after_the_warm_up() {
    let home = Home::new();
    let gate = home.path("gate");
    pipe(&gate);
    let tiny = home.start(&[format!("model.gate={}", gate.display())]);
    tiny.log.line("loading");

    let mut watch = home.health().watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    let first = watch.message().await.unwrap().unwrap();
    assert_eq!(first.status(), ServingStatus::NotServing);
    let status = home.llm().tokenize(text("x")).await.unwrap_err();
    let error = ApiError::from(status);
    assert_eq!(error.code, ErrorCode::Unavailable);
    assert_eq!(error.message, "the model is loading (weights, 43 %)");
    assert_eq!(error.retry_after_ms, Some(1000));
    assert!(home.model().describe(v1::DescribeRequest {}).await.is_err());
    let stats = home.model().stats(v1::StatsRequest {}).await.unwrap().into_inner();
    assert!(stats.resident_bytes > 0 && stats.requests_total == 0, "{stats:?}");

    std::fs::write(&gate, "go").unwrap();
    let second = watch.message().await.unwrap().unwrap();
    assert_eq!(second.status(), ServingStatus::Serving);
    assert_eq!(home.llm().tokenize(text("four")).await.unwrap().into_inner().ids, [4]);
    tiny.log.line("serving");

    let lines = tiny.log.lines();
    let at = |message: &str| {
        let place = lines.iter().position(|line| begins(line, message));
        place.unwrap_or_else(|| panic!("no {message:?} in {lines:#?}"))
    };
    let order =
        ["starting", "confined, Landlock ABI", "listening", "loading", "locked down", "serving"];
    assert!(order.map(at).is_sorted(), "{lines:#?}");
    for line in &lines {
        let service = (&line["service.name"], &line["service.version"]);
        assert_eq!(service, (&"tiny".into(), &"1.2.3".into()), "{line}");
    }
}

#[tokio::test]
async fn every_service_says_who_it_is() {
    let home = Home::new();
    let tiny = home.serving(&[]);
    let described = home.model().describe(v1::DescribeRequest {}).await.unwrap().into_inner();
    assert_eq!((described.service.as_str(), described.version.as_str()), ("tiny", "1.2.3"));
    assert_eq!((described.pid, described.models[0].name.as_str()), (tiny.id(), "tiny"));
    let sandbox = described.sandbox.unwrap();
    assert!(
        sandbox.landlock_abi >= 4 && sandbox.no_new_privs && sandbox.locked_down,
        "{sandbox:?}"
    );
    assert_eq!((sandbox.seccomp_mode, sandbox.policy.as_str()), (2, "llm"));

    let stats = home.model().stats(v1::StatsRequest {}).await.unwrap().into_inner();
    assert_eq!(stats.requests_total, 7);
    assert!(stats.resident_bytes > 1 << 20 && stats.uptime_ms >= described.load_ms, "{stats:?}");

    let checked = home.model().self_check(v1::SelfCheckRequest {}).await.unwrap().into_inner();
    let failed: Vec<_> = checked.checks.iter().filter(|check| !check.passed).collect();
    assert!(!checked.checks.is_empty() && failed.is_empty(), "{failed:#?}");
}

#[tokio::test]
async fn reflection_lists_what_is_served() {
    let home = Home::new();
    let _tiny = home.serving(&[]);
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers = ServerReflectionClient::new(home.channel())
        .server_reflection_info(tokio_stream::iter([request]))
        .await
        .unwrap()
        .into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(list) = answer else { panic!("{answer:?}") };
    let names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
    for name in ["aisemble.v1.Model", "aisemble.v1.Llm", "grpc.health.v1.Health"] {
        assert!(names.contains(&name), "{name} is not in {names:?}");
    }
}

#[tokio::test]
async fn log_lines_carry_the_ids_of_the_call() {
    let home = Home::new();
    let tiny = home.serving(&[]);
    let mut request = tonic::Request::new(text("x"));
    request.metadata_mut().insert("x-request-id", "req-1".parse().unwrap());
    request.metadata_mut().insert("x-job-id", "job-1".parse().unwrap());
    home.llm().tokenize(request).await.unwrap();
    let line = tiny.log.line("tokenizing");
    assert_eq!((&line["request.id"], &line["job.id"]), (&"req-1".into(), &"job-1".into()));
}

#[test]
fn the_service_manager_is_told() {
    let home = Home::new();
    let manager = UnixDatagram::bind(home.path("notify")).unwrap();
    let mut command = home.command(&[]);
    command.env("NOTIFY_SOCKET", home.path("notify"));
    let tiny = crate::process::Tiny::spawn(command);
    let mut told = String::new();
    let mut listen = |until: &str| {
        while !told.contains(until) {
            let mut bytes = [0; 512];
            let length = manager.recv(&mut bytes).unwrap();
            told.push_str(std::str::from_utf8(&bytes[..length]).unwrap());
        }
    };
    listen("READY=1");
    tiny.signal(Signal::TERM);
    listen("STOPPING=1");
    assert_eq!(tiny.end().0, Some(0));
}
