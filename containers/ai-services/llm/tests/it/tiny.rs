//! Small models of every family in both containers, made of weights that follow from a formula
//! (`scripts/reference/families.py` has the same), so that no weights are kept.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

/// What others computed: `tests/data/families.json`.
#[derive(Deserialize)]
pub(crate) struct Reference {
    pub(crate) tokens: Vec<u32>,
    /// Rows whose logits were kept.
    pub(crate) rows: Vec<usize>,
    pub(crate) cases: Vec<Case>,
}

/// One model.
#[derive(Deserialize)]
pub(crate) struct Case {
    pub(crate) name: String,
    /// Its `config.json`.
    pub(crate) config: Value,
    /// Names and shapes as Hugging Face has them.
    pub(crate) tensors: BTreeMap<String, Vec<usize>>,
    pub(crate) largest_logit: f32,
    pub(crate) logits: Vec<Vec<f32>>,
}

pub(crate) fn reference() -> Reference {
    serde_json::from_str(include_str!("../data/families.json")).unwrap()
}

/// Values of one tensor: a hash of the name, then SplitMix64 over the index.
fn weight(name: &str, shape: &[usize], gemma: bool) -> Vec<f32> {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |state, byte| {
        (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let unit = |index: usize| {
        let step = (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let z = hash.wrapping_add(step);
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    let value = |unit: f32| match shape.len() {
        2 if name.contains("embed") => unit,
        2 => unit * 0.25,
        _ if name.ends_with("bias") => unit * 0.5,
        _ => unit * 0.25 + if gemma { 0.0 } else { 1.0 },
    };
    (0..shape.iter().product()).map(|index| value(unit(index))).collect()
}

impl Case {
    fn size(&self, key: &str) -> Option<usize> {
        self.config[key].as_u64().map(|size| size as usize)
    }

    fn is_gemma(&self) -> bool {
        self.config["model_type"].as_str().unwrap().starts_with("gemma")
    }

    fn weights(&self) -> impl Iterator<Item = (&str, &[usize], Vec<f32>)> {
        let gemma = self.is_gemma();
        self.tensors
            .iter()
            .map(move |(name, shape)| (name.as_str(), shape.as_slice(), weight(name, shape, gemma)))
    }

    /// The folder of a checkpoint: `shards` files of single precision, with an index when they are
    /// more than one.
    pub(crate) fn write_checkpoint(&self, folder: &Path, shards: usize) {
        self.write_as(folder, shards, "F32", |value| value.to_le_bytes().to_vec());
    }

    /// The same as bfloat16, in one file.
    pub(crate) fn write_checkpoint_bf16(&self, folder: &Path) {
        self.write_as(folder, 1, "BF16", |value| {
            let bits = value.to_bits();
            // To the nearest, of two equally near the even one.
            let rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
            (rounded as u16).to_le_bytes().to_vec()
        });
    }

    fn write_as(&self, folder: &Path, shards: usize, kind: &str, encode: fn(f32) -> Vec<u8>) {
        std::fs::write(folder.join("config.json"), self.config.to_string()).unwrap();
        std::fs::write(folder.join("tokenizer.json"), tokenizer().to_string()).unwrap();
        std::fs::write(folder.join("tokenizer_config.json"), settings().to_string()).unwrap();
        let mut files = vec![(serde_json::Map::new(), Vec::new()); shards];
        let mut index = serde_json::Map::new();
        for (at, (name, shape, values)) in self.weights().enumerate() {
            let (header, data) = &mut files[at % shards];
            let start = data.len();
            data.extend(values.iter().flat_map(|value| encode(*value)));
            let entry = json!({"dtype": kind, "shape": shape, "data_offsets": [start, data.len()]});
            header.insert(name.to_owned(), entry);
            index.insert(name.to_owned(), file_name(at % shards, shards).into());
        }
        for (at, (header, data)) in files.into_iter().enumerate() {
            let header = Value::Object(header).to_string();
            let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
            bytes.extend(header.bytes());
            bytes.extend(data);
            std::fs::write(folder.join(file_name(at, shards)), bytes).unwrap();
        }
        if shards > 1 {
            let index = json!({"metadata": {}, "weight_map": index});
            std::fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
        }
    }

    /// The same as a GGUF file, with that format's conventions.
    pub(crate) fn write_gguf(&self, path: &Path) {
        let kind = self.config["model_type"].as_str().unwrap();
        let architecture = match kind {
            "mistral" => "llama",
            "gemma3_text" => "gemma3",
            other => other,
        };
        let mut file = Gguf::default();
        file.text("general.architecture", architecture);
        let heads = self.size("num_attention_heads").unwrap();
        let kv_heads = self.size("num_key_value_heads").unwrap();
        let head_dim =
            self.size("head_dim").unwrap_or_else(|| self.size("hidden_size").unwrap() / heads);
        for (key, value) in [
            ("block_count", self.size("num_hidden_layers")),
            ("embedding_length", self.size("hidden_size")),
            ("feed_forward_length", self.size("intermediate_size")),
            ("context_length", self.size("max_position_embeddings")),
            ("attention.head_count", Some(heads)),
            ("attention.head_count_kv", Some(kv_heads)),
            ("attention.key_length", Some(head_dim)),
            ("attention.sliding_window", self.size("sliding_window")),
        ] {
            if let Some(value) = value {
                file.number(&format!("{architecture}.{key}"), value as u32);
            }
        }
        let rope = &self.config["rope_scaling"];
        if rope["rope_type"] == "linear" {
            file.text(&format!("{architecture}.rope.scaling.type"), "linear");
        }
        for (key, value) in [
            ("attention.layer_norm_rms_epsilon", &self.config["rms_norm_eps"]),
            ("rope.freq_base", &self.config["rope_theta"]),
            ("rope.scaling.factor", &rope["factor"]),
            ("attn_logit_softcapping", &self.config["attn_logit_softcapping"]),
            ("final_logit_softcapping", &self.config["final_logit_softcapping"]),
        ] {
            if let Some(value) = value.as_f64() {
                file.float(&format!("{architecture}.{key}"), value as f32);
            }
        }
        for (name, shape, mut values) in self.weights() {
            if architecture == "llama" && name.contains("q_proj") {
                values = pairs(&values, heads, shape[1]);
            }
            if architecture == "llama" && name.contains("k_proj") {
                values = pairs(&values, kv_heads, shape[1]);
            }
            if self.is_gemma() && name.contains("norm") {
                values.iter_mut().for_each(|value| *value += 1.0);
            }
            file.tensor(&gguf_name(name, self.is_gemma()), shape, &values);
        }
        if rope["rope_type"] == "llama3" {
            let factors = llama3_factors(&self.config, head_dim);
            file.tensor("rope_freqs.weight", &[factors.len()], &factors);
        }
        std::fs::write(path, file.bytes()).unwrap();
    }
}

fn file_name(at: usize, shards: usize) -> String {
    match shards {
        1 => "model.safetensors".to_owned(),
        _ => format!("model-{:05}-of-{shards:05}.safetensors", at + 1),
    }
}

fn gguf_name(name: &str, gemma: bool) -> String {
    let second = if gemma { "post_attention_norm" } else { "ffn_norm" };
    let parts = [
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
        ("model.layers", "blk"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", second),
        ("pre_feedforward_layernorm", "ffn_norm"),
        ("post_feedforward_layernorm", "post_ffw_norm"),
        ("self_attn.o_proj", "attn_output"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.q_norm", "attn_q_norm"),
        ("self_attn.k_norm", "attn_k_norm"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ];
    parts.iter().fold(name.to_owned(), |name, (theirs, ours)| name.replace(theirs, ours))
}

/// Rows of a matrix as llama.cpp's converter orders those of Llama's queries and keys: the two that
/// turn together become neighbours.
fn pairs(values: &[f32], heads: usize, cols: usize) -> Vec<f32> {
    let head_dim = values.len() / cols / heads;
    let from = |row: usize| {
        let (head, at) = (row / head_dim, row % head_dim);
        head * head_dim + at % 2 * (head_dim / 2) + at / 2
    };
    (0..heads * head_dim).flat_map(|row| values[from(row) * cols..][..cols].to_vec()).collect()
}

/// What llama.cpp's converter computes of Llama 3's parameters.
fn llama3_factors(config: &Value, head_dim: usize) -> Vec<f32> {
    let rope = &config["rope_scaling"];
    let [factor, low, high, context] =
        ["factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"]
            .map(|key| rope[key].as_f64().unwrap());
    let base = config["rope_theta"].as_f64().unwrap();
    let pair = |pair: usize| {
        let wave = std::f64::consts::TAU * base.powf(2.0 * pair as f64 / head_dim as f64);
        if wave < context / high {
            1.0
        } else if wave > context / low {
            factor
        } else {
            let smooth = (context / wave - low) / (high - low);
            1.0 / ((1.0 - smooth) / factor + smooth)
        }
    };
    (0..head_dim / 2).map(|at| pair(at) as f32).collect()
}

/// All bytes, some merges, and the tokens of a chat: within the tiny models' vocabulary.
fn tokenizer() -> Value {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let mut moved = 0x100;
    let mut vocab = serde_json::Map::new();
    for byte in 0..=255_u8 {
        let code = if printable(byte) { u32::from(byte) } else { moved };
        moved += u32::from(!printable(byte));
        vocab.insert(char::from_u32(code).unwrap().to_string(), byte.into());
    }
    for (id, text) in (256..).zip(["th", "the", "\u{120}the", "\u{120}t"]) {
        vocab.insert(text.to_owned(), id.into());
    }
    let added = |id: u32, content: &str| json!({"id": id, "content": content, "special": true});
    let regex = concat!(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    );
    json!({
        "added_tokens": [added(260, "<|endoftext|>"), added(261, "<|im_start|>"),
            added(262, "<|im_end|>")],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}]},
        "model": {"type": "BPE", "vocab": vocab,
            "merges": [["t", "h"], ["th", "e"], "\u{120} the"]},
    })
}

fn settings() -> Value {
    json!({
        "eos_token": "<|im_end|>", "bos_token": null, "add_bos_token": false,
        "chat_template": "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n\
            {% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    })
}

/// A GGUF file in the making.
#[derive(Default)]
struct Gguf {
    metadata: Vec<u8>,
    entries: u64,
    tensors: Vec<(String, Vec<usize>, Vec<u8>)>,
}

impl Gguf {
    fn entry(&mut self, key: &str, kind: u32, value: &[u8]) {
        self.metadata.extend(string(key));
        self.metadata.extend(kind.to_le_bytes());
        self.metadata.extend(value);
        self.entries += 1;
    }

    fn text(&mut self, key: &str, value: &str) {
        self.entry(key, 8, &string(value));
    }

    fn number(&mut self, key: &str, value: u32) {
        self.entry(key, 4, &value.to_le_bytes());
    }

    fn float(&mut self, key: &str, value: f32) {
        self.entry(key, 6, &value.to_le_bytes());
    }

    fn tensor(&mut self, name: &str, shape: &[usize], values: &[f32]) {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.tensors.push((name.to_owned(), shape.to_vec(), bytes));
    }

    fn bytes(self) -> Vec<u8> {
        let mut file = b"GGUF\x03\0\0\0".to_vec();
        file.extend((self.tensors.len() as u64).to_le_bytes());
        file.extend(self.entries.to_le_bytes());
        file.extend(&self.metadata);
        let mut data = Vec::new();
        for (name, shape, bytes) in &self.tensors {
            file.extend(string(name));
            file.extend((shape.len() as u32).to_le_bytes());
            shape.iter().rev().for_each(|dim| file.extend((*dim as u64).to_le_bytes()));
            file.extend(0_u32.to_le_bytes());
            data.resize(data.len().next_multiple_of(32), 0);
            file.extend((data.len() as u64).to_le_bytes());
            data.extend(bytes);
        }
        file.resize(file.len().next_multiple_of(32), 0);
        file.extend(data);
        file
    }
}

fn string(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}
