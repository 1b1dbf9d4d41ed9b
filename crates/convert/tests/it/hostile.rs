//! Pickles that would run something, and files that ask for more than they are.

use aisemble_convert::{ConvertError, Format, Precision, convert};
use proptest::prelude::*;

use crate::sample::{Pickle, STORAGE, f32s, legacy, state_dict, torch_archive, wire};

fn archived(pickle: &[u8]) -> ConvertError {
    let source = torch_archive(pickle, &f32s(&STORAGE));
    convert(&source, Format::Torch, Precision::F32).unwrap_err()
}

#[test]
fn nothing_that_is_not_on_the_list_is_named() {
    let by_line = Pickle::new().global("posix.system").text("id > /tmp/x").raw(b"\x85R.");
    let by_stack =
        Pickle::new().text("builtins").text("eval").raw(b"\x93").text("1").raw(b"\x85R.");
    let in_a_dict = Pickle::new().dict().text("w").global("torch.load").text("x").raw(b"\x85Ru.");
    // A name of the list that holds a full stop, which would be looked up step by step.
    let dotted = Pickle::new().raw(b"ctorch\n_utils.os.system\n.");
    for (pickle, name) in [
        (by_line, "posix.system"),
        (by_stack, "builtins.eval"),
        (in_a_dict, "torch.load"),
        (dotted, "torch._utils.os.system"),
    ] {
        let error = archived(&pickle.0);
        let is_named = matches!(&error, ConvertError::Forbidden { name: found } if found == name);
        assert!(is_named, "{error}");
    }
}

#[test]
fn instructions_that_make_or_call_objects_are_refused() {
    // INST, OBJ, NEWOBJ, NEWOBJ_EX, EXT1, persistent id as a line, protocol 0 numbers, and DUP.
    for instruction in [b'i', b'o', 0x81, 0x92, 0x82, b'P', b'I', b'S', b'2'] {
        let error = archived(&Pickle::new().raw(b"}(").raw(&[instruction]).raw(b"xxxxxxxx").0);
        assert!(
            matches!(error, ConvertError::Instruction { byte, .. } if byte == instruction),
            "{instruction:#x}: {error}"
        );
    }
    let state = Pickle::new().raw(b"]}b.").0;
    assert!(archived(&state).to_string().contains("no dictionary"));
    let called = Pickle::new().text("x").raw(b")R.").0;
    assert!(archived(&called).to_string().contains("no name"));
}

#[test]
fn a_cycle_and_a_nest_end_as_errors() {
    // d = {}; d["d"] = d
    let cycle = Pickle::new().raw(b"}q\x00").text("d").raw(b"h\x00s.").0;
    assert!(matches!(archived(&cycle), ConvertError::Limit { what: "nesting", .. }));
    // Each list holds the one before ten times over, eight deep: 10^8 ways to the bottom.
    let mut wide = Pickle::new().raw(b"]q\x00");
    for level in 0..7_u8 {
        wide = wide.raw(b"](");
        for _ in 0..10 {
            wide = wide.raw(&[b'h', level]);
        }
        wide = wide.raw(&[b'e', b'q', level + 1]);
    }
    assert!(matches!(archived(&wide.raw(b".").0), ConvertError::Limit { what: "entries", .. }));
    let deep = Pickle::new().raw(&[b']'; 100_000]).raw(&[b'a'; 99_999]).raw(b".");
    assert!(matches!(archived(&deep.0), ConvertError::Limit { what: "nesting", .. }));
    let marks = Pickle::new().raw(&[b'('; 2000]);
    assert!(matches!(archived(&marks.0), ConvertError::Limit { what: "open marks", .. }));
    let objects = Pickle::new().raw(&vec![b'N'; 2_000_001]);
    assert!(matches!(archived(&objects.0), ConvertError::Limit { .. }));
}

