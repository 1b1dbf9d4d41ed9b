//! Folders of safetensors: valid ones, broken ones, absurd ones.

use std::collections::HashMap;
use std::io::{Seek as _, Write as _};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::gguf::TensorType;

/// A folder in memory.
type Folder = HashMap<String, Vec<u8>>;

fn file_of(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    file
}

fn open(folder: &Folder) -> Result<SafetensorsModel, SafetensorsError> {
    let mut open = |name: &str| Ok(folder.get(name).map(|bytes| file_of(bytes)));
    SafetensorsModel::open(&mut open, Quantise::None)
}

fn shard(header: &Value, data_bytes: usize) -> Vec<u8> {
    let header = header.to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.bytes());
    bytes.extend((0..data_bytes).map(|at| at as u8));
    bytes
}

fn config() -> Value {
    json!({
        "model_type": "llama", "hidden_size": 2, "num_hidden_layers": 1, "num_attention_heads": 1,
        "intermediate_size": 2, "rms_norm_eps": 1e-6, "max_position_embeddings": 8,
        "vocab_size": 3,
    })
}

fn folder(weights: &[u8]) -> Folder {
    let of = |name: &str, bytes: &[u8]| (name.to_owned(), bytes.to_vec());
    HashMap::from([
        of("config.json", config().to_string().as_bytes()),
        of("tokenizer.json", b"{}"),
        of("model.safetensors", weights),
    ])
}

fn tensor(kind: &str, shape: &[u64], from: u64, to: u64) -> Value {
    json!({"dtype": kind, "shape": shape, "data_offsets": [from, to]})
}

#[track_caller]
fn refused(folder: &Folder, says: &str) {
    let error = open(folder).unwrap_err();
    let source = std::error::Error::source(&error).map_or_else(String::new, ToString::to_string);
    let text = format!("{error}: {source}");
    assert!(text.contains(says), "expected `{says}` in: {text}");
}

#[test]
fn tensors_are_found_by_their_gguf_names() {
    let header = json!({
        "model.embed_tokens.weight": tensor("BF16", &[3, 2], 0, 12),
        "model.layers.0.self_attn.rotary_emb.inv_freq": tensor("F32", &[1], 12, 16),
        "model.norm.weight": tensor("F16", &[2], 16, 20),
    });
    let model = open(&folder(&shard(&header, 20))).unwrap();
    assert_eq!(model.tensor_names(), ["output_norm.weight", "token_embd.weight"]);
    let table = model.tensor("token_embd.weight").unwrap();
    assert_eq!((table.kind, table.dims), (TensorType::Bf16, &[3, 2][..]));
    assert_eq!(table.bytes, (0..12).collect::<Vec<u8>>());
    assert_eq!(model.tensor("output_norm.weight").unwrap().bytes, [16, 17, 18, 19]);
    assert!(!model.has_tensor("output.weight") && model.config().unwrap().tied_embeddings);
    assert!(matches!(model.tensor("blk.0.attn_q.weight"), Err(LoadError::Missing { .. })));
    assert!(model.tokenizer().is_err());
}

#[test]
fn what_is_missing_broken_or_unknown_is_named() {
    let good = shard(&json!({"model.norm.weight": tensor("F32", &[2], 0, 8)}), 8);
    assert!(open(&folder(&good)).is_ok());
    for missing in ["config.json", "tokenizer.json", "model.safetensors"] {
        let mut folder = folder(&good);
        folder.remove(missing);
        refused(&folder, &format!("there is no `{missing}`"));
    }
    let weights = |bytes: &[u8]| folder(bytes);
    refused(&weights(b""), "`model.safetensors` is not a safetensors file");
    refused(&weights(&good[..good.len() - 1]), "is not a safetensors file");
    let mut absurd = good.clone();
    absurd[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    refused(&weights(&absurd), "header in bytes of `model.safetensors` is 18446744073709551615");
    let one = |entry: Value| weights(&shard(&json!({"model.norm.weight": entry}), 8));
    refused(&one(tensor("I32", &[2], 0, 8)), "is of type I32");
    refused(&one(tensor("F32", &[3], 0, 8)), "is not a safetensors file");
    refused(&one(tensor("F32", &[u64::MAX, 2], 0, 8)), "is not a safetensors file");
    refused(&one(tensor("F32", &[1, 1, 1, 1, 2], 0, 8)), "dimensions of a tensor");
    let expert = json!({"model.layers.0.mlp.experts.0.w": tensor("F32", &[2], 0, 8)});
    refused(&weights(&shard(&expert, 8)), "is not part of a `llama` model");
    let mut folder = folder(&good);
    let mut mamba = config();
    mamba["model_type"] = "mamba".into();
    folder.insert("config.json".to_owned(), mamba.to_string().into_bytes());
    refused(&folder, "\"mamba\", which is not supported");
    folder.insert("config.json".to_owned(), vec![b' '; 1 + limits::CONFIG_BYTES_MAX as usize]);
    refused(&folder, "size in bytes of `config.json`");
}

#[test]
fn an_index_says_where_each_tensor_is() {
    let first = shard(&json!({"model.norm.weight": tensor("F32", &[2], 0, 8)}), 8);
    let second = shard(&json!({"model.embed_tokens.weight": tensor("F32", &[1, 2], 0, 8)}), 8);
    let indexed = |index: Value| {
        let mut folder = folder(b"");
        folder.insert("a.safetensors".to_owned(), first.clone());
        folder.insert("b.safetensors".to_owned(), second.clone());
        folder.insert(INDEX.to_owned(), index.to_string().into_bytes());
        folder
    };
    let map = |norm: &str, table: &str| {
        indexed(json!({"weight_map": {
            "model.norm.weight": norm, "model.embed_tokens.weight": table}}))
    };
    let model = open(&map("a.safetensors", "b.safetensors")).unwrap();
    assert_eq!(model.tensor_names(), ["output_norm.weight", "token_embd.weight"]);
    assert_eq!(model.file_bytes(), (first.len() + second.len()) as u64);
    refused(&map("b.safetensors", "b.safetensors"), "is not in the file that the index says");
    refused(&map("b.safetensors", "a.safetensors"), "is not in the file that the index says");
    refused(&map("a.safetensors", "c.safetensors"), "there is no `c.safetensors`");
    for outside in ["../a.safetensors", "/etc/passwd", ".safetensors", "a.bin", "x/a.safetensors"] {
        refused(&map("a.safetensors", outside), "must be a plain name");
    }
    refused(&indexed(json!({"weight_map": {}})), "number of files");
    refused(&indexed(json!([])), "`model.safetensors.index.json` cannot be understood");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_bytes_are_a_model_or_an_error(
        header in "[{}\\[\\]\":,0-9a-zA-Z_ ]{0,120}",
        data in prop::collection::vec(any::<u8>(), 0..64),
        offsets in any::<(u64, u64)>(),
        length in any::<u64>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.bytes());
        bytes.extend(&data);
        let _any = open(&folder(&bytes));
        bytes[..8].copy_from_slice(&length.to_le_bytes());
        let _any = open(&folder(&bytes));
        let named = |shape: &[u64], (from, to)| {
            json!({"model.norm.weight": tensor("F32", shape, from, to)})
        };
        let _any = open(&folder(&shard(&named(&[length], offsets), data.len())));
        let mut bytes = shard(&named(&[2], (0, 8)), 8);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(model) = open(&folder(&bytes)) {
            for name in model.tensor_names() {
                let view = model.tensor(name).unwrap();
                let values: usize = view.dims.iter().product();
                prop_assert_eq!(view.bytes.len(), values * view.kind.block_bytes());
            }
        }
    }
}
