//! The index of a GGUF file: where each metadata value and each tensor lies. Reading it proves that
//! every range is inside the file; nothing is decoded here that a caller did not ask for.

use std::collections::BTreeMap;
use std::ops::Range;

use super::cursor::Cursor;
use super::error::GgufError;
use super::limits;
use super::tensor::TensorType;
use super::value::{self, Value, ValueType};

#[derive(Debug)]
pub(super) struct Header {
    pub(super) version: u32,
    pub(super) metadata: BTreeMap<String, MetadataEntry>,
    pub(super) tensors: BTreeMap<String, TensorEntry>,
}

#[derive(Debug)]
pub(super) struct MetadataEntry {
    pub(super) kind: ValueType,
    pub(super) range: Range<usize>,
}

#[derive(Debug)]
pub(super) struct TensorEntry {
    pub(super) kind: TensorType,
    pub(super) dims: Vec<usize>,
    pub(super) range: Range<usize>,
}

/// A tensor whose place is still relative to the data section.
struct Declared {
    name: String,
    kind: TensorType,
    dims: Vec<usize>,
    offset: u64,
    bytes: u64,
    declared_at: u64,
}

impl Header {
    pub(super) fn read(file: &[u8]) -> Result<Self, GgufError> {
        let mut cursor = Cursor::new(file);
        let found = &file[..file.len().min(4)];
        if found != b"GGUF" {
            return Err(GgufError::Magic { found: found.to_vec() });
        }
        cursor.take(4, "magic")?;
        let version = u32::from_le_bytes(cursor.fixed("version")?);
        if !(2..=3).contains(&version) {
            return Err(GgufError::Version { found: version });
        }
        let tensor_count = cursor.count("tensor count", limits::TENSORS_MAX)?;
        let entry_count = cursor.count("metadata entry count", limits::METADATA_ENTRIES_MAX)?;
        let mut metadata = BTreeMap::new();
        let mut alignment = limits::ALIGNMENT_DEFAULT;
        for _ in 0..entry_count {
            read_entry(&mut cursor, &mut metadata, &mut alignment)?;
        }
        let mut declared = Vec::new();
        for _ in 0..tensor_count {
            declared.push(read_tensor(&mut cursor)?);
        }
        let tensors = place(declared, cursor.position(), alignment, file.len() as u64)?;
        Ok(Self { version, metadata, tensors })
    }
}

fn read_name(cursor: &mut Cursor<'_>, field: &str, limit: u64) -> Result<String, GgufError> {
    let offset = cursor.position();
    let bytes = cursor.string(field, limit)?;
    match std::str::from_utf8(bytes) {
        Ok("") | Err(_) => {
            let reason = "not a name in UTF-8".to_owned();
            Err(GgufError::Invalid { field: field.to_owned(), offset, reason })
        }
        Ok(name) => Ok(name.to_owned()),
    }
}

fn read_entry(
    cursor: &mut Cursor<'_>,
    metadata: &mut BTreeMap<String, MetadataEntry>,
    alignment: &mut u64,
) -> Result<(), GgufError> {
    let offset = cursor.position();
    let key = read_name(cursor, "metadata key", limits::KEY_BYTES_MAX)?;
    let kind = value::read_type(cursor, &key)?;
    let value_at = cursor.position();
    let begin = position(cursor);
    let value = value::read(cursor, kind, &key, 0)?;
    if key == "general.alignment" {
        *alignment = check_alignment(&value, value_at)?;
    }
    let entry = MetadataEntry { kind, range: begin..position(cursor) };
    if metadata.contains_key(&key) {
        return Err(GgufError::Duplicate { what: "metadata key", name: key, offset });
    }
    metadata.insert(key, entry);
    Ok(())
}

/// The cursor is inside a slice, so its position is a `usize`.
fn position(cursor: &Cursor<'_>) -> usize {
    usize::try_from(cursor.position()).unwrap_or(usize::MAX)
}

fn check_alignment(value: &Value<'_>, offset: u64) -> Result<u64, GgufError> {
    let allowed = limits::ALIGNMENT_MIN..=limits::ALIGNMENT_MAX;
    value
        .as_u64()
        .filter(|alignment| alignment.is_power_of_two() && allowed.contains(alignment))
        .ok_or_else(|| GgufError::Invalid {
            field: "general.alignment".to_owned(),
            offset,
            reason: format!(
                "expected a power of two from {} to {}",
                limits::ALIGNMENT_MIN,
                limits::ALIGNMENT_MAX
            ),
        })
}

