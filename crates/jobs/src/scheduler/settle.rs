//! Records what came of attempts, many at a time, and does not let go of a result because the store
//! refuses it for a while.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use aisemble_protocol::JobState;
use tokio::sync::mpsc;

use super::Shared;
use crate::error::JobsError;
use crate::store::{Settled, Settlement};

/// Settlements that one write takes.
const BATCH_MAX: usize = 256;
/// First wait after the store refused; doubles up to [`WAIT_MAX`].
const WAIT_MIN: Duration = Duration::from_millis(50);
const WAIT_MAX: Duration = Duration::from_secs(2);

pub(super) async fn run(shared: Arc<Shared>, mut settlements: mpsc::Receiver<Settlement>) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    while settlements.recv_many(&mut batch, BATCH_MAX).await > 0 {
        let all: Arc<[Settlement]> = batch.drain(..).collect();
        if record(&shared, &all).await.is_err() && all.len() > 1 {
            // One of them is at fault: the others are not to suffer for it.
            for settlement in all.iter() {
                let _ = record(&shared, &[settlement.clone()].into()).await;
            }
        }
        for settlement in all.iter() {
            shared.jobs.hub.stopped(settlement.held.id, settlement.held.lease);
        }
    }
}

/// Records the batch, trying again for as long as the store itself is what refuses.
async fn record(shared: &Shared, batch: &Arc<[Settlement]>) -> Result<(), JobsError> {
    let mut wait = WAIT_MIN;
    loop {
        let now_ms = shared.jobs.clock.now_ms();
        let error = match shared.jobs.store.settle(Arc::clone(batch), now_ms).await {
            Ok(settled) => {
                count(shared, &settled);
                return Ok(());
            }
            Err(error) => error,
        };
        tracing::error!(
            error = &error as &dyn std::error::Error,
            jobs = batch.len(),
            "recording ended jobs failed"
        );
        if !matches!(error, JobsError::Store(_)) {
            return Err(error);
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => wait = (wait * 2).min(WAIT_MAX),
            () = shared.last_settle.cancelled() => return Ok(()),
        }
    }
}

fn count(shared: &Shared, settled: &[Settled]) {
    for settled in settled {
        match settled {
            Settled::Recorded { state: JobState::Queued } => {
                shared.given_back.fetch_add(1, Ordering::SeqCst);
            }
            Settled::Recorded { .. } => {
                shared.finished.fetch_add(1, Ordering::SeqCst);
            }
            Settled::Stale => tracing::warn!("an attempt ended after its lease was gone"),
        }
    }
}
