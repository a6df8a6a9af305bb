//! Where each entry of the log stands, in memory: 12 bytes an entry and one run per term.
//!
//! Invariants: entries are consecutive; terms never fall; all entries are above the purged one.

use std::collections::VecDeque;

use super::record::{ChainHash, EntryId, RECORD_ALIGN, StoredVote, record_bytes};

/// Position of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Sequence of the segment; segments of one log never reach 2^32.
    pub sequence: u32,
    units: u32,
    /// Bytes of the record's payload.
    pub payload_bytes: u32,
}

impl Place {
    /// A record at `offset` of segment `sequence`.
    pub(crate) fn new(sequence: u64, offset: u64, payload_bytes: u32) -> Self {
        debug_assert_eq!(offset % RECORD_ALIGN as u64, 0);
        // Segments hold at most one record of a bounded size beyond their nominal few MiB.
        Self {
            sequence: sequence as u32,
            units: (offset / RECORD_ALIGN as u64) as u32,
            payload_bytes,
        }
    }

    /// Offset in the segment.
    pub(crate) fn offset(self) -> u64 {
        u64::from(self.units) * RECORD_ALIGN as u64
    }

    /// Offset of the byte after the record.
    pub(crate) fn end(self) -> u64 {
        self.offset() + record_bytes(self.payload_bytes as usize) as u64
    }
}

/// The log's state without its entries' bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Index {
    first: u64,
    places: VecDeque<Place>,
    terms: VecDeque<(u64, u64)>,
    purged: Option<EntryId>,
    /// Hash of the purged entry, or of the first entry's predecessor.
    pub base: ChainHash,
    /// Hash of the last entry.
    pub head: ChainHash,
    /// The vote.
    pub vote: Option<StoredVote>,
    /// Index after the last entry known to be committed; 0 for none.
    pub committed_next: u64,
}

impl Index {
    /// An empty log whose last entry was `last`, with hash `head`.
    pub(crate) fn starting_after(last: Option<EntryId>, head: ChainHash) -> Self {
        let first = last.map_or(0, |last| last.index + 1);
        Self { first, purged: last, base: head, head, ..Self::default() }
    }

    /// Forgets all entries and goes on behind `last`, keeping the vote and the commit point.
    pub(crate) fn restart_after(&mut self, last: Option<EntryId>, head: ChainHash) {
        let (vote, committed_next) = (self.vote, self.committed_next);
        *self = Self { vote, committed_next, ..Self::starting_after(last, head) };
    }

    /// The last purged entry.
    pub(crate) fn purged(&self) -> Option<EntryId> {
        self.purged
    }

    /// The last entry, or the purged one if none is left.
    pub(crate) fn last(&self) -> Option<EntryId> {
        match self.terms.back() {
            Some((_, term)) => Some(EntryId { term: *term, index: self.end() - 1 }),
            None => self.purged,
        }
    }

    /// Indexes of the entries present.
    pub(crate) fn range(&self) -> std::ops::Range<u64> {
        self.first..self.end()
    }

    fn end(&self) -> u64 {
        self.first + self.places.len() as u64
    }

    /// Where the entry `index` stands.
    pub(crate) fn place(&self, index: u64) -> Option<Place> {
        let at = usize::try_from(index.checked_sub(self.first)?).ok()?;
        self.places.get(at).copied()
    }

    /// Term of the entry `index`, the purged one included.
    pub(crate) fn term(&self, index: u64) -> Option<u64> {
        if let Some(purged) = self.purged
            && purged.index == index
        {
            return Some(purged.term);
        }
        self.place(index)?;
        let run = self.terms.partition_point(|(first, _)| *first <= index);
        self.terms.get(run.checked_sub(1)?).map(|(_, term)| *term)
    }

    /// The last entry of each term present.
    pub(crate) fn term_ends(&self) -> Vec<EntryId> {
        let nexts = self.terms.iter().skip(1).map(|(first, _)| *first).chain([self.end()]);
        let ends = self.terms.iter().zip(nexts);
        ends.map(|((_, term), next)| EntryId { term: *term, index: next - 1 }).collect()
    }

