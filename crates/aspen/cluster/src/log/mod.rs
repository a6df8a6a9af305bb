//! The replicated log on disk: append-only, checksummed, chained segments with one sync a batch.
//!
//! Entries, votes, truncations and purges are records of one sequence, written by one writer that
//! syncs after each batch; whatever is appended while it syncs becomes the next batch, so the log
//! groups commits without waiting for company. The newest entries stay in memory, for replication
//! and apply; older ones are read back from their segments.
//!
//! The log knows nothing of consensus; `raft_log` fits it to openraft.

mod cache;
mod error;
mod index;
mod read;
mod record;
mod recover;
mod segment;
mod state;
mod writer;

#[cfg(test)]
mod tests;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

pub use error::LogError;
pub use record::{EntryId, RecordKind, StoredVote};

use crate::disk::Disk;
use record::anchor;
use state::{Failure, State};
use writer::Wake;
pub use writer::WriterDrive;

/// A log entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Term and index.
    pub id: EntryId,
    /// An entry's kind; never one of the metadata records.
    pub kind: RecordKind,
    /// The payload; empty for a blank entry.
    pub payload: Bytes,
}

/// Told once when everything that was appended before it is durable, or cannot become durable.
pub trait Completion: Send + 'static {
    /// Called on the writer's thread; must not block.
    fn complete(self, result: io::Result<()>);
}

/// Sizes of a log. Worst case in memory: `cache_bytes`, one batch, and 12 bytes an entry.
#[derive(Clone, Copy, Debug)]
pub struct LogOptions {
    /// Bytes of a segment. Purging frees whole segments; each costs two extra syncs.
    pub segment_bytes: u64,
    /// Bytes of payload kept in memory for readers that keep up.
    pub cache_bytes: usize,
    /// Bytes of payload returned by one read at most, beyond its first entry.
    pub read_bytes: usize,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { segment_bytes: 8 << 20, cache_bytes: 8 << 20, read_bytes: 1 << 20 }
    }
}

struct Shared<D> {
    disk: Arc<dyn Disk>,
    log_id: [u8; 16],
    options: LogOptions,
    state: Mutex<State<D>>,
    wake: Wake,
}

impl<D> Shared<D> {
    fn lock(&self) -> MutexGuard<'_, State<D>> {
        // The state's methods do not panic between two changes that belong together.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The log. Clones share it. The writer ends when the last clone is dropped.
pub struct Log<D: Completion> {
    shared: Arc<Shared<D>>,
    _writer: Arc<writer::WriterHandle<D>>,
}

impl<D: Completion> Clone for Log<D> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), _writer: self._writer.clone() }
    }
}

impl<D: Completion> Log<D> {
    /// Opens the log `log_id` in `disk`, or starts it if the folder holds none.
    ///
    /// A torn end, which was never acknowledged, is cut off. Every opening starts a new segment,
    /// so what a torn write left behind is never continued. Fails with [`LogError::Corrupt`] if
    /// durable bytes are damaged, and writes nothing then.
    pub fn open(
        disk: Arc<dyn Disk>,
        log_id: [u8; 16],
        options: LogOptions,
        drive: WriterDrive,
    ) -> Result<Self, LogError> {
        let recovered = recover::recover(&*disk, &log_id)?;
        if let Some(last) = recovered.as_ref().and_then(|log| log.segments.last())
            && let Some(file) = last.file()
        {
            // A process may have died with written but unsynced records that were read just now.
            file.sync_data()?;
        }
        let state = State::new(&log_id, options, Some(&drive), recovered);
        let shared = Arc::new(Shared {
            disk,
            log_id,
            options,
            state: Mutex::new(state),
            wake: Wake::default(),
        });
        writer::sweep(&*shared.disk)?;
        writer::turn(&shared);
        if let Some(failure) = &shared.lock().failure {
            return Err(LogError::Io(failure.to_io()));
        }
        let handle = writer::spawn(shared.clone(), drive)?;
        Ok(Self { shared, _writer: Arc::new(handle) })
    }

