//! SIGTERM and SIGINT as futures.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::StartError;

/// The signals that ask the process to end. Made before `lock_down`; a signal that comes between
/// making it and waiting is not lost.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes the signals over. To be called within a runtime.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn install() -> Result<Self, StartError> {
        let take = |kind| {
            signal(kind).map_err(|source| {
                StartError::failed("signals cannot be handled").with_source(source)
            })
        };
        Ok(Self {
            terminate: take(SignalKind::terminate())?,
            interrupt: take(SignalKind::interrupt())?,
        })
    }

    /// The name of the next signal that asks the process to end. Cancel-safe.
    pub async fn wait(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
