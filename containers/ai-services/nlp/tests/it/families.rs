//! Every family on small random weights: the outputs are those of `scripts/reference/nlp.py`, which
//! shares no code with this crate.

use aisemble_nlp::encoder::Sequences;
use aisemble_nlp::heads::Output;
use aisemble_nlp::model::LoadedModel;
use serde_json::Value;

use crate::models::{load, section, small};

fn expected() -> Value {
    let text = std::fs::read_to_string(small("small.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|value| value.as_f64().unwrap() as f32).collect()
}

fn texts(expected: &Value) -> Vec<String> {
    let texts = expected["texts"].as_array().unwrap();
    texts.iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

fn outputs(model: &LoadedModel, texts: &[String]) -> Vec<Output> {
    let mut sequences = Sequences::default();
    for text in texts {
        let encoded = model.text.encode(text).unwrap();
        sequences.push(&model.text.sequence(&encoded.ids(0..encoded.tokens.len())).0, None);
    }
    let hidden = model.encoder.forward(&sequences);
    model.head.outputs(&model.encoder, &hidden, &sequences)
}

fn check_close(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < 2e-5, "{what}: {found} is not {expected}");
    }
}

fn check(name: &str) {
    let expected = expected();
    let models = load(vec![section(name, &small(name))]);
    let outputs = outputs(&models[0], &texts(&expected));
    let rows = expected["outputs"][name].as_array().unwrap();
    assert_eq!(outputs.len(), rows.len());
    for (output, row) in outputs.into_iter().zip(rows) {
        let (Output::Labels(found) | Output::Tokens(found)) = output else {
            panic!("{name}: {output:?}")
        };
        check_close(&found, &floats(row), name);
    }
}

#[test]
fn bert_with_old_names_of_normalisations_tags_tokens() {
    check("bert-tokens");
}

#[test]
fn distilbert_tags_tokens() {
    check("distilbert-tokens");
}

#[test]
fn roberta_counts_positions_behind_the_padding() {
    check("roberta-labels");
}

#[test]
fn modernbert_turns_gates_and_sees_what_is_near() {
    check("modernbert-labels");
}

#[test]
fn a_cross_encoder_reads_pairs() {
    let expected = expected();
    let models = load(vec![section("bert-pairs", &small("bert-pairs"))]);
    let model = &models[0];
    let texts = texts(&expected);
    let ids = |text: &str| {
        let encoded = model.text.encode(text).unwrap();
        encoded.ids(0..encoded.tokens.len())
    };
    let mut sequences = Sequences::default();
    for document in &texts[1..] {
        let (pair, second) = model.text.sequence_of_pair(&ids(&texts[0]), &ids(document)).unwrap();
        sequences.push(&pair, Some(second));
    }
    let hidden = model.encoder.forward(&sequences);
    let found: Vec<f32> = model
        .head
        .outputs(&model.encoder, &hidden, &sequences)
        .into_iter()
        .map(|output| {
            let Output::Relevance(score) = output else { panic!("{output:?}") };
            score
        })
        .collect();
    check_close(&found, &floats(&expected["outputs"]["bert-pairs"]), "bert-pairs");
}
