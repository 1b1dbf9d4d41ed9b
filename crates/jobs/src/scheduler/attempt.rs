//! One attempt: the executor's future with its panics contained, its end turned into a settlement.

use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use aisemble_protocol::ErrorCode;
use aisemble_protocol::job::JobError;
use futures_util::FutureExt;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::executor::{ClaimedJob, EventSink, JobContext, JobFailure};
use crate::retry;
use crate::store::{Held, Outcome, Settlement};

/// Starts the attempt as a task; its settlement goes to `settlements`.
pub(super) fn launch(shared: &Arc<Shared>, job: ClaimedJob, settlements: mpsc::Sender<Settlement>) {
    let cancel = CancellationToken::new();
    shared.jobs.hub.started(job.id, job.lease, cancel.clone());
    shared.running.fetch_add(1, Ordering::SeqCst);
    shared.starts(&job.capability);
    let shared = Arc::clone(shared);
    let tracker = shared.attempts.clone();
    tracker.spawn(async move {
        let (held, attempt) = (Held { id: job.id, lease: job.lease }, job.attempt);
        let result = run(&shared, job, cancel).await;
        let outcome = outcome(&shared, result, attempt);
        // Only a scheduler that was dropped no longer takes it; the job's lease then runs out.
        let _ = settlements.send(Settlement { held, outcome }).await;
        shared.running.fetch_sub(1, Ordering::SeqCst);
        shared.jobs.hub.work.notify_one();
    });
}

/// How the future ended.
enum Ended {
    Answered(Result<Vec<u8>, JobFailure>),
    Panicked,
    Dropped,
}

async fn run(shared: &Shared, job: ClaimedJob, cancel: CancellationToken) -> Ended {
    let events = EventSink {
        store: Arc::clone(&shared.jobs.store),
        clock: shared.jobs.clock.clone(),
        id: job.id,
        lease: job.lease,
        muted: false,
    };
    let context = JobContext { cancel: cancel.clone(), events };
    let capability = job.capability.clone();
    let work = async { shared.executor.execute(job, context).await };
    let mut work = pin!(AssertUnwindSafe(work).catch_unwind());
    // From its first poll on, the executor counts the job itself.
    let first = poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx))).await;
    shared.has_started(&capability);
    let answered = match first {
        Poll::Ready(answered) => answered,
        Poll::Pending => tokio::select! {
            biased;
            answered = work => answered,
            () = told_to_stop_long_ago(shared, &cancel) => return Ended::Dropped,
        },
    };
    match answered {
        Ok(result) => Ended::Answered(result),
        Err(_) => Ended::Panicked,
    }
}

async fn told_to_stop_long_ago(shared: &Shared, cancel: &CancellationToken) {
    let late = async {
        cancel.cancelled().await;
        tokio::time::sleep(Duration::from_millis(shared.config.cancel_grace_ms)).await;
    };
    tokio::select! {
        () = late => {}
        () = shared.abort.cancelled() => {}
    }
}

fn outcome(shared: &Shared, ended: Ended, attempt: u32) -> Outcome {
    let failure = match ended {
        Ended::Answered(Ok(result)) => return Outcome::Succeeded { result },
        Ended::Answered(Err(failure)) => failure,
        Ended::Panicked => JobFailure::new(ErrorCode::Internal, "the attempt broke off"),
        Ended::Dropped => JobFailure::new(ErrorCode::Cancelled, "the attempt did not stop"),
    };
    if shared.giving_back.load(Ordering::SeqCst) {
        return Outcome::Interrupted;
    }
    let retry_at_ms = failure.code.retryable().then(|| {
        let backoff = &shared.config.backoff;
        let wait_ms = retry::wait_ms(backoff, attempt, failure.retry_after_ms, &mut rand::rng());
        shared.jobs.clock.now_ms() + wait_ms
    });
    let error = JobError { code: failure.code, message: failure.message };
    Outcome::Failed { error, retry_at_ms }
}
