//! Messages that arrive in fragments.
//!
//! A message is paid for with its whole length when it begins: what began can always end, whatever
//! else begins. A sender that counts alike begins nothing that is refused.
//!
//! Invariants: a message never holds more bytes than were counted for it, in whatever order its
//! fragments come; [`Reassembly::counted`] is the sum over all messages; a message that misses a
//! sequence which will not arrive any more is dropped.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use net_types::Instant;
use net_types::limits::{
    MAX_EVENT_BYTES, MAX_MESSAGE_BYTES, MAX_REASSEMBLY_BYTES, REASSEMBLY_TIMEOUT,
};

/// What one message under way costs in addition to its bytes.
const PARTIAL_OVERHEAD_BYTES: usize = 192;
/// What one fragment costs in addition to its bytes while an earlier one is missing.
const STASHED_OVERHEAD_BYTES: usize = 64;
/// Fragments that the first reservation of a message holds.
const FIRST_RESERVE_FRAGMENTS: usize = 8;
/// What a buffer grows by when it is full. A message of a mebibyte in fragments of a jumbo path is
/// moved once, when a sixteenth of it is here.
const GROWTH: usize = 16;
/// The same for a message that is not paid for.
const UNPAID_GROWTH: usize = 2;

// Every message fits when nothing else is under way.
const _: () = assert!(charge(MAX_MESSAGE_BYTES, u16::MAX) <= MAX_REASSEMBLY_BYTES);

/// What a message of `count` fragments and at most `limit` bytes is counted with.
const fn charge(limit: usize, count: u16) -> usize {
    PARTIAL_OVERHEAD_BYTES + limit + count as usize * STASHED_OVERHEAD_BYTES
}

/// What a message is counted with from its first fragment of `len` bytes on.
pub(crate) fn first_charge(count: u16, len: usize) -> usize {
    charge(limit(0, count, len), count)
}

/// Bytes that a message has at most, as one of its fragments shows: all are equally long but the
/// last, which may be shorter and says nothing.
fn limit(index: u16, count: u16, len: usize) -> usize {
    let is_last = index.saturating_add(1) >= count;
    let fragment_bytes = if is_last { MAX_EVENT_BYTES } else { len };
    (fragment_bytes * usize::from(count)).min(MAX_MESSAGE_BYTES)
}

/// A message under way.
///
/// All fragments but the last are equally long, so each has its place in the buffer. One that comes
/// early waits in the stash until the buffer reaches its place: the two never hold more than the
/// message has.
#[derive(Debug)]
struct Partial {
    /// Fragments at their places, with zeros where one is missing.
    buffer: Vec<u8>,
    /// Fragments `0..next` are in the buffer.
    next: u16,
    count: u16,
    /// Bytes of every fragment but the last; 0 until one of them is here.
    fragment_bytes: usize,
    /// Fragments above `next` that are in the buffer, one bit each; empty while none is.
    placed: Vec<u64>,
    /// Fragments whose place is beyond the buffer's capacity, or not known.
    stash: BTreeMap<u16, Vec<u8>>,
    stash_bytes: usize,
    /// Bytes that the message has at most.
    limit: usize,
    /// Whether the session has counted the whole message.
    is_paid: bool,
    /// Window bytes that are released when the message is taken.
    credit: u32,
    started: Instant,
}

impl Partial {
    fn new(now: Instant, count: u16, limit: usize) -> Self {
        Self {
            buffer: Vec::new(),
            next: 0,
            count,
            fragment_bytes: 0,
            placed: Vec::new(),
            stash: BTreeMap::new(),
            stash_bytes: 0,
            limit,
            is_paid: false,
            credit: 0,
            started: now,
        }
    }

    fn counted(&self) -> Counted {
        if self.is_paid {
            Counted { paid: charge(self.limit, self.count), unpaid: 0 }
        } else {
            Counted { paid: 0, unpaid: self.cost() }
        }
    }

    fn cost(&self) -> usize {
        PARTIAL_OVERHEAD_BYTES
            + self.buffer.capacity()
            + self.stash_bytes
            + self.stash.len() * STASHED_OVERHEAD_BYTES
            + size_of_val(&self.placed[..])
    }

