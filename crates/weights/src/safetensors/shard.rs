//! One safetensors file: its header, proved, and its tensors where they lie in the mapping. It
//! knows the container, not what its names mean.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;

use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};

use super::error::SafetensorsError;
use super::limits;
use crate::gguf::{TensorType, TensorView};

/// Bytes of the header's length at the beginning of a file.
const LENGTH_BYTES: usize = 8;
/// Dimensions of a tensor.
const DIMENSIONS_MAX: usize = 4;

/// An open file.
#[derive(Debug)]
pub(super) struct Shard {
    map: Mmap,
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    kind: TensorType,
    dims: Vec<usize>,
    range: Range<usize>,
}

impl Shard {
    pub(super) fn open(handle: &File, file: &str) -> Result<Self, SafetensorsError> {
        let read = |source| SafetensorsError::Read { file: file.to_owned(), source };
        // A file of no bytes cannot be mapped.
        if handle.metadata().map_err(read)?.len() < LENGTH_BYTES as u64 {
            let source = safetensors::SafeTensorError::HeaderTooSmall;
            return Err(SafetensorsError::Container { file: file.to_owned(), source });
        }
        #[expect(unsafe_code, reason = "reading weights without a second copy needs a mapping")]
        // SAFETY: the map is private and read-only. What mapping cannot exclude is another process
        // that truncates the file (SIGBUS) or changes it: models are mounted read-only and owned by
        // another user than the service's, and every range that the header gives is checked
        // against the mapping's length once and is kept, not read again.
        let map = unsafe { Mmap::map(handle) }.map_err(read)?;
        let entries = entries(&map, file)?;
        Ok(Self { map, entries })
    }

    pub(super) fn file_bytes(&self) -> u64 {
        self.map.len() as u64
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    pub(super) fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        let entry = self.entries.get(name)?;
        let bytes = self.map.get(entry.range.clone())?;
        Some(TensorView { kind: entry.kind, dims: &entry.dims, bytes })
    }
}

/// The types that are read.
fn kind_of(dtype: Dtype) -> Option<TensorType> {
    [(Dtype::F32, TensorType::F32), (Dtype::F16, TensorType::F16), (Dtype::BF16, TensorType::Bf16)]
        .into_iter()
        .find_map(|(theirs, ours)| (theirs == dtype).then_some(ours))
}

fn entries(map: &[u8], file: &str) -> Result<BTreeMap<String, Entry>, SafetensorsError> {
    let limit = |what, found: u64, limit: u64| {
        if found <= limit {
            return Ok(());
        }
        Err(SafetensorsError::Limit { what, file: file.to_owned(), found, limit })
    };
    let mut length = [0; LENGTH_BYTES];
    length.copy_from_slice(&map[..LENGTH_BYTES]);
    limit("header in bytes", u64::from_le_bytes(length), limits::HEADER_BYTES_MAX)?;
    let container = |source| SafetensorsError::Container { file: file.to_owned(), source };
    let (header, metadata) = SafeTensors::read_metadata(map).map_err(container)?;
    let tensors = metadata.tensors();
    limit("number of tensors", tensors.len() as u64, limits::TENSORS_MAX as u64)?;
    let base = header + LENGTH_BYTES;
    let mut entries = BTreeMap::new();
    for (name, info) in tensors {
        limit("a name in bytes", name.len() as u64, limits::NAME_BYTES_MAX as u64)?;
        limit("dimensions of a tensor", info.shape.len() as u64, DIMENSIONS_MAX as u64)?;
        let Some(kind) = kind_of(info.dtype) else {
            return Err(SafetensorsError::Type { name, found: format!("{:?}", info.dtype) });
        };
        let (start, end) = info.data_offsets;
        let values = info.shape.iter().try_fold(1_usize, |all, dim| all.checked_mul(*dim));
        let bytes = values.and_then(|values| values.checked_mul(kind.block_bytes()));
        let range = base.saturating_add(start)..base.saturating_add(end);
        if bytes != Some(range.len()) || range.end > map.len() || range.is_empty() {
            let reason = "has a shape, a type and a place that contradict each other";
            return Err(SafetensorsError::Misplaced { name, reason });
        }
        entries.insert(name, Entry { kind, dims: info.shape.clone(), range });
    }
    Ok(entries)
}
