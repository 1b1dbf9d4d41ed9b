//! The waiting jobs: three priority classes, first come first served within one, and ageing between
//! them. A pure data structure: it knows no threads and no clock but the instants it is given.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Priority class of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Priority {
    /// Somebody waits in front of a screen.
    Interactive,
    /// The default.
    #[default]
    Normal,
    /// Whenever there is room.
    Batch,
}

impl Priority {
    /// All classes, the most urgent first.
    pub const ALL: [Self; 3] = [Self::Interactive, Self::Normal, Self::Batch];

    /// Position in [`Priority::ALL`].
    pub fn index(self) -> usize {
        match self {
            Self::Interactive => 0,
            Self::Normal => 1,
            Self::Batch => 2,
        }
    }
}

/// A job that waits.
pub(crate) struct Waiting<T> {
    pub(crate) ticket: u64,
    pub(crate) priority: Priority,
    pub(crate) since: Instant,
    pub(crate) deadline: Option<Instant>,
    pub(crate) item: T,
}

/// The queue. Its bound is kept by the permits: each entry holds one.
pub(crate) struct Queue<T> {
    classes: [VecDeque<Waiting<T>>; 3],
    ageing: Duration,
}

impl<T> Queue<T> {
    /// `ageing`: a job that has waited this long counts as one class higher, twice this long two.
    pub(crate) fn new(ageing: Duration) -> Self {
        Self { classes: [VecDeque::new(), VecDeque::new(), VecDeque::new()], ageing }
    }

    pub(crate) fn push(&mut self, waiting: Waiting<T>) {
        self.classes[waiting.priority.index()].push_back(waiting);
    }

    pub(crate) fn len(&self) -> usize {
        self.classes.iter().map(VecDeque::len).sum()
    }

    pub(crate) fn depths(&self) -> [usize; 3] {
        [self.classes[0].len(), self.classes[1].len(), self.classes[2].len()]
    }

    /// When the longest waiting job came.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        self.classes.iter().filter_map(VecDeque::front).map(|waiting| waiting.since).min()
    }

    /// The job whose turn it is.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<Waiting<T>> {
        let class = self.next_class(now)?;
        self.classes[class].pop_front()
    }

    /// Returns a job that was popped and found no room: it is the first of its class again.
    pub(crate) fn put_back(&mut self, waiting: Waiting<T>) {
        self.classes[waiting.priority.index()].push_front(waiting);
    }

    /// Takes a job out of the middle, because its caller has left.
    pub(crate) fn remove(&mut self, priority: Priority, ticket: u64) -> Option<Waiting<T>> {
        let class = &mut self.classes[priority.index()];
        let at = class.iter().position(|waiting| waiting.ticket == ticket)?;
        class.remove(at)
    }

    /// Takes out all the jobs whose deadline has passed.
    pub(crate) fn take_expired(&mut self, now: Instant) -> Vec<Waiting<T>> {
        let late = |waiting: &Waiting<T>| waiting.deadline.is_some_and(|at| at <= now);
        let mut expired = Vec::new();
        for class in &mut self.classes {
            if class.iter().any(late) {
                let all = std::mem::take(class);
                let (gone, kept): (Vec<_>, VecDeque<_>) = partition(all, late);
                expired.extend(gone);
                *class = kept;
            }
        }
        expired
    }

    pub(crate) fn take_all(&mut self) -> Vec<Waiting<T>> {
        self.classes.iter_mut().flat_map(|class| class.drain(..)).collect()
    }

    /// The class with the most urgent head; the longer waiting head wins a tie. A job that has aged
    /// to the top is older than every newcomer there, so nothing waits for ever.
    fn next_class(&self, now: Instant) -> Option<usize> {
        (0..self.classes.len())
            .filter_map(|class| {
                let head = self.classes[class].front()?;
                Some((class.saturating_sub(self.steps_aged(head, now)), head.since, class))
            })
            .min()
            .map(|(_, _, class)| class)
    }

    fn steps_aged(&self, head: &Waiting<T>, now: Instant) -> usize {
        let waited = now.saturating_duration_since(head.since).as_nanos();
        let step = self.ageing.as_nanos().max(1);
        usize::try_from(waited / step).unwrap_or(usize::MAX)
    }
}

