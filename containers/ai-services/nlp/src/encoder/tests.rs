//! Configurations that are refused, by the key at fault, and those of every family that are taken.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn bert() -> Value {
    json!({
        "model_type": "bert", "hidden_size": 384, "num_hidden_layers": 6,
        "num_attention_heads": 12, "intermediate_size": 1536, "vocab_size": 30522,
        "max_position_embeddings": 512, "hidden_act": "gelu", "layer_norm_eps": 1e-12
    })
}

fn parsed(json: Value) -> ConfigJson {
    serde_json::from_value(json).unwrap()
}

fn check(key: &str, value: Value, named: &str) {
    let mut json = bert();
    json[key] = value;
    let error = parsed(json).shape(None).unwrap_err();
    assert_eq!(error.key, named, "{error}");
}

#[test]
fn what_is_not_served_is_told_by_its_key() {
    check("model_type", json!("gpt2"), "model_type");
    check("hidden_size", json!(380), "hidden_size");
    check("hidden_size", json!(1_000_000), "hidden_size");
    check("num_attention_heads", json!(0), "num_attention_heads");
    check("num_hidden_layers", json!(10_000), "num_hidden_layers");
    check("vocab_size", json!(0), "vocab_size");
    check("hidden_act", json!("swish"), "hidden_act");
    check("layer_norm_eps", json!(-1), "layer_norm_eps");
    check("position_embedding_type", json!("relative_key"), "position_embedding_type");
}

#[test]
fn every_family_has_its_own_names_and_positions() {
    assert_eq!(parsed(bert()).shape(None).unwrap().positions, 512);
    let distil = json!({
        "model_type": "distilbert", "dim": 768, "n_layers": 6, "n_heads": 12, "hidden_dim": 3072,
        "vocab_size": 28996, "max_position_embeddings": 512, "activation": "gelu"
    });
    let shape = parsed(distil).shape(None).unwrap();
    assert_eq!((shape.family, shape.hidden, shape.intermediate), (Family::DistilBert, 768, 3072));
    let mut roberta = bert();
    roberta["model_type"] = json!("xlm-roberta");
    roberta["max_position_embeddings"] = json!(514);
    roberta["pad_token_id"] = json!(1);
    let shape = parsed(roberta).shape(None).unwrap();
    assert_eq!((shape.positions, shape.first_position), (512, 2));
    let mut modern = bert();
    modern["model_type"] = json!("modernbert");
    modern["local_attention"] = json!(128);
    let rotary = parsed(modern).shape(None).unwrap().rotary.unwrap();
    assert_eq!((rotary.global_every, rotary.local_reach), (3, 64));
}

#[test]
fn labels_are_numbered_without_gaps() {
    let labels = |json: Value| parsed(json!({ "id2label": json })).labels();
    assert_eq!(labels(json!({"1": "b", "0": "a"})).unwrap(), ["a", "b"]);
    assert!(labels(json!({"0": "a", "2": "b"})).is_err());
    assert!(labels(json!({})).unwrap().is_empty());
}

proptest! {
    #[test]
    fn any_sizes_are_a_shape_or_an_error(
        sizes in proptest::array::uniform6(any::<u32>().prop_map(|n| n % 4096)),
        pad in any::<i64>(),
        family in proptest::sample::select(vec!["bert", "distilbert", "roberta", "modernbert", ""]),
    ) {
        let config = parsed(json!({
            "model_type": family, "hidden_size": sizes[0], "num_hidden_layers": sizes[1],
            "num_attention_heads": sizes[2], "intermediate_size": sizes[3],
            "vocab_size": sizes[4], "max_position_embeddings": sizes[5], "pad_token_id": pad
        }));
        if let Ok(shape) = config.shape(None) {
            prop_assert!(shape.positions > 0 && shape.hidden.is_multiple_of(shape.heads * 16));
            prop_assert_eq!(shape.positions + shape.first_position, sizes[5] as usize);
        }
    }
}
