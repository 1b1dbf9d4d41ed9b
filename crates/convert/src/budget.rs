//! How much output one source may still ask for. It is charged before anything is made, so a small
//! file that describes huge tensors ends as an error and not as memory.

use crate::error::ConvertError;
use crate::limits::{EXPANSION_MAX, OUTPUT_BYTES_FREE, TENSORS_MAX};

/// What is left.
#[derive(Debug)]
pub(crate) struct Budget {
    bytes: u64,
    limit: u64,
    tensors: usize,
}

impl Budget {
    pub(crate) fn for_source(bytes: usize) -> Self {
        let limit = (bytes as u64).saturating_mul(EXPANSION_MAX).saturating_add(OUTPUT_BYTES_FREE);
        Self { bytes: limit, limit, tensors: TENSORS_MAX }
    }

    /// Takes a tensor of `count` elements from it.
    pub(crate) fn charge(&mut self, count: u64, element_bytes: usize) -> Result<(), ConvertError> {
        let wanted = count.saturating_mul(element_bytes.max(4) as u64);
        let left = self.bytes.checked_sub(wanted);
        self.bytes = left.ok_or(ConvertError::Limit {
            what: "bytes of output for a source of this size",
            limit: self.limit,
        })?;
        let left = self.tensors.checked_sub(1);
        self.tensors =
            left.ok_or(ConvertError::Limit { what: "tensors", limit: TENSORS_MAX as u64 })?;
        Ok(())
    }
}
