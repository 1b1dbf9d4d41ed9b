//! Files that are not the pinned ones, callers who leave, the end in the middle of work.

use aisemble_protocol::ErrorCode;
use aisemble_protocol::nlp::{EmbedRequest, NlpTask as _};
use serde_json::json;

use crate::instance::{Instance, answer};
use crate::models::{installed, section, small};

/// The cause that the log gives for a start that failed.
fn cause(instance: Instance) -> String {
    let (code, lines) = instance.end();
    assert_eq!(code, Some(78), "{lines:#?}");
    let line = lines.iter().find(|line| line["level"] == "error").unwrap();
    line["error.cause"].as_str().unwrap().to_owned()
}

#[test]
fn files_that_are_not_the_pinned_ones_are_not_served() {
    let mut wrong = section("tagger", &small("bert-tokens"));
    wrong.sha256.insert("model.safetensors".to_owned(), "0".repeat(64));
    let cause_of_digest = cause(Instance::start(vec![wrong], &[]));
    assert!(cause_of_digest.contains(&"0".repeat(64)), "{cause_of_digest}");

    let mut unpinned = section("tagger", &small("bert-tokens"));
    unpinned.sha256.remove("tokenizer.json");
    let cause_of_pin = cause(Instance::start(vec![unpinned], &[]));
    assert!(cause_of_pin.contains("tokenizer.json"), "{cause_of_pin}");

    let folder = tempfile::tempdir().unwrap();
    for file in ["model.safetensors", "tokenizer.json", "config.json"] {
        std::fs::copy(small("bert-tokens").join(file), folder.path().join(file)).unwrap();
    }
    let weights = folder.path().join("model.safetensors");
    let whole = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &whole[..whole.len() / 2]).unwrap();
    let cut = section("tagger", folder.path());
    assert!(cause(Instance::start(vec![cut], &[])).contains("safetensors"));
    let config = folder.path().join("config.json");
    std::fs::write(&weights, &whole).unwrap();
    std::fs::write(&config, r#"{"model_type": "gpt2"}"#).unwrap();
    let other = section("tagger", folder.path());
    assert!(cause(Instance::start(vec![other], &[])).contains("model_type"));
}

fn long_work(texts: usize) -> EmbedRequest {
    let text = "a long sentence about nothing in particular that goes on and on ".repeat(30);
    serde_json::from_value(json!({ "texts": vec![text; texts] })).unwrap()
}

#[tokio::test]
async fn who_leaves_is_gone_and_who_is_late_is_told() {
    let models = vec![section("all-minilm-l6-v2", &installed("all-minilm-l6-v2"))];
    let settings = ["engine.threads=1", "engine.running_max=1", "engine.queue_depth_max=1"];
    let instance = Instance::serving(models, &settings);
    let mut stream =
        instance.nlp().run(long_work(500).to_run().unwrap()).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some(), "it has begun");
    // One runs, one waits, the third is refused at once.
    let waiting = instance.nlp();
    let waiting = tokio::spawn(async move {
        let mut waiting = waiting;
        let mut request = tonic::Request::new(long_work(1).to_run().unwrap());
        request.set_timeout(std::time::Duration::from_secs(120));
        waiting.run(request).await
    });
    while instance.stats().await.requests_queued == 0 {
        tokio::task::yield_now().await;
    }
    let refused = instance.nlp().run(long_work(1).to_run().unwrap()).await.unwrap_err();
    let refused = aisemble_protocol::ApiError::from(refused);
    assert_eq!(refused.code, ErrorCode::Overloaded);
    assert!(refused.retry_after_ms.is_some());
    // The caller goes away: the work of 500 texts (minutes) is not done, and the next one's turn
    // comes.
    drop(stream);
    let mut stream = waiting.await.unwrap().unwrap().into_inner();
    while stream.message().await.unwrap().is_some() {}
    let stats = instance.stats().await;
    assert!(stats.step_rows_total < 300, "{stats:?}");
    assert!(stats.requests_cancelled_total >= 1, "{stats:?}");

    let mut late = tonic::Request::new(long_work(500).to_run().unwrap());
    late.set_timeout(std::time::Duration::from_millis(400));
    let mut client = instance.nlp();
    let error = match client.run(late).await {
        Err(error) => error,
        Ok(stream) => {
            let mut stream = stream.into_inner();
            loop {
                match stream.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("500 texts in 400 ms"),
                    Err(error) => break error,
                }
            }
        }
    };
    // The deadline is kept on both sides; whose clock rings first says it.
    let code = aisemble_protocol::ApiError::from(error).code;
    assert!(matches!(code, ErrorCode::Timeout | ErrorCode::Cancelled), "{code:?}");
}

#[tokio::test]
async fn a_service_that_ends_finishes_what_it_began() {
    let models = vec![section("all-minilm-l6-v2", &installed("all-minilm-l6-v2"))];
    let instance = Instance::serving(models, &["engine.threads=1"]);
    let request = long_work(6).to_run().unwrap();
    let running = tokio::spawn(answer(instance.nlp(), request));
    while instance.stats().await.requests_total == 0 {
        tokio::task::yield_now().await;
    }
    instance.terminate();
    let gathered = running.await.unwrap().unwrap();
    assert_eq!(gathered.progress(), (6, 6));
    assert_eq!(instance.end().0, Some(0));
}
