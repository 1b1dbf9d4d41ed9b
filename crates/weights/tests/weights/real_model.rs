//! SmolLM2-135M-Instruct: digest, shape, tokens, layers.

use std::sync::Arc;

use aisemble_weights::candle::Device;
use aisemble_weights::gguf::TensorType;
use aisemble_weights::kernels::{Pool, RopeStyle};
use aisemble_weights::{
    Embedding, Family, Gate, GgufFile, Linear, ModelConfig, RopeScaling, Tokenizer, digest,
};

use crate::model_file::{SHA256, smollm2};

const LLAMA_CPP: &str = include_str!("../../fixtures/smollm2-tokens.jsonl");

fn open() -> GgufFile {
    GgufFile::open(smollm2()).unwrap()
}

#[test]
fn the_pinned_digest_opens_the_file_and_another_does_not() {
    let mut reports = 0;
    let file = digest::open_verified(smollm2(), SHA256, |_, _| reports += 1).unwrap();
    assert!(reports > 10);
    assert_eq!(GgufFile::from_file(&file, smollm2()).unwrap().version(), 3);
    let other = SHA256.replace('b', "c");
    assert!(digest::open_verified(smollm2(), &other, |_, _| {}).is_err());
}

#[test]
fn the_shape_is_the_published_one() {
    let config = ModelConfig::from_gguf(&open()).unwrap();
    assert_eq!(
        config,
        ModelConfig {
            architecture: "llama".to_owned(),
            family: Family::Llama,
            name: config.name.clone(),
            license: Some("apache-2.0".to_owned()),
            blocks: 30,
            embedding: 576,
            heads: 9,
            kv_heads: 3,
            head_dim: 64,
            feed_forward: 1536,
            rms_eps: 1e-5,
            norm_offset: 0.0,
            head_norms: false,
            post_norms: false,
            gate: Gate::Silu,
            embedding_scale: 1.0,
            attention_scale: 0.125,
            attention_softcap: None,
            logit_softcap: None,
            window: None,
            rope_style: RopeStyle::Interleaved,
            rope_base: 100_000.0,
            rope_dim: 64,
            rope_scaling: RopeScaling::None,
            context_tokens: 8192,
            vocabulary: 49_152,
            tied_embeddings: true,
        }
    );
}

#[test]
fn every_text_has_the_tokens_that_llama_cpp_gives_it() {
    let tokenizer = Tokenizer::from_gguf(&open()).unwrap();
    let mut wrong = Vec::new();
    for line in LLAMA_CPP.lines() {
        let case: serde_json::Value = serde_json::from_str(line).unwrap();
        let text = case["text"].as_str().unwrap();
        let parse_special = case["parse_special"].as_bool().unwrap();
        let expected: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
        let found = tokenizer.encode(text, parse_special).unwrap();
        if found != expected {
            wrong.push((text.to_owned(), parse_special, expected, found));
        }
    }
    assert!(wrong.is_empty(), "{} of {}: {wrong:#?}", wrong.len(), LLAMA_CPP.lines().count());
}

#[test]
fn pieces_are_bytes_and_make_the_text_again() {
    let tokenizer = Tokenizer::from_gguf(&open()).unwrap();
    let text = "Hello 😀, 日本語 e\u{301}\n\t 42";
    let ids = tokenizer.encode(text, false).unwrap();
    let bytes: Vec<u8> = ids.iter().flat_map(|&id| tokenizer.piece(id).unwrap()).copied().collect();
    assert_eq!(String::from_utf8(bytes).unwrap(), text);
    assert!(ids.iter().any(|&id| std::str::from_utf8(tokenizer.piece(id).unwrap()).is_err()));
    assert_eq!(tokenizer.piece(2), Some(&b"<|im_end|>"[..]));
    assert_eq!(tokenizer.piece(49_152), None);
}

#[test]
fn special_tokens_are_those_of_the_file() {
    let tokenizer = Tokenizer::from_gguf(&open()).unwrap();
    assert_eq!(tokenizer.encode("Hello", false).unwrap(), [19_556]);
    assert_eq!(tokenizer.encode("<|im_start|>\n", true).unwrap(), [1, 198]);
    assert!(tokenizer.encode("<|im_start|>\n", false).unwrap().len() > 3);
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(1), Some(2)));
    assert_eq!(tokenizer.end_of_generation(), [0, 2]);
    assert!(tokenizer.ends_generation(2) && !tokenizer.ends_generation(1));
    assert!(tokenizer.is_control(1) && !tokenizer.is_control(19_556));
    assert_eq!(tokenizer.token_id("<|im_end|>"), Some(2));
    assert_eq!(tokenizer.vocabulary_len(), 49_152);
    assert!(!tokenizer.add_bos());
    assert!(tokenizer.chat_template().unwrap().contains("<|im_start|>"));
}

#[test]
fn layers_load_and_the_tied_table_is_shared() {
    let gguf = open();
    let pool = Arc::new(Pool::new(Some(1)).unwrap());
    let table = Embedding::load(&gguf, "token_embd.weight", &Device::Cpu, &pool).unwrap();
    assert_eq!((table.vocabulary(), table.width()), (49_152, 576));
    let rows = table.rows(&[0, 19_556]).unwrap();
    assert_eq!(rows.dims(), [2, 576]);
    assert!(table.rows(&[49_152]).is_err());
    assert_eq!(gguf.tensor("blk.0.attn_q.weight").unwrap().kind, TensorType::Q4_1);
    let load = |name: &str, out, inner| {
        Linear::load_shaped(&gguf, (name, out, inner), &Device::Cpu, &pool)
    };
    let query = load("blk.0.attn_q.weight", 576, 576).unwrap();
    assert!(load("blk.0.attn_k.weight", 576, 576).unwrap_err().to_string().contains("[192, 576]"));
    drop(gguf);
    assert_eq!(query.forward(&rows).unwrap().dims(), [2, 576]);
    assert_eq!(table.as_linear().out_features(), 49_152);
}