#[test]
fn a_small_file_cannot_describe_a_huge_tensor() {
    let huge = Pickle::new().dict().text("w").tensor("0", 6, (0, &[100_000, 100_000], &[0, 0]));
    let huge = huge.raw(b"u.").0;
    assert!(archived(&huge).to_string().contains("bytes of output"));
    let zeros = Pickle::new().dict().text("w");
    let zeros = zeros.tensor("0", 6, (0, &[i32::MAX, i32::MAX, i32::MAX, 0], &[1, 1, 1, 1]));
    assert!(archived(&zeros.raw(b"u.").0).to_string().contains("overflows"));
    // A TensorFlow constant of one value and a shape of a million million.
    let size = wire::bytes(2, &wire::number(1, 1_000_000));
    let shape = wire::bytes(2, &[size.clone(), size].concat());
    let value = wire::bytes(5, &f32s(&[1.0]));
    let tensor = wire::bytes(8, &[wire::number(1, 1), shape, value].concat());
    let entry = wire::bytes(5, &[wire::bytes(1, b"value"), wire::bytes(2, &tensor)].concat());
    let node = [wire::bytes(1, b"w"), wire::bytes(2, b"Const"), entry].concat();
    let graph = wire::bytes(1, &node);
    let error = convert(&graph, Format::TfGraph, Precision::F32).unwrap_err();
    assert!(error.to_string().contains("bytes of output"), "{error}");
}

/// Whatever it is, it gives an error or a bounded result.
fn survives(source: &[u8], format: Format) {
    if let Ok(file) = convert(source, format, Precision::F32) {
        let data: usize = file.tensors().iter().map(|tensor| tensor.data().len()).sum();
        assert!(data <= source.len() * 8 + 1024 * 1024, "{data} bytes of {}", source.len());
    }
}

const INSTRUCTIONS: &[&[u8]] = &[
    b"(",
    b"t",
    b"}",
    b"]",
    b")",
    b"e",
    b"u",
    b"s",
    b"a",
    b"R",
    b"b",
    b"Q",
    b"0",
    b"1",
    b"q\x01",
    b"h\x01",
    b"K\x02",
    b"\x85",
    b"\x86",
    b"\x87",
    b"N",
    b"X\x01\0\0\0w",
    b"X\x01\0\0\x000",
    b"X\x07\0\0\0storage",
    b"ccollections\nOrderedDict\n",
    b"ctorch\nFloatStorage\n",
    b"ctorch._utils\n_rebuild_tensor_v2\n",
];

proptest! {
    #[test]
    fn any_bytes_are_answered_in_every_format(
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
    ) {
        for format in Format::ALL {
            survives(&bytes, format);
        }
        survives(&torch_archive(&bytes, &[0; 24]), Format::Torch);
        survives(&legacy(&bytes, 6, &[0; 24]), Format::TorchLegacy);
    }

    /// Instructions of the list in any order.
    #[test]
    fn any_instructions_are_answered(
        instructions in proptest::collection::vec(
            prop::sample::select(INSTRUCTIONS),
            0..60,
        ),
    ) {
        let pickle = Pickle::new().raw(&instructions.concat()).end();
        survives(&torch_archive(&pickle, &f32s(&STORAGE)), Format::Torch);
        survives(&legacy(&pickle, 6, &f32s(&STORAGE)), Format::TorchLegacy);
    }

    /// A whole file with some bytes changed and its end cut off.
    #[test]
    fn a_damaged_file_is_answered(
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        cut in any::<prop::sample::Index>(),
    ) {
        let storage = f32s(&STORAGE);
        for (format, mut source) in [
            (Format::Torch, torch_archive(&state_dict(), &storage)),
            (Format::TorchLegacy, legacy(&state_dict(), 6, &storage)),
        ] {
            for (index, value) in &flips {
                let at = index.index(source.len());
                source[at] = *value;
            }
            survives(&source, format);
            source.truncate(cut.index(source.len()));
            survives(&source, format);
        }
    }
}
