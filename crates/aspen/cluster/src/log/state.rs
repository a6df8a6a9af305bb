//! The log's state under its lock: index, cache, the active segment and the writer's queue.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::cache::Cache;
use super::index::{Index, Place};
use super::record::{
    ChainHash, EntryId, RECORD_ALIGN, RecordHeader, RecordKind, SEGMENT_HEADER_BYTES,
    SegmentHeader, StoredVote, chain, record_bytes,
};
use super::recover::Recovered;
use super::segment::{Segment, capacity_for};
use super::writer::{Duty, Runner, WriterDrive};
use super::{LogCounters, LogEntry, LogError, LogOptions};

/// Work for the writer, in the order it was queued.
#[derive(Debug)]
pub(crate) enum Op {
    /// Open a segment's file and make its header durable.
    Open(Arc<Segment>, Vec<u8>),
    /// Write records at an offset.
    Write(Arc<Segment>, u64, Vec<u8>),
    /// Remove the files of segments.
    Remove(Vec<Arc<Segment>>),
}

/// A point up to which everything is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    sequence: u64,
    offset: u64,
    /// Index after the last durable entry.
    next: u64,
}

/// A failed write. `io::Error` cannot be cloned, each waiter gets its own copy.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub kind: io::ErrorKind,
    pub text: String,
}

pub(crate) struct State<D> {
    pub index: Index,
    pub cache: Cache,
    pub segments: BTreeMap<u64, Arc<Segment>>,
    active: Arc<Segment>,
    end: u64,
    pub queue: Vec<Op>,
    pub waiting: Vec<D>,
    durable: Mark,
    /// Smallest index truncated since the turn under way began.
    rewritten_from: u64,
    /// Whether the writer sleeps until it is woken.
    pub idle: bool,
    pub closing: bool,
    /// Whether a turn is under way; files are touched by one at a time.
    is_working: bool,
    /// Who runs the writer.
    pub duty: Duty,
    pub failure: Option<Failure>,
    pub counters: LogCounters,
    options: LogOptions,
}

impl<D> State<D> {
    /// The state after recovery, with a new segment queued for opening.
    pub(crate) fn new(
        log_id: &[u8; 16],
        options: LogOptions,
        drive: Option<&WriterDrive>,
        recovered: Option<Recovered>,
    ) -> Self {
        let (index, segments, end) = match recovered {
            Some(found) => (found.index, found.segments, found.end),
            None => (Index::default(), Vec::new(), 0),
        };
        // A segment without records is replaced, so that idle restarts do not pile up files. It is
        // made anew rather than continued: behind its header a torn write may have left records.
        let is_unused = segments.len() > 1 && end == SEGMENT_HEADER_BYTES as u64;
        let active = segments
            .last()
            .cloned()
            .unwrap_or_else(|| Arc::new(Segment::new(log_id, 0, options.segment_bytes, 0)));
        let durable = Mark { sequence: active.sequence, offset: end, next: index.range().end };
        let is_new = segments.is_empty();
        let mut state = Self {
            index,
            cache: Cache::default(),
            segments: segments.into_iter().map(|s| (s.sequence, s)).collect(),
            active,
            end,
            queue: Vec::new(),
            waiting: Vec::new(),
            durable,
            rewritten_from: u64::MAX,
            idle: false,
            closing: false,
            is_working: false,
            duty: Duty::new(drive),
            failure: None,
            counters: LogCounters::default(),
            options,
        };
        match (is_new, is_unused) {
            (true, _) => state.open_segment(log_id, 0, 0, 0),
            // The header of the segment before said where that one ends; say it again.
            (false, true) => state.replace_unused(log_id),
            (false, false) => state.roll(log_id, 0),
        }
        state
    }

    fn replace_unused(&mut self, log_id: &[u8; 16]) {
        let sequence = self.active.sequence;
        let previous_end = self.active.previous_end;
        self.open_segment(log_id, sequence, previous_end, 0);
    }

    fn roll(&mut self, log_id: &[u8; 16], record_bytes: usize) {
        self.open_segment(log_id, self.active.sequence + 1, self.end, record_bytes);
    }

    fn open_segment(
        &mut self,
        log_id: &[u8; 16],
        sequence: u64,
        previous_end: u64,
        record_bytes: usize,
    ) {
        let header = SegmentHeader {
            log_id: *log_id,
            sequence,
            previous_end,
            last: self.index.last(),
            head: self.index.head,
            purged: self.index.purged(),
            vote: self.index.vote,
            committed_next: self.index.committed_next,
        };
        let capacity = capacity_for(self.options.segment_bytes, record_bytes);
        let segment = Arc::new(Segment::new(log_id, sequence, capacity, previous_end));
        self.segments.insert(sequence, segment.clone());
        self.active = segment.clone();
        self.end = SEGMENT_HEADER_BYTES as u64;
        self.counters.segments += 1;
        self.queue.push(Op::Open(segment, header.encode()));
    }

