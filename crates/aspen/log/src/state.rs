//! The state of the log under its lock: index, cache, segments and the writer's queue.
//!
//! Invariants: an entry is in the index, in the cache and in the queue from the same moment on; the
//! cache holds the newest entries, and at least those that are not durable; records are queued in
//! the order of their positions; only the newest segment grows.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use crate::cache::Cache;
use crate::entry::{EntryId, LogEntry, RecordKind, StoredVote};
use crate::error::LogError;
use crate::executor::{Assignment, Executor};
use crate::index::{Index, Position};
use crate::record::{
    ChainHash, RECORD_ALIGN, RecordHeader, SEGMENT_HEADER_BYTES, SegmentHeader, chain, record_bytes,
};
use crate::recover::Recovered;
use crate::segment::{Segment, capacity_for};

/// Sizes of a log. It takes `cache_bytes`, one batch, and 12 bytes an entry of memory at most.
#[derive(Clone, Copy, Debug)]
pub struct LogOptions {
    /// Bytes of a segment. Purging frees whole segments; each costs two more syncs.
    pub segment_bytes: u64,
    /// Bytes of durable entries that stay in memory, for followers that keep up.
    pub cache_bytes: usize,
    /// Bytes of payload that one read for replication returns at most, beyond its first entry.
    pub read_bytes: usize,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { segment_bytes: 8 << 20, cache_bytes: 8 << 20, read_bytes: 1 << 20 }
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

/// A step of the writer's work.
#[derive(Debug)]
pub(crate) enum Op {
    /// Open a segment's file and make its header durable.
    Open(Arc<Segment>, Vec<u8>),
    /// Write records at an offset.
    Write(Arc<Segment>, u64, Vec<u8>),
    /// Remove the files of segments.
    Remove(Vec<Arc<Segment>>),
}

/// A point of the log below which everything is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DurablePoint {
    sequence: u64,
    offset: u64,
    /// Index after the last durable entry.
    next: u64,
}

/// A failed write. `io::Error` cannot be cloned, so each completion gets a copy made of this.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    kind: io::ErrorKind,
    text: String,
}

impl Failure {
    pub(crate) fn new(error: &io::Error) -> Self {
        Self { kind: error.kind(), text: error.to_string() }
    }

    pub(crate) fn to_io(&self) -> io::Error {
        io::Error::new(self.kind, self.text.clone())
    }
}

/// What the writer does between two looks at the queue.
pub(crate) struct Batch<D> {
    /// The work, in the order in which it was queued.
    pub ops: Vec<Op>,
    /// To be called afterwards.
    pub completions: Vec<D>,
    /// The point that is durable afterwards.
    pub end: DurablePoint,
}

/// The state of a log.
pub(crate) struct State<D> {
    log_id: [u8; 16],
    /// The entries, the vote and the commit index.
    pub index: Index,
    /// The newest entries.
    pub cache: Cache,
    segments: BTreeMap<u64, Arc<Segment>>,
    /// The newest segment.
    active: Arc<Segment>,
    /// Offset in it at which the next record will stand.
    end: u64,
    queue: Vec<Op>,
    /// To be called when everything queued is durable.
    pub completions: Vec<D>,
    durable: DurablePoint,
    /// Smallest index truncated since the current batch began.
    truncated_from: u64,
    /// Whether the writer waits to be woken.
    pub idle: bool,
    /// Whether the writer ends once nothing is queued.
    pub closing: bool,
    is_writing: bool,
    /// Which executor runs the writer.
    pub assignment: Assignment,
    /// The first failed write.
    pub failure: Option<Failure>,
    /// Counters since the log was opened.
    pub counters: LogCounters,
    options: LogOptions,
}

