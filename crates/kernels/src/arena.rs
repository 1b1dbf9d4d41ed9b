//! Memory for weights: large regions of huge pages, filled from the front.
//!
//! A decoded token reads every weight once. With a mapping of its own for each matrix that stream
//! was measured at half the speed of one through few large regions, so matrices share regions; a
//! region goes back to the system when its last matrix is dropped.
#![expect(unsafe_code, reason = "maps anonymous memory and views parts of it as bytes")]

use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// A huge page.
const PAGE: usize = 2 << 20;
/// Bytes of a region at least. What is never written takes no memory.
const REGION: usize = 64 << 20;
const LINE: usize = 64;

/// An anonymous mapping, aligned to huge pages.
#[derive(Debug)]
struct Region {
    /// What was mapped, and how much.
    mapped: NonNull<u8>,
    mapped_len: usize,
    /// The first huge page in it.
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the region is plain memory that any thread may free.
unsafe impl Send for Region {}
// SAFETY: the region hands out no access; `ArenaBytes` has its own part of it.
unsafe impl Sync for Region {}

impl Region {
    fn new(len: usize) -> Self {
        let len = len.max(REGION).next_multiple_of(PAGE);
        let mapped_len = len + PAGE;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new anonymous mapping at an address of the system's choice.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), mapped_len, access, flags, -1, 0) };
        let layout = std::alloc::Layout::new::<u8>();
        let mapped = match NonNull::new(at.cast::<u8>()) {
            Some(mapped) if at != libc::MAP_FAILED => mapped,
            _ => std::alloc::handle_alloc_error(layout),
        };
        let skip = mapped.as_ptr().addr().next_multiple_of(PAGE) - mapped.as_ptr().addr();
        // SAFETY: `skip` is below a page, and one more page than needed was mapped.
        let base = unsafe { mapped.add(skip) };
        // SAFETY: the range is inside the mapping. Refusal (no huge pages) changes only the speed.
        unsafe { libc::madvise(base.as_ptr().cast(), len, libc::MADV_HUGEPAGE) };
        Self { mapped, mapped_len, base, len }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: exactly what was mapped; no part is in use, each part holds the region.
        unsafe { libc::munmap(self.mapped.as_ptr().cast(), self.mapped_len) };
    }
}

/// The region that is being filled, and how far it is.
static FILLING: Mutex<(Weak<Region>, usize)> = Mutex::new((Weak::new(), 0));

/// Zeroed bytes that start on a cache line, inside a shared region.
#[derive(Debug)]
pub(crate) struct ArenaBytes {
    at: NonNull<u8>,
    len: usize,
    _region: Arc<Region>,
}

// SAFETY: it owns its part of the region like a `Box<[u8]>`.
unsafe impl Send for ArenaBytes {}
// SAFETY: as above.
unsafe impl Sync for ArenaBytes {}

impl ArenaBytes {
    pub(crate) fn zeroed(len: usize) -> Self {
        let mut filling = FILLING.lock().unwrap_or_else(PoisonError::into_inner);
        let room = len.next_multiple_of(LINE);
        let region = match filling.0.upgrade() {
            Some(region) if region.len - filling.1 >= room => region,
            Some(_) | None => {
                let region = Arc::new(Region::new(room));
                *filling = (Arc::downgrade(&region), 0);
                region
            }
        };
        // SAFETY: the region has room for `room` bytes from here.
        let at = unsafe { region.base.add(filling.1) };
        filling.1 += room;
        Self { at, len, _region: region }
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) const fn as_slice(&self) -> &[u8] {
        // SAFETY: `len` bytes of the region, which lives as long as `self`, and which no other
        // part overlaps.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.len) }
    }

    pub(crate) const fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as above, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.at.as_ptr(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_zero_aligned_apart_and_outlive_each_other() {
        let mut parts: Vec<ArenaBytes> =
            [1, 64, 65, 5 << 20, 70 << 20, 0, 3].map(ArenaBytes::zeroed).into();
        for (index, part) in parts.iter_mut().enumerate() {
            assert!(part.as_slice().as_ptr().addr().is_multiple_of(LINE));
            assert!(part.as_slice().iter().all(|byte| *byte == 0));
            part.as_mut_slice().fill(index as u8 + 1);
        }
        parts.remove(2);
        parts.push(ArenaBytes::zeroed(100));
        assert!(parts.last().is_some_and(|part| part.as_slice().iter().all(|byte| *byte == 0)));
        for (part, value) in parts.iter().zip([1, 2, 4, 5, 6, 7]) {
            assert!(part.as_slice().iter().all(|byte| *byte == value));
        }
    }
}