fn read_tensor(cursor: &mut Cursor<'_>) -> Result<Declared, GgufError> {
    let declared_at = cursor.position();
    let name = read_name(cursor, "tensor name", limits::TENSOR_NAME_BYTES_MAX)?;
    let field = format!("tensor `{name}`");
    let dims_at = cursor.position();
    let dim_count = u32::from_le_bytes(cursor.fixed(&field)?);
    if dim_count > limits::DIMENSIONS_MAX {
        return Err(GgufError::Limit {
            field: format!("dimensions of {field}"),
            offset: dims_at,
            found: u64::from(dim_count),
            limit: u64::from(limits::DIMENSIONS_MAX),
        });
    }
    let mut dims = Vec::with_capacity(limits::DIMENSIONS_MAX as usize);
    for _ in 0..dim_count {
        dims.push(u64::from_le_bytes(cursor.fixed(&field)?));
    }
    let number = u32::from_le_bytes(cursor.fixed(&field)?);
    let kind = TensorType::from_number(number)
        .ok_or_else(|| GgufError::TensorType { name: name.clone(), found: number })?;
    let offset = u64::from_le_bytes(cursor.fixed(&field)?);
    let invalid = |reason: &str| GgufError::Invalid {
        field: format!("shape {dims:?} of {field}"),
        offset: dims_at,
        reason: reason.to_owned(),
    };
    let bytes = tensor_bytes(kind, &dims).map_err(invalid)?;
    // The file has the innermost dimension first.
    let dims = dims
        .iter()
        .rev()
        .map(|&dim| usize::try_from(dim).map_err(|_| invalid("larger than the address space")))
        .collect::<Result<_, _>>()?;
    Ok(Declared { name, kind, dims, offset, bytes, declared_at })
}

/// Encoded bytes of a tensor; `dims` as in the file, the innermost first.
fn tensor_bytes(kind: TensorType, dims: &[u64]) -> Result<u64, &'static str> {
    let (block_values, block_bytes) = (kind.block_values() as u64, kind.block_bytes() as u64);
    let inner = dims.first().copied().unwrap_or(0);
    if !inner.is_multiple_of(block_values) {
        return Err("its rows are not whole blocks");
    }
    if inner == 0 || dims.contains(&0) {
        return Err("it is empty");
    }
    dims.iter()
        .skip(1)
        .try_fold(inner / block_values, |blocks, &dim| blocks.checked_mul(dim))
        .and_then(|blocks| blocks.checked_mul(block_bytes))
        .ok_or("it has more bytes than 64 bits can count")
}

/// Turns offsets into ranges of the file, and proves that they are inside it and apart.
fn place(
    mut declared: Vec<Declared>,
    header_end: u64,
    alignment: u64,
    file_bytes: u64,
) -> Result<BTreeMap<String, TensorEntry>, GgufError> {
    // The header lies in a file in memory, far from overflow.
    let data_begin = header_end.next_multiple_of(alignment);
    declared.sort_by_key(|tensor| tensor.offset);
    let mut tensors = BTreeMap::new();
    let mut previous_end = 0;
    for tensor in declared {
        let Declared { name, kind, dims, offset, bytes, declared_at } = tensor;
        let invalid = |reason: String| GgufError::Invalid {
            field: format!("offset of tensor `{name}`"),
            offset: declared_at,
            reason,
        };
        if !offset.is_multiple_of(alignment) {
            return Err(invalid(format!("{offset} is not a multiple of {alignment}")));
        }
        if offset < previous_end {
            return Err(invalid(format!(
                "{offset} overlaps the tensor that ends at {previous_end}"
            )));
        }
        let end = offset.checked_add(bytes).and_then(|end| end.checked_add(data_begin));
        let Some(end) = end.filter(|&end| end <= file_bytes) else {
            return Err(GgufError::Truncated {
                field: format!("tensor `{name}`"),
                offset: data_begin.saturating_add(offset),
                needed: bytes,
                left: file_bytes.saturating_sub(data_begin).saturating_sub(offset),
            });
        };
        previous_end = offset + bytes;
        let to_index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
        let range = to_index(data_begin + offset)..to_index(end);
        let duplicate =
            GgufError::Duplicate { what: "tensor", name: name.clone(), offset: declared_at };
        if tensors.insert(name, TensorEntry { kind, dims, range }).is_some() {
            return Err(duplicate);
        }
    }
    Ok(tensors)
}
