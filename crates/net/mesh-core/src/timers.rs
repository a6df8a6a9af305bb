//! When which session or dial wants to be called.
//!
//! Invariants: a timer has at most one entry; an entry may be early, never late. Moving a deadline
//! back costs nothing until the entry comes up, which keeps the timers of busy sessions off the hot
//! path.

use std::collections::{BTreeMap, BTreeSet};

use net_types::{Instant, NodeId};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    Session(usize),
    Dial(NodeId),
}

#[derive(Debug, Default)]
pub(crate) struct Timers {
    queue: BTreeSet<(Instant, Timer)>,
    armed: BTreeMap<Timer, Instant>,
}

impl Timers {
    /// Asserts that queue and table hold the same entries.
    pub(crate) fn check_invariants(&self) {
        assert_eq!(self.queue.len(), self.armed.len());
        let is_queued = |(timer, at): (&Timer, &Instant)| self.queue.contains(&(*at, *timer));
        assert!(self.armed.iter().all(is_queued), "a timer never comes up");
    }

    /// Timers that are armed.
    pub(crate) fn armed(&self) -> impl Iterator<Item = Timer> {
        self.armed.keys().copied()
    }

    /// Whether `timer` comes up at `at` or before.
    pub(crate) fn covers(&self, timer: Timer, at: Instant) -> bool {
        self.armed.get(&timer).is_some_and(|armed| *armed <= at)
    }

    /// Makes sure that `timer` comes up at `at` or before.
    pub(crate) fn arm(&mut self, timer: Timer, at: Instant) {
        match self.armed.get_mut(&timer) {
            Some(armed) if *armed <= at => {}
            Some(armed) => {
                self.queue.remove(&(*armed, timer));
                *armed = at;
                self.queue.insert((at, timer));
            }
            None => {
                self.armed.insert(timer, at);
                self.queue.insert((at, timer));
            }
        }
    }

    pub(crate) fn disarm(&mut self, timer: Timer) {
        if let Some(at) = self.armed.remove(&timer) {
            self.queue.remove(&(at, timer));
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.queue.first().map(|(at, _)| *at)
    }

    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<Timer> {
        let &(at, timer) = self.queue.first()?;
        if at > now {
            return None;
        }
        self.queue.pop_first();
        self.armed.remove(&timer);
        Some(timer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_move_earlier_but_not_later_and_come_up_once() {
        let at = Instant::from_nanos;
        let mut timers = Timers::default();
        timers.arm(Timer::Session(1), at(50));
        timers.arm(Timer::Session(1), at(90));
        assert_eq!(timers.next(), Some(at(50)));
        timers.arm(Timer::Session(1), at(10));
        timers.arm(Timer::Dial(NodeId(1)), at(20));
        assert_eq!(timers.pop_due(at(9)), None);
        assert_eq!(timers.pop_due(at(10)), Some(Timer::Session(1)));
        timers.disarm(Timer::Dial(NodeId(1)));
        assert_eq!(timers.next(), None);
    }
}
