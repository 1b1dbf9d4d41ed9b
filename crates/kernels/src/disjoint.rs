//! A slice that several threads write at once, each its own part.
#![expect(unsafe_code, reason = "hands out disjoint parts of one slice to several threads")]

use std::marker::PhantomData;

/// A slice whose parts are handed out by index; who calls keeps the parts apart.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Disjoint<'a> {
    base: *mut f32,
    len: usize,
    owner: PhantomData<&'a mut [f32]>,
}

// SAFETY: it stands for a `&mut [f32]`, whose parts may be sent to other threads; `part` and `at`
// require that the parts do not overlap.
unsafe impl Send for Disjoint<'_> {}
// SAFETY: as above.
unsafe impl Sync for Disjoint<'_> {}

impl<'a> Disjoint<'a> {
    pub(crate) const fn new(slice: &'a mut [f32]) -> Self {
        Self { base: slice.as_mut_ptr(), len: slice.len(), owner: PhantomData }
    }

    /// `len` values from `start`.
    ///
    /// # Safety
    /// No two parts that live at the same time overlap.
    #[expect(clippy::mut_from_ref, reason = "the parts are disjoint by contract")]
    pub(crate) unsafe fn part(&self, start: usize, len: usize) -> &mut [f32] {
        assert!(start.checked_add(len).is_some_and(|end| end <= self.len), "inside the slice");
        // SAFETY: inside the slice, which is borrowed exclusively for 'a; disjoint by contract.
        unsafe { std::slice::from_raw_parts_mut(self.base.add(start), len) }
    }

    /// Where value `index` lies; reading or writing there is as `part`.
    pub(crate) fn at(&self, index: usize) -> *mut f32 {
        assert!(index < self.len, "inside the slice");
        self.base.wrapping_add(index)
    }
}
