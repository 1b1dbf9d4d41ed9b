//! What the service answers over its socket.

use aisemble_protocol::nlp::{
    ClassifyRequest, EmbedRequest, EntitiesRequest, RedactRequest, RerankRequest,
};
use aisemble_protocol::{ErrorCode, v1};
use serde_json::json;

use crate::instance::{Instance, answer};
use crate::models::{installed, section, small};

fn embedder() -> Instance {
    let models = vec![
        section("all-minilm-l6-v2", &installed("all-minilm-l6-v2")),
        section("splade-tiny", &installed("splade-tiny")),
        section("tagger", &small("bert-tokens")),
        section("pairs", &small("bert-pairs")),
    ];
    Instance::serving(models, &["engine.threads=1"])
}

fn product(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[tokio::test]
async fn it_answers_confined_and_says_what_it_is() {
    let instance = embedder();
    let described = instance.describe().await;
    assert_eq!((described.service.as_str(), described.models.len()), ("nlp", 4));
    let model = &described.models[0];
    assert_eq!((model.family.as_str(), model.embedding_dimensions), ("bert", 384));
    assert_eq!((model.parameters, model.license.as_str()), (22_713_216, "Apache-2.0"));
    assert_eq!(model.tasks, ["embed", "rerank", "redact"]);
    assert_eq!(described.models[1].tasks, ["embed_sparse", "rerank"]);
    assert_eq!(described.models[2].labels, ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]);
    let sandbox = described.sandbox.unwrap();
    assert!(sandbox.locked_down && sandbox.no_new_privs && sandbox.seccomp_mode == 2);
    let checks = instance.self_check().await.checks;
    let failed: Vec<_> = checks.iter().filter(|check| !check.passed).collect();
    assert!(!checks.is_empty() && failed.is_empty(), "{failed:#?}");

    let texts = json!({"texts": [
        "A man is playing a guitar.", "Someone plays a musical instrument.", "The stock fell."
    ]});
    let embedded = instance.ask::<EmbedRequest>(texts).await.unwrap();
    let vectors: Vec<_> =
        embedded.results.iter().map(|text| text.embedding.clone().unwrap()).collect();
    assert!((product(&vectors[0], &vectors[0]) - 1.0).abs() < 1e-5);
    assert!(product(&vectors[0], &vectors[1]) > 0.5);
    assert!(product(&vectors[0], &vectors[2]) < 0.2);
    assert_eq!((embedded.usage.tokens, embedded.usage.windows), (9 + 8 + 6, 3));
    assert_eq!(embedded.model_sha256, model.sha256);
    let stats = instance.stats().await;
    assert_eq!(
        (stats.requests_total, stats.step_rows_total, stats.prompt_tokens_total),
        (1, 3, 23)
    );

    instance.terminate();
    let (code, lines) = instance.end();
    assert_eq!(code, Some(0));
    let log = serde_json::to_string(&lines).unwrap();
    assert!(!log.contains("guitar") && !log.contains("stock"), "the log contains what was said");
}

