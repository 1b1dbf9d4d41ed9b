//! Tensors of a safetensors file by name, as single-precision floats. It knows the container, not
//! the models in it; whoever opens a file has checked its digest.

use std::collections::HashMap;
use std::fs::File;

use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensorError, SafeTensors};

/// Values of one tensor.
const VALUES_MAX: usize = 1 << 31;

/// Why a tensor cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum TensorError {
    /// The file cannot be read.
    #[error("the file cannot be read")]
    Read {
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// It is not a safetensors file.
    #[error("it is not a safetensors file")]
    Container {
        /// What the reader said.
        #[source]
        source: SafeTensorError,
    },
    /// A tensor is missing.
    #[error("there is no tensor {name:?}")]
    Missing {
        /// The tensor.
        name: String,
    },
    /// A tensor has another shape.
    #[error("{name:?} has shape {found:?}, expected {expected:?}")]
    Shape {
        /// The tensor.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape that the model needs.
        expected: Vec<usize>,
    },
    /// A tensor has elements that are not read.
    #[error("{name:?} is of type {found:?}; F32, F16 and BF16 are read")]
    Type {
        /// The tensor.
        name: String,
        /// Its type.
        found: Dtype,
    },
    /// A weight is NaN or infinite.
    #[error("{name:?} holds values that are not finite")]
    NotFinite {
        /// The tensor.
        name: String,
    },
}

/// Where a tensor lies.
#[derive(Debug)]
struct Entry {
    kind: Dtype,
    shape: Vec<usize>,
    start: usize,
    end: usize,
}

/// An open file. Dropping it unmaps the weights: what was read from them stays.
#[derive(Debug)]
pub struct TensorFile {
    map: Mmap,
    entries: HashMap<String, Entry>,
    metadata: HashMap<String, String>,
}

impl TensorFile {
    /// Maps the file and reads its header.
    ///
    /// # Errors
    /// [`TensorError::Read`], [`TensorError::Container`].
    pub fn open(file: &File) -> Result<Self, TensorError> {
        #[expect(unsafe_code, reason = "reading weights without a second copy needs a mapping")]
        // SAFETY: the map is private and read-only. What mapping cannot exclude is another process
        // that truncates the file (SIGBUS) or changes it: models are mounted read-only and owned by
        // another user than the service's.
        let map = unsafe { Mmap::map(file) }.map_err(|source| TensorError::Read { source })?;
        let container = |source| TensorError::Container { source };
        let (header, metadata) = SafeTensors::read_metadata(&map).map_err(container)?;
        // The header's length is counted from behind its own 8 bytes.
        let base = header + 8;
        let entries = metadata
            .tensors()
            .into_iter()
            .map(|(name, info)| {
                let (start, end) = info.data_offsets;
                let shape = info.shape.clone();
                (name, Entry { kind: info.dtype, shape, start: base + start, end: base + end })
            })
            .collect();
        let metadata = metadata.metadata().clone().unwrap_or_default();
        Ok(Self { map, entries, metadata })
    }

