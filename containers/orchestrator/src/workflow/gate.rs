//! How many rows of one map run at the same time, and how many may begin in a minute. Kept in
//! memory as long as a chunk or its step runs; after a crash it begins anew.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use aisemble_protocol::JobId;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

/// The gates of all maps.
#[derive(Debug, Clone, Default)]
pub(super) struct Gates {
    all: Arc<Mutex<HashMap<JobId, Weak<Gate>>>>,
}

/// The gate of one map.
#[derive(Debug)]
pub(super) struct Gate {
    room: Semaphore,
    /// Time between two rows, and when the next may begin.
    pace: Option<(Duration, Mutex<Instant>)>,
}

impl Gates {
    /// The gate of `map`: the one there is, or a new one.
    pub(super) fn gate(
        &self,
        map: JobId,
        concurrency: u32,
        rows_per_minute: Option<u32>,
    ) -> Arc<Gate> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(gate) = all.get(&map).and_then(Weak::upgrade) {
            return gate;
        }
        all.retain(|_, gate| gate.strong_count() > 0);
        let pace = rows_per_minute.map(|rows| {
            let between = Duration::from_secs(60) / rows.max(1);
            (between, Mutex::new(Instant::now()))
        });
        let gate = Arc::new(Gate { room: Semaphore::new(concurrency.max(1) as usize), pace });
        all.insert(map, Arc::downgrade(&gate));
        gate
    }
}

impl Gate {
    /// Waits until one more row may run. Cancel-safe, but a place in the pace is not given back.
    pub(super) async fn enter(&self) -> Option<SemaphorePermit<'_>> {
        let permit = self.room.acquire().await.ok()?;
        if let Some((between, next)) = &self.pace {
            let begin = {
                let mut next = next.lock().unwrap_or_else(PoisonError::into_inner);
                let begin = (*next).max(Instant::now());
                *next = begin + *between;
                begin
            };
            tokio::time::sleep_until(begin).await;
        }
        Some(permit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn rows_keep_their_distance_and_their_number() {
        let gates = Gates::default();
        let map = JobId::generate();
        let gate = gates.gate(map, 2, Some(600));
        assert!(Arc::ptr_eq(&gate, &gates.gate(map, 9, None)), "one gate a map");
        let begun = Instant::now();
        let first = gate.enter().await.unwrap();
        let _second = gate.enter().await.unwrap();
        assert!(begun.elapsed() >= Duration::from_millis(100));
        let third = tokio::time::timeout(Duration::from_millis(200), gate.enter()).await;
        assert!(third.is_err(), "two are inside");
        drop(first);
        assert!(gate.enter().await.is_some());
    }
}
