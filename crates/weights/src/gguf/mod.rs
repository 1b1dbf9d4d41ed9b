//! A bounded reader of GGUF files, version 2 and 3, over a read-only mapping: every count, length
//! and offset of the header is checked before it is used, and nothing is allocated because a header
//! says so. It knows the container, not the models in it.
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>

mod cursor;
mod error;
mod header;
pub mod limits;
mod tensor;
mod value;

#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::path::Path;

use memmap2::Mmap;

pub use error::GgufError;
pub use tensor::{TensorType, TensorView};
pub use value::{Array, Value, ValueType};

use cursor::Cursor;
use header::Header;

/// An open GGUF file. Dropping it unmaps the weights: what was packed from them stays.
#[derive(Debug)]
pub struct GgufFile {
    map: Mmap,
    header: Header,
}

impl GgufFile {
    /// Maps the file and reads its header.
    ///
    /// # Errors
    /// [`GgufError`] names the field and the byte where the header is wrong.
    pub fn open(path: &Path) -> Result<Self, GgufError> {
        let open = |source| GgufError::Open { path: path.to_owned(), source };
        Self::from_file(&File::open(path).map_err(open)?, path)
    }

    /// [`open`](Self::open) for a file that is open already, for example because its digest was
    /// checked ([`digest::open_verified`](crate::digest::open_verified)). `path` is for messages.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_file(file: &File, path: &Path) -> Result<Self, GgufError> {
        let open = |source| GgufError::Open { path: path.to_owned(), source };
        // A file of no bytes cannot be mapped.
        if file.metadata().map_err(open)?.len() == 0 {
            return Err(GgufError::Magic { found: Vec::new() });
        }
        #[expect(unsafe_code, reason = "reading weights without a second copy needs a mapping")]
        // SAFETY: the map is private and read-only. What mapping cannot exclude is another process
        // that truncates the file (SIGBUS) or changes it: models are mounted read-only and owned by
        // another user than the service's (see docs/security), and every length that the header
        // gives was checked against the mapping's length once and is kept, not read again.
        let map = unsafe { Mmap::map(file) }.map_err(open)?;
        let header = Header::read(&map)?;
        Ok(Self { map, header })
    }

    /// GGUF version of the file.
    pub fn version(&self) -> u32 {
        self.header.version
    }

    /// Bytes of the file.
    pub fn file_bytes(&self) -> u64 {
        self.map.len() as u64
    }

    /// A metadata entry.
    pub fn metadata(&self, key: &str) -> Option<Value<'_>> {
        let entry = self.header.metadata.get(key)?;
        let mut cursor = Cursor::new(&self.map[entry.range.clone()]);
        value::read(&mut cursor, entry.kind, key, 0).ok()
    }

    /// Keys of the metadata, sorted.
    pub fn metadata_keys(&self) -> impl Iterator<Item = &str> {
        self.header.metadata.keys().map(String::as_str)
    }

    /// Names of the tensors, sorted.
    pub fn tensor_names(&self) -> impl Iterator<Item = &str> {
        self.header.tensors.keys().map(String::as_str)
    }

    /// Whether the file has a tensor of this name.
    pub fn has_tensor(&self, name: &str) -> bool {
        self.header.tensors.contains_key(name)
    }

    /// A tensor.
    ///
    /// # Errors
    /// [`GgufError::MissingTensor`].
    pub fn tensor(&self, name: &str) -> Result<TensorView<'_>, GgufError> {
        let entry = self
            .header
            .tensors
            .get(name)
            .ok_or_else(|| GgufError::MissingTensor { name: name.to_owned() })?;
        let bytes = &self.map[entry.range.clone()];
        Ok(TensorView { kind: entry.kind, dims: &entry.dims, bytes })
    }

    /// A non-negative integer of the metadata.
    ///
    /// # Errors
    /// [`GgufError::MissingKey`], [`GgufError::ValueType`].
    pub fn require_u64(&self, key: &str) -> Result<u64, GgufError> {
        self.require(key, "a non-negative integer", |value| value.as_u64())
    }

    /// A number of the metadata.
    ///
    /// # Errors
    /// [`GgufError::MissingKey`], [`GgufError::ValueType`].
    pub fn require_f64(&self, key: &str) -> Result<f64, GgufError> {
        self.require(key, "a number", |value| value.as_f64())
    }

    /// A string of the metadata.
    ///
    /// # Errors
    /// [`GgufError::MissingKey`], [`GgufError::ValueType`].
    pub fn require_str(&self, key: &str) -> Result<&str, GgufError> {
        self.require(key, "a string in UTF-8", |value| value.as_str())
    }

    /// An array of the metadata.
    ///
    /// # Errors
    /// [`GgufError::MissingKey`], [`GgufError::ValueType`].
    pub fn require_array(&self, key: &str) -> Result<Array<'_>, GgufError> {
        self.require(key, "an array", |value| value.as_array())
    }

    fn require<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        get: impl Fn(&Value<'a>) -> Option<T>,
    ) -> Result<T, GgufError> {
        let value =
            self.metadata(key).ok_or_else(|| GgufError::MissingKey { key: key.to_owned() })?;
        let found = value.kind();
        get(&value).ok_or_else(|| GgufError::ValueType { key: key.to_owned(), expected, found })
    }
}
