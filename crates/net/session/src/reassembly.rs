//! Messages that arrive in fragments.
//!
//! Memory follows the bytes that arrived, never the counts that a packet claims.

use std::collections::BTreeMap;

use net_types::Instant;
use net_types::limits::{MAX_MESSAGE_BYTES, REASSEMBLY_TIMEOUT};

/// First reservation for a message; grows as fragments arrive.
const FIRST_RESERVE_BYTES: usize = 64 << 10;

#[derive(Debug)]
struct Partial {
    /// Fragments `0..next`, joined.
    prefix: Vec<u8>,
    next: u16,
    count: u16,
    /// Fragments beyond `next`.
    stash: BTreeMap<u16, Vec<u8>>,
    stash_bytes: usize,
    started: Instant,
}

/// The partly received messages of one stream, by the sequence of their first fragment.
#[derive(Debug, Default)]
pub(crate) struct Reassembly {
    partials: BTreeMap<u64, Partial>,
    bytes: usize,
}

/// What a fragment led to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Joined {
    /// The message is complete.
    Whole(Vec<u8>),
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

    /// Adds fragment `index` of `count` of the message whose first fragment is `message`.
    pub(crate) fn add(
        &mut self,
        now: Instant,
        message: u64,
        index: u16,
        count: u16,
        fragment: &[u8],
    ) -> Joined {
        let partial = self.partials.entry(message).or_insert_with(|| Partial {
            prefix: Vec::with_capacity(
                FIRST_RESERVE_BYTES.min(fragment.len() * usize::from(count)),
            ),
            next: 0,
            count,
            stash: BTreeMap::new(),
            stash_bytes: 0,
            started: now,
        });
        let held = partial.prefix.len() + partial.stash_bytes;
        let is_new = index >= partial.next && !partial.stash.contains_key(&index);
        if partial.count != count || held + fragment.len() > MAX_MESSAGE_BYTES {
            self.drop_message(message);
            return Joined::Refused;
        }
        if !is_new {
            return Joined::Waiting;
        }
        self.bytes += fragment.len();
        if index != partial.next {
            partial.stash_bytes += fragment.len();
            partial.stash.insert(index, fragment.to_vec());
            return Joined::Waiting;
        }
        partial.prefix.extend_from_slice(fragment);
        partial.next += 1;
        while let Some(stashed) = partial.stash.remove(&partial.next) {
            partial.stash_bytes -= stashed.len();
            partial.prefix.extend_from_slice(&stashed);
            partial.next += 1;
        }
        if partial.next < partial.count {
            return Joined::Waiting;
        }
        match self.partials.remove(&message) {
            Some(whole) => {
                self.bytes -= whole.prefix.len();
                Joined::Whole(whole.prefix)
            }
            None => Joined::Refused,
        }
    }

    /// Gives up the messages that began before everything below `floor` was declared lost or that
    /// are too old; returns how many.
    pub(crate) fn expire(&mut self, now: Instant) -> usize {
        let old: Vec<u64> = self
            .partials
            .iter()
            .filter(|(_, p)| now.since(p.started) >= REASSEMBLY_TIMEOUT)
            .map(|(m, _)| *m)
            .collect();
        old.iter().for_each(|m| self.drop_message(*m));
        old.len()
    }

    fn drop_message(&mut self, message: u64) {
        if let Some(p) = self.partials.remove(&message) {
            self.bytes -= p.prefix.len() + p.stash_bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_order_and_duplicates_give_the_message() {
        for order in [[0u16, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]] {
            let mut r = Reassembly::default();
            for &i in &order[..3] {
                assert_eq!(r.add(Instant::ZERO, 9, i, 4, &[i as u8; 3]), Joined::Waiting);
                assert_eq!(r.add(Instant::ZERO, 9, i, 4, &[i as u8; 3]), Joined::Waiting);
            }
            let whole = r.add(Instant::ZERO, 9, order[3], 4, &[order[3] as u8; 3]);
            assert_eq!(whole, Joined::Whole(vec![0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]));
            assert_eq!(r.bytes(), 0);
        }
    }

    #[test]
    fn contradictions_and_age_release_the_memory() {
        let mut r = Reassembly::default();
        r.add(Instant::ZERO, 0, 0, 4, &[1; 100]);
        assert_eq!(r.add(Instant::ZERO, 0, 1, 5, &[1; 100]), Joined::Refused);
        assert_eq!(r.bytes(), 0);
        r.add(Instant::ZERO, 0, 2, 4, &[1; 100]);
        assert_eq!(r.expire(Instant::ZERO + REASSEMBLY_TIMEOUT), 1);
        assert_eq!(r.bytes(), 0);
    }
}
