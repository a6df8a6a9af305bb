//! Which stream sends next.
//!
//! Classes by urgency, each giving way to the next after a run, and streams of a class by deficit
//! round robin (Shreedhar and Varghese).
//!
//! Invariants: a stream is in the line of its class once at most; one whose next message the peer
//! has no room for waits outside of the line; a class that waits gets a packet after [`CLASS_RUN`]
//! packets of the class above it.

use std::collections::VecDeque;

use net_types::limits::MAX_REASSEMBLY_BYTES;
use net_wire::Class;

use super::{Stream, Streams, is};

/// Bytes of a round-robin turn per unit of weight.
const QUANTUM_PER_WEIGHT: i64 = 512;
/// Packets of a class in a row before a lower class that waits gets one.
pub(super) const CLASS_RUN: u32 = 16;

/// The lines of all classes.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    ready: [VecDeque<usize>; 3],
    /// Streams whose next message waits until the peer has room for it.
    waiting: Vec<usize>,
    /// Packets in a row of each class, most urgent first.
    runs: [u32; 3],
}

impl Schedule {
    /// Takes a stream that ended out of line; from those that wait it goes when they are woken.
    pub(super) fn remove(&mut self, slot: usize) {
        self.ready.iter_mut().for_each(|q| q.retain(|s| *s != slot));
    }

    /// Asserts that as many streams are in line as are marked so, all of them marked, and that only
    /// open ones wait.
    pub(super) fn check_invariants(&self, slots: &[Option<Stream>], marked: usize) {
        assert_eq!(self.ready.iter().map(VecDeque::len).sum::<usize>(), marked);
        assert!(self.in_line().all(|slot| is(slots, slot, |s| s.is_ready)), "{:?}", self.ready);
        assert!(self.waiting.iter().all(|slot| is(slots, *slot, |_| true)), "{:?}", self.waiting);
        assert!(self.runs.iter().all(|run| *run <= CLASS_RUN), "{:?}", self.runs);
    }

    pub(super) fn is_waiting(&self, slot: usize) -> bool {
        self.waiting.contains(&slot)
    }

    /// Streams in line, most urgent class first.
    pub(super) fn in_line(&self) -> impl Iterator<Item = usize> {
        Class::BY_URGENCY.iter().flat_map(|c| &self.ready[*c as usize]).copied()
    }
}

impl Streams {
    /// Counts what the stream holds after something changed its sending half, and puts it in line
    /// if it can send.
    pub(super) fn settle(&mut self, slot: usize) {
        self.line_up(slot);
        if self.recount(slot) {
            self.wake_waiting();
        }
    }

    /// Puts the streams in line that waited for the peer to have room.
    pub(super) fn wake_waiting(&mut self) {
        for slot in core::mem::take(&mut self.schedule.waiting) {
            self.line_up(slot);
        }
    }

    fn line_up(&mut self, slot: usize) {
        let Some(stream) = self.slots.get_mut(slot).and_then(Option::as_mut) else { return };
        if !stream.is_ready && stream.send.is_sendable() {
            stream.is_ready = true;
            self.schedule.ready[stream.send.config.class as usize].push_back(slot);
        }
    }

    /// The stream whose turn it is.
    pub(super) fn next_ready(&mut self) -> Option<usize> {
        if self.schedule.ready.iter().all(VecDeque::is_empty) {
            self.schedule.runs = [0; 3];
            return None;
        }
        self.next_from(0)
    }

    fn next_from(&mut self, level: usize) -> Option<usize> {
        let class = *Class::BY_URGENCY.get(level)?;
        if self.schedule.runs[level] >= CLASS_RUN {
            self.schedule.runs[level] = 0;
            if let Some(slot) = self.next_from(level + 1) {
                return Some(slot);
            }
        }
        if let Some(slot) = self.next_of(class) {
            self.schedule.runs[level] += 1;
            return Some(slot);
        }
        self.schedule.runs[level] = 0;
        self.next_from(level + 1)
    }

    /// A stream in line whose oldest packet was lost.
    pub(super) fn next_stalled(&self) -> Option<usize> {
        self.schedule.in_line().find(|slot| self.get(*slot).is_some_and(|s| s.send.is_head_lost()))
    }

    fn next_of(&mut self, class: Class) -> Option<usize> {
        let queue = &mut self.schedule.ready[class as usize];
        while let Some(&slot) = queue.front() {
            let stream = self.slots.get_mut(slot).and_then(Option::as_mut)?;
            let charge = stream.send.next_charge();
            let must_wait = charge > 0 && self.sums.begun_bytes + charge > MAX_REASSEMBLY_BYTES;
            if must_wait && !self.schedule.waiting.contains(&slot) {
                self.schedule.waiting.push(slot);
            }
            if must_wait || !stream.send.is_sendable() {
                stream.is_ready = false;
                // A debt stays: leaving the line does not make the last packet free.
                stream.deficit = stream.deficit.min(0);
                queue.pop_front();
                continue;
            }
            if stream.deficit > 0 {
                return Some(slot);
            }
            stream.deficit += i64::from(stream.send.config.weight) * QUANTUM_PER_WEIGHT;
            queue.rotate_left(1);
        }
        None
    }
}
