//! The sentiment head of the repository on the real embedder.

use std::path::Path;

use aisemble_nlp::config::ModelSection;
use aisemble_protocol::nlp::ClassifyRequest;
use serde_json::json;

use crate::instance::Instance;
use crate::models::{installed, section};

const POSITIVE: [&str; 6] = [
    "I love this, it is wonderful!",
    "The staff were friendly and the room was beautiful.",
    "An excellent film with a brilliant cast.",
    "Best purchase I have made in years, works perfectly.",
    "What a great day, I am so happy.",
    "Thank you so much, this was a big help.",
];
const NEGATIVE: [&str; 6] = [
    "I hate it, a complete waste of money.",
    "The screen broke after two days and nobody answered.",
    "A boring film with terrible acting.",
    "Worst service ever, I am very disappointed.",
    "It was an awful, painful experience.",
    "The food was cold and disgusting.",
];

fn head() -> ModelSection {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../configs/models");
    let mut head = section("sentiment-minilm", &folder.join("sentiment-minilm"));
    "linear".clone_into(&mut head.architecture);
    head
}

#[tokio::test]
async fn clear_words_are_told_apart_and_the_head_shares_its_embedder() {
    let base = section("all-minilm-l6-v2", &installed("all-minilm-l6-v2"));
    let instance = Instance::serving(vec![base, head()], &["engine.threads=1"]);
    let described = instance.describe().await;
    let model = &described.models[1];
    assert_eq!((model.family.as_str(), model.parameters), ("linear on all-minilm-l6-v2", 770));
    assert_eq!(model.labels, ["negative", "positive"]);
    assert_eq!(model.tasks, ["classify"]);
    for (texts, label) in [(POSITIVE, "positive"), (NEGATIVE, "negative")] {
        let answer = instance.ask::<ClassifyRequest>(json!({"texts": texts})).await.unwrap();
        assert_eq!(answer.model, "sentiment-minilm");
        for (result, text) in answer.results.iter().zip(texts) {
            let best = &result.labels[0];
            assert!(best.label == label && best.score > 0.7, "{text}: {:?}", result.labels);
            let sum: f32 = result.labels.iter().map(|label| label.score).sum();
            assert!((sum - 1.0).abs() < 1e-5);
        }
    }
}

#[test]
fn a_head_without_its_embedder_is_not_served() {
    let base = section("splade-tiny", &installed("splade-tiny"));
    let (code, lines) = Instance::start(vec![base, head()], &[]).end();
    assert_eq!(code, Some(78), "{lines:#?}");
    let log = serde_json::to_string(&lines).unwrap();
    assert!(log.contains("no model before it has them"), "{log}");
}
