//! The end of a process: running work is counted, and waited for until a deadline.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::signals::Signals;

/// Counts what runs, and tells when nothing does. Clones count together.
#[derive(Debug, Clone)]
pub struct Running {
    state: Arc<watch::Sender<State>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct State {
    count: usize,
    draining: bool,
}

impl Default for Running {
    fn default() -> Self {
        Self { state: Arc::new(watch::Sender::new(State::default())) }
    }
}

impl Running {
    /// Nothing runs yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts one piece of work until the guard is dropped; none once the drain has begun.
    #[must_use]
    pub fn enter(&self) -> Option<RunningGuard> {
        let mut entered = false;
        self.state.send_if_modified(|state| {
            entered = !state.draining;
            state.count += usize::from(entered);
            entered
        });
        entered.then(|| RunningGuard { running: self.clone() })
    }

    /// From now on nothing enters.
    pub fn close(&self) {
        self.state.send_modify(|state| state.draining = true);
    }

    /// Whether [`Self::close`] was called.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state.borrow().draining
    }

    /// How much runs.
    #[must_use]
    pub fn count(&self) -> usize {
        self.state.borrow().count
    }

    /// Resolves when nothing runs.
    pub async fn idle(&self) {
        let mut receiver = self.state.subscribe();
        // The sender lives in `self`, so waiting ends only when the count is 0.
        let _ = receiver.wait_for(|state| state.count == 0).await;
    }
}

/// One piece of work that runs.
#[derive(Debug)]
pub struct RunningGuard {
    running: Running,
}

impl Drop for RunningGuard {
    fn drop(&mut self) {
        self.running.state.send_modify(|state| state.count -= 1);
    }
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All work was done in time.
    Met,
    /// The deadline passed before.
    Missed,
    /// A second signal ended it.
    CutShort,
}

/// Waits for `work` until `deadline`, or until a second signal comes, and logs which it was.
pub async fn drain(
    work: impl Future<Output = ()>,
    deadline: Duration,
    signals: &mut Signals,
) -> Outcome {
    let began_at = Instant::now();
    let outcome = tokio::select! {
        biased;
        () = work => Outcome::Met,
        _ = signals.wait() => Outcome::CutShort,
        () = tokio::time::sleep(deadline) => Outcome::Missed,
    };
    let duration_ms = u64::try_from(began_at.elapsed().as_millis()).unwrap_or(u64::MAX);
    let deadline_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
    let met = outcome == Outcome::Met;
    match outcome {
        Outcome::Met => tracing::info!(
            drain.met = met,
            duration_ms,
            drain.deadline_ms = deadline_ms,
            "drained: all work was done before the deadline"
        ),
        Outcome::Missed => tracing::warn!(
            drain.met = met,
            duration_ms,
            drain.deadline_ms = deadline_ms,
            "the drain deadline was not met: work that still runs is given up"
        ),
        Outcome::CutShort => tracing::warn!(
            drain.met = met,
            duration_ms,
            drain.deadline_ms = deadline_ms,
            "a second signal cut the drain short: work that still runs is given up"
        ),
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn idle_waits_for_the_last_guard_and_nothing_enters_after_close() {
        let running = Running::new();
        running.idle().await;
        let first = running.enter().unwrap();
        let second = running.clone().enter().unwrap();
        assert_eq!(running.count(), 2);
        running.close();
        assert!(running.enter().is_none() && running.is_closed());
        let waiter = tokio::spawn({
            let running = running.clone();
            async move { running.idle().await }
        });
        drop(first);
        assert_eq!(running.count(), 1);
        drop(second);
        waiter.await.unwrap();
        assert_eq!(running.count(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_outcome_says_whether_the_deadline_was_met() {
        let mut signals = Signals::install().unwrap();
        let deadline = Duration::from_secs(5);
        assert_eq!(drain(async {}, deadline, &mut signals).await, Outcome::Met);
        let late = tokio::time::sleep(Duration::from_secs(6));
        assert_eq!(drain(late, deadline, &mut signals).await, Outcome::Missed);
        let early = tokio::time::sleep(Duration::from_secs(4));
        assert_eq!(drain(early, deadline, &mut signals).await, Outcome::Met);
    }
}
