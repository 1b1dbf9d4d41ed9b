//! Keeps time: renews leases, does what is due, deletes what is past its retention. When nothing is
//! due it only reads.

use std::sync::Arc;
use std::time::Duration;

use super::Shared;
use crate::error::JobsError;
use crate::store::Beat;

/// Leases that one write renews.
const BEATS_MAX: usize = 500;
/// Jobs that one write deletes.
const PURGE_JOBS_MAX: usize = 200;

pub(super) async fn run(shared: Arc<Shared>) {
    let mut next = Next { heartbeat_ms: 0, purge_ms: 0 };
    loop {
        let now_ms = shared.jobs.clock.now_ms();
        let wait_ms = match round(&shared, &mut next, now_ms).await {
            Ok(due_ms) => {
                let until_ms = due_ms.min(next.heartbeat_ms).min(next.purge_ms);
                // A due time in the past means that there is more to do, not that none is lost.
                until_ms.saturating_sub(shared.jobs.clock.now_ms()).min(shared.config.poll_ms)
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "keeping time failed");
                shared.config.poll_ms
            }
        };
        tokio::select! {
            biased;
            () = shared.stop_timers.cancelled() => return,
            () = shared.jobs.hub.timers.notified() => {}
            () = tokio::time::sleep(Duration::from_millis(wait_ms)) => {}
        }
    }
}

struct Next {
    heartbeat_ms: u64,
    purge_ms: u64,
}

/// Does what is due by `now_ms`; gives when something is due next.
async fn round(shared: &Shared, next: &mut Next, now_ms: u64) -> Result<u64, JobsError> {
    if now_ms >= next.heartbeat_ms {
        // Before anything is rescued: after a pause of the whole process our own leases may have
        // run out, and none but us could have noticed.
        heartbeat(shared, now_ms).await?;
        next.heartbeat_ms = now_ms + shared.config.heartbeat_ms;
    }
    let hub = &shared.jobs.hub;
    hub.disarm();
    let due_ms = shared.jobs.store.next_due_ms().await?.unwrap_or(u64::MAX);
    let due_ms = if due_ms <= now_ms {
        let ticked = shared.jobs.store.tick(now_ms).await?;
        if ticked.expired + ticked.rescued > 0 {
            tracing::info!(jobs.expired = ticked.expired, jobs.rescued = ticked.rescued, "tick");
        }
        if ticked.more {
            now_ms
        } else {
            shared.jobs.store.next_due_ms().await?.unwrap_or(u64::MAX)
        }
    } else {
        due_ms
    };
    if now_ms >= next.purge_ms {
        let deleted = shared.jobs.store.purge(now_ms, PURGE_JOBS_MAX).await?;
        let more = deleted == PURGE_JOBS_MAX;
        next.purge_ms = if more { now_ms } else { now_ms + shared.config.purge_ms };
    }
    Ok(hub.arm(due_ms))
}

async fn heartbeat(shared: &Shared, now_ms: u64) -> Result<(), JobsError> {
    let held = shared.jobs.hub.held();
    let lease_until_ms = now_ms + shared.config.lease_ms;
    for chunk in held.chunks(BEATS_MAX) {
        let beats = shared.jobs.store.heartbeat(chunk.to_vec(), lease_until_ms).await?;
        for (held, beat) in chunk.iter().zip(beats) {
            match beat {
                Beat::Renewed => {}
                Beat::CancelRequested | Beat::Lost => shared.jobs.hub.cancel(held.id, held.lease),
            }
        }
    }
    Ok(())
}