#[tokio::test]
async fn every_task_is_answered() {
    let instance = embedder();
    let short = json!({"texts": "hello", "dimensions": 64});
    let short = instance.ask::<EmbedRequest>(short).await.unwrap().results.remove(0);
    let vector = short.embedding.unwrap();
    assert!(vector.len() == 64 && (product(&vector, &vector) - 1.0).abs() < 1e-5);
    let ids = json!({"tokens": [[7592], [101, 7592, 102]]});
    let ids = instance.ask::<EmbedRequest>(ids).await.unwrap();
    let whole = instance.ask::<EmbedRequest>(json!({"texts": ["hello"]})).await.unwrap();
    assert_eq!(ids.results[0].embedding, whole.results[0].embedding);
    assert_eq!(ids.results[1].embedding, whole.results[0].embedding);

    let sparse = json!({"texts": "What is the capital of France?", "representation": "sparse"});
    let sparse = instance.ask::<EmbedRequest>(sparse).await.unwrap();
    let terms = sparse.results[0].sparse.clone().unwrap();
    assert_eq!(sparse.model, "splade-tiny");
    assert!(terms.len() > 3 && terms.iter().all(|term| term.value > 0.0));
    assert!(terms.iter().any(|term| term.index == 2605), "no term for france: {terms:?}");
    let few = json!({"texts": "What is the capital of France?", "representation": "sparse",
        "terms_max": 3});
    let few = instance.ask::<EmbedRequest>(few).await.unwrap();
    assert_eq!(few.results[0].sparse.as_ref().unwrap().len(), 3);

    for model in ["all-minilm-l6-v2", "splade-tiny"] {
        let ranked = json!({
            "model": model, "query": "What is the capital of France?", "return_documents": true,
            "documents": ["Bananas are yellow.", "Paris is the capital of France.", "It rains."],
        });
        let ranked = instance.ask::<RerankRequest>(ranked).await.unwrap();
        assert_eq!(ranked.results[0].document.as_deref(), Some("Paris is the capital of France."));
        assert_eq!(ranked.results.len(), 3);
    }
    let pairs = json!({"model": "pairs", "query": "w1 w2", "documents": ["w3", "w20 w21"]});
    let pairs = instance.ask::<RerankRequest>(pairs).await.unwrap();
    assert!(pairs.results.iter().all(|document| (0.0..=1.0).contains(&document.score)));

    for aggregation in ["none", "simple", "first", "average", "max"] {
        let text = "w5 ünknown w7 w8 w20";
        let asked = json!({"texts": [text], "aggregation": aggregation});
        let found = instance.ask::<EntitiesRequest>(asked).await.unwrap();
        let chars: Vec<char> = text.chars().collect();
        for entity in &found.results[0].entities {
            let shown: String = chars[entity.start as usize..entity.end as usize].iter().collect();
            assert_eq!(shown, entity.text);
        }
    }
    let redacted = json!({"texts": ["mail jürgen@example.org, call +49 30 901820"]});
    let redacted = instance.ask::<RedactRequest>(redacted).await.unwrap();
    assert_eq!(redacted.results[0].text, "mail [EMAIL], call [PHONE]");
    assert_eq!((redacted.model, redacted.results[0].spans[0].start), (None, 5));
    let named = json!({"texts": ["w5 w6 a@b.example w7"], "entities": true});
    let named = instance.ask::<RedactRequest>(named).await.unwrap();
    assert_eq!(named.model.as_deref(), Some("tagger"));
    assert!(named.results[0].text.contains("[EMAIL]"));
}

#[tokio::test]
async fn long_texts_are_windowed_and_many_are_streamed() {
    let instance = embedder();
    let long: String = (0..3000).map(|n| format!("word{n} ")).collect();
    let answered = instance.ask::<EmbedRequest>(json!({"texts": [long, "hello"]})).await.unwrap();
    assert!(answered.results[0].windows > 10, "{}", answered.results[0].windows);
    assert_eq!(answered.results[1].windows, 1);
    assert!(answered.results[0].tokens > 6000 && answered.timings.batches > 5);
    // What is at the end of a long text counts.
    let documents = [format!("{} Paris is the capital of France.", "It rains. ".repeat(600))];
    let other = ["It rains. ".repeat(600)];
    for model in ["splade-tiny", "all-minilm-l6-v2"] {
        let query = "What is the capital of France?";
        let asked = json!({"model": model, "query": query, "documents": [other[0], documents[0]]});
        let ranked = instance.ask::<RerankRequest>(asked).await.unwrap();
        assert_eq!(ranked.results[0].index, 1, "{model}");
        assert!(ranked.results[0].windows > 2);
    }

    let texts: Vec<String> = (0..600).map(|n| format!("sentence number {n} of many")).collect();
    let request: EmbedRequest = serde_json::from_value(json!({ "texts": texts })).unwrap();
    let request = aisemble_protocol::nlp::NlpTask::to_run(&request).unwrap();
    let mut stream = instance.nlp().run(request).await.unwrap().into_inner();
    let mut parts = 0;
    let mut seen = vec![false; 600];
    while let Some(event) = stream.message().await.unwrap() {
        if let Some(v1::nlp_event::Event::Part(part)) = event.event {
            parts += 1;
            for result in part.results {
                assert!(!std::mem::replace(&mut seen[result.index as usize], true));
            }
        }
    }
    assert!(parts > 3 && seen.into_iter().all(|seen| seen), "{parts} parts");
}