    fn check_invariants(&self) {
        assert!(self.next < self.count, "a message that is whole is held");
        assert_eq!(self.stash_bytes, self.stash.values().map(Vec::len).sum::<usize>());
        let is_early = |index: &u16| *index > self.next && !self.is_placed(*index);
        assert!(self.stash.keys().all(is_early), "a fragment is held twice");
        assert!(self.buffer.len() + self.stash_bytes <= self.limit, "more than the message has");
    }

    fn is_placed(&self, index: u16) -> bool {
        let word = self.placed.get(usize::from(index / 64));
        word.is_some_and(|word| word & (1 << (index % 64)) != 0)
    }

    /// Whether a fragment agrees with what is known of the message and is not here yet.
    fn fits(&self, index: u16, fragment: &[u8]) -> bool {
        let is_here = index < self.next || self.is_placed(index) || self.stash.contains_key(&index);
        let last = self.count - 1;
        let of_last = self.stash.get(&last).map_or(0, Vec::len);
        let agrees = match self.fragment_bytes {
            0 if index == last => true,
            0 => fragment.len() >= of_last.max(1),
            known if index == last => fragment.len() <= known,
            known => fragment.len() == known,
        };
        // The first fragment that tells the length of all gives the last one its place, too.
        let fragment_bytes = if index == last { self.fragment_bytes } else { fragment.len() };
        let ends = [(index, fragment.len()), (last, of_last)];
        let is_within =
            |(index, len)| len == 0 || usize::from(index) * fragment_bytes + len <= self.limit;
        !is_here && agrees && ends.into_iter().all(is_within)
    }

    fn add(&mut self, index: u16, fragment: &[u8]) {
        if index + 1 < self.count {
            self.fragment_bytes = fragment.len();
        }
        if index == self.next {
            self.append(fragment);
            loop {
                if let Some(stashed) = self.stash.remove(&self.next) {
                    self.stash_bytes -= stashed.len();
                    self.append(&stashed);
                } else if self.is_placed(self.next) {
                    self.next += 1;
                } else {
                    return;
                }
            }
        }
        let end = usize::from(index) * self.fragment_bytes + fragment.len();
        if self.fragment_bytes > 0 && end <= self.buffer.capacity() {
            self.place(index, fragment);
            self.note_placed(index);
        } else {
            self.stash_bytes += fragment.len();
            self.stash.insert(index, fragment.to_vec());
        }
    }

    fn append(&mut self, fragment: &[u8]) {
        self.grow(fragment.len());
        self.place(self.next, fragment);
        self.next += 1;
    }

    fn note_placed(&mut self, index: u16) {
        if self.placed.is_empty() {
            self.placed = vec![0; usize::from(self.count).div_ceil(64)];
        }
        self.placed[usize::from(index / 64)] |= 1 << (index % 64);
    }

    /// Writes a fragment to its place, for which there is capacity.
    fn place(&mut self, index: u16, fragment: &[u8]) {
        let start = usize::from(index) * self.fragment_bytes;
        if self.buffer.len() < start {
            self.buffer.resize(start, 0);
        }
        if self.buffer.len() == start {
            self.buffer.extend_from_slice(fragment);
        } else {
            self.buffer[start..start + fragment.len()].copy_from_slice(fragment);
        }
    }

    /// Makes room for the next fragment. The buffer grows by [`GROWTH`], but never beyond what the
    /// message may have; what waited for the new room moves in.
    fn grow(&mut self, len: usize) {
        let capacity = self.buffer.capacity();
        let end = usize::from(self.next) * self.fragment_bytes + len;
        if end <= capacity {
            return;
        }
        let (growth, first) = match self.is_paid {
            true => (GROWTH, FIRST_RESERVE_FRAGMENTS),
            false => (UNPAID_GROWTH, 1),
        };
        let wanted = (capacity * growth).max(first * len).min(self.limit).max(end);
        self.buffer.reserve_exact(wanted - self.buffer.len());
        while let Some(stashed) = self.stash.first_entry() {
            let index = *stashed.key();
            let end = usize::from(index) * self.fragment_bytes + stashed.get().len();
            if end > self.buffer.capacity() {
                return;
            }
            let fragment = stashed.remove();
            self.stash_bytes -= fragment.len();
            self.place(index, &fragment);
            self.note_placed(index);
        }
    }
}

