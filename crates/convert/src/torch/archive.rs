//! The format of torch since 1.6: a ZIP archive that holds `data.pkl` and one uncompressed entry a
//! storage.

use std::collections::BTreeMap;
use std::io::{Cursor, Read as _};

use zip::{CompressionMethod, ZipArchive};

use super::{collect, owned, storage_bytes, storages};
use crate::budget::Budget;
use crate::error::ConvertError;
use crate::limits::{PICKLE_BYTES_MAX, STORAGES_MAX};
use crate::pickle;
use crate::tensor::Tensor;

/// Reads the tensors.
///
/// # Errors
/// When the file is no such archive, or not whole.
pub(crate) fn read(
    source: &[u8],
    budget: &mut Budget,
) -> Result<Vec<Tensor<'static>>, ConvertError> {
    let kind = |why| ConvertError::Kind { wanted: "a torch archive", why };
    let mut archive =
        ZipArchive::new(Cursor::new(source)).map_err(|source| ConvertError::Archive { source })?;
    if archive.len() > STORAGES_MAX {
        return Err(ConvertError::Limit { what: "entries", limit: STORAGES_MAX as u64 });
    }
    // All entries lie in one folder, whose name is the file's first one.
    let folder = archive.file_names().flatten().find_map(|name| {
        let folder = name.strip_suffix("data.pkl")?;
        Some(folder.to_owned())
    });
    let folder = folder.ok_or_else(|| kind("there is no data.pkl in it"))?;
    let order = format!("{folder}byteorder");
    if archive.index_for_name(&order).is_some() && entry(&mut archive, &order, 6)? != b"little" {
        return Err(kind("its numbers are big-endian"));
    }
    let text = entry(&mut archive, &format!("{folder}data.pkl"), PICKLE_BYTES_MAX)?;
    let pickle = pickle::read(&text)?;
    let heads = storages(&pickle)?;
    let (mut bytes, mut left) = (BTreeMap::new(), source.len());
    for head in heads.values() {
        let name = format!("{folder}data/{}", head.key);
        // Entries may not share the file's bytes: together they are no longer than it.
        let wanted = storage_bytes(head).filter(|wanted| *wanted <= left);
        let wanted = wanted.ok_or_else(|| kind("its storages are longer than the file"))?;
        left -= wanted;
        let content = entry(&mut archive, &name, wanted)?;
        if content.len() != wanted {
            return Err(kind("a storage is not as long as the pickle says"));
        }
        bytes.insert(head.key, content);
    }
    let tensors = collect(&pickle, &heads, |key| bytes.get(key).map(Vec::as_slice), budget)?;
    Ok(owned(tensors))
}

/// The content of an entry, at most `bytes_max`. Only uncompressed ones are taken, as torch writes
/// them: so the content is never more than the file.
fn entry(
    archive: &mut ZipArchive<Cursor<&[u8]>>,
    name: &str,
    bytes_max: usize,
) -> Result<Vec<u8>, ConvertError> {
    let entry = archive.by_name(name).map_err(|source| ConvertError::Archive { source })?;
    if entry.compression() != CompressionMethod::Stored {
        let why = "an entry is compressed, which torch never does";
        return Err(ConvertError::Kind { wanted: "a torch archive", why });
    }
    if entry.size() > bytes_max as u64 {
        return Err(ConvertError::Limit { what: "bytes of an entry", limit: bytes_max as u64 });
    }
    let mut content = Vec::new();
    // The archive checks the entry's sum at its end.
    entry
        .take(bytes_max as u64 + 1)
        .read_to_end(&mut content)
        .map_err(|source| ConvertError::Entry { entry: name.to_owned(), source })?;
    Ok(content)
}
