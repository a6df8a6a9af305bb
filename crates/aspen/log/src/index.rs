//! The log without its payloads: the position of each entry's record, 12 bytes an entry, and the
//! first index of each term.
//!
//! Invariants: entries are consecutive; terms never fall; all entries are above the purged one;
//! records of later entries have later positions.

use std::collections::VecDeque;

use crate::entry::{EntryId, StoredVote};
use crate::record::{ChainHash, RECORD_ALIGN, record_bytes};

/// Where a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// Number of the segment. A log never reaches 2^32 segments.
    pub sequence: u32,
    units: u32,
    /// Bytes of the record's payload.
    pub payload_bytes: u32,
}

impl Position {
    /// A record at `offset` of segment `sequence`.
    pub(crate) fn new(sequence: u64, offset: u64, payload_bytes: u32) -> Self {
        debug_assert_eq!(offset % RECORD_ALIGN as u64, 0);
        // A segment has a few MiB, or as much as one record of bounded size needs.
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

/// Which entries the log has and where they are, with the vote and the commit index.
#[derive(Clone, Debug, Default)]
pub(crate) struct Index {
    first: u64,
    positions: VecDeque<Position>,
    /// First index and term of each run of entries of one term.
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

    /// Drops all entries; the log continues after `last`. The vote and the commit index stay.
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

    /// The indexes of the entries.
    pub(crate) fn range(&self) -> std::ops::Range<u64> {
        self.first..self.end()
    }

    fn end(&self) -> u64 {
        self.first + self.positions.len() as u64
    }

    /// Where the entry `index` is.
    pub(crate) fn position(&self, index: u64) -> Option<Position> {
        let at = usize::try_from(index.checked_sub(self.first)?).ok()?;
        self.positions.get(at).copied()
    }

    /// Term of the entry `index`, the purged one included.
    pub(crate) fn term(&self, index: u64) -> Option<u64> {
        if let Some(purged) = self.purged
            && purged.index == index
        {
            return Some(purged.term);
        }
        self.position(index)?;
        let run = self.terms.partition_point(|(first, _)| *first <= index);
        self.terms.get(run.checked_sub(1)?).map(|(_, term)| *term)
    }

    /// The last entry of each term.
    pub(crate) fn term_ends(&self) -> Vec<EntryId> {
        let nexts = self.terms.iter().skip(1).map(|(first, _)| *first).chain([self.end()]);
        let ends = self.terms.iter().zip(nexts);
        ends.map(|((_, term), next)| EntryId { term: *term, index: next - 1 }).collect()
    }

    /// The index that the next entry must have; `None` in an empty log, where any will do.
    pub(crate) fn next(&self) -> Option<u64> {
        self.last().map(|last| last.index + 1)
    }

    /// Adds an entry after the last one.
    pub(crate) fn push(&mut self, id: EntryId, position: Position, hash: ChainHash) {
        debug_assert!(self.next().is_none_or(|next| next == id.index));
        if self.positions.is_empty() {
            self.first = id.index;
        }
        if self.terms.back().is_none_or(|(_, term)| *term != id.term) {
            self.terms.push_back((id.index, id.term));
        }
        self.positions.push_back(position);
        self.head = hash;
    }

    /// Drops entries from index `from` on; `head` is the hash of the entry before it.
    pub(crate) fn truncate(&mut self, from: u64, head: ChainHash) {
        let keep = from.saturating_sub(self.first);
        self.positions.truncate(usize::try_from(keep).unwrap_or(usize::MAX));
        while self.terms.back().is_some_and(|(first, _)| *first >= from) {
            self.terms.pop_back();
        }
        self.head = head;
    }

    /// Drops entries up to `id`, whose hash is `base`. If `id` is past the end, the log is empty and
    /// continues from `base`.
    pub(crate) fn purge(&mut self, id: EntryId, base: ChainHash) {
        let past_end = self.last().is_none_or(|last| id.index > last.index);
        let drop = usize::try_from((id.index + 1).saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.positions.drain(..drop.min(self.positions.len()));
        self.first = id.index + 1;
        while self.terms.get(1).is_some_and(|(first, _)| *first <= self.first) {
            self.terms.pop_front();
        }
        if self.positions.is_empty() {
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

    /// The oldest segment that holds an entry.
    pub(crate) fn oldest_sequence(&self) -> Option<u32> {
        self.positions.front().map(|position| position.sequence)
    }

    /// Panics if an invariant does not hold. Looks at the runs of terms and at the newest entries,
    /// not at each entry.
    pub(crate) fn check_invariants(&self) {
        assert_eq!(self.positions.is_empty(), self.terms.is_empty(), "entries have terms");
        if let (Some((first, _)), Some((last, _))) = (self.terms.front(), self.terms.back()) {
            assert_eq!(*first, self.first, "the first entry begins the first term");
            assert!(*last < self.end(), "the last term has an entry");
        }
        let runs = self.terms.iter().zip(self.terms.iter().skip(1));
        assert!(runs.into_iter().all(|(a, b)| a.0 < b.0 && a.1 < b.1), "terms never fall");
        if let Some(purged) = self.purged {
            assert!(purged.index < self.first, "entries are above the purged one");
            assert!(self.terms.front().is_none_or(|(_, term)| *term >= purged.term));
        }
        let mut newest = self.positions.iter().rev();
        if let (Some(last), Some(before)) = (newest.next(), newest.next()) {
            let before = (before.sequence, before.end());
            assert!(before <= (last.sequence, last.offset()), "records stand in order");
        }
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
            index.push(id(term, i), Position::new(0, 192 + i * 80, 0), [i as u8; 32]);
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
        assert_eq!(index.position(2).unwrap().end(), 192 + 160 + 72);
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
