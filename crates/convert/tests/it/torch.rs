//! PyTorch files of both formats.

use aisemble_convert::{ConvertError, Element, Format, Precision, convert};
use zip::CompressionMethod;

use crate::sample::{Pickle, STORAGE, archive, f32s, legacy, state_dict, torch_archive};

fn files(pickle: &[u8]) -> [(Format, Vec<u8>); 2] {
    let storage = f32s(&STORAGE);
    [
        (Format::Torch, torch_archive(pickle, &storage)),
        (Format::TorchLegacy, legacy(pickle, 6, &storage)),
    ]
}

fn refused(format: Format, source: &[u8]) -> String {
    let error = convert(source, format, Precision::F32).unwrap_err();
    error.to_string()
}

#[test]
fn views_of_a_storage_become_tensors_of_their_own_in_both_formats() {
    for (format, source) in files(&state_dict()) {
        assert_eq!(Format::detect(&source), Some(format));
        let file = convert(&source, format, Precision::F32).unwrap();
        let found: Vec<_> = file
            .tensors()
            .iter()
            .map(|tensor| (tensor.name(), tensor.shape().to_vec(), tensor.data().to_vec()))
            .collect();
        let expect = [
            ("s", vec![], f32s(&[5.0])),
            ("t", vec![3, 2], f32s(&[0.0, 3.0, 1.0, 4.0, 2.0, 5.0])),
            ("w", vec![2, 3], f32s(&STORAGE)),
        ];
        assert_eq!(found, expect, "{format:?}");
    }
}

#[test]
fn half_precision_is_half_the_size_and_digests_of_the_source_are_in_the_header() {
    for (format, source) in files(&state_dict()) {
        let full = convert(&source, format, Precision::F32).unwrap();
        let half = convert(&source, format, Precision::F16).unwrap();
        assert!(half.tensors().iter().all(|tensor| tensor.element() == Element::F16));
        assert!(half.bytes() < full.bytes());
        let mut bytes = Vec::new();
        full.write_to(&mut bytes).unwrap();
        let digest = sha256(&source);
        let head = String::from_utf8_lossy(&bytes[..400]).into_owned();
        assert!(head.contains(&format!("\"source_sha256\":\"{digest}\"")), "{head}");
        assert!(head.contains(&format!("\"source_format\":\"{}\"", format.as_str())), "{head}");
    }
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn weights_that_a_training_script_wrapped_are_found() {
    let pickle = Pickle::new()
        .raw(b"}(")
        .text("epoch")
        .int(3)
        .text("state_dict")
        .raw(b"}(")
        .text("w")
        .tensor("0", 6, (0, &[6], &[1]))
        .raw(b"uu")
        .end();
    for (format, source) in files(&pickle) {
        let file = convert(&source, format, Precision::F32).unwrap();
        assert_eq!(file.tensors().len(), 1);
        assert_eq!(file.tensors()[0].name(), "w");
    }
    let nested =
        Pickle::new().raw(b"}(").text("a").raw(b"](").tensor("0", 6, (0, &[6], &[1])).raw(b"eu");
    for (format, source) in files(&nested.end()) {
        let file = convert(&source, format, Precision::F32).unwrap();
        assert_eq!(file.tensors()[0].name(), "a.0");
    }
}

#[test]
fn a_tensor_that_reaches_outside_its_storage_is_refused() {
    let views: [(i32, &[i32], &[i32]); 4] =
        [(0, &[7], &[1]), (6, &[1], &[1]), (0, &[2, 3], &[4, 1]), (1, &[2, 3], &[3, 1])];
    for view in views {
        let pickle = Pickle::new().dict().text("w").tensor("0", 6, view).raw(b"u").end();
        for (format, source) in files(&pickle) {
            assert!(refused(format, &source).contains("outside its storage"), "{view:?}");
        }
    }
    let negative = Pickle::new().dict().text("w").tensor("0", 6, (-1, &[1], &[1])).raw(b"u").end();
    for (format, source) in files(&negative) {
        assert!(refused(format, &source).contains("no whole numbers"));
    }
}

#[test]
fn a_storage_of_another_length_is_refused() {
    let pickle = state_dict();
    let short = &f32s(&STORAGE)[..20];
    assert!(refused(Format::Torch, &torch_archive(&pickle, short)).contains("not as long"));
    assert!(refused(Format::TorchLegacy, &legacy(&pickle, 6, short)).contains("ends inside"));
    assert!(refused(Format::TorchLegacy, &legacy(&pickle, 5, short)).contains("another length"));
    let mut more = legacy(&pickle, 6, &f32s(&STORAGE));
    more.push(0);
    assert!(refused(Format::TorchLegacy, &more).contains("after the last storage"));
}

#[test]
fn what_torch_does_not_write_is_refused() {
    let (pickle, storage) = (state_dict(), f32s(&STORAGE));
    let entries = [("m/data.pkl", pickle.as_slice()), ("m/data/0", storage.as_slice())];
    let compressed = archive(&entries, CompressionMethod::Deflated);
    assert!(refused(Format::Torch, &compressed).contains("compressed"));
    let big = [entries[0], entries[1], ("m/byteorder", b"big")];
    let big = archive(&big, CompressionMethod::Stored);
    assert!(refused(Format::Torch, &big).contains("big-endian"));
    assert!(refused(Format::Torch, &archive(&[], CompressionMethod::Stored)).contains("data.pkl"));
    assert!(refused(Format::Torch, b"PK\x03\x04 no archive").contains("archive"));
    assert!(refused(Format::TorchLegacy, b"").contains("magic"));
    // A checkpoint of the new format given as one of the old, and the other way round.
    assert!(refused(Format::TorchLegacy, &torch_archive(&pickle, &storage)).contains("magic"));
    assert!(refused(Format::Torch, &legacy(&pickle, 6, &storage)).contains("archive"));
    let empty = Pickle::new().raw(b"}").end();
    let empty = convert(&torch_archive(&empty, &[]), Format::Torch, Precision::F32).unwrap_err();
    assert!(matches!(empty, ConvertError::Empty));
}
