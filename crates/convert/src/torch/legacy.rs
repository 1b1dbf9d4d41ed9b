//! The format of torch before 1.6, still written on request: five pickles (a magic number, a
//! version, the machine, the object, the keys of its storages), then each storage's length and
//! bytes.

use std::collections::BTreeMap;

use super::{collect, storage_bytes, storages, wrong};
use crate::budget::Budget;
use crate::error::ConvertError;
use crate::pickle::{self, Object, Pickle};
use crate::tensor::Tensor;

/// 0x1950a86a20f9469cfc6c, little-endian.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
const VERSION: u64 = 1001;
/// Protocol 2, a long of 10 bytes, the magic number, end.
const HEAD: [u8; 4] = [0x80, 0x02, 0x8a, 10];

/// Whether the file begins like one of this format.
pub(crate) fn is_legacy(source: &[u8]) -> bool {
    source.strip_prefix(&HEAD).is_some_and(|rest| rest.starts_with(&MAGIC))
}

/// Reads the tensors.
///
/// # Errors
/// When the file is not of the format, or not whole.
pub(crate) fn read<'a>(
    source: &'a [u8],
    budget: &mut Budget,
) -> Result<Vec<Tensor<'a>>, ConvertError> {
    let kind = |why| ConvertError::Kind { wanted: "a torch file of the old format", why };
    if !is_legacy(source) {
        return Err(kind("it does not begin with its magic number"));
    }
    let mut at = 0;
    let mut next = || {
        let pickle = pickle::read(&source[at..])?;
        at += pickle.end;
        Ok::<Pickle<'_>, ConvertError>(pickle)
    };
    let magic = next()?;
    if *magic.get(magic.root) != Object::LongInt(&MAGIC) {
        return Err(kind("its magic number is another"));
    }
    let version = next()?;
    if version.int(version.root) != Some(VERSION) {
        return Err(kind("it is of an unknown version"));
    }
    let _machine = next()?;
    let object = next()?;
    let keys = next()?;
    let heads = storages(&object)?;
    let mut bytes = BTreeMap::new();
    let listed = keys.sequence(keys.root).ok_or_else(|| wrong("a list of keys that is none"))?;
    for key in listed {
        let head = keys.text(*key).and_then(|key| heads.get(key));
        let head = head.ok_or_else(|| wrong("a storage that nothing uses"))?;
        let ends = ConvertError::Ends { what: "a storage", at };
        let Some((count, rest)) = source[at..].split_first_chunk::<8>() else {
            return Err(ends);
        };
        if u64::from_le_bytes(*count) != head.count {
            return Err(ConvertError::Malformed { what: "a storage of another length", at });
        }
        let Some(storage) = storage_bytes(head).and_then(|length| rest.get(..length)) else {
            return Err(ends);
        };
        at += 8 + storage.len();
        bytes.insert(head.key, storage);
    }
    if at != source.len() {
        return Err(ConvertError::Malformed { what: "bytes after the last storage", at });
    }
    collect(&object, &heads, |key| bytes.get(key).copied(), budget)
}
