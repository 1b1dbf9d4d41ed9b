//! The header reader against valid, broken and hostile files.

use proptest::prelude::*;

use super::sample::{Sample, open, string};
use super::*;

fn sample() -> Sample {
    Sample::default()
        .str("general.architecture", "llama")
        .u32("llama.block_count", 2)
        .f32("llama.eps", 1e-5)
        .bool("flag", true)
        .strings("tokens", &["a", "", "Ġthe"])
        .i32s("types", &[1, 3, -1])
        .array(
            "nested",
            9,
            1,
            &[&8_u32.to_le_bytes()[..], &1_u64.to_le_bytes(), &string("x")].concat(),
        )
        .f32_tensor("b", &[2, 3], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
        .tensor("a", &[1, 32], TensorType::Q8_0, &[7; 34])
}

fn refused(bytes: &[u8], says: &str) {
    let error = open(bytes).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains(says), "expected `{says}` in: {error}");
}

/// `sample()` with the bytes at the only place where `from` is found replaced by `to`.
fn patched(from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut bytes = sample().bytes();
    let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
    bytes[at..at + to.len()].copy_from_slice(to);
    bytes
}

#[test]
fn a_valid_file_gives_back_what_was_written() {
    let file = open(&sample().bytes()).unwrap();
    assert_eq!(file.version(), 3);
    assert_eq!(file.require_str("general.architecture").unwrap(), "llama");
    assert_eq!(file.require_u64("llama.block_count").unwrap(), 2);
    assert_eq!(file.require_f64("llama.eps").unwrap() as f32, 1e-5);
    assert_eq!(file.metadata("flag").and_then(|value| value.as_bool()), Some(true));
    let tokens: Vec<_> =
        file.require_array("tokens").unwrap().iter().filter_map(|value| value.as_str()).collect();
    assert_eq!(tokens, ["a", "", "Ġthe"]);
    let types: Vec<_> = file.require_array("types").unwrap().iter().collect();
    assert_eq!(types, [Value::Signed(1), Value::Signed(3), Value::Signed(-1)]);
    let inner = file.require_array("nested").unwrap().iter().next().unwrap().as_array().unwrap();
    assert_eq!((inner.element(), inner.len()), (ValueType::String, 1));
    let tensor = file.tensor("b").unwrap();
    assert_eq!((tensor.kind, tensor.dims), (TensorType::F32, &[2, 3][..]));
    assert_eq!(tensor.bytes[4..8], 1.0_f32.to_le_bytes());
    assert_eq!(file.tensor("a").unwrap().bytes, [7; 34]);
    assert_eq!(file.tensor_names().collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn what_is_missing_or_of_another_type_is_named() {
    let file = sample().open();
    let says = |error: GgufError, text: &str| assert!(error.to_string().contains(text), "{error}");
    says(file.tensor("c").unwrap_err(), "no tensor `c`");
    says(file.require_u64("none").unwrap_err(), "no `none`");
    says(file.require_u64("general.architecture").unwrap_err(), "is a string, expected a non");
    says(file.require_str("flag").unwrap_err(), "is a bool, expected a string");
    says(file.require_array("flag").unwrap_err(), "expected an array");
    says(file.require_f64("tokens").unwrap_err(), "is an array, expected a number");
}

#[test]
fn other_files_are_refused_by_their_first_bytes() {
    refused(b"", "not a GGUF file");
    refused(b"GG", "not a GGUF file");
    refused(b"PK\x03\x04 and more", "not a GGUF file");
    refused(b"GGUF", "version at byte 4");
    refused(b"GGUF\x01\0\0\0", "version 1");
    refused(b"GGUF\0\0\0\x03", "big-endian");
}

#[test]
fn absurd_counts_and_lengths_are_refused_with_field_and_place() {
    let mut bytes = sample().bytes();
    bytes[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    refused(&bytes, "tensor count at byte 8 is 18446744073709551615, more than the limit of 16384");
    let mut bytes = sample().bytes();
    bytes[16..24].copy_from_slice(&u64::MAX.to_le_bytes());
    refused(&bytes, "metadata entry count at byte 16");
    let mut bytes = sample().bytes();
    bytes[24..32].copy_from_slice(&u64::MAX.to_le_bytes());
    refused(&bytes, "length of metadata key at byte 24");
    refused(&patched(&string("llama"), &u64::MAX.to_le_bytes()), "length of general.architecture");
    let tokens = [&8_u32.to_le_bytes()[..], &3_u64.to_le_bytes()].concat();
    let absurd = [&8_u32.to_le_bytes()[..], &u64::MAX.to_le_bytes()].concat();
    refused(&patched(&tokens, &absurd), "length of tokens");
    // Within the limit, but more than the file has.
    let large = [&8_u32.to_le_bytes()[..], &4_000_000_u64.to_le_bytes()].concat();
    refused(&patched(&tokens, &large), "tokens");
}

#[test]
fn arrays_do_not_nest_without_end() {
    let mut value = Vec::new();
    for _ in 0..100_000 {
        value.extend(9_u32.to_le_bytes());
        value.extend(1_u64.to_le_bytes());
    }
    refused(&Sample::default().entry("deep", 9, &value).bytes(), "nesting of deep");
}

#[test]
fn values_of_unknown_types_are_refused() {
    refused(&Sample::default().entry("k", 13, &[]).bytes(), "type number 13 is unknown");
    refused(&Sample::default().entry("k", 7, &[2]).bytes(), "a bool of 2");
    refused(&Sample::default().array("k", 7, 2, &[1, 9]).bytes(), "a bool of 9");
    refused(&Sample::default().u32("general.alignment", 3).bytes(), "a power of two");
    refused(&Sample::default().u32("general.alignment", 1 << 30).bytes(), "a power of two");
    refused(&Sample::default().str("general.alignment", "32").bytes(), "a power of two");
}

#[test]
fn names_are_there_once() {
    refused(&Sample::default().u32("k", 1).u32("k", 2).bytes(), "metadata key `k`");
    let twice = Sample::default().f32_tensor("t", &[1], &[1.0]).f32_tensor("t", &[1], &[1.0]);
    refused(&twice.bytes(), "tensor `t`");
    refused(&Sample::default().u32("", 1).bytes(), "not a name");
}

#[test]
fn tensors_lie_inside_the_file_and_apart() {
    let one = |dims: &[usize], bytes: &[u8]| {
        Sample::default().tensor("t", dims, TensorType::Q8_0, bytes).bytes()
    };
    assert!(open(&one(&[1, 32], &[0; 34])).is_ok());
    refused(&one(&[1, 32], &[0; 33]), "tensor `t` at byte");
    refused(&one(&[1, 31], &[0; 34]), "not whole blocks");
    refused(&one(&[0, 32], &[]), "it is empty");
    refused(&one(&[1, 1, 1, 1, 32], &[0; 34]), "dimensions of tensor `t`");
    refused(&one(&[], &[0; 34]), "it is empty");
    refused(&one(&[usize::MAX, usize::MAX, 32], &[0; 34]), "more bytes than 64 bits");
    refused(&one(&[1 << 40, 32], &[0; 34]), "tensor `t` at byte");
    let two = Sample::default().f32_tensor("x", &[16], &[0.0; 16]).f32_tensor("y", &[1], &[0.0]);
    let mut bytes = two.bytes();
    // The offset of `y`, 64, becomes 32: inside `x`.
    let offset = 64_u64.to_le_bytes();
    let at = bytes.windows(8).rposition(|window| window == offset).unwrap();
    bytes[at] = 32;
    refused(&bytes, "overlaps");
    bytes[at] = 33;
    refused(&bytes, "not a multiple of 32");
    bytes[at..at + 8].copy_from_slice(&(u64::MAX - 31).to_le_bytes());
    refused(&bytes, "cut off");
    let unknown = patched(&[string("a"), 2_u32.to_le_bytes().to_vec()].concat(), b"");
    assert!(open(&unknown).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever is done to the bytes, there is an answer; and what opens can be read to its end.
    #[test]
    fn no_mutation_panics(
        cut in 0_usize..1_000,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        wide in prop::option::of((any::<prop::sample::Index>(), any::<u64>())),
    ) {
        let mut bytes = sample().bytes();
        bytes.truncate(bytes.len().saturating_sub(cut.saturating_sub(500)));
        for (at, byte) in changes {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
        }
        if let Some((at, value)) = wide.filter(|_| bytes.len() >= 8) {
            let at = at.index(bytes.len() - 7);
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        if let Ok(file) = open(&bytes) {
            for key in file.metadata_keys() {
                if let Some(array) = file.metadata(key).and_then(|value| value.as_array()) {
                    prop_assert_eq!(array.iter().count(), array.len());
                }
            }
            for name in file.tensor_names() {
                let view = file.tensor(name).unwrap();
                let values: usize = view.dims.iter().product();
                let blocks = values / view.kind.block_values();
                prop_assert_eq!(view.bytes.len(), blocks * view.kind.block_bytes());
            }
        }
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        prop_assert!(open(&bytes).is_err());
        let versioned = [b"GGUF\x03\0\0\0", bytes.as_slice()].concat();
        prop_assert!(open(&versioned).is_err() || bytes.len() >= 16);
    }
}
