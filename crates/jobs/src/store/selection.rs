//! Which queued jobs go first: the highest priority class after ageing, then the owner with the
//! fewest running jobs, then who waited longest. It must not know where the jobs are kept.
//!
//! Jobs are looked at in lanes, one for each owner and priority, each in the order of waiting.
//! Within a lane nothing can overtake its head, so comparing heads is enough.

use std::collections::VecDeque;

/// Jobs of one owner and priority.
#[derive(Debug)]
pub(crate) struct Lane {
    /// Index of the owner in the loads.
    pub(crate) owner: usize,
    /// 0 = first.
    pub(crate) priority: u64,
    /// `(ready_at_ms, n)` of the jobs that wait, those fetched so far.
    pub(crate) waiting: VecDeque<(u64, i64)>,
    /// The last that was fetched.
    pub(crate) last: (u64, i64),
    /// There may be more than `waiting`.
    pub(crate) more: bool,
}

/// The class after ageing: waiting a step lifts by one, down to 0.
pub(crate) fn class(priority: u64, waited_ms: u64, ageing_step_ms: u64) -> u64 {
    priority.saturating_sub(waited_ms / ageing_step_ms)
}

/// How much a pick may take, and when it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Jobs.
    pub(crate) jobs_max: usize,
    /// Running jobs of one owner.
    pub(crate) per_owner_max: Option<u64>,
    /// Now.
    pub(crate) now_ms: u64,
    /// What lifts a job by one class.
    pub(crate) ageing_step_ms: u64,
}

/// Picks up to `jobs_max` jobs. `loads` counts the running jobs of each owner and is raised by what
/// is picked; `fetch` gives the next jobs of a lane after the last that it gave.
///
/// # Errors
/// Those of `fetch`.
pub(crate) fn pick<E>(
    lanes: &mut [Lane],
    loads: &mut [u64],
    bounds: Bounds,
    mut fetch: impl FnMut(&mut Lane, usize) -> Result<(), E>,
) -> Result<Vec<i64>, E> {
    let Bounds { jobs_max, per_owner_max, now_ms, ageing_step_ms } = bounds;
    let mut picked = Vec::with_capacity(jobs_max);
    while picked.len() < jobs_max {
        let mut best: Option<((u64, u64, u64, i64), usize)> = None;
        for (index, lane) in lanes.iter_mut().enumerate() {
            let load = loads.get(lane.owner).copied().unwrap_or(0);
            if per_owner_max.is_some_and(|max| load >= max) {
                continue;
            }
            if lane.waiting.is_empty() && lane.more {
                fetch(lane, jobs_max - picked.len())?;
            }
            let Some(&(ready_at_ms, n)) = lane.waiting.front() else { continue };
            let waited_ms = now_ms.saturating_sub(ready_at_ms);
            let class = class(lane.priority, waited_ms, ageing_step_ms);
            let key = (class, load, ready_at_ms, n);
            if best.is_none_or(|(least, _)| key < least) {
                best = Some((key, index));
            }
        }
        let Some((key, index)) = best else { break };
        let lane = &mut lanes[index];
        lane.waiting.pop_front();
        if let Some(load) = loads.get_mut(lane.owner) {
            *load += 1;
        }
        picked.push(key.3);
    }
    Ok(picked)
}
