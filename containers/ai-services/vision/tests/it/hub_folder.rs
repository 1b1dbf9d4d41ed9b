//! Folders as a model hub has them, with small random weights: the names and shapes of the tensors
//! and the JSON files come from `tests/data/hub.json`, the values from the names, by the rule that
//! `scripts/reference/vision.py` has, too.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::data::Model;

/// What the reference said.
pub(crate) fn reference() -> Value {
    serde_json::from_str(include_str!("../data/hub.json")).unwrap()
}

/// The family of that architecture.
pub(crate) fn family(reference: &Value, architecture: &str) -> Map<String, Value> {
    let families = reference["families"].as_array().unwrap();
    let found = families.iter().find(|family| family["architecture"] == architecture).unwrap();
    found.as_object().unwrap().clone()
}

/// Writes the folder of a family.
pub(crate) fn folder(root: &Path, family: &Map<String, Value>) -> Model {
    let text = |key: &str| family[key].as_str().unwrap().to_owned();
    let folder = root.join(text("name"));
    std::fs::create_dir_all(&folder).unwrap();
    let mut files = Vec::new();
    let mut write = |name: &str, content: &[u8]| {
        std::fs::write(folder.join(name), content).unwrap();
        files.push((name.to_owned(), digest(content)));
    };
    write("model.safetensors", &weights(family));
    for (key, name) in [
        ("config", "config.json"),
        ("preprocessor", "preprocessor_config.json"),
        ("tokenizer", "tokenizer.json"),
    ] {
        if let Some(content) = family.get(key).filter(|content| !content.is_null()) {
            write(name, &serde_json::to_vec(content).unwrap());
        }
    }
    let (name, architecture) = (text("name"), text("architecture"));
    Model { name, architecture, license: "Apache-2.0".to_owned(), files, folder }
}

fn digest(content: &[u8]) -> String {
    let mut text = String::new();
    for byte in Sha256::digest(content) {
        write!(text, "{byte:02x}").unwrap();
    }
    text
}

fn weights(family: &Map<String, Value>) -> Vec<u8> {
    let head_gain = family["head_gain"].as_f64().unwrap();
    let tensors = family["tensors"].as_object().unwrap();
    let mut bytes: BTreeMap<&str, (Vec<usize>, Vec<u8>)> = BTreeMap::new();
    for (name, shape) in tensors {
        let shape: Vec<usize> = serde_json::from_value(shape.clone()).unwrap();
        let values = values(name, &shape, head_gain);
        bytes.insert(name, (shape, values.iter().flat_map(|value| value.to_le_bytes()).collect()));
    }
    let views = bytes.iter().map(|(name, (shape, bytes))| {
        (*name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
    });
    safetensors::serialize(views, None).unwrap()
}

/// The values of a tensor: what kind it is says its last name, and how wide they are its shape.
fn values(name: &str, shape: &[usize], head_gain: f64) -> Vec<f32> {
    let last = name.rsplit('.').next().unwrap();
    let (base, amplitude) = match (last, shape) {
        ("logit_scale", _) => (2.5, 0.0),
        ("logit_bias", _) => (-1.0, 0.0),
        ("running_var", _) => (1.0, 0.5),
        ("lambda1" | "gamma", _) => (0.75, 0.25),
        ("weight", [_]) => (1.0, 0.25),
        (_, [] | [_]) => (0.0, 0.125),
        (_, [_, rest @ ..]) => {
            let fan = if let [_, _, last] = shape { *last } else { rest.iter().product() };
            let head = name.starts_with("classifier.")
                || name.contains("text_projection")
                || name.contains("visual_projection");
            let gain = if head { head_gain } else { 1.25 };
            (0.0, gain * (3.0 / fan as f64).sqrt())
        }
    };
    let seed = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let count: usize = shape.iter().product();
    let value = |at: usize| (base + amplitude * random(seed, at as u64)) as f32;
    (0..count).map(value).collect()
}

/// From -1 to 1: splitmix64.
fn random(seed: u64, at: u64) -> f64 {
    let mut state = seed.wrapping_add((at + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^= state >> 31;
    (state >> 40) as f64 / f64::from(1_u32 << 23) - 1.0
}
