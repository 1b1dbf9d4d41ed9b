//! One call to a service that is no generation, metered: how it ended and how long it took.

use std::time::Instant;

use aisemble_protocol::ErrorCode;

use super::Metrics;
use crate::capability::Capability;

/// Meters one call from its sending on. Dropped without an end, it counts as cancelled.
#[derive(Debug)]
pub struct CallMeter {
    metrics: Metrics,
    capability: Capability,
    task: &'static str,
    started: Instant,
    ended: bool,
}

impl CallMeter {
    pub(super) fn start(metrics: Metrics, capability: Capability, task: &'static str) -> Self {
        Self { metrics, capability, task, started: Instant::now(), ended: false }
    }

    /// It ended: well, or with an error.
    pub(crate) fn ended(&mut self, error: Option<ErrorCode>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let (name, outcome) = (self.capability.as_str(), error.map_or("ok", ErrorCode::as_str));
        self.metrics.calls.with_label_values(&[name, self.task, outcome]).inc();
        let seconds = self.started.elapsed().as_secs_f64();
        self.metrics.call_duration.with_label_values(&[name, self.task]).observe(seconds);
    }
}

impl Drop for CallMeter {
    fn drop(&mut self) {
        self.ended(Some(ErrorCode::Cancelled));
    }
}
