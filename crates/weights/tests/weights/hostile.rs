//! Broken heads of the real file: an error each time, and little memory.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::Write;

use aisemble_weights::{GgufFile, Tokenizer};
use proptest::prelude::*;

use crate::model_file;

/// Header of the real file with its vocabulary, bytes.
const HEAD_BYTES: usize = 1_800_000;
/// What opening a hostile file may allocate at once, bytes.
const ALLOCATION_BYTES_MAX: usize = 1024 * 1024;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

/// Remembers the largest allocation of each thread.
struct Watching;

#[expect(unsafe_code, reason = "an allocator that watches sizes can only be written so")]
// SAFETY: everything is handed to the system's allocator unchanged.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.with(|largest| largest.set(largest.get().max(layout.size())));
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watching = Watching;

fn head() -> Vec<u8> {
    let file = std::fs::read(model_file::smollm2()).unwrap();
    file[..HEAD_BYTES].to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The head alone is a truncated file; with bytes changed it stays refused, without large
    /// allocations however large the numbers in it have become.
    #[test]
    fn no_head_is_accepted_or_allocates_much(
        // Most changes go where the counts, keys and types are.
        changes in prop::collection::vec((0_usize..4_096, any::<u64>()), 1..6),
        far in prop::collection::vec((any::<prop::sample::Index>(), any::<u64>()), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = head();
        for (at, value) in changes {
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        for (at, value) in far {
            let at = at.index(HEAD_BYTES - 8);
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        bytes.truncate(cut.index(HEAD_BYTES) + 1);
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&bytes).unwrap();
        LARGEST.with(|largest| largest.set(0));
        let opened = GgufFile::open(file.path());
        let largest = LARGEST.with(Cell::get);
        prop_assert!(largest < ALLOCATION_BYTES_MAX, "{} bytes at once", largest);
        // Only a change of the tensor count to zero leaves nothing that is cut off.
        if let Ok(opened) = opened {
            prop_assert_eq!(opened.tensor_names().count(), 0);
            let _refused_or_not = Tokenizer::from_gguf(&opened);
        }
    }
}
