//! Looks at the GPUs every few seconds on a thread of its own, so that whoever asks for figures
//! never waits for the driver.

use std::io;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::{Gpu, Reader};

/// What was seen last.
#[derive(Debug, Default)]
struct Seen {
    gpus: Vec<Gpu>,
    at: Option<Instant>,
}

/// Samples until it is dropped.
#[derive(Debug)]
pub struct Sampler {
    seen: Arc<Mutex<Seen>>,
    /// Dropping it ends the thread.
    _stop: SyncSender<()>,
}

impl Sampler {
    /// Looks once, then every `interval` on a thread called `nvml`. `keep` says which GPUs matter;
    /// their figures include the memory of process `pid`.
    ///
    /// # Errors
    /// When no thread can be made.
    pub fn start(
        reader: Reader,
        pid: u32,
        interval: Duration,
        keep: impl Fn(&Gpu) -> bool + Send + 'static,
    ) -> io::Result<Self> {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (stop, stopped) = sync_channel::<()>(1);
        let shared = Arc::clone(&seen);
        let mut failing = false;
        let mut look = move || match reader.gpus(pid) {
            Ok(mut gpus) => {
                failing = false;
                gpus.retain(|gpu| keep(gpu));
                *lock(&shared) = Seen { gpus, at: Some(Instant::now()) };
            }
            // Said once, not every two seconds; the figures age meanwhile.
            Err(absent) if !failing => {
                failing = true;
                tracing::warn!(reason = %absent, "the GPU's figures cannot be read any more");
            }
            Err(_) => {}
        };
        look();
        std::thread::Builder::new().name("nvml".to_owned()).spawn(move || {
            while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                look();
            }
        })?;
        Ok(Self { seen, _stop: stop })
    }

    /// The GPUs as they were seen last, and how long ago that was. Never waits for the driver.
    #[must_use]
    pub fn last(&self) -> Option<(Vec<Gpu>, Duration)> {
        let seen = lock(&self.seen);
        seen.at.map(|at| (seen.gpus.clone(), at.elapsed()))
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    // Replaced as a whole: no holder can leave it half-written.
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
