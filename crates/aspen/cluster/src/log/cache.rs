//! The newest entries, in memory.

use std::collections::VecDeque;

use super::LogEntry;
use super::record::ChainHash;

/// Bytes an entry costs beside its payload.
const ENTRY_BYTES: usize = 128;

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
    pub(crate) fn push(&mut self, entry: LogEntry, hash: ChainHash) {
        if self.entries.is_empty() {
            self.first = entry.id.index;
        }
        self.bytes += cost(&entry);
        self.entries.push_back((entry, hash));
    }

    pub(crate) fn get(&self, index: u64) -> Option<&(LogEntry, ChainHash)> {
        self.entries.get(usize::try_from(index.checked_sub(self.first)?).ok()?)
    }

    pub(crate) fn truncate(&mut self, from: u64) {
        while self.entries.back().is_some_and(|(entry, _)| entry.id.index >= from) {
            if let Some((entry, _)) = self.entries.pop_back() {
                self.bytes -= cost(&entry);
            }
        }
    }

    /// Drops entries below `end`, oldest first, while more than `limit` bytes are held.
    pub(crate) fn evict(&mut self, end: u64, limit: usize) {
        while self.bytes > limit
            && self.entries.front().is_some_and(|(entry, _)| entry.id.index < end)
        {
            if let Some((entry, _)) = self.entries.pop_front() {
                self.bytes -= cost(&entry);
                self.first = entry.id.index + 1;
            }
        }
    }

    /// Drops entries below `end`.
    pub(crate) fn purge(&mut self, end: u64) {
        while self.entries.front().is_some_and(|(entry, _)| entry.id.index < end) {
            if let Some((entry, _)) = self.entries.pop_front() {
                self.bytes -= cost(&entry);
                self.first = entry.id.index + 1;
            }
        }
    }
}
