//! Messages that arrive in fragments.
//!
//! Memory follows the bytes that arrived, never the counts that a packet claims, and what is
//! counted is what is allocated: buffers by their capacity, entries with their overhead.

use std::collections::BTreeMap;

use net_types::Instant;
use net_types::limits::{MAX_MESSAGE_BYTES, REASSEMBLY_TIMEOUT};

/// What one message under way costs besides its bytes.
const PARTIAL_OVERHEAD_BYTES: usize = 192;
/// What one fragment costs besides its bytes while an earlier one is missing.
const STASHED_OVERHEAD_BYTES: usize = 64;
/// Fragments that the first reservation of a message holds.
const FIRST_RESERVE_FRAGMENTS: usize = 8;
/// What a buffer grows by when it is full. A message of a mebibyte in fragments of a jumbo path is
/// moved once, when a sixteenth of it is here.
const GROWTH: usize = 16;

#[derive(Debug)]
struct Partial {
    /// Fragments `0..next`, joined.
    prefix: Vec<u8>,
    next: u16,
    count: u16,
    /// Fragments beyond `next`.
    stash: BTreeMap<u16, Vec<u8>>,
    stash_bytes: usize,
    /// Window bytes that are released when the message is taken.
    credit: u32,
    started: Instant,
}

impl Partial {
    fn cost(&self) -> usize {
        PARTIAL_OVERHEAD_BYTES
            + self.prefix.capacity()
            + self.stash_bytes
            + self.stash.len() * STASHED_OVERHEAD_BYTES
    }

    fn add(&mut self, index: u16, fragment: &[u8]) {
        if index != self.next {
            self.stash_bytes += fragment.len();
            self.stash.insert(index, fragment.to_vec());
            return;
        }
        self.append(fragment);
        while let Some(stashed) = self.stash.remove(&self.next) {
            self.stash_bytes -= stashed.len();
            self.append(&stashed);
        }
    }

    /// Joins the next fragment. The buffer grows by [`GROWTH`], but never beyond what the message will have
    /// when all its fragments are as long as this one: all but the last are.
    fn append(&mut self, fragment: &[u8]) {
        let (len, capacity) = (self.prefix.len(), self.prefix.capacity());
        if capacity - len < fragment.len() {
            let whole = fragment.len() * usize::from(self.count);
            let first = FIRST_RESERVE_FRAGMENTS * fragment.len();
            let wanted = (capacity * GROWTH).max(first).min(whole).max(len + fragment.len());
            self.prefix.reserve_exact(wanted - len);
        }
        self.prefix.extend_from_slice(fragment);
        self.next += 1;
    }
}

/// The partly received messages of one stream, by the sequence of their first fragment.
#[derive(Debug, Default)]
pub(crate) struct Reassembly {
    partials: BTreeMap<u64, Partial>,
    bytes: usize,
}

/// One fragment of a message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fragment<'a> {
    /// Sequence of the message's first fragment.
    pub(crate) message: u64,
    pub(crate) index: u16,
    pub(crate) count: u16,
    pub(crate) bytes: &'a [u8],
    /// Window bytes that are released when the message is taken.
    pub(crate) credit: u32,
}

/// What a fragment led to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Joined {
    /// The message is complete; the window bytes it releases follow.
    Whole(Vec<u8>, u32),
    /// More fragments are needed.
    Waiting,
    /// The fragment contradicts others or the message is too long; the message is given up.
    Refused,
}

