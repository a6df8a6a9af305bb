//! The log as openraft's storage. Invariant: no entry is purged that the state's file does not hold.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds, RangeInclusive};

use aspen_log::LogError;
use futures_util::{Stream, stream};
use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage};
use openraft::{LogState, OptionalSend};

use super::durable::{Durable, RaftLog, durable};
use super::machine::StateMachine;
use crate::types::{
    LogId, RaftEntry, RaftVote, Types, entry_id, log_entry, log_id, raft_entry, raft_vote,
    stored_vote,
};

/// Storage and readers of openraft over one log.
#[derive(Clone)]
pub(crate) struct LogStore {
    log: RaftLog,
    read_bytes: usize,
    state: StateMachine,
}

impl LogStore {
    /// Storage over `log`; one read for a follower returns about `read_bytes`. Entries are purged
    /// only once `state` holds them durably.
    pub(crate) fn new(log: RaftLog, read_bytes: usize, state: StateMachine) -> Self {
        Self { log, read_bytes, state }
    }

    fn read(&self, range: Range<u64>, max_bytes: usize) -> io::Result<Vec<RaftEntry>> {
        let entries = self.log.read(range, max_bytes).map_err(LogError::into_io)?;
        entries.into_iter().map(raft_entry).collect()
    }
}

fn to_range(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<RaftEntry>> {
        self.read(to_range(&range), usize::MAX)
    }

    async fn read_vote(&mut self) -> io::Result<Option<RaftVote>> {
        Ok(self.log.vote().map(raft_vote))
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> io::Result<Vec<RaftEntry>> {
        self.read(start..end, self.read_bytes)
    }

    /// Reads piece by piece: after a restart the range is everything since the last checkpoint.
    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = io::Result<RaftEntry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let Range { start, end } = to_range(&range);
        let state = (self.clone(), start, Vec::new().into_iter());
        stream::unfold(Some(state), move |state| async move {
            let (store, mut next, mut piece) = state?;
            if piece.len() == 0 && next < end {
                match store.read(next..end, store.read_bytes) {
                    Ok(entries) => piece = entries.into_iter(),
                    Err(error) => return Some((Err(error), None)),
                }
            }
            let entry = piece.next()?;
            next += 1;
            Some((Ok(entry), Some((store, next, piece))))
        })
    }

    async fn get_key_log_ids(&mut self, range: RangeInclusive<LogId>) -> io::Result<Vec<LogId>> {
        let range = range.start().index()..=range.end().index();
        let ends = self.log.term_ends().into_iter().filter(|id| range.contains(&id.index));
        Ok(ends.map(log_id).collect())
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        Ok(LogState {
            last_purged_log_id: self.log.purged().map(log_id),
            last_log_id: self.log.last().map(log_id),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &RaftVote) -> io::Result<()> {
        durable(|done| self.log.save_vote(stored_vote(vote), done)).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        if let Some(committed) = committed {
            self.log.note_committed(committed.index());
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.log.committed().map(log_id))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = RaftEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries = entries.into_iter().map(log_entry);
        self.log.append(entries, Durable::Flushed(callback)).map_err(LogError::into_io)
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let from = last.map_or(0, |last| last.index() + 1);
        self.log.truncate(from).map_err(LogError::into_io)
    }

    async fn purge(&mut self, id: LogId) -> io::Result<()> {
        if self.state.store().durable_next() <= id.index() {
            self.state.checkpoint().await?;
        }
        self.log.purge(entry_id(&id)).map_err(LogError::into_io)
    }
}