impl<D> State<D> {
    /// The state after recovery, with a new segment queued for opening.
    pub(crate) fn new(
        log_id: [u8; 16],
        options: LogOptions,
        assignment: Assignment,
        recovered: Option<Recovered>,
    ) -> Self {
        let (index, segments, end) = match recovered {
            Some(found) => (found.index, found.segments, found.end),
            None => (Index::default(), Vec::new(), 0),
        };
        // A segment without records is replaced, so that idle restarts do not pile up files. It is
        // not continued, because a torn write may have left records after its header.
        let is_unused = segments.len() > 1 && end == SEGMENT_HEADER_BYTES as u64;
        let active = segments
            .last()
            .cloned()
            .unwrap_or_else(|| Arc::new(Segment::new(&log_id, 0, options.segment_bytes, 0)));
        let durable =
            DurablePoint { sequence: active.sequence, offset: end, next: index.range().end };
        let is_new = segments.is_empty();
        let mut state = Self {
            log_id,
            index,
            cache: Cache::default(),
            segments: segments.into_iter().map(|s| (s.sequence, s)).collect(),
            active,
            end,
            queue: Vec::new(),
            completions: Vec::new(),
            durable,
            truncated_from: u64::MAX,
            idle: false,
            closing: false,
            is_writing: false,
            assignment,
            failure: None,
            counters: LogCounters::default(),
            options,
        };
        match (is_new, is_unused) {
            (true, _) => state.open_segment(0, 0, 0),
            (false, true) => {
                let (sequence, previous_end) = (state.active.sequence, state.active.previous_end);
                state.open_segment(sequence, previous_end, 0);
            }
            (false, false) => state.roll(0),
        }
        state.check_invariants();
        state
    }

    /// Continues in the next segment, which will hold a record of `record_bytes`.
    fn roll(&mut self, record_bytes: usize) {
        self.open_segment(self.active.sequence + 1, self.end, record_bytes);
    }

    fn open_segment(&mut self, sequence: u64, previous_end: u64, record_bytes: usize) {
        let header = SegmentHeader {
            log_id: self.log_id,
            sequence,
            previous_end,
            last: self.index.last(),
            head: self.index.head,
            purged: self.index.purged(),
            vote: self.index.vote,
            committed_next: self.index.committed_next,
        };
        let capacity = capacity_for(self.options.segment_bytes, record_bytes);
        let segment = Arc::new(Segment::new(&self.log_id, sequence, capacity, previous_end));
        self.segments.insert(sequence, segment.clone());
        self.active = segment.clone();
        self.end = SEGMENT_HEADER_BYTES as u64;
        self.counters.segments += 1;
        self.queue.push(Op::Open(segment, header.encode()));
    }