    /// Queues a record behind the last one and returns its place.
    fn push(
        &mut self,
        log_id: &[u8; 16],
        kind: RecordKind,
        [term, index]: [u64; 2],
        hash: ChainHash,
        payload: &[u8],
    ) -> Result<Place, LogError> {
        let payload_bytes = u32::try_from(payload.len())
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "record too large"))?;
        let size = record_bytes(payload.len());
        if self.end + size as u64 > self.active.capacity {
            self.roll(log_id, size);
        }
        let durable_units = match self.durable.sequence == self.active.sequence {
            true => (self.durable.offset / RECORD_ALIGN as u64) as u32,
            false => 0,
        };
        let committed_next = self.index.committed_next;
        let header =
            RecordHeader { kind, payload_bytes, durable_units, term, index, committed_next, hash };
        let place = Place::new(self.active.sequence, self.end, payload_bytes);
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
        Ok(place)
    }

    pub(crate) fn push_entry(
        &mut self,
        log_id: &[u8; 16],
        entry: LogEntry,
    ) -> Result<(), LogError> {
        let id = entry.id;
        if let Some(expected) = self.index.next()
            && expected != id.index
        {
            return Err(LogError::Gap { expected, found: id.index });
        }
        let hash = chain(&self.index.head, id, entry.kind, &entry.payload);
        let place = self.push(log_id, entry.kind, [id.term, id.index], hash, &entry.payload)?;
        self.index.push(id, place, hash);
        self.cache.push(entry, hash);
        self.counters.entries += 1;
        Ok(())
    }

    pub(crate) fn push_vote(
        &mut self,
        log_id: &[u8; 16],
        vote: StoredVote,
    ) -> Result<(), LogError> {
        let flag = [u8::from(vote.committed)];
        let head = self.index.head;
        self.push(log_id, RecordKind::Vote, [vote.term, vote.node], head, &flag)?;
        self.index.vote = Some(vote);
        Ok(())
    }

    pub(crate) fn push_truncate(
        &mut self,
        log_id: &[u8; 16],
        from: u64,
        head: ChainHash,
    ) -> Result<(), LogError> {
        let term = from.checked_sub(1).and_then(|kept| self.index.term(kept)).unwrap_or(0);
        self.push(log_id, RecordKind::Truncate, [term, from], head, &[])?;
        self.index.truncate(from, head);
        self.cache.truncate(from);
        self.rewritten_from = self.rewritten_from.min(from);
        self.durable.next = self.durable.next.min(from);
        Ok(())
    }

    pub(crate) fn push_purge(
        &mut self,
        log_id: &[u8; 16],
        id: EntryId,
        base: ChainHash,
    ) -> Result<(), LogError> {
        let past_end = self.index.last().is_none_or(|last| id.index > last.index);
        let head = if past_end { base } else { self.index.head };
        self.push(log_id, RecordKind::Purge, [id.term, id.index], head, &[])?;
        self.index.purge(id, base);
        self.cache.purge(id.index + 1);
        Ok(())
    }

    /// Queues the removal of segments before the oldest living entry.
    pub(crate) fn drop_segments(&mut self) {
        let keep = self.index.oldest_sequence().map_or(self.active.sequence, u64::from);
        let keep = keep.min(self.active.sequence);
        let kept = self.segments.split_off(&keep);
        let dropped = std::mem::replace(&mut self.segments, kept);
        if !dropped.is_empty() {
            self.queue.push(Op::Remove(dropped.into_values().collect()));
        }
    }

    /// Whether something waits for the writer.
    pub(crate) fn has_work(&self) -> bool {
        !self.queue.is_empty() || !self.waiting.is_empty()
    }

    /// Whether a turn is under way.
    pub(crate) fn is_working(&self) -> bool {
        self.is_working
    }

    /// Ends a turn: everything up to `mark` is durable, unless it failed.
    pub(crate) fn end_turn(&mut self, mark: Option<Mark>) {
        self.is_working = false;
        if let Some(mark) = mark {
            self.finish_turn(mark);
        }
    }

    /// Takes all work, with the point that is durable once it is done.
    pub(crate) fn begin_turn(&mut self) -> Option<(Vec<Op>, Vec<D>, Mark)> {
        if self.is_working || !self.has_work() {
            return None;
        }
        self.is_working = true;
        self.rewritten_from = u64::MAX;
        let next = self.index.range().end;
        let mark = Mark { sequence: self.active.sequence, offset: self.end, next };
        Some((std::mem::take(&mut self.queue), std::mem::take(&mut self.waiting), mark))
    }

    /// Index after the last durable entry.
    pub(crate) fn durable_next(&self) -> u64 {
        self.durable.next
    }

    /// Whom to wake for new work, if nobody works; someone does from then on.
    pub(crate) fn take_idle(&mut self) -> Option<Runner> {
        std::mem::take(&mut self.idle).then(|| self.duty.runner())
    }

    /// Records that everything up to `mark` is durable.
    fn finish_turn(&mut self, mark: Mark) {
        // Entries that were replaced meanwhile are not durable under their new content.
        self.durable = Mark { next: mark.next.min(self.rewritten_from), ..mark };
        self.cache.evict(self.durable.next, self.options.cache_bytes);
    }
}
