//! Each wrong field is named with its limit; answers come together in any order.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn check<T: NlpTask>(json: serde_json::Value, param: &str, sentence: &str) {
    let request: T = serde_json::from_value(json).unwrap();
    let error = request.to_run().unwrap_err();
    assert_eq!(error.param.as_deref(), Some(param), "{}", error.message);
    assert!(error.message.contains(sentence), "{}", error.message);
}

#[test]
fn each_wrong_field_is_named_with_its_limit() {
    let many = vec!["a"; 10_000];
    check::<EmbedRequest>(json!({}), "texts", "texts or tokens is required");
    check::<EmbedRequest>(json!({"texts": []}), "texts", "between 1 and 2048");
    check::<EmbedRequest>(json!({"texts": many}), "texts", "10000 texts are given");
    check::<EmbedRequest>(json!({"texts": ["a", ""]}), "texts", "texts[1] is empty");
    check::<EmbedRequest>(json!({"texts": "a".repeat(3 << 20)}), "texts", "the limit is 2097152");
    check::<EmbedRequest>(json!({"texts": "a", "tokens": [[1]]}), "tokens", "not both");
    check::<EmbedRequest>(json!({"tokens": [[1], []]}), "tokens", "tokens[1] is empty");
    check::<EmbedRequest>(json!({"texts": "a", "dimensions": 0}), "dimensions", "at least 1");
    check::<EmbedRequest>(json!({"texts": "a", "dimensions": 90000}), "dimensions", "at most");
    check::<EmbedRequest>(json!({"texts": "a", "terms_max": 3}), "terms_max", "sparse");
    let sparse = json!({"texts": "a", "representation": "sparse", "dimensions": 2});
    check::<EmbedRequest>(sparse, "dimensions", "has no dimensions");
    check::<RerankRequest>(json!({"query": "", "documents": ["a"]}), "query", "empty");
    check::<RerankRequest>(json!({"query": "a", "documents": []}), "documents", "between 1 and");
    check::<ClassifyRequest>(json!({"texts": "a", "top_k": 0}), "top_k", "at least 1");
    let labels = vec!["PER"; 10_000];
    check::<EntitiesRequest>(json!({"texts": "a", "labels": labels}), "labels", "at most 256");
    check::<EntitiesRequest>(json!({"texts": "a", "score_min": 2}), "score_min", "between 0 and");
    check::<RedactRequest>(json!({"texts": "a", "rules": []}), "rules", "nothing to look for");
    check::<RedactRequest>(json!({"texts": "a", "score_min": 0.5}), "score_min", "entities: true");
    check::<RedactRequest>(json!({"texts": "a", "mask": "x"}), "mask", "replacement: mask");
    let patterns = json!([{"label": "a b", "pattern": "x"}]);
    check::<RedactRequest>(json!({"texts": "a", "patterns": patterns}), "patterns", "letters");
    let long = "m".repeat(300);
    check::<ClassifyRequest>(json!({"texts": "a", "model": long}), "model", "limit is 256");
}

#[test]
fn unknown_fields_and_rules_are_refused_by_name() {
    let refused = serde_json::from_value::<EmbedRequest>(json!({"texts": "a", "dimension": 3}));
    assert!(refused.unwrap_err().to_string().contains("dimension"));
    let refused = serde_json::from_value::<RedactRequest>(json!({"texts": "a", "rules": ["x"]}));
    assert!(refused.unwrap_err().to_string().contains("us_ssn"));
}

#[test]
fn the_default_request_asks_for_normalised_vectors_and_all_rules() {
    let request: EmbedRequest = serde_json::from_value(json!({"texts": "a"})).unwrap();
    let Some(v1::nlp_request::Task::Embed(task)) = request.to_run().unwrap().task else {
        panic!("another task")
    };
    assert!(task.normalize && !task.sparse && task.texts == ["a"]);
    let request: RedactRequest = serde_json::from_value(json!({"texts": ["a"]})).unwrap();
    let Some(v1::nlp_request::Task::Redact(task)) = request.to_run().unwrap().task else {
        panic!("another task")
    };
    assert!(task.all_rules && !task.entities);
}