    /// Bytes of the file.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.map.len() as u64
    }

    /// An entry of the header's `__metadata__`.
    #[must_use]
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str)
    }

    /// Whether the file has the tensor.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// Names of all tensors, in no order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The shape of a tensor.
    ///
    /// # Errors
    /// [`TensorError::Missing`].
    pub fn shape(&self, name: &str) -> Result<&[usize], TensorError> {
        self.entry(name).map(|entry| entry.shape.as_slice())
    }

    /// The values of a tensor, which must have the shape.
    ///
    /// # Errors
    /// [`TensorError`].
    pub fn floats(&self, name: &str, expected: &[usize]) -> Result<Vec<f32>, TensorError> {
        let entry = self.entry(name)?;
        if entry.shape != expected || entry.shape.iter().product::<usize>() > VALUES_MAX {
            return Err(TensorError::Shape {
                name: name.to_owned(),
                found: entry.shape.clone(),
                expected: expected.to_vec(),
            });
        }
        let bytes = self.map.get(entry.start..entry.end).unwrap_or_default();
        let pairs = |decode: fn([u8; 2]) -> f32| {
            bytes.as_chunks::<2>().0.iter().map(|pair| decode(*pair)).collect()
        };
        let floats: Vec<f32> = if entry.kind == Dtype::F32 {
            bytes.as_chunks::<4>().0.iter().map(|four| f32::from_le_bytes(*four)).collect()
        } else if entry.kind == Dtype::F16 {
            pairs(|pair| f16::from_le_bytes(pair).to_f32())
        } else if entry.kind == Dtype::BF16 {
            pairs(|pair| bf16::from_le_bytes(pair).to_f32())
        } else {
            return Err(TensorError::Type { name: name.to_owned(), found: entry.kind });
        };
        if floats.len() != expected.iter().product::<usize>() {
            let found = vec![floats.len()];
            let expected = expected.to_vec();
            return Err(TensorError::Shape { name: name.to_owned(), found, expected });
        }
        if floats.iter().any(|value| !value.is_finite()) {
            return Err(TensorError::NotFinite { name: name.to_owned() });
        }
        Ok(floats)
    }

    fn entry(&self, name: &str) -> Result<&Entry, TensorError> {
        self.entries.get(name).ok_or_else(|| TensorError::Missing { name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    fn opened(bytes: &[u8]) -> Result<TensorFile, TensorError> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        TensorFile::open(&file)
    }

    fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(data);
        bytes
    }

    #[test]
    fn values_of_every_float_type_are_read() {
        let header = r#"{"__metadata__":{"base":"x"},
            "a":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},
            "b":{"dtype":"F16","shape":[2],"data_offsets":[8,12]},
            "c":{"dtype":"BF16","shape":[1],"data_offsets":[12,14]},
            "d":{"dtype":"I32","shape":[1],"data_offsets":[14,18]}}"#;
        let mut data = Vec::new();
        data.extend_from_slice(&1.5f32.to_le_bytes());
        data.extend_from_slice(&(-2.0f32).to_le_bytes());
        data.extend_from_slice(&f16::from_f32(0.25).to_le_bytes());
        data.extend_from_slice(&f16::from_f32(3.0).to_le_bytes());
        data.extend_from_slice(&bf16::from_f32(-4.0).to_le_bytes());
        data.extend_from_slice(&7i32.to_le_bytes());
        let file = opened(&with_header(header, &data)).unwrap();
        assert_eq!(file.floats("a", &[1, 2]).unwrap(), [1.5, -2.0]);
        assert_eq!(file.floats("b", &[2]).unwrap(), [0.25, 3.0]);
        assert_eq!(file.floats("c", &[1]).unwrap(), [-4.0]);
        assert_eq!(file.metadata("base"), Some("x"));
        assert!(matches!(file.floats("a", &[2, 1]), Err(TensorError::Shape { .. })));
        assert!(matches!(file.floats("d", &[1]), Err(TensorError::Type { .. })));
        assert!(matches!(file.floats("e", &[1]), Err(TensorError::Missing { .. })));
    }

    #[test]
    fn weights_that_are_no_numbers_are_refused() {
        let header = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
        let file = opened(&with_header(header, &f32::NAN.to_le_bytes())).unwrap();
        assert!(matches!(file.floats("a", &[1]), Err(TensorError::NotFinite { .. })));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_file_or_an_error(
            header in "[{}\\[\\]\":,0-9a-zA-Z_ ]{0,120}",
            data in proptest::collection::vec(any::<u8>(), 0..64),
            offsets in any::<(u64, u64)>(),
            length in any::<u64>(),
        ) {
            let _any = opened(&with_header(&header, &data));
            let (start, end) = offsets;
            let header = format!(
                r#"{{"a":{{"dtype":"F32","shape":[{length}],"data_offsets":[{start},{end}]}}}}"#
            );
            if let Ok(file) = opened(&with_header(&header, &data)) {
                let _values = file.floats("a", &[length as usize]);
            }
            let mut bytes = with_header(&header, &data);
            bytes[..8].copy_from_slice(&length.to_le_bytes());
            let _any = opened(&bytes);
        }
    }
}