#[tokio::test]
async fn bad_requests_are_told_what_is_wrong() {
    let instance = embedder();
    let embed = |task: v1::EmbedTask| v1::nlp_request::Task::Embed(task);
    let check = async |model: &str, task, code: ErrorCode, param: &str, sentence: &str| {
        let (model, task) = (model.to_owned(), Some(task));
        let request = v1::NlpRequest { model, task, ..v1::NlpRequest::default() };
        let error = answer(instance.nlp(), request).await.unwrap_err();
        assert_eq!((error.code, error.param.as_deref()), (code, Some(param)), "{error:?}");
        assert!(error.message.contains(sentence), "{error:?}");
    };
    let texts = |texts: &[&str]| v1::EmbedTask {
        texts: texts.iter().map(|text| (*text).to_owned()).collect(),
        ..v1::EmbedTask::default()
    };
    let (invalid, unprocessable) = (ErrorCode::InvalidRequest, ErrorCode::Unprocessable);
    let many = embed(texts(&["a"; 10_000]));
    check("", many, invalid, "texts", "10000 texts are given; between 1 and 2048").await;
    check("", embed(texts(&["a", ""])), invalid, "texts", "texts[1] is empty").await;
    check("", embed(texts(&[])), invalid, "texts", "0 texts are given").await;
    let large = "a".repeat((2 << 20) + 1);
    let large = embed(texts(&[&large]));
    check("", large, ErrorCode::PayloadTooLarge, "texts", "the limit is 2097152").await;
    let wide = embed(v1::EmbedTask { dimensions: 385, ..texts(&["a"]) });
    check("", wide, unprocessable, "dimensions", "all-minilm-l6-v2 gives 384").await;
    let ids = vec![v1::TokenIds { ids: vec![30_522] }];
    let ids = embed(v1::EmbedTask { tokens: ids, ..v1::EmbedTask::default() });
    check("", ids, invalid, "tokens", "has 30522 tokens").await;
    let other = embed(texts(&["a"]));
    check("bge-large", other, ErrorCode::NotFound, "model", "embed: all-minilm-l6-v2").await;
    let sparse = embed(v1::EmbedTask { sparse: true, ..texts(&["a"]) });
    check("all-minilm-l6-v2", sparse, unprocessable, "model", "splade-tiny").await;
    let texts = vec!["a".to_owned()];
    let classify = v1::nlp_request::Task::Classify(v1::ClassifyTask { texts, top_k: 0 });
    check("", classify, unprocessable, "model", "no loaded model has the task classify").await;
    let query = "w1 ".repeat(30);
    let rerank = v1::RerankTask { query, documents: vec!["w2".to_owned()] };
    let rerank = v1::nlp_request::Task::Rerank(rerank);
    check("pairs", rerank, unprocessable, "query", "has 30 tokens; at most 20").await;
    let nothing = v1::NlpRequest::default();
    let error = answer(instance.nlp(), nothing).await.unwrap_err();
    assert_eq!(error.param.as_deref(), Some("task"));

    // Control characters are no error: there is nothing in them, and the answer says so.
    let control = json!({"texts": ["\u{1}\u{2}\u{7f}"]});
    let control = instance.ask::<EmbedRequest>(control).await.unwrap();
    assert_eq!(control.results[0].tokens, 2, "the special tokens");
    let error = instance.ask::<ClassifyRequest>(json!({"texts": "x"})).await.unwrap_err();
    assert_eq!(error.code, unprocessable);
}
