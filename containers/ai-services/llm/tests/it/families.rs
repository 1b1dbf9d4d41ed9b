//! Every family against two other implementations (`tests/data/families.json`, made by
//! `scripts/reference/families.py`): small models with a window, a bias, norms and caps where the
//! family has them, from safetensors and from GGUF, whole, in pieces and beside each other.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use aisemble_llm::model::{CacheKind, Decoder, StepBatch};
use aisemble_weights::candle::Device;
use aisemble_weights::kernels::Pool;
use aisemble_weights::{GgufFile, ModelSource, Quantise, SafetensorsModel};

use crate::tiny::{Case, Reference, reference};

/// Of the largest logit. Both sides compute in single precision in another order of additions.
const TOLERANCE: f32 = 2e-5;
/// The same with weights rounded to bfloat16, whose fraction has 7 bits.
const TOLERANCE_BF16: f32 = 0.05;
/// The same with weights and activations rounded to 8 bits.
const TOLERANCE_Q8: f32 = 0.1;

fn checkpoint(folder: &Path, quantise: Quantise) -> SafetensorsModel {
    let mut open = |file: &str| match File::open(folder.join(file)) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    };
    SafetensorsModel::open(&mut open, quantise).unwrap()
}

fn decoder(source: &dyn ModelSource) -> Decoder {
    let pool = Arc::new(Pool::new(Some(1)).unwrap());
    Decoder::load(source, 64, pool, &Device::Cpu, |_, _| {}).unwrap()
}

/// The logits of every row when the tokens come in pieces that end at `ends`, beside another
/// sequence that is a few tokens behind.
fn all_logits(decoder: &Decoder, tokens: &[u32], ends: &[usize]) -> Vec<Vec<f32>> {
    let mut caches = decoder.caches(4, CacheKind::F32).unwrap();
    let (blocks, others) = ([3, 1], [0, 2]);
    let mut rows = Vec::new();
    let mut start = 0;
    for &end in ends {
        let mut batch = StepBatch::default();
        // Known tokens as a draft: each of their rows wants logits.
        batch.push_drafted(
            (&tokens[start..start + 1], &tokens[start + 1..end]),
            start,
            &blocks,
            true,
        );
        batch.push(&tokens[start / 2..end / 2], start / 2, &others, false);
        let logits = decoder.forward(&batch, &mut caches).unwrap();
        rows.extend(logits.rows().map(<[f32]>::to_vec));
        start = end;
    }
    assert_eq!(rows.len(), tokens.len());
    rows
}

#[track_caller]
fn same(found: &[Vec<f32>], (case, reference): (&Case, &Reference), tolerance: f32, how: &str) {
    let allowed = tolerance * case.largest_logit;
    let mut largest = 0.0_f32;
    for (row, expected) in reference.rows.iter().zip(&case.logits) {
        assert_eq!(found[*row].len(), expected.len());
        for (found, expected) in found[*row].iter().zip(expected) {
            largest = largest.max((found - expected).abs());
        }
    }
    assert!(largest <= allowed, "{} {how}: {largest} is more than {allowed}", case.name);
}

#[test]
fn every_family_computes_what_others_compute() {
    let reference = reference();
    let names: Vec<&str> = reference.cases.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(names, ["llama", "llama3", "mistral", "qwen2", "qwen3", "gemma2", "gemma3"]);
    let whole = [reference.tokens.len()];
    for case in &reference.cases {
        let folder = tempfile::tempdir().unwrap();
        case.write_checkpoint(folder.path(), 1);
        let decoded = decoder(&checkpoint(folder.path(), Quantise::None));
        let logits = all_logits(&decoded, &reference.tokens, &whole);
        same(&logits, (case, &reference), TOLERANCE, "safetensors");
        let pieces = all_logits(&decoded, &reference.tokens, &[1, 2, 11, 12, 33, 40]);
        assert!(logits == pieces, "{}: the cut of the prompt changes the logits", case.name);

        let path = folder.path().join("model.gguf");
        case.write_gguf(&path);
        let decoded = decoder(&GgufFile::open(&path).unwrap());
        let logits = all_logits(&decoded, &reference.tokens, &whole);
        same(&logits, (case, &reference), TOLERANCE, "gguf");
    }
}

#[test]
fn weights_of_fewer_bits_change_little_and_shards_nothing() {
    let reference = reference();
    for case in &reference.cases {
        let folder = tempfile::tempdir().unwrap();
        case.write_checkpoint(folder.path(), 3);
        let plain = decoder(&checkpoint(folder.path(), Quantise::None));
        let logits = all_logits(&plain, &reference.tokens, &[reference.tokens.len()]);
        same(&logits, (case, &reference), TOLERANCE, "shards");
        let rounded = decoder(&checkpoint(folder.path(), Quantise::Q8_0));
        let logits = all_logits(&rounded, &reference.tokens, &[reference.tokens.len()]);
        same(&logits, (case, &reference), TOLERANCE_Q8, "q8_0");
        assert_eq!(plain.parameters(), rounded.parameters());
        let folder = tempfile::tempdir().unwrap();
        case.write_checkpoint_bf16(folder.path());
        let half = decoder(&checkpoint(folder.path(), Quantise::None));
        let logits = all_logits(&half, &reference.tokens, &[reference.tokens.len()]);
        same(&logits, (case, &reference), TOLERANCE_BF16, "bf16");
    }
}

#[test]
fn the_window_is_felt() {
    let mut reference = reference();
    let case = reference.cases.iter_mut().find(|case| case.name == "mistral").unwrap();
    case.config["sliding_window"] = serde_json::Value::Null;
    let folder = tempfile::tempdir().unwrap();
    case.write_checkpoint(folder.path(), 1);
    let without = decoder(&checkpoint(folder.path(), Quantise::None));
    let logits = all_logits(&without, &reference.tokens, &[reference.tokens.len()]);
    let case = reference.cases.iter().find(|case| case.name == "mistral").unwrap();
    let difference = |row: usize| {
        let at = reference.rows.iter().position(|kept| *kept == row).unwrap();
        let pairs = logits[row].iter().zip(&case.logits[at]);
        pairs.map(|(found, kept)| (found - kept).abs()).fold(0.0, f32::max)
    };
    assert!(difference(9) < TOLERANCE * case.largest_logit, "inside the window of 12");
    assert!(difference(39) > 0.01 * case.largest_logit, "beyond it");
}
