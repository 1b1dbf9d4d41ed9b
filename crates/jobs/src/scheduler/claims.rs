//! When to claim, and how much: woken by new jobs and by room, with a poll as the floor.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rand::Rng;
use tokio::sync::mpsc;

use super::{Shared, attempt};
use crate::error::JobsError;
use crate::store::{Claim, Settlement, Want};

pub(super) async fn run(shared: Arc<Shared>, settlements: mpsc::Sender<Settlement>) {
    loop {
        if let Err(error) = fill(&shared, &settlements).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "claiming jobs failed");
            tokio::select! {
                () = shared.stop_claims.cancelled() => return,
                () = tokio::time::sleep(poll(&shared)) => continue,
            }
        }
        tokio::select! {
            biased;
            () = shared.stop_claims.cancelled() => return,
            () = shared.jobs.hub.work.notified() => {}
            () = tokio::time::sleep(poll(&shared)) => {}
        }
    }
}

/// The poll, drawn within a tenth, so that schedulers on one store do not look together.
fn poll(shared: &Shared) -> Duration {
    let poll_ms = shared.config.poll_ms;
    Duration::from_millis(poll_ms - poll_ms / 10 + rand::rng().random_range(0..=poll_ms / 5))
}

/// Claims until there is no room or nothing is queued.
async fn fill(
    shared: &Arc<Shared>,
    settlements: &mpsc::Sender<Settlement>,
) -> Result<(), JobsError> {
    while !shared.stop_claims.is_cancelled() {
        let capabilities = shared.jobs.store.capabilities().await?;
        let wants = wants(shared, capabilities);
        if wants.is_empty() {
            return Ok(());
        }
        let mut short = wants.clone();
        let now_ms = shared.jobs.clock.now_ms();
        let claim = Claim { wants, lease_until_ms: now_ms + shared.config.lease_ms };
        let claimed = shared.jobs.store.claim(claim, now_ms).await?;
        for job in claimed {
            if let Some(want) = short.iter_mut().find(|want| want.capability == job.capability) {
                want.jobs_max -= 1;
            }
            attempt::launch(shared, job, settlements.clone());
        }
        if short.iter().all(|want| want.jobs_max > 0) {
            return Ok(());
        }
    }
    Ok(())
}

/// What there is room for. A capability with much room leaves some to those after it: each gets at
/// most its share of what all together may take.
fn wants(shared: &Shared, capabilities: Vec<String>) -> Vec<Want> {
    let running = shared.running.load(Ordering::SeqCst);
    let all = shared.config.running_max.saturating_sub(running).min(shared.config.claim_max);
    let share = all.div_ceil(capabilities.len().max(1));
    let mut left = all;
    let mut wants = Vec::with_capacity(capabilities.len());
    for capability in capabilities {
        let jobs_max = shared.room(&capability).min(share).min(left);
        left -= jobs_max;
        if jobs_max > 0 {
            let per_owner_max = shared.executor.per_owner_max(&capability);
            wants.push(Want { capability, jobs_max, per_owner_max });
        }
    }
    wants
}
