//! Small files of each format, written by hand.

use std::io::{Cursor, Write as _};

use zip::CompressionMethod;
use zip::write::SimpleFileOptions;

pub(crate) fn f32s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// A pickle in the making: protocol 2, as torch writes it.
#[derive(Clone)]
pub(crate) struct Pickle(pub(crate) Vec<u8>);

impl Pickle {
    pub(crate) fn new() -> Self {
        Self(vec![0x80, 2])
    }

    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn text(self, text: &str) -> Self {
        let length = u32::try_from(text.len()).unwrap();
        self.raw(b"X").raw(&length.to_le_bytes()).raw(text.as_bytes())
    }

    pub(crate) fn int(self, number: i32) -> Self {
        self.raw(b"J").raw(&number.to_le_bytes())
    }

    pub(crate) fn global(self, name: &str) -> Self {
        let (module, name) = name.rsplit_once('.').unwrap();
        self.raw(format!("c{module}\n{name}\n").as_bytes())
    }

    pub(crate) fn ints(mut self, numbers: &[i32]) -> Self {
        self = self.raw(b"(");
        for number in numbers {
            self = self.int(*number);
        }
        self.raw(b"t")
    }

    /// `_rebuild_tensor_v2` over a float storage of `count` elements.
    pub(crate) fn tensor(self, key: &str, count: i32, view: (i32, &[i32], &[i32])) -> Self {
        let storage = self
            .global("torch._utils._rebuild_tensor_v2")
            .raw(b"((")
            .text("storage")
            .global("torch.FloatStorage")
            .text(key)
            .text("cpu")
            .int(count)
            .raw(b"tQ");
        let (offset, shape, strides) = view;
        storage.int(offset).ints(shape).ints(strides).raw(b"\x89NtR")
    }

    pub(crate) fn dict(self) -> Self {
        self.global("collections.OrderedDict").raw(b")R(")
    }

    pub(crate) fn end(self) -> Vec<u8> {
        self.raw(b".").0
    }
}

/// `{"w": 2x3 row-major, "t": its transpose, "s": a scalar}` over one storage of 6 floats.
pub(crate) fn state_dict() -> Vec<u8> {
    Pickle::new()
        .dict()
        .text("w")
        .tensor("0", 6, (0, &[2, 3], &[3, 1]))
        .text("t")
        .tensor("0", 6, (0, &[3, 2], &[1, 3]))
        .text("s")
        .tensor("0", 6, (5, &[], &[]))
        .raw(b"u")
        .end()
}

pub(crate) const STORAGE: [f32; 6] = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0];

pub(crate) fn archive(entries: &[(&str, &[u8])], method: CompressionMethod) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(method);
    for (name, content) in entries {
        writer.start_file(*name, options).unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// An archive with that pickle and storage "0".
pub(crate) fn torch_archive(pickle: &[u8], storage: &[u8]) -> Vec<u8> {
    let entries = [("m/data.pkl", pickle), ("m/byteorder", b"little"), ("m/data/0", storage)];
    archive(&entries, CompressionMethod::Stored)
}

/// A file of the old format with that pickle and storage "0".
pub(crate) fn legacy(pickle: &[u8], count: u64, storage: &[u8]) -> Vec<u8> {
    let magic = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
    let mut file = Pickle::new().raw(&[0x8a, 10]).raw(&magic).end();
    file.extend(Pickle::new().raw(b"M\xe9\x03").end());
    file.extend(Pickle::new().raw(b"}").end());
    file.extend_from_slice(pickle);
    file.extend(Pickle::new().raw(b"](").text("0").raw(b"e").end());
    file.extend(count.to_le_bytes());
    file.extend_from_slice(storage);
    file
}

/// Protocol-buffer fields.
pub(crate) mod wire {
    pub(crate) fn varint(mut number: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while number >= 0x80 {
            bytes.push(u8::try_from(number & 0x7f).unwrap() | 0x80);
            number >>= 7;
        }
        bytes.push(u8::try_from(number).unwrap());
        bytes
    }

    pub(crate) fn number(field: u64, value: u64) -> Vec<u8> {
        [varint(field << 3), varint(value)].concat()
    }

    pub(crate) fn bytes(field: u64, content: &[u8]) -> Vec<u8> {
        [varint(field << 3 | 2), varint(content.len() as u64), content.to_vec()].concat()
    }
}
