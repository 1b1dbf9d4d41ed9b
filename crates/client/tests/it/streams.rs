//! Event streams: a completion's tokens, and a job's events over broken connections.

use aisemble_client::{ClientError, CompletionEvent, WatchEvent, WatchOptions};
use aisemble_protocol::completion::CompletionRequest;
use aisemble_protocol::{ErrorCode, JobId, JobState};
use futures_util::StreamExt as _;

use crate::calls::{block, client, job, result};
use crate::server::{Reply, Server};

fn id() -> JobId {
    "0197a0c0-0000-7000-8000-000000000001".parse().unwrap()
}

fn completion(text: &str) -> Vec<Result<CompletionEvent, ClientError>> {
    let server = Server::start(vec![Reply::events(text)]);
    let client = client(&server);
    block(async {
        let request = CompletionRequest { prompt: Some("a".into()), ..Default::default() };
        client.stream_completion(&request).await.unwrap().collect().await
    })
}

#[test]
fn a_completion_streams_its_job_its_text_and_its_result() {
    let text = format!(
        ": hello\n\nevent: job\ndata: {}\n\nevent: token\ndata: {{\"text\":\"Pa\",\"index\":0}}\n\n\
         event: novelty\ndata: 1\n\nevent: token\ndata: {{\"text\":\"ris\",\"index\":1}}\n\n\
         event: result\ndata: {}\n\n",
        job("queued"),
        result("Paris")
    );
    let events: Vec<_> = completion(&text).into_iter().map(Result::unwrap).collect();
    assert!(matches!(&events[0], CompletionEvent::Job(view) if view.id == id()));
    assert_eq!(events[1], CompletionEvent::Token { text: "Pa".into(), index: 0 });
    assert_eq!(events[2], CompletionEvent::Token { text: "ris".into(), index: 1 });
    assert!(matches!(&events[3], CompletionEvent::Result(result) if result.text == "Paris"));
    assert_eq!(events.len(), 4);
}

#[test]
fn a_restart_is_told_so_that_no_reader_joins_two_attempts() {
    let text = format!(
        "event: token\ndata: {{\"text\":\"Lyon\",\"index\":0}}\n\n\
         event: restart\ndata: {{\"attempt\":2}}\n\n\
         event: token\ndata: {{\"text\":\"Paris\",\"index\":0}}\n\nevent: result\ndata: {}\n\n",
        result("Paris")
    );
    let events: Vec<_> = completion(&text).into_iter().map(Result::unwrap).collect();
    assert_eq!(events[1], CompletionEvent::Restart { attempt: 2 });
    assert_eq!(events[2], CompletionEvent::Token { text: "Paris".into(), index: 0 });
    assert_eq!(events.len(), 4);
}

#[test]
fn an_error_ends_the_stream_and_a_cut_is_not_taken_for_an_end() {
    let error =
        "event: error\ndata: {\"status\":503,\"detail\":\"gone\",\"code\":\"unavailable\"}\n\n";
    let events = completion(error);
    let Err(error) = &events[0] else { panic!("{events:?}") };
    assert_eq!((error.code(), error.to_string().as_str()), (Some(ErrorCode::Unavailable), "gone"));
    assert_eq!(events.len(), 1);

    let events = completion("event: token\ndata: {\"text\":\"a\"}\n\nevent: resu");
    assert!(matches!(events[1], Err(ClientError::StreamEnded { .. })), "{events:?}");
    let events = completion("event: token\ndata: {text}\n\n");
    assert!(matches!(events[0], Err(ClientError::Decode { .. })), "{events:?}");
}

fn watch(
    script: Vec<Reply>,
    options: WatchOptions,
) -> (Server, Vec<Result<WatchEvent, ClientError>>) {
    let server = Server::start(script);
    let client = client(&server);
    let events = block(client.watch_job(id(), options).collect());
    (server, events)
}

fn event(seq: u64, kind: &str, data: &str) -> String {
    format!("id: {seq}\nevent: {kind}\ndata: {data}\n\n")
}

#[test]
fn a_watch_goes_on_where_the_connection_broke() {
    let queued = event(1, "state", r#"{"state":"queued"}"#);
    let tokens = event(2, "tokens", r#"{"text":"Pa","count":1}"#);
    let ended = event(3, "state", r#"{"state":"succeeded"}"#);
    let (server, events) = watch(
        vec![
            Reply::Silence,
            Reply::events(&queued),
            Reply::events(&format!("{tokens}id: 3\nevent: sta")),
            // The second event is sent again: it is told once.
            Reply::events(&format!("{tokens}{ended}")),
        ],
        WatchOptions::default(),
    );
    let events: Vec<_> = events.into_iter().map(Result::unwrap).collect();
    assert_eq!(events.iter().map(|event| event.seq).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(events[2].state(), Some(JobState::Succeeded));
    let last_ids: Vec<_> =
        server.asked().iter().map(|a| a.header("last-event-id").map(str::to_owned)).collect();
    assert_eq!(last_ids, [None, None, Some("1".into()), Some("2".into())]);
}

#[test]
fn a_watch_gives_up_on_a_server_that_only_breaks() {
    let options = WatchOptions { after_seq: 0, breaks_max: 2 };
    let (server, events) = watch(vec![Reply::events(""); 9], options);
    assert!(matches!(events[..], [Err(ClientError::StreamEnded { .. })]), "{events:?}");
    assert_eq!(server.asked().len(), 3);
}

#[test]
fn a_watch_of_an_unknown_job_ends_with_the_server_s_word() {
    let body = r#"{"detail":"there is no such job","code":"not_found"}"#;
    let missing = Reply::Answer("404 Not Found", Vec::new(), body.into());
    let (_server, events) = watch(vec![missing], WatchOptions::default());
    let [Err(error)] = &events[..] else { panic!("{events:?}") };
    assert_eq!(error.code(), Some(ErrorCode::NotFound));
}
