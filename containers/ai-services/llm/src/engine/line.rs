//! Who waits to run, and whose turn it is: the urgent class first, within a class the owner that
//! got least, within an owner whoever came first. It knows no clock: who waits ages by being passed
//! over.
//!
//! An owner's share is a counter of the rows that were computed for it (Sheng et al. 2024,
//! "Fairness in Serving Large Language Models": virtual token counters). Who comes back after a
//! pause starts level with the least served of those who wait: nobody saves up a share.

use std::collections::BTreeMap;

use super::scheduler::{OwnerKey, SequenceKey};

/// Picks of a more urgent class that a waiting sequence sees before it counts as one class higher.
const PASSED_OVER_MAX: u32 = 8;
/// Owners whose counters are remembered; beyond it those who have nothing here are forgotten.
const OWNERS_MAX: usize = 4096;

/// How urgent a sequence is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Somebody waits in front of a screen.
    Interactive,
    /// The usual.
    Normal,
    /// Whenever there is room.
    Batch,
}

#[derive(Debug, Clone, Copy)]
struct Waiter {
    key: SequenceKey,
    class: Class,
    owner: OwnerKey,
    passed_over: u32,
}

impl Waiter {
    /// The class that it counts as by now: 0 is the most urgent.
    fn rank(&self) -> u32 {
        (self.class as u32).saturating_sub(self.passed_over / PASSED_OVER_MAX)
    }
}

/// The sequences that wait, and what each owner got.
#[derive(Debug, Default)]
pub(super) struct Line {
    waiting: Vec<Waiter>,
    served: BTreeMap<OwnerKey, u64>,
}

impl Line {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// `is_new`: the owner had nothing here, running or waiting.
    pub(super) fn push(&mut self, key: SequenceKey, class: Class, owner: OwnerKey, is_new: bool) {
        if is_new {
            self.level(owner);
        }
        self.waiting.push(Waiter { key, class, owner, passed_over: 0 });
    }

    pub(super) fn remove(&mut self, key: SequenceKey) {
        self.waiting.retain(|waiter| waiter.key != key);
    }

    /// Whose turn it is; it stays in the line until [`take`](Self::take).
    pub(super) fn first(&self) -> Option<SequenceKey> {
        self.turn().map(|at| self.waiting[at].key)
    }

    /// Takes one whose turn it was out; the less urgent ones have been passed over.
    pub(super) fn take(&mut self, key: SequenceKey) {
        let at = self.waiting.iter().position(|waiter| waiter.key == key);
        let Some(taken) = at.map(|at| self.waiting.remove(at)) else { return };
        for waiter in &mut self.waiting {
            if waiter.class > taken.class {
                waiter.passed_over = waiter.passed_over.saturating_add(1);
            }
        }
    }

    /// `cost` was spent on a sequence of `owner`.
    pub(super) fn charge(&mut self, owner: OwnerKey, cost: u64) {
        let served = self.served.entry(owner).or_default();
        *served = served.saturating_add(cost);
    }

    fn turn(&self) -> Option<usize> {
        let order = |waiter: &Waiter| (waiter.rank(), self.served(waiter.owner), waiter.key);
        (0..self.waiting.len()).min_by_key(|at| order(&self.waiting[*at]))
    }

    fn served(&self, owner: OwnerKey) -> u64 {
        self.served.get(&owner).copied().unwrap_or(0)
    }

    /// Lifts the counter of an owner that comes (back) to that of the least served who waits.
    fn level(&mut self, owner: OwnerKey) {
        if self.served.len() >= OWNERS_MAX && !self.served.contains_key(&owner) {
            let waiting: Vec<OwnerKey> = self.waiting.iter().map(|waiter| waiter.owner).collect();
            self.served.retain(|owner, _| waiting.contains(owner));
        }
        let least = self.waiting.iter().map(|waiter| self.served(waiter.owner)).min();
        let served = self.served.entry(owner).or_default();
        *served = (*served).max(least.unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Takes whose turn it is.
    fn next(line: &mut Line) -> SequenceKey {
        let first = line.first().unwrap();
        line.take(first);
        first
    }

    fn key(number: u64) -> SequenceKey {
        SequenceKey::of(number)
    }

    fn owner(number: u64) -> OwnerKey {
        OwnerKey(number)
    }

    #[test]
    fn the_urgent_come_first_and_the_others_before_long() {
        let mut line = Line::default();
        line.push(key(0), Class::Batch, owner(1), true);
        let mut picks = 0;
        loop {
            line.push(key(picks + 1), Class::Interactive, owner(1), false);
            if next(&mut line) == key(0) {
                break;
            }
            picks += 1;
            assert!(picks < 100, "the batch job starves");
        }
        assert_eq!(picks, u64::from(PASSED_OVER_MAX) * 2);
    }

    #[test]
    fn an_owner_with_much_to_do_does_not_hold_up_one_with_little() {
        let mut line = Line::default();
        for number in 0..50 {
            line.push(key(number), Class::Normal, owner(1), number == 0);
        }
        let mut order = Vec::new();
        for number in 50..53 {
            line.push(key(number), Class::Normal, owner(2), number == 50);
        }
        for _ in 0..6 {
            let taken = next(&mut line);
            order.push(if taken < key(50) { 1 } else { 2 });
            line.charge(owner(order[order.len() - 1]), 100);
        }
        assert_eq!(order, [1, 2, 1, 2, 1, 2]);
    }

    #[test]
    fn who_was_away_has_saved_nothing() {
        let mut line = Line::default();
        line.push(key(0), Class::Normal, owner(1), true);
        line.charge(owner(1), 1_000_000);
        line.push(key(1), Class::Normal, owner(2), true);
        line.charge(owner(2), 10);
        // Owner 2 came with a counter of 0 but was lifted to what the other had got.
        assert_eq!(line.first(), Some(key(0)));
    }

    proptest! {
        /// Whoever comes meanwhile, everybody's turn comes, in a number of picks that depends on
        /// those who were there before and on the number of owners alone.
        #[test]
        fn nobody_waits_for_ever(
            before in proptest::collection::vec((0u32..3, 0u64..4), 1..20),
            comes in proptest::collection::vec((0u32..3, 0u64..4, 1u64..50), 400),
        ) {
            let class = |number| [Class::Interactive, Class::Normal, Class::Batch][number as usize];
            let mut line = Line::default();
            let mut owners: Vec<u64> = Vec::new();
            let mut left: Vec<SequenceKey> = Vec::new();
            let mut of = BTreeMap::new();
            for (number, (rank, who)) in before.iter().enumerate() {
                let is_new = !owners.contains(who);
                owners.push(*who);
                line.push(key(number as u64), class(*rank), owner(*who), is_new);
                left.push(key(number as u64));
                of.insert(key(number as u64), *who);
            }
            for (number, (rank, who, cost)) in comes.iter().enumerate() {
                let new = key((before.len() + number) as u64);
                line.push(new, class(*rank), owner(*who), false);
                of.insert(new, *who);
                let taken = next(&mut line);
                line.charge(owner(of[&taken]), *cost);
                left.retain(|waiting| *waiting != taken);
            }
            prop_assert!(left.is_empty(), "still waiting: {left:?}");
        }
    }
}
