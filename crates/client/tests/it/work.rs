//! Work of other kinds than completions: one mechanism, tried on one kind.

use std::time::Duration;

use aisemble_client::WorkEvent;
use aisemble_protocol::nlp::{EmbedRequest, Texts};
use futures_util::StreamExt as _;
use serde_json::{Value, json};

use crate::calls::{block, client, job};
use crate::server::{Reply, Server};

fn request() -> EmbedRequest {
    EmbedRequest { texts: Some(Texts::One("a".to_owned())), ..EmbedRequest::default() }
}

fn answer() -> Value {
    json!({
        "model": "m", "model_sha256": "00", "usage": {"tokens": 3, "windows": 1},
        "results": [{"index": 0, "embedding": [0.5, -1.0], "tokens": 3, "windows": 1}],
        "timings": {"queue_ms": 0.0, "compute_ms": 1.0, "batches": 1},
    })
}

#[test]
fn work_is_submitted_with_a_key_and_waited_for() {
    let server = Server::start(vec![
        Reply::json("202 Accepted", &job("queued")),
        Reply::json("200 OK", &answer()),
        Reply::json("202 Accepted", &job("running")),
    ]);
    let client = client(&server);
    block(client.submit(&request(), Some("k-1"))).unwrap();
    let result = block(client.run(&request(), Duration::from_secs(9))).unwrap().unwrap();
    assert_eq!(result.results[0].embedding.as_deref(), Some(&[0.5, -1.0][..]));
    let later = block(client.run(&request(), Duration::from_secs(9))).unwrap();
    assert!(later.is_err(), "the job goes on");
    let asked = server.asked();
    assert_eq!(asked[0].line, "POST /ai/nlp/embed HTTP/1.1");
    assert_eq!(asked[0].header("idempotency-key"), Some("k-1"));
    assert_eq!(asked[1].header("prefer"), Some("wait=9"));
    assert_eq!(serde_json::from_str::<Value>(&asked[1].body).unwrap()["texts"], "a");
}

#[test]
fn work_is_followed_item_by_item_to_its_result() {
    let text = format!(
        "event: job\ndata: {}\n\nevent: item\ndata: {{\"index\":0}}\n\n\
         event: progress\ndata: {{\"done\":1,\"total\":2}}\n\nevent: novelty\ndata: 1\n\n\
         event: restart\ndata: {{\"attempt\":2}}\n\nevent: result\ndata: {}\n\n",
        job("queued"),
        answer()
    );
    let server = Server::start(vec![Reply::events(&text)]);
    let client = client(&server);
    let events: Vec<_> = block(async { client.follow(&request()).await.unwrap().collect().await });
    let events: Vec<_> = events.into_iter().map(Result::unwrap).collect();
    assert!(matches!(&events[0], WorkEvent::Job(_)));
    assert!(matches!(&events[1], WorkEvent::Item(item) if item["index"] == 0));
    assert!(matches!(&events[2], WorkEvent::Progress(data) if data["done"] == 1));
    assert!(matches!(&events[3], WorkEvent::Restart { attempt: 2 }));
    assert!(matches!(&events[4], WorkEvent::Result(result) if result.model == "m"));
    assert_eq!(events.len(), 5);
    assert_eq!(server.asked()[0].header("accept"), Some("text/event-stream"));
}