fn partition<T>(
    all: VecDeque<Waiting<T>>,
    late: impl Fn(&Waiting<T>) -> bool,
) -> (Vec<Waiting<T>>, VecDeque<Waiting<T>>) {
    let (mut gone, mut kept) = (Vec::new(), VecDeque::with_capacity(all.len()));
    for waiting in all {
        if late(&waiting) {
            gone.push(waiting);
        } else {
            kept.push_back(waiting);
        }
    }
    (gone, kept)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const AGEING: Duration = Duration::from_millis(100);

    fn waiting(ticket: u64, priority: Priority, since: Instant) -> Waiting<()> {
        Waiting { ticket, priority, since, deadline: None, item: () }
    }

    #[test]
    fn a_job_rises_a_class_for_each_ageing_time() {
        let now = Instant::now();
        let mut queue = Queue::new(AGEING);
        queue.push(waiting(0, Priority::Batch, now));
        queue.push(waiting(1, Priority::Normal, now + AGEING * 3 / 2));
        queue.push(waiting(2, Priority::Interactive, now + AGEING * 2));
        // Batch counts as interactive by now, and has waited longer.
        let order: Vec<_> = std::iter::from_fn(|| queue.pop(now + AGEING * 2))
            .map(|waiting| waiting.ticket)
            .collect();
        assert_eq!(order, [0, 2, 1]);
    }

    #[test]
    fn a_job_that_found_no_room_is_the_first_of_its_class_again() {
        let now = Instant::now();
        let mut queue = Queue::new(AGEING);
        queue.push(waiting(0, Priority::Normal, now));
        queue.push(waiting(1, Priority::Normal, now));
        let first = queue.pop(now).unwrap();
        queue.put_back(first);
        assert_eq!(queue.pop(now).unwrap().ticket, 0);
    }

    #[test]
    fn the_expired_and_the_removed_are_gone_and_the_rest_keep_their_order() {
        let now = Instant::now();
        let mut queue = Queue::new(AGEING);
        for ticket in 0..6 {
            let deadline = (ticket % 2 == 0).then_some(now);
            queue.push(Waiting { deadline, ..waiting(ticket, Priority::Normal, now) });
        }
        assert_eq!(queue.take_expired(now).len(), 3);
        assert!(queue.remove(Priority::Normal, 3).is_some());
        assert!(queue.remove(Priority::Normal, 3).is_none());
        assert!(queue.remove(Priority::Batch, 1).is_none());
        assert_eq!((queue.len(), queue.depths()), (2, [0, 2, 0]));
        let left: Vec<_> = queue.take_all().iter().map(|waiting| waiting.ticket).collect();
        assert_eq!(left, [1, 5]);
    }

    proptest! {
        /// However many urgent jobs come, one each tick and one served each tick, a batch job waits
        /// no longer than it takes to age to the top and to serve those who were there before.
        #[test]
        fn nothing_starves(before in 0_u32..50, tick_ms in 1_u64..50) {
            let (begin, tick) = (Instant::now(), Duration::from_millis(tick_ms));
            let mut queue = Queue::new(AGEING);
            for ticket in 0..before {
                queue.push(waiting(u64::from(ticket), Priority::Interactive, begin));
            }
            queue.push(waiting(u64::MAX, Priority::Batch, begin));
            let mut now = begin;
            let mut served = 0;
            loop {
                now += tick;
                queue.push(waiting(0, Priority::Interactive, now));
                served += 1;
                if queue.pop(now).unwrap().ticket == u64::MAX {
                    break;
                }
                prop_assert!(served < 10_000);
            }
            let aged = u32::try_from((AGEING * 2).as_millis().div_ceil(tick.as_millis())).unwrap();
            prop_assert!(served <= before.max(aged) + aged + 1, "served after {} others", served);
        }
    }
}
