//! Coverage counters of an instrumented build: which edges an input took, and whether any of them
//! is new. In a build without counters nothing is ever new here.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};

/// Counters of the crates that were built with them: LLVM calls this before `main`.
static COUNTERS: Mutex<Vec<&'static [AtomicU8]>> = Mutex::new(Vec::new());

/// Takes the counters of one module; LLVM's `inline-8bit-counters` calls it at the start.
///
/// # Safety
/// `start` and `stop` are the ends of one module's counters, which live as long as the program.
#[expect(unsafe_code, reason = "the name that LLVM's instrumentation calls")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __sanitizer_cov_8bit_counters_init(start: *mut u8, stop: *mut u8) {
    let bytes = (stop as usize).saturating_sub(start as usize);
    // SAFETY: the caller says so, and an AtomicU8 is as a u8. Instrumented code counts in these
    // bytes without atomics; a count that is lost between threads is of no matter.
    let counters = unsafe { std::slice::from_raw_parts(start.cast::<AtomicU8>(), bytes) };
    if let Ok(mut all) = COUNTERS.lock() {
        // Every function of the module has a constructor that says the same.
        if all.iter().all(|known| !std::ptr::eq(known.as_ptr(), counters.as_ptr())) {
            all.push(counters);
        }
    }
}

/// The edges that were seen, each with how often it was taken, in powers of two.
#[derive(Debug, Default)]
pub struct Edges {
    seen: Vec<Vec<u8>>,
    count: usize,
}

impl Edges {
    /// Whether the build counts at all.
    #[must_use]
    pub fn are_counted() -> bool {
        COUNTERS.lock().is_ok_and(|counters| !counters.is_empty())
    }

    /// Forgets what was counted since the last input.
    pub fn reset() {
        if let Ok(counters) = COUNTERS.lock() {
            for counter in counters.iter().copied().flatten() {
                counter.store(0, Ordering::Relaxed);
            }
        }
    }

    /// Adds what the last input did. True when something of it is new.
    pub fn add(&mut self) -> bool {
        let Ok(counters) = COUNTERS.lock() else { return false };
        self.seen.resize_with(counters.len(), Vec::new);
        let mut is_new = false;
        for (counters, seen) in counters.iter().zip(&mut self.seen) {
            seen.resize(counters.len(), 0);
            for (count, seen) in counters.iter().zip(seen) {
                let count = count.load(Ordering::Relaxed);
                if count == 0 {
                    continue;
                }
                let often = 1_u8 << count.ilog2();
                self.count += usize::from(*seen == 0);
                is_new |= *seen & often == 0;
                *seen |= often;
            }
        }
        is_new
    }

    /// Edges that were taken at least once.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }
}