fn started(texts: u32) -> v1::NlpEvent {
    let started = v1::NlpStarted { texts, windows: texts, ..v1::NlpStarted::default() };
    v1::NlpEvent { event: Some(v1::nlp_event::Event::Started(started)) }
}

fn part(results: impl IntoIterator<Item = (u32, f32)>) -> v1::NlpEvent {
    let results = results.into_iter().map(|(index, score)| v1::TextResult {
        index,
        tokens: 3,
        windows: 1,
        result: Some(v1::text_result::Result::Relevance(score)),
    });
    let part = v1::NlpPart { results: results.collect() };
    v1::NlpEvent { event: Some(v1::nlp_event::Event::Part(part)) }
}

fn finished() -> v1::NlpEvent {
    let finished = v1::NlpFinished::default();
    v1::NlpEvent { event: Some(v1::nlp_event::Event::Finished(finished)) }
}

#[test]
fn an_answer_out_of_order_is_sorted_and_cut() {
    let request: RerankRequest = serde_json::from_value(
        json!({"query": "q", "documents": ["a", "b", "c"], "top_n": 2, "return_documents": true}),
    )
    .unwrap();
    let mut gathered = Gathered::default();
    for event in [started(3), part([(2, 0.5), (0, 0.1)]), part([(1, 0.9)]), finished()] {
        gathered.push(event).unwrap();
    }
    assert_eq!(gathered.progress(), (3, 3));
    let result = request.result(gathered).unwrap();
    let ranked: Vec<_> = result.results.iter().map(|r| (r.index, r.document.as_deref())).collect();
    assert_eq!(ranked, [(1, Some("b")), (2, Some("c"))]);
}

#[test]
fn a_broken_answer_is_no_answer() {
    let request: RerankRequest =
        serde_json::from_value(json!({"query": "q", "documents": ["a"]})).unwrap();
    let mut early = Gathered::default();
    early.push(started(1)).unwrap();
    early.push(part([(0, 0.5)])).unwrap();
    assert_eq!(request.result(early.clone()).unwrap_err().code, ErrorCode::Unavailable);
    assert_eq!(early.push(part([(0, 0.5)])).unwrap_err().code, ErrorCode::Internal);
    assert_eq!(early.push(part([(7, 0.5)])).unwrap_err().code, ErrorCode::Internal);
    assert_eq!(early.push(started(1)).unwrap_err().code, ErrorCode::Internal);
    early.push(finished()).unwrap();
    let classify: ClassifyRequest = serde_json::from_value(json!({"texts": "a"})).unwrap();
    assert_eq!(classify.result(early).unwrap_err().code, ErrorCode::Internal);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_json_is_a_request_or_an_error(text in "[\\[\\]{}\":,a-z0-9 .-]{0,80}") {
        if let Ok(request) = serde_json::from_str::<EmbedRequest>(&text) {
            let _checked = request.to_run();
        }
        if let Ok(request) = serde_json::from_str::<RedactRequest>(&text) {
            let _checked = request.to_run();
        }
    }

    #[test]
    fn any_events_end_in_an_answer_or_an_error(
        events in proptest::collection::vec((0u8..4, 0u32..5), 0..12)
    ) {
        let mut gathered = Gathered::default();
        for (kind, n) in events {
            let _taken = gathered.push(match kind {
                0 => started(n),
                1 => part([(n, 0.0)]),
                2 => finished(),
                _ => v1::NlpEvent::default(),
            });
        }
        if let Ok((results, _)) = gathered.complete() {
            for (index, result) in results.iter().enumerate() {
                prop_assert_eq!(result.index as usize, index);
            }
        }
    }
}