/// The partly received messages of one stream, by the sequence of their first fragment.
#[derive(Debug, Default)]
pub(crate) struct Reassembly {
    partials: BTreeMap<u64, Partial>,
    counted: Counted,
}

/// Bytes that are counted for messages under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    /// For messages that are paid for: with their whole length.
    pub(crate) paid: usize,
    /// For the others: what they hold.
    pub(crate) unpaid: usize,
}

impl Counted {
    pub(crate) fn add(&mut self, other: Self) {
        self.paid += other.paid;
        self.unpaid += other.unpaid;
    }

    pub(crate) fn remove(&mut self, other: Self) {
        self.paid -= other.paid;
        self.unpaid -= other.unpaid;
    }
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
    /// Whether the session has room for the whole message.
    pub(crate) is_paid: bool,
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
    /// Asserts that the sums are those of the messages, and that each is within its limit.
    pub(crate) fn check_invariants(&self) {
        let mut counted = Counted::default();
        for partial in self.partials.values() {
            partial.check_invariants();
            counted.add(partial.counted());
        }
        assert_eq!(self.counted, counted);
    }

    /// What is counted for all messages.
    pub(crate) fn counted(&self) -> Counted {
        self.counted
    }

    /// What must be paid before a fragment with `len` bytes may come; none for a message that is
    /// paid for.
    pub(crate) fn price(&self, message: u64, index: u16, count: u16, len: usize) -> Option<usize> {
        match self.partials.get(&message) {
            Some(partial) if partial.is_paid => None,
            Some(partial) => Some(charge(partial.limit, partial.count)),
            None => Some(charge(limit(index, count, len), count)),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.partials.is_empty()
    }

    /// Adds a fragment. Nothing below `floor` will arrive any more: a message that misses one of
    /// those sequences is refused, so that messages that never end cannot pile up.
    pub(crate) fn add(&mut self, now: Instant, floor: u64, fragment: Fragment<'_>) -> Joined {
        let Fragment { message, index, count, bytes, credit, is_paid } = fragment;
        let limit = limit(index, count, bytes.len());
        let partial = match self.partials.entry(message) {
            Entry::Occupied(known) => {
                let partial = known.into_mut();
                self.counted.remove(partial.counted());
                partial
            }
            Entry::Vacant(new) => new.insert(Partial::new(now, count, limit)),
        };
        partial.is_paid |= is_paid;
        partial.limit = partial.limit.min(limit);
        if partial.count != count || !partial.fits(index, bytes) {
            self.partials.remove(&message);
            return Joined::Refused;
        }
        partial.credit += credit;
        partial.add(index, bytes);
        self.counted.add(partial.counted());
        if partial.next < partial.count {
            if message.saturating_add(partial.next.into()) < floor {
                self.drop_message(message);
                return Joined::Refused;
            }
            return Joined::Waiting;
        }
        match self.partials.remove(&message) {
            Some(whole) => {
                self.counted.remove(whole.counted());
                Joined::Whole(whole.buffer, whole.credit)
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
        let counted = &mut self.counted;
        self.partials.retain(|message, partial| {
            let is_kept = !is_over(*message, partial);
            if !is_kept {
                dropped += 1;
                counted.remove(partial.counted());
            }
            is_kept
        });
        dropped
    }

    fn drop_message(&mut self, message: u64) {
        if let Some(p) = self.partials.remove(&message) {
            self.counted.remove(p.counted());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fragment(message: u64, index: u16, count: u16, bytes: &[u8]) -> Fragment<'_> {
        Fragment { message, index, count, bytes, credit: 1, is_paid: true }
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
            assert_eq!((r.counted(), r.is_empty()), (Counted::default(), true));
        }
    }

    #[test]
    fn contradictions_and_age_release_the_memory() {
        let mut r = Reassembly::default();
        for bad in [fragment(0, 1, 5, &[1; 100]), fragment(0, 0, 4, &[1; 100])] {
            r.add(Instant::ZERO, 0, fragment(0, 0, 4, &[1; 100]));
            assert_eq!(r.add(Instant::ZERO, 0, bad), Joined::Refused);
            assert_eq!(r.counted(), Counted::default());
        }
        r.add(Instant::ZERO, 0, fragment(0, 2, 4, &[1; 100]));
        assert_eq!(r.expire(Instant::ZERO + REASSEMBLY_TIMEOUT), 1);
        assert_eq!(r.counted(), Counted::default());
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
        assert_eq!((r.counted(), r.is_empty()), (Counted::default(), true));
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
        let allocated: usize = r.partials.values().map(|p| p.buffer.capacity()).sum();
        assert!(allocated <= 1_000 * FIRST_RESERVE_FRAGMENTS);
        assert!(r.counted().paid >= allocated + 1_000 * PARTIAL_OVERHEAD_BYTES);
        // A long message ends without slack.
        let mut r = Reassembly::default();
        for index in 0..1_000 {
            let joined = r.add(Instant::ZERO, 0, fragment(0, index, 1_000, &[2; 1_000]));
            if let Joined::Whole(message, credit) = joined {
                assert_eq!((message.len(), message.capacity()), (1_000_000, 1_000_000));
                assert_eq!((credit, r.counted()), (1_000, Counted::default()));
                return;
            }
            assert_eq!(r.counted().paid, charge(1_000_000, 1_000));
        }
        panic!("the message is never whole");
    }

    #[test]
    fn a_message_is_paid_for_once_and_holds_no_more_than_that() {
        let mut r = Reassembly::default();
        // The last fragment says nothing of the others.
        assert_eq!(r.price(0, 9, 10, 1), Some(charge(10 * MAX_EVENT_BYTES, 10)));
        r.add(Instant::ZERO, 0, fragment(0, 9, 10, &[1]));
        assert_eq!(r.counted().paid, charge(10 * MAX_EVENT_BYTES, 10));
        assert_eq!(r.price(0, 0, 10, 100), None);
        r.add(Instant::ZERO, 0, fragment(0, 0, 10, &[1; 100]));
        assert_eq!(r.counted().paid, charge(1_000, 10));
        // Later ones that are longer than the first exceed what was paid.
        assert_eq!(r.add(Instant::ZERO, 0, fragment(0, 1, 10, &[1; 900])), Joined::Refused);
        assert_eq!(r.counted(), Counted::default());
        // No claim costs more than the largest message.
        let largest = charge(MAX_MESSAGE_BYTES, u16::MAX);
        assert_eq!(r.price(0, 0, u16::MAX, MAX_EVENT_BYTES), Some(largest));
    }

    #[test]
    fn no_claim_makes_a_buffer_larger_than_the_largest_message() {
        let mut r = Reassembly::default();
        let bytes = [1; MAX_EVENT_BYTES];
        for index in 0..20 {
            r.add(Instant::ZERO, 0, fragment(0, index, u16::MAX, &bytes));
        }
        for index in 20..u16::MAX {
            if r.add(Instant::ZERO, 0, fragment(0, index, u16::MAX, &bytes)) == Joined::Refused {
                assert_eq!(usize::from(index), MAX_MESSAGE_BYTES / MAX_EVENT_BYTES);
                return;
            }
            assert!(r.partials[&0].buffer.capacity() <= MAX_MESSAGE_BYTES);
        }
        panic!("a message grew beyond the largest");
    }

    #[test]
    fn no_order_makes_a_message_longer_than_the_largest() {
        let mut r = Reassembly::default();
        let bytes = [1; MAX_EVENT_BYTES];
        let fits = (MAX_MESSAGE_BYTES / MAX_EVENT_BYTES) as u16;
        // Two fragments lie beyond the largest message; each comes while the places are not known.
        for beyond in [fits + 1, fits] {
            r.add(Instant::ZERO, 0, fragment(0, beyond, fits + 2, &bytes));
        }
        let joined = (0..fits).map(|i| r.add(Instant::ZERO, 0, fragment(0, i, fits + 2, &bytes)));
        let whole = joined.filter(|joined| matches!(joined, Joined::Whole(..))).count();
        assert_eq!(whole, 0);
    }

    #[test]
    fn no_order_makes_a_message_hold_more_than_it_has() {
        const COUNT: u16 = 300;
        let in_turn = |upto: u16| (0..upto).chain((upto..COUNT).rev()).collect::<Vec<_>>();
        let last_first = [COUNT - 1].into_iter().chain(0..COUNT - 1).collect::<Vec<_>>();
        let odd_first = (0..COUNT).filter(|i| i % 2 == 1).chain((0..COUNT).step_by(2)).collect();
        let orders = [in_turn(0), in_turn(9), in_turn(130), last_first, odd_first];
        for is_paid in [true, false] {
            for order in &orders {
                let mut r = Reassembly::default();
                for (at, index) in order.iter().enumerate() {
                    let len = if *index == COUNT - 1 { 7 } else { 100 };
                    let bytes = vec![(index % 251) as u8; len];
                    let part = Fragment { is_paid, ..fragment(0, *index, COUNT, &bytes) };
                    let joined = r.add(Instant::ZERO, 0, part);
                    if at + 1 < order.len() {
                        assert_eq!(joined, Joined::Waiting);
                        r.check_invariants();
                        let p = &r.partials[&0];
                        let held = p.buffer.capacity() + p.stash_bytes;
                        assert!(held <= 100 * usize::from(COUNT), "{held} bytes");
                        continue;
                    }
                    let Joined::Whole(whole, credit) = joined else { panic!("{joined:?}") };
                    assert_eq!((whole.len(), credit), (100 * 299 + 7, 300));
                    assert!((0..299).all(|i| whole[i * 100..][..100] == [(i % 251) as u8; 100]));
                    assert_eq!(whole[29_900..], [(299 % 251) as u8; 7]);
                }
                assert_eq!(r.counted(), Counted::default());
            }
        }
    }

    #[test]
    fn fragments_that_are_not_equally_long_are_refused() {
        for [first, second] in [
            [fragment(0, 0, 4, &[1; 10]), fragment(0, 1, 4, &[1; 9])],
            [fragment(0, 1, 4, &[1; 10]), fragment(0, 3, 4, &[1; 11])],
            [fragment(0, 3, 4, &[1; 10]), fragment(0, 1, 4, &[1; 9])],
            [fragment(0, 3, 4, &[]), fragment(0, 1, 4, &[])],
            [fragment(0, 2, 4, &[1; 9]), fragment(0, 2, 4, &[1; 9])],
        ] {
            let mut r = Reassembly::default();
            assert_eq!(r.add(Instant::ZERO, 0, first), Joined::Waiting);
            assert_eq!(r.add(Instant::ZERO, 0, second), Joined::Refused);
            assert_eq!(r.counted(), Counted::default());
        }
    }

    #[test]
    fn an_unpaid_message_counts_with_what_it_holds_until_it_is_paid() {
        let mut r = Reassembly::default();
        let unpaid = |index| Fragment { is_paid: false, ..fragment(0, index, 50, &[1; 100]) };
        for index in 0..20 {
            r.add(Instant::ZERO, 0, unpaid(index));
            let allocated = r.partials[&0].buffer.capacity() + PARTIAL_OVERHEAD_BYTES;
            assert_eq!(r.counted(), Counted { paid: 0, unpaid: allocated });
            assert!(allocated <= PARTIAL_OVERHEAD_BYTES + 200 * (usize::from(index) + 1));
        }
        assert_eq!(r.price(0, 20, 50, 100), Some(charge(5_000, 50)));
        r.add(Instant::ZERO, 0, fragment(0, 20, 50, &[1; 100]));
        assert_eq!(r.counted(), Counted { paid: charge(5_000, 50), unpaid: 0 });
        assert_eq!(r.price(0, 21, 50, 100), None);
    }
}
