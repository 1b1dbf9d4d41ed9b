//! The allocator: the system's, but a worker that gets no memory ends at once and says why by its
//! exit code, instead of aborting as if it had a defect.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::worker::EXIT_OUT_OF_MEMORY;

/// Set once, in a worker.
static ENDS: AtomicBool = AtomicBool::new(false);

#[global_allocator]
static ALLOCATOR: Ending = Ending;

/// From now on this process ends when memory runs out.
pub(crate) fn end_without_memory() {
    ENDS.store(true, Ordering::Relaxed);
}

struct Ending;

impl Ending {
    fn checked(pointer: *mut u8) -> *mut u8 {
        if pointer.is_null() && ENDS.load(Ordering::Relaxed) {
            #[expect(unsafe_code, reason = "the only way out that allocates nothing")]
            // SAFETY: ends the process; no destructor of this process has anything to say.
            unsafe {
                libc::_exit(EXIT_OUT_OF_MEMORY)
            }
        }
        pointer
    }
}

#[expect(unsafe_code, reason = "GlobalAlloc is an unsafe trait")]
// SAFETY: every call goes to the system's allocator with the caller's own arguments.
unsafe impl GlobalAlloc for Ending {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`.
        Self::checked(unsafe { System.alloc(layout) })
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `GlobalAlloc::dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc_zeroed`.
        Self::checked(unsafe { System.alloc_zeroed(layout) })
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `GlobalAlloc::realloc`.
        Self::checked(unsafe { System.realloc(pointer, layout, size) })
    }
}
