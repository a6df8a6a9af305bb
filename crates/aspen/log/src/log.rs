//! The log as its users see it.
//!
//! Invariants: what [`Log::append`] took is readable at once and durable when its completion says
//! so; after a failed write nothing is taken until the log is opened again.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use crate::disk::Disk;
use crate::entry::{EntryId, LogEntry, StoredVote};
use crate::error::LogError;
use crate::executor::{Assignment, WriterDrive};
use crate::record::anchor;
use crate::shared::Shared;
use crate::state::{LogCounters, LogOptions, State};
use crate::writer::{Completion, WriterHandle, start, start_writing};

/// A durable log. Clones share it; the writer ends with the last of them.
pub struct Log<D: Completion> {
    shared: Arc<Shared<D>>,
    _writer: Arc<WriterHandle<D>>,
}

impl<D: Completion> Clone for Log<D> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), _writer: self._writer.clone() }
    }
}

impl<D: Completion> Log<D> {
    /// Opens the log `log_id` in `disk`, or starts it if the folder holds none.
    ///
    /// A torn end, which was never acknowledged, is cut off. Each opening starts a new segment, so
    /// that nothing is written after torn bytes. Fails with [`LogError::Corrupt`], writing nothing,
    /// if durable bytes are damaged.
    pub fn open(
        disk: Arc<dyn Disk>,
        log_id: [u8; 16],
        options: LogOptions,
        drive: WriterDrive,
    ) -> Result<Self, LogError> {
        let assignment = Assignment::new(&drive);
        let shared = Arc::new(Shared::recover(disk, log_id, options, assignment)?);
        start_writing(&shared)?;
        let handle = start(shared.clone(), drive)?;
        Ok(Self { shared, _writer: Arc::new(handle) })
    }

    /// A log whose writer moves only by [`write_batch`](crate::writer::write_batch).
    #[cfg(test)]
    pub(crate) fn open_manual(
        disk: Arc<dyn Disk>,
        log_id: [u8; 16],
        options: LogOptions,
    ) -> Result<Self, LogError> {
        let shared = Arc::new(Shared::recover(disk, log_id, options, Assignment::thread())?);
        start_writing(&shared)?;
        let handle = WriterHandle::manual(shared.clone());
        Ok(Self { shared, _writer: Arc::new(handle) })
    }

    #[cfg(test)]
    pub(crate) fn shared(&self) -> &Shared<D> {
        &self.shared
    }

    /// Applies `change` to the state, unless the log is closed, and queues `done` after it.
    fn write(
        &self,
        change: impl FnOnce(&mut State<D>) -> Result<(), LogError>,
        done: Option<D>,
    ) -> Result<(), LogError> {
        let mut state = self.shared.lock();
        let result = match state.failure {
            Some(_) => Err(LogError::Closed),
            None => change(&mut state),
        };
        if let Err(error) = result {
            drop(state);
            if let Some(done) = done {
                done.complete(Err(io::Error::other(error.to_string())));
            }
            return Err(error);
        }
        let Some(done) = done else { return Ok(()) };
        state.completions.push(done);
        let idle = state.take_idle();
        drop(state);
        if let Some(executor) = idle {
            self.shared.wake.wake(executor);
        }
        Ok(())
    }

    /// Appends `entries`; they are readable when this returns and durable when `done` is called.
    ///
    /// The first entry must follow the last one of the log, and each of the others its predecessor.
    pub fn append(
        &self,
        entries: impl IntoIterator<Item = LogEntry>,
        done: D,
    ) -> Result<(), LogError> {
        let append = |state: &mut State<D>| {
            entries.into_iter().try_for_each(|entry| state.push_entry(entry))
        };
        self.write(append, Some(done))
    }

    /// Stores the vote; `done` is called when it is durable.
    pub fn save_vote(&self, vote: StoredVote, done: D) -> Result<(), LogError> {
        self.write(|state| state.push_vote(vote), Some(done))
    }

    /// Records the last committed entry. The next record carries it, so it costs no sync; after a
    /// crash an older value may come back.
    pub fn note_committed(&self, index: u64) {
        let mut state = self.shared.lock();
        state.index.committed_next = state.index.committed_next.max(index.saturating_add(1));
    }

    /// Drops entries from index `from` on. The next append makes it durable; a crash before that
    /// brings the entries back, as if the truncation had not happened yet.
    pub fn truncate(&self, from: u64) -> Result<(), LogError> {
        let range = self.shared.lock().index.range();
        if from >= range.end {
            return Ok(());
        }
        let head = match from.checked_sub(1).filter(|before| range.contains(before)) {
            Some(before) => self.shared.hash_of(before)?,
            None => self.shared.lock().index.base,
        };
        self.write(|state| state.push_truncate(from, head), None)
    }

    /// Drops entries up to and including `id`. Segments without an entry are removed.
    ///
    /// The state that the entries led to must be durable elsewhere before this is called.
    pub fn purge(&self, id: EntryId) -> Result<(), LogError> {
        let is_present = self.shared.lock().index.range().contains(&id.index);
        let base = if is_present { self.shared.hash_of(id.index)? } else { anchor(id) };
        self.write(
            |state| {
                if state.index.purged().is_some_and(|purged| purged.index >= id.index) {
                    return Ok(());
                }
                state.push_purge(id, base)?;
                state.drop_segments();
                Ok(())
            },
            None,
        )?;
        self.shared.wake_writer();
        Ok(())
    }

    /// Calls `done` when everything appended so far is durable.
    pub fn barrier(&self, done: D) -> Result<(), LogError> {
        self.write(|_| Ok(()), Some(done))
    }

    /// The entries of `range` that are in the log. The first is returned whatever its size, the
    /// others while the payloads of all stay within `max_bytes`.
    pub fn read(&self, range: Range<u64>, max_bytes: usize) -> Result<Vec<LogEntry>, LogError> {
        self.shared.read(range, max_bytes)
    }

    /// Recomputes the hash chain over at most `count` entries from index `from` on, from disk alone.
    ///
    /// Returns the index to continue with, or `None` at the end of what is durable.
    pub fn verify(&self, from: u64, count: u64) -> Result<Option<u64>, LogError> {
        self.shared.verify(from, count)
    }

    /// The last entry, or the last purged one in a log without entries.
    pub fn last(&self) -> Option<EntryId> {
        self.shared.lock().index.last()
    }

    /// The last purged entry.
    pub fn purged(&self) -> Option<EntryId> {
        self.shared.lock().index.purged()
    }

    /// The vote.
    pub fn vote(&self) -> Option<StoredVote> {
        self.shared.lock().index.vote
    }

    /// The last entry known to be committed whose term the log still has.
    pub fn committed(&self) -> Option<EntryId> {
        let state = self.shared.lock();
        let last = state.index.last()?;
        let index = state.index.committed_next.checked_sub(1)?.min(last.index);
        state.index.term(index).map(|term| EntryId { term, index })
    }

    /// The last entry of each term.
    pub fn term_ends(&self) -> Vec<EntryId> {
        self.shared.lock().index.term_ends()
    }

    /// Whether a write has failed; the log then takes no more writes.
    pub fn has_failed(&self) -> bool {
        self.shared.lock().failure.is_some()
    }

    /// Counters for metrics.
    pub fn counters(&self) -> LogCounters {
        self.shared.lock().counters
    }
}
