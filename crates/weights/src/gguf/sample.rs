//! Writing small GGUF files for tests: valid ones, which tests then break.

use std::io::Write;

use super::{GgufFile, TensorType};

/// A file in the making.
#[derive(Default)]
pub(crate) struct Sample {
    metadata: Vec<u8>,
    entries: u64,
    tensors: Vec<(String, Vec<u64>, u32, Vec<u8>)>,
}

pub(crate) fn string(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

impl Sample {
    pub(crate) fn entry(mut self, key: &str, kind: u32, value: &[u8]) -> Self {
        self.metadata.extend(string(key));
        self.metadata.extend(kind.to_le_bytes());
        self.metadata.extend(value);
        self.entries += 1;
        self
    }

    pub(crate) fn u32(self, key: &str, value: u32) -> Self {
        self.entry(key, 4, &value.to_le_bytes())
    }

    pub(crate) fn f32(self, key: &str, value: f32) -> Self {
        self.entry(key, 6, &value.to_le_bytes())
    }

    pub(crate) fn str(self, key: &str, value: &str) -> Self {
        self.entry(key, 8, &string(value))
    }

    pub(crate) fn bool(self, key: &str, value: bool) -> Self {
        self.entry(key, 7, &[u8::from(value)])
    }

    pub(crate) fn strings(self, key: &str, values: &[&str]) -> Self {
        let encoded: Vec<u8> = values.iter().flat_map(|value| string(value)).collect();
        self.array(key, 8, values.len(), &encoded)
    }

    pub(crate) fn i32s(self, key: &str, values: &[i32]) -> Self {
        let encoded: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.array(key, 5, values.len(), &encoded)
    }

    pub(crate) fn f32s(self, key: &str, values: &[f32]) -> Self {
        let encoded: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.array(key, 6, values.len(), &encoded)
    }

    pub(crate) fn array(self, key: &str, element: u32, len: usize, encoded: &[u8]) -> Self {
        let mut value = element.to_le_bytes().to_vec();
        value.extend((len as u64).to_le_bytes());
        value.extend(encoded);
        self.entry(key, 9, &value)
    }

    /// `dims`: the outermost first.
    pub(crate) fn tensor(
        mut self,
        name: &str,
        dims: &[usize],
        kind: TensorType,
        bytes: &[u8],
    ) -> Self {
        let dims = dims.iter().rev().map(|&dim| dim as u64).collect();
        self.tensors.push((name.to_owned(), dims, kind.candle_number(), bytes.to_vec()));
        self
    }

    pub(crate) fn f32_tensor(self, name: &str, dims: &[usize], values: &[f32]) -> Self {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.tensor(name, dims, TensorType::F32, &bytes)
    }

    pub(crate) fn bytes(self) -> Vec<u8> {
        let mut file = b"GGUF".to_vec();
        file.extend(3_u32.to_le_bytes());
        file.extend((self.tensors.len() as u64).to_le_bytes());
        file.extend(self.entries.to_le_bytes());
        file.extend(&self.metadata);
        let mut data = Vec::new();
        for (name, dims, kind, bytes) in &self.tensors {
            file.extend(string(name));
            file.extend((dims.len() as u32).to_le_bytes());
            dims.iter().for_each(|dim| file.extend(dim.to_le_bytes()));
            file.extend(kind.to_le_bytes());
            data.resize(data.len().next_multiple_of(32), 0);
            file.extend((data.len() as u64).to_le_bytes());
            data.extend(bytes);
        }
        file.resize(file.len().next_multiple_of(32), 0);
        file.extend(data);
        file
    }

    pub(crate) fn open(self) -> GgufFile {
        open(&self.bytes()).unwrap()
    }
}

/// Through a real file: what the reader maps.
pub(crate) fn open(bytes: &[u8]) -> Result<GgufFile, super::GgufError> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    GgufFile::open(file.path())
}

impl TensorType {
    pub(crate) fn candle_number(self) -> u32 {
        (0..64).find(|&number| Self::from_number(number) == Some(self)).unwrap()
    }
}