    fn write(
        &self,
        change: impl FnOnce(&mut State<D>) -> Result<(), LogError>,
        done: Option<D>,
    ) -> Result<(), LogError> {
        let mut state = self.shared.lock();
        let result = state.failure.as_ref().map_or(Ok(()), |_| Err(LogError::Closed));
        if let Err(error) = result.and_then(|()| change(&mut state)) {
            drop(state);
            if let Some(done) = done {
                done.complete(Err(io::Error::other(error.to_string())));
            }
            return Err(error);
        }
        let wake = match done {
            Some(done) => {
                state.waiting.push(done);
                state.take_idle()
            }
            None => None,
        };
        drop(state);
        if let Some(runner) = wake {
            self.shared.wake.wake(runner);
        }
        Ok(())
    }

    /// Appends `entries`, readable when this returns; `done` is told when they are durable.
    ///
    /// Entries must follow each other and the last one of the log.
    pub fn append(
        &self,
        entries: impl IntoIterator<Item = LogEntry>,
        done: D,
    ) -> Result<(), LogError> {
        let append = |state: &mut State<D>| {
            entries.into_iter().try_for_each(|entry| state.push_entry(&self.shared.log_id, entry))
        };
        self.write(append, Some(done))
    }

    /// Stores the vote; `done` is told when it is durable.
    pub fn save_vote(&self, vote: StoredVote, done: D) -> Result<(), LogError> {
        self.write(|state| state.push_vote(&self.shared.log_id, vote), Some(done))
    }

    /// Remembers the last committed entry. It rides on the next record and costs no sync; after a
    /// crash an older value may come back.
    pub fn note_committed(&self, index: u64) {
        let mut state = self.shared.lock();
        state.index.committed_next = state.index.committed_next.max(index.saturating_add(1));
    }

    /// Drops entries from index `from` on. The next append makes it durable; a crash before that
    /// brings the dropped entries back, as if the truncation had not been asked for yet.
    pub fn truncate(&self, from: u64) -> Result<(), LogError> {
        let range = self.shared.lock().index.range();
        if from >= range.end {
            return Ok(());
        }
        let head = match from.checked_sub(1).filter(|before| range.contains(before)) {
            Some(before) => self.shared.hash_of(before)?,
            None => self.shared.lock().index.base,
        };
        self.write(|state| state.push_truncate(&self.shared.log_id, from, head), None)
    }

    /// Drops entries up to and with `id`. Segments without a living entry are removed.
    ///
    /// The state that the entries led to must be durable elsewhere before this is called.
    pub fn purge(&self, id: EntryId) -> Result<(), LogError> {
        let present = self.shared.lock().index.range().contains(&id.index);
        let base = if present { self.shared.hash_of(id.index)? } else { anchor(id) };
        self.write(
            |state| {
                if state.index.purged().is_some_and(|purged| purged.index >= id.index) {
                    return Ok(());
                }
                state.push_purge(&self.shared.log_id, id, base)?;
                state.drop_segments();
                Ok(())
            },
            None,
        )?;
        let wake = self.shared.lock().take_idle();
        if let Some(runner) = wake {
            self.shared.wake.wake(runner);
        }
        Ok(())
    }

    /// Tells `done` when everything appended so far is durable.
    pub fn barrier(&self, done: D) -> Result<(), LogError> {
        self.write(|_| Ok(()), Some(done))
    }

    /// The last entry, or the last purged one if none is left.
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

    /// The last entry known to be committed that the log still tells the term of.
    pub fn committed(&self) -> Option<EntryId> {
        let state = self.shared.lock();
        let last = state.index.last()?;
        let index = state.index.committed_next.checked_sub(1)?.min(last.index);
        state.index.term(index).map(|term| EntryId { term, index })
    }

    /// The last entry of each term present.
    pub fn term_ends(&self) -> Vec<EntryId> {
        self.shared.lock().index.term_ends()
    }

    /// Whether a write has failed; nothing is accepted any more.
    pub fn has_failed(&self) -> bool {
        self.shared.lock().failure.is_some()
    }

    /// Counters for metrics.
    pub fn counters(&self) -> LogCounters {
        self.shared.lock().counters
    }
}

/// What a log has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogCounters {
    /// Entries appended.
    pub entries: u64,
    /// Bytes written, headers and padding included.
    pub bytes: u64,
    /// Syncs of segments.
    pub syncs: u64,
    /// Time spent in syncs, microseconds.
    pub sync_us: u64,
    /// Segments opened.
    pub segments: u64,
}

impl Failure {
    fn to_io(&self) -> io::Error {
        io::Error::new(self.kind, self.text.clone())
    }
}