    /// Queues a record after the last one and returns its position.
    fn push(
        &mut self,
        kind: RecordKind,
        [term, index]: [u64; 2],
        hash: ChainHash,
        payload: &[u8],
    ) -> Result<Position, LogError> {
        let payload_bytes = u32::try_from(payload.len())
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "record too large"))?;
        let size = record_bytes(payload.len());
        if self.end + size as u64 > self.active.capacity {
            self.roll(size);
        }
        let durable_units = match self.durable.sequence == self.active.sequence {
            true => (self.durable.offset / RECORD_ALIGN as u64) as u32,
            false => 0,
        };
        let committed_next = self.index.committed_next;
        let header =
            RecordHeader { kind, payload_bytes, durable_units, term, index, committed_next, hash };
        let position = Position::new(self.active.sequence, self.end, payload_bytes);
        let seed = self.active.seed;
        match self.queue.last_mut() {
            Some(Op::Write(segment, offset, bytes))
                if segment.sequence == self.active.sequence
                    && *offset + bytes.len() as u64 == self.end =>
            {
                header.encode(payload, seed, bytes);
            }
            _ => {
                let mut bytes = Vec::with_capacity(size);
                header.encode(payload, seed, &mut bytes);
                self.queue.push(Op::Write(self.active.clone(), self.end, bytes));
            }
        }
        self.end += size as u64;
        self.counters.bytes += size as u64;
        Ok(position)
    }

    /// Appends an entry.
    pub(crate) fn push_entry(&mut self, entry: LogEntry) -> Result<(), LogError> {
        let id = entry.id;
        if let Some(expected) = self.index.next()
            && expected != id.index
        {
            return Err(LogError::Gap { expected, found: id.index });
        }
        let hash = chain(&self.index.head, id, entry.kind, &entry.payload);
        let position = self.push(entry.kind, [id.term, id.index], hash, &entry.payload)?;
        self.index.push(id, position, hash);
        self.cache.push(entry, hash);
        self.counters.entries += 1;
        self.check_invariants();
        Ok(())
    }

    /// Replaces the vote.
    pub(crate) fn push_vote(&mut self, vote: StoredVote) -> Result<(), LogError> {
        let flag = [u8::from(vote.committed)];
        let head = self.index.head;
        self.push(RecordKind::Vote, [vote.term, vote.node], head, &flag)?;
        self.index.vote = Some(vote);
        Ok(())
    }

    /// Drops entries from index `from` on; `head` is the hash of the entry before it.
    pub(crate) fn push_truncate(&mut self, from: u64, head: ChainHash) -> Result<(), LogError> {
        let term = from.checked_sub(1).and_then(|kept| self.index.term(kept)).unwrap_or(0);
        self.push(RecordKind::Truncate, [term, from], head, &[])?;
        self.index.truncate(from, head);
        self.cache.truncate(from);
        self.truncated_from = self.truncated_from.min(from);
        self.durable.next = self.durable.next.min(from);
        self.check_invariants();
        Ok(())
    }

    /// Drops entries up to `id`, whose hash is `base`.
    pub(crate) fn push_purge(&mut self, id: EntryId, base: ChainHash) -> Result<(), LogError> {
        let past_end = self.index.last().is_none_or(|last| id.index > last.index);
        let head = if past_end { base } else { self.index.head };
        self.push(RecordKind::Purge, [id.term, id.index], head, &[])?;
        self.index.purge(id, base);
        self.cache.purge(id.index + 1);
        self.check_invariants();
        Ok(())
    }

    /// Queues the removal of the segments before the oldest entry.
    pub(crate) fn drop_segments(&mut self) {
        let keep = self.index.oldest_sequence().map_or(self.active.sequence, u64::from);
        let keep = keep.min(self.active.sequence);
        let kept = self.segments.split_off(&keep);
        let dropped = std::mem::replace(&mut self.segments, kept);
        if !dropped.is_empty() {
            self.queue.push(Op::Remove(dropped.into_values().collect()));
        }
    }

    /// The segment that holds `position`.
    pub(crate) fn segment(&self, position: Position) -> Result<Arc<Segment>, LogError> {
        self.segments.get(&u64::from(position.sequence)).cloned().ok_or(LogError::Corrupt {
            sequence: position.sequence.into(),
            offset: position.offset(),
            what: "segment missing",
        })
    }

    /// Whether anything is queued for the writer.
    pub(crate) fn has_work(&self) -> bool {
        !self.queue.is_empty() || !self.completions.is_empty()
    }

    /// Whether a batch is being written.
    pub(crate) fn is_writing(&self) -> bool {
        self.is_writing
    }

    /// Takes everything queued, unless nothing is or a batch is being written.
    pub(crate) fn begin_batch(&mut self) -> Option<Batch<D>> {
        if self.is_writing || !self.has_work() {
            return None;
        }
        self.is_writing = true;
        self.truncated_from = u64::MAX;
        let next = self.index.range().end;
        Some(Batch {
            ops: std::mem::take(&mut self.queue),
            completions: std::mem::take(&mut self.completions),
            end: DurablePoint { sequence: self.active.sequence, offset: self.end, next },
        })
    }

    /// Ends a batch: everything below its end is durable, or the log has failed.
    pub(crate) fn end_batch(&mut self, result: Result<DurablePoint, Failure>) {
        self.is_writing = false;
        match result {
            Ok(end) => {
                // Entries that were replaced during the batch are not durable with their new
                // content.
                let next = end.next.min(self.truncated_from);
                self.durable = DurablePoint { next, ..end };
                self.cache.evict(next, self.options.cache_bytes);
            }
            Err(failure) => {
                self.failure.get_or_insert(failure);
            }
        }
        self.check_invariants();
    }

    /// Index after the last durable entry.
    pub(crate) fn durable_next(&self) -> u64 {
        self.durable.next
    }

    /// The executor to wake for new work, if the writer is idle. It counts as woken from then on.
    pub(crate) fn take_idle(&mut self) -> Option<Executor> {
        std::mem::take(&mut self.idle).then(|| self.assignment.executor())
    }

    /// Panics, in debug builds, if an invariant does not hold.
    fn check_invariants(&self) {
        if !cfg!(debug_assertions) {
            return;
        }
        self.index.check_invariants();
        self.cache.check_invariants(self.index.range().end);
        let segments = self.segments.values();
        segments.zip(self.segments.values().skip(1)).for_each(|(one, next)| one.check_next(next));
        let newest = self.segments.last_key_value().map(|(sequence, _)| *sequence);
        assert_eq!(newest, Some(self.active.sequence), "the newest segment is the active one");
        assert!(self.end <= self.active.capacity, "records end within their segment");
        assert!(self.end.is_multiple_of(RECORD_ALIGN as u64), "records are aligned");
        let end = (self.active.sequence, self.end);
        assert!((self.durable.sequence, self.durable.offset) <= end, "what is durable was queued");
        let oldest = self.index.oldest_sequence().map(u64::from);
        assert!(
            oldest.is_none_or(|oldest| self.segments.contains_key(&oldest)),
            "the oldest entry has a segment"
        );
    }
}
