//! Reading little-endian fields from a byte slice with every length checked against what is left.
//! It allocates nothing but messages.

use super::error::GgufError;

/// A position in a byte slice.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bytes read so far.
    pub(super) fn position(&self) -> u64 {
        self.at as u64
    }

    /// The next `len` bytes.
    pub(super) fn take(&mut self, len: u64, field: &str) -> Result<&'a [u8], GgufError> {
        let left = self.bytes.len() - self.at;
        let fits = usize::try_from(len).ok().filter(|&len| len <= left);
        let Some(len) = fits else {
            let (offset, left) = (self.position(), left as u64);
            return Err(GgufError::Truncated {
                field: field.to_owned(),
                offset,
                needed: len,
                left,
            });
        };
        let taken = &self.bytes[self.at..self.at + len];
        self.at += len;
        Ok(taken)
    }

    /// The next `N` bytes as an array.
    pub(super) fn fixed<const N: usize>(&mut self, field: &str) -> Result<[u8; N], GgufError> {
        let mut fixed = [0; N];
        fixed.copy_from_slice(self.take(N as u64, field)?);
        Ok(fixed)
    }

    /// A 64-bit count that may not exceed `limit`.
    pub(super) fn count(&mut self, field: &str, limit: u64) -> Result<u64, GgufError> {
        let offset = self.position();
        let found = u64::from_le_bytes(self.fixed(field)?);
        if found > limit {
            return Err(GgufError::Limit { field: field.to_owned(), offset, found, limit });
        }
        Ok(found)
    }

    /// A string: its length, at most `limit`, then its bytes.
    pub(super) fn string(&mut self, field: &str, limit: u64) -> Result<&'a [u8], GgufError> {
        let offset = self.position();
        let len = u64::from_le_bytes(self.fixed(field)?);
        if len > limit {
            let field = format!("length of {field}");
            return Err(GgufError::Limit { field, offset, found: len, limit });
        }
        self.take(len, field)
    }

    /// What lies between this position and that of `end`, a later cursor over the same bytes.
    pub(super) fn up_to(&self, end: &Self) -> &'a [u8] {
        &self.bytes[self.at..end.at]
    }
}
