//! The newest entries, in memory.
//!
//! Invariants: entries are consecutive; `bytes` is the cost of all of them together.

use std::collections::VecDeque;

use crate::entry::LogEntry;
use crate::record::ChainHash;

/// Bytes of memory that an entry takes beside its payload.
const ENTRY_BYTES: usize = 128;

/// Entries with their hashes, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    first: u64,
    entries: VecDeque<(LogEntry, ChainHash)>,
    bytes: usize,
}

fn cost(entry: &LogEntry) -> usize {
    entry.payload.len() + ENTRY_BYTES
}

impl Cache {
    /// Adds an entry after the last one.
    pub(crate) fn push(&mut self, entry: LogEntry, hash: ChainHash) {
        if self.entries.is_empty() {
            self.first = entry.id.index;
        }
        self.bytes += cost(&entry);
        self.entries.push_back((entry, hash));
    }

    /// The entry `index`, if it is in memory.
    pub(crate) fn get(&self, index: u64) -> Option<&(LogEntry, ChainHash)> {
        self.entries.get(usize::try_from(index.checked_sub(self.first)?).ok()?)
    }

    /// Drops entries from index `from` on.
    pub(crate) fn truncate(&mut self, from: u64) {
        while self.entries.back().is_some_and(|(entry, _)| entry.id.index >= from) {
            if let Some((entry, _)) = self.entries.pop_back() {
                self.bytes -= cost(&entry);
            }
        }
    }

    /// Drops entries below `end`, oldest first, while more than `limit` bytes are held.
    pub(crate) fn evict(&mut self, end: u64, limit: usize) {
        while self.bytes > limit {
            if !self.drop_first_below(end) {
                break;
            }
        }
    }

    /// Drops entries below `end`.
    pub(crate) fn purge(&mut self, end: u64) {
        while self.drop_first_below(end) {}
    }

    fn drop_first_below(&mut self, end: u64) -> bool {
        let Some((entry, _)) = self.entries.pop_front_if(|(entry, _)| entry.id.index < end) else {
            return false;
        };
        self.bytes -= cost(&entry);
        self.first = entry.id.index + 1;
        true
    }

    /// Panics unless the entries are consecutive and end before `end`, the end of the log.
    pub(crate) fn check_invariants(&self, end: u64) {
        let Some((last, _)) = self.entries.back() else {
            assert_eq!(self.bytes, 0, "an empty cache has a cost");
            return;
        };
        assert_eq!(last.id.index + 1, end, "the cache misses the newest entries");
        assert_eq!(self.first + self.entries.len() as u64, end, "cached entries are consecutive");
        assert!(self.bytes >= self.entries.len() * ENTRY_BYTES, "an entry has no cost");
    }
}
