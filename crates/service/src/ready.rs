//! Whether the model is there yet: a latch that opens once, and how far the load has come.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use aisemble_protocol::{ApiError, ErrorCode};

/// When a caller that came too early is told to come again, milliseconds.
const RETRY_AFTER_MS: u64 = 1000;
/// Percent between two log lines of a phase.
const LOG_STEP_PERCENT: u8 = 10;

/// The service, once it is loaded. Handlers hold clones; [`Ready::get`] gives the service or says
/// how far the load is. Once it gives the service, it always will.
#[derive(Debug)]
pub struct Ready<S> {
    shared: Arc<Shared<S>>,
}

#[derive(Debug)]
struct Shared<S> {
    service: OnceLock<Arc<S>>,
    progress: LoadProgress,
}

impl<S> Clone for Ready<S> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<S> Ready<S> {
    pub(crate) fn loading(progress: LoadProgress) -> Self {
        Self { shared: Arc::new(Shared { service: OnceLock::new(), progress }) }
    }

    /// Opens the latch.
    pub(crate) fn open(&self, service: S) -> Arc<S> {
        Arc::clone(self.shared.service.get_or_init(|| Arc::new(service)))
    }

    /// The service.
    ///
    /// # Errors
    /// `unavailable` while it loads: `the model is loading (weights, 43 %)`, with when to come
    /// again.
    pub fn get(&self) -> Result<Arc<S>, ApiError> {
        self.shared.service.get().cloned().ok_or_else(|| {
            let progress = &self.shared.progress;
            ApiError::new(ErrorCode::Unavailable, format!("the model is loading ({progress})"))
                .with_retry_after_ms(RETRY_AFTER_MS)
        })
    }
}

/// How far a load is: the loader reports, callers and the log are told. Clones share.
#[derive(Debug, Clone, Default)]
pub struct LoadProgress {
    state: Arc<Mutex<Progress>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    phase: &'static str,
    percent: u8,
    percent_logged: u8,
}

impl LoadProgress {
    /// Nothing is loaded yet. The skeleton makes the one of a process; tests of a loader make
    /// theirs.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// `done` of `total` (bytes, tensors, steps: the same unit) of `phase` are done. The phase is a
    /// noun, as "digest", "weights", "warm-up". Cheap; a line is logged when a phase begins and
    /// every 10 % of it.
    pub fn report(&self, phase: &'static str, done: u64, total: u64) {
        let percent = percent(done, total);
        let mut state = self.lock();
        let begins = state.phase != phase;
        let logs = begins || percent >= state.percent_logged.saturating_add(LOG_STEP_PERCENT);
        let percent_logged = if logs { percent } else { state.percent_logged };
        *state = Progress { phase, percent, percent_logged };
        drop(state);
        if logs {
            tracing::info!(load.phase = phase, load.percent = percent, "loading");
        }
    }

    /// The phase that runs (empty before the first) and how much of it is done, percent.
    #[must_use]
    pub fn get(&self) -> (&'static str, u8) {
        let state = self.lock();
        (state.phase, state.percent)
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        // The state is plain data: no holder can leave it half-written.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Display for LoadProgress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.get() {
            ("", _) => f.write_str("not begun"),
            (phase, percent) => write!(f, "{phase}, {percent} %"),
        }
    }
}

fn percent(done: u64, total: u64) -> u8 {
    if done >= total {
        return 100;
    }
    u8::try_from(u128::from(done) * 100 / u128::from(total)).unwrap_or(100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_are_told_how_far_the_load_is_until_it_is_done() {
        let progress = LoadProgress::new();
        let ready: Ready<u32> = Ready::loading(progress.clone());
        let message = |ready: &Ready<u32>| ready.get().unwrap_err().message;
        assert_eq!(message(&ready), "the model is loading (not begun)");
        progress.report("weights", 43, 100);
        let error = ready.clone().get().unwrap_err();
        assert_eq!(error.message, "the model is loading (weights, 43 %)");
        assert_eq!((error.code, error.retry_after_ms), (ErrorCode::Unavailable, Some(1000)));
        ready.open(7);
        assert_eq!(*ready.get().unwrap(), 7);
    }

    #[test]
    fn percent_never_leaves_its_range() {
        for (done, total, expected) in
            [(0, 0, 100), (0, 9, 0), (5, 4, 100), (1, 3, 33), (u64::MAX - 1, u64::MAX, 99)]
        {
            assert_eq!(percent(done, total), expected, "{done}/{total}");
        }
    }
}