impl Reassembly {
    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.partials.is_empty()
    }

    /// Adds a fragment. Nothing below `floor` will arrive any more: a message that misses one of
    /// those sequences is refused, so that messages that never end cannot pile up.
    pub(crate) fn add(&mut self, now: Instant, floor: u64, fragment: Fragment<'_>) -> Joined {
        let Fragment { message, index, count, bytes, credit } = fragment;
        let partial = self.partials.entry(message).or_insert_with(|| {
            self.bytes += PARTIAL_OVERHEAD_BYTES;
            Partial {
                prefix: Vec::new(),
                next: 0,
                count,
                stash: BTreeMap::new(),
                stash_bytes: 0,
                credit: 0,
                started: now,
            }
        });
        let held = partial.prefix.len() + partial.stash_bytes;
        let is_new = index >= partial.next && !partial.stash.contains_key(&index);
        if partial.count != count || !is_new || held + bytes.len() > MAX_MESSAGE_BYTES {
            self.drop_message(message);
            return Joined::Refused;
        }
        let before = partial.cost();
        partial.credit += credit;
        partial.add(index, bytes);
        self.bytes = self.bytes - before + partial.cost();
        if partial.next < partial.count {
            if message.saturating_add(partial.next.into()) < floor {
                self.drop_message(message);
                return Joined::Refused;
            }
            return Joined::Waiting;
        }
        match self.partials.remove(&message) {
            Some(whole) => {
                self.bytes -= whole.cost();
                Joined::Whole(whole.prefix, whole.credit)
            }
            None => Joined::Refused,
        }
    }

    /// Gives up the messages that are too old; returns how many.
    pub(crate) fn expire(&mut self, now: Instant) -> u64 {
        self.drop_where(|_, p| now.since(p.started) >= REASSEMBLY_TIMEOUT)
    }

    /// Gives up the messages that miss a fragment below `floor`, where nothing arrives any more;
    /// returns how many.
    pub(crate) fn drop_below(&mut self, floor: u64) -> u64 {
        match self.partials.first_key_value() {
            Some((first, _)) if *first < floor => {
                self.drop_where(|message, p| message.saturating_add(p.next.into()) < floor)
            }
            _ => 0,
        }
    }

    fn drop_where(&mut self, mut is_over: impl FnMut(u64, &Partial) -> bool) -> u64 {
        let mut dropped = 0;
        let bytes = &mut self.bytes;
        self.partials.retain(|message, partial| {
            let is_kept = !is_over(*message, partial);
            if !is_kept {
                dropped += 1;
                *bytes -= partial.cost();
            }
            is_kept
        });
        dropped
    }

    fn drop_message(&mut self, message: u64) {
        if let Some(p) = self.partials.remove(&message) {
            self.bytes -= p.cost();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fragment(message: u64, index: u16, count: u16, bytes: &[u8]) -> Fragment<'_> {
        Fragment { message, index, count, bytes, credit: 1 }
    }

    #[test]
    fn any_order_gives_the_message_and_its_credit() {
        for order in [[0u16, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]] {
            let mut r = Reassembly::default();
            for &i in &order[..3] {
                let part = [i as u8; 3];
                assert_eq!(r.add(Instant::ZERO, 0, fragment(9, i, 4, &part)), Joined::Waiting);
            }
            let last = [order[3] as u8; 3];
            let whole = r.add(Instant::ZERO, 0, fragment(9, order[3], 4, &last));
            assert_eq!(whole, Joined::Whole(vec![0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3], 4));
            assert_eq!((r.bytes(), r.is_empty()), (0, true));
        }
    }

    #[test]
    fn contradictions_and_age_release_the_memory() {
        let mut r = Reassembly::default();
        for bad in [fragment(0, 1, 5, &[1; 100]), fragment(0, 0, 4, &[1; 100])] {
            r.add(Instant::ZERO, 0, fragment(0, 0, 4, &[1; 100]));
            assert_eq!(r.add(Instant::ZERO, 0, bad), Joined::Refused);
            assert_eq!(r.bytes(), 0);
        }
        r.add(Instant::ZERO, 0, fragment(0, 2, 4, &[1; 100]));
        assert_eq!(r.expire(Instant::ZERO + REASSEMBLY_TIMEOUT), 1);
        assert_eq!(r.bytes(), 0);
    }

    #[test]
    fn messages_with_a_fragment_below_the_floor_are_given_up() {
        let mut r = Reassembly::default();
        r.add(Instant::ZERO, 0, fragment(0, 0, 4, &[1; 10]));
        r.add(Instant::ZERO, 0, fragment(4, 1, 4, &[1; 10]));
        r.add(Instant::ZERO, 0, fragment(8, 0, 4, &[1; 10]));
        assert_eq!(r.drop_below(1), 0);
        assert_eq!(r.drop_below(2), 1);
        assert_eq!(r.drop_below(9), 1);
        assert_eq!(r.drop_below(10), 1);
        assert_eq!((r.bytes(), r.is_empty()), (0, true));
    }

    #[test]
    fn a_message_whose_missing_part_can_no_longer_come_is_refused_at_once() {
        let mut r = Reassembly::default();
        assert_eq!(r.add(Instant::ZERO, 8, fragment(4, 3, 9, &[1])), Joined::Refused);
        assert_eq!(r.add(Instant::ZERO, 8, fragment(8, 3, 9, &[1])), Joined::Waiting);
        assert_eq!(r.partials.len(), 1);
    }

    #[test]
    fn what_is_counted_is_what_is_allocated() {
        let mut r = Reassembly::default();
        // One byte of a message that claims 65,535 of them, thousands of times.
        for message in 0..1_000 {
            r.add(Instant::ZERO, 0, fragment(message * 100_000, 0, u16::MAX, &[1]));
        }
        let allocated: usize = r.partials.values().map(|p| p.prefix.capacity()).sum();
        assert!(allocated <= 1_000 * FIRST_RESERVE_FRAGMENTS);
        assert!(r.bytes() >= allocated + 1_000 * PARTIAL_OVERHEAD_BYTES);
        // A long message ends without slack.
        let mut r = Reassembly::default();
        for index in 0..1_000 {
            let joined = r.add(Instant::ZERO, 0, fragment(0, index, 1_000, &[2; 1_000]));
            assert!(r.bytes() <= PARTIAL_OVERHEAD_BYTES + 1_000_000);
            if let Joined::Whole(message, credit) = joined {
                assert_eq!((message.len(), message.capacity()), (1_000_000, 1_000_000));
                assert_eq!(credit, 1_000);
                return;
            }
        }
        panic!("the message is never whole");
    }
}