    /// The index that the next entry must have, if the log has any.
    pub(crate) fn next(&self) -> Option<u64> {
        self.last().map(|last| last.index + 1)
    }

    /// Adds an entry behind the last one.
    pub(crate) fn push(&mut self, id: EntryId, place: Place, hash: ChainHash) {
        debug_assert!(self.next().is_none_or(|next| next == id.index));
        if self.places.is_empty() {
            self.first = id.index;
        }
        if self.terms.back().is_none_or(|(_, term)| *term != id.term) {
            self.terms.push_back((id.index, id.term));
        }
        self.places.push_back(place);
        self.head = hash;
    }

    /// Drops entries from `from` on; `head` is the hash of the entry before.
    pub(crate) fn truncate(&mut self, from: u64, head: ChainHash) {
        let keep = from.saturating_sub(self.first);
        self.places.truncate(usize::try_from(keep).unwrap_or(usize::MAX));
        while self.terms.back().is_some_and(|(first, _)| *first >= from) {
            self.terms.pop_back();
        }
        self.head = head;
    }

    /// Drops entries up to `id`; `base` is its hash. If `id` is past the end the log is empty
    /// after it and continues from `base`.
    pub(crate) fn purge(&mut self, id: EntryId, base: ChainHash) {
        let past_end = self.last().is_none_or(|last| id.index > last.index);
        let drop = usize::try_from((id.index + 1).saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.places.drain(..drop.min(self.places.len()));
        self.first = id.index + 1;
        while self.terms.get(1).is_some_and(|(first, _)| *first <= self.first) {
            self.terms.pop_front();
        }
        if self.places.is_empty() {
            self.terms.clear();
        } else if let Some(run) = self.terms.front_mut() {
            run.0 = run.0.max(self.first);
        }
        self.purged = Some(id);
        self.base = base;
        if past_end {
            self.head = base;
        }
    }

    /// Smallest sequence that still holds an entry.
    pub(crate) fn oldest_sequence(&self) -> Option<u32> {
        self.places.front().map(|place| place.sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(term: u64, index: u64) -> EntryId {
        EntryId { term, index }
    }

    fn filled() -> Index {
        let mut index = Index::default();
        for (term, i) in [(1, 0), (1, 1), (2, 2), (2, 3), (4, 4)] {
            index.push(id(term, i), Place::new(0, 192 + i * 80, 0), [i as u8; 32]);
        }
        index
    }

    #[test]
    fn terms_and_their_ends_follow_the_runs() {
        let index = filled();
        assert_eq!(index.term(1), Some(1));
        assert_eq!(index.term(3), Some(2));
        assert_eq!(index.term(5), None);
        assert_eq!(index.term_ends(), [id(1, 1), id(2, 3), id(4, 4)]);
        assert_eq!(index.last(), Some(id(4, 4)));
        assert_eq!(index.place(2).unwrap().end(), 192 + 160 + 72);
    }

    #[test]
    fn truncation_drops_whole_terms() {
        let mut index = filled();
        index.truncate(3, [2; 32]);
        assert_eq!(index.last(), Some(id(2, 2)));
        assert_eq!(index.term_ends(), [id(1, 1), id(2, 2)]);
        index.truncate(0, [0; 32]);
        assert_eq!(index.last(), None);
        assert_eq!(index.next(), None);
    }

    #[test]
    fn purging_keeps_the_rest_and_past_the_end_restarts() {
        let mut index = filled();
        index.purge(id(2, 2), [2; 32]);
        assert_eq!(index.range(), 3..5);
        assert_eq!(index.term_ends(), [id(2, 3), id(4, 4)]);
        assert_eq!(index.term(2), Some(2));
        assert_eq!(index.head, [4; 32]);
        index.purge(id(4, 4), [4; 32]);
        assert_eq!(index.range(), 5..5);
        assert_eq!(index.last(), Some(id(4, 4)));
        index.purge(id(9, 90), [9; 32]);
        assert_eq!((index.last(), index.head, index.next()), (Some(id(9, 90)), [9; 32], Some(91)));
    }
}
