//! The real models against the reference values of `scripts/reference/nlp.py` (double precision;
//! that script's ONNX graph in ONNX Runtime agrees with it).

use aisemble_nlp::config::Precision;
use aisemble_nlp::encoder::Sequences;
use aisemble_nlp::heads::Output;
use aisemble_nlp::model::LoadedModel;
use aisemble_nlp::tasks::merge::cosine;
use serde::Deserialize;

use crate::models::{installed, load, section, small};

/// What single precision must reach.
const COSINE_MIN: f32 = 0.9999;
/// What 8-bit weights must reach.
const COSINE_MIN_Q8: f32 = 0.995;

#[derive(Deserialize)]
struct Embedded {
    text: String,
    ids: Vec<u32>,
    embedding: Vec<f32>,
}

#[derive(Deserialize)]
struct Terms {
    text: String,
    ids: Vec<u32>,
    weights: Vec<f32>,
}

#[derive(Deserialize)]
struct Tags {
    text: String,
    ids: Vec<u32>,
    tags: Vec<usize>,
    scores: Vec<f32>,
}

fn read<T: for<'a> Deserialize<'a>>(file: &str) -> Vec<T> {
    serde_json::from_str(&std::fs::read_to_string(small(file)).unwrap()).unwrap()
}

fn sequence(model: &LoadedModel, text: &str) -> Vec<u32> {
    let encoded = model.text.encode(text).unwrap();
    model.text.sequence(&encoded.ids(0..encoded.tokens.len())).0
}

fn outputs(model: &LoadedModel, sequences: &Sequences) -> Vec<Output> {
    model.head.outputs(&model.encoder, &model.encoder.forward(sequences), sequences)
}

fn check_embeddings(precision: Precision, cosine_min: f32) {
    let mut wanted = section("all-minilm-l6-v2", &installed("all-minilm-l6-v2"));
    wanted.precision = precision;
    let models = load(vec![wanted]);
    let model = &models[0];
    let expected: Vec<Embedded> = read("minilm.json");
    let mut sequences = Sequences::default();
    for expected in &expected {
        let ids = sequence(model, &expected.text);
        assert_eq!(ids, expected.ids, "{:?}", expected.text);
        sequences.push(&ids, None);
    }
    for (output, expected) in outputs(model, &sequences).into_iter().zip(&expected) {
        let Output::Vector(found) = output else { panic!("{output:?}") };
        let cosine = cosine(&found, &expected.embedding);
        assert!(cosine >= cosine_min, "{:?}: cosine {cosine}", expected.text);
    }
}

#[test]
fn embeddings_are_those_of_the_reference() {
    check_embeddings(Precision::F32, COSINE_MIN);
}

#[test]
fn embeddings_of_8_bit_weights_are_near_those_of_the_reference() {
    check_embeddings(Precision::Q8, COSINE_MIN_Q8);
}

#[test]
fn terms_are_those_of_the_reference() {
    let models = load(vec![section("splade-tiny", &installed("splade-tiny"))]);
    let model = &models[0];
    for expected in read::<Terms>("splade.json") {
        let mut sequences = Sequences::default();
        sequences.push(&sequence(model, &expected.text), None);
        let Some(Output::Terms(found)) = outputs(model, &sequences).pop() else { panic!() };
        // A weight beside 0 may be on either side of it.
        let found: Vec<_> = found.into_iter().filter(|term| term.1 > 1e-3).collect();
        let pairs = expected.ids.into_iter().zip(expected.weights);
        let expected: Vec<_> = pairs.filter(|term| term.1 > 1e-3).collect();
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(&expected) {
            assert_eq!(found.0, expected.0);
            assert!((found.1 - expected.1).abs() < 1e-3, "{found:?} is not {expected:?}");
        }
    }
}

#[test]
fn tags_of_an_exported_model_are_those_of_the_reference() {
    let mut wanted = section("quire-grammar", &installed("quire-grammar"));
    wanted.architecture = "distilbert".to_owned();
    let models = load(vec![wanted]);
    let model = &models[0];
    assert_eq!((model.labels.len(), model.labels[0].as_str()), (213, "$KEEP"));
    for expected in read::<Tags>("quire.json") {
        let ids = sequence(model, &expected.text);
        assert_eq!(ids, expected.ids);
        let mut sequences = Sequences::default();
        sequences.push(&ids, None);
        let Some(Output::Tokens(found)) = outputs(model, &sequences).pop() else { panic!() };
        let pairs = expected.tags.iter().zip(&expected.scores);
        for (row, (tag, score)) in found.chunks_exact(213).zip(pairs) {
            assert!((row[*tag] - score).abs() < 1e-3, "{} is not {score}", row[*tag]);
            assert!(row.iter().all(|other| *other <= row[*tag]));
        }
    }
}
