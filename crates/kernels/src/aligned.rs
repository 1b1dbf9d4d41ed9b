//! Bytes that start on a cache line, so that a vector load of packed data touches one line.
#![expect(unsafe_code, reason = "views lines of 64 bytes as bytes")]

const LINE: usize = 64;

#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; LINE]);

/// A buffer of whole, zeroed cache lines.
#[derive(Debug, Default)]
pub(crate) struct AlignedBytes {
    lines: Vec<Line>,
}

impl AlignedBytes {
    /// Makes the buffer at least `len` bytes long.
    pub(crate) fn grow(&mut self, len: usize) {
        let lines = len.div_ceil(LINE);
        if self.lines.len() < lines {
            self.lines.resize(lines, Line([0; LINE]));
        }
    }

    /// Bytes held.
    pub(crate) const fn len(&self) -> usize {
        self.lines.len() * LINE
    }

    pub(crate) const fn as_slice(&self) -> &[u8] {
        // SAFETY: `Line` is 64 bytes without padding, and the lines are contiguous.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len()) }
    }

    pub(crate) const fn as_mut_ptr(&mut self) -> *mut u8 {
        self.lines.as_mut_ptr().cast()
    }
}
