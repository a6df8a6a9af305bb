//! Reading entries: from memory, or from their segments with few large reads.
//!
//! Invariant: an entry that is read from a segment has passed its checksum and has the index that
//! was asked for.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::entry::{EntryId, LogEntry};
use crate::error::LogError;
use crate::index::Position;
use crate::record::{ChainHash, RecordHeader, chain};
use crate::segment::Segment;
use crate::shared::Shared;

/// Bytes of a segment that one read covers, unless a single record is larger.
const READ_RUN_BYTES: u64 = 1 << 20;
/// Attempts of a read that races with purges.
const READ_ATTEMPTS: usize = 3;

/// Where an entry was found under the lock.
enum Source {
    Memory(LogEntry),
    Disk(Arc<Segment>, Position),
}

/// Records of one segment that one read covers.
struct Run {
    segment: Arc<Segment>,
    records: Vec<(u64, Position)>,
}

fn absent(index: u64) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("entry {index} is not in the log"))
}

impl Run {
    fn new(segment: Arc<Segment>) -> Self {
        Self { segment, records: Vec::new() }
    }

    fn single(segment: Arc<Segment>, index: u64, position: Position) -> Self {
        Self { segment, records: vec![(index, position)] }
    }

    /// Whether the record at `position` of `segment` may join.
    fn takes(&self, segment: &Segment, position: Position) -> bool {
        let (Some((_, first)), Some((_, last))) = (self.records.first(), self.records.last())
        else {
            return true;
        };
        // Votes and truncations may stand between two entries; they are read and skipped.
        self.segment.sequence == segment.sequence
            && position.offset() >= last.end()
            && position.end() - first.offset() <= READ_RUN_BYTES
    }

    fn read(&self, mut visit: impl FnMut(&RecordHeader, Bytes)) -> Result<(), LogError> {
        let (Some((_, first)), Some((_, last))) = (self.records.first(), self.records.last())
        else {
            return Ok(());
        };
        let file = self.segment.file().ok_or(LogError::Closed)?;
        let len = usize::try_from(last.end() - first.offset()).map_err(io::Error::other)?;
        let mut bytes = vec![0; len];
        file.read_at(&mut bytes, first.offset())?;
        let bytes = Bytes::from(bytes);
        for (index, position) in &self.records {
            let at = (position.offset() - first.offset()) as usize;
            let corrupt = |what| LogError::Corrupt {
                sequence: self.segment.sequence,
                offset: position.offset(),
                what,
            };
            let (header, payload) = RecordHeader::decode(&bytes[at..], self.segment.seed)
                .ok_or_else(|| corrupt("a durable record is damaged"))?;
            if !header.kind.is_entry() || header.index != *index {
                return Err(corrupt("another record stands at an entry's position"));
            }
            visit(&header, bytes.slice_ref(payload));
        }
        Ok(())
    }

    /// Reads the records as entries.
    fn read_into(&self, entries: &mut Vec<LogEntry>) -> Result<(), LogError> {
        self.read(|header, payload| {
            let id = EntryId { term: header.term, index: header.index };
            entries.push(LogEntry { id, kind: header.kind, payload });
        })
    }
}

/// The entries at `sources`, the first of which is the entry `first`.
fn load(sources: Vec<Source>, first: u64) -> Result<Vec<LogEntry>, LogError> {
    let mut entries = Vec::with_capacity(sources.len());
    let mut run: Option<Run> = None;
    for (index, source) in (first..).zip(sources) {
        let complete = match &source {
            Source::Memory(_) => run.take(),
            Source::Disk(segment, position) => run.take_if(|run| !run.takes(segment, *position)),
        };
        if let Some(run) = complete {
            run.read_into(&mut entries)?;
        }
        match source {
            Source::Memory(entry) => entries.push(entry),
            Source::Disk(segment, position) => {
                run.get_or_insert_with(|| Run::new(segment)).records.push((index, position));
            }
        }
    }
    if let Some(run) = run {
        run.read_into(&mut entries)?;
    }
    Ok(entries)
}

impl<D> Shared<D> {
    /// The hash of the entry `index`, which is in the log.
    pub(crate) fn hash_of(&self, index: u64) -> Result<ChainHash, LogError> {
        let (segment, position) = {
            let state = self.lock();
            if state.index.last().is_some_and(|last| last.index == index) {
                return Ok(state.index.head);
            }
            if let Some((_, hash)) = state.cache.get(index) {
                return Ok(*hash);
            }
            let position = state.index.position(index).ok_or_else(|| absent(index))?;
            (state.segment(position)?, position)
        };
        let mut hash = None;
        Run::single(segment, index, position).read(|header, _| hash = Some(header.hash))?;
        hash.ok_or_else(|| absent(index).into())
    }

    /// Where the entries of `range` are, as many as one read returns.
    fn sources(&self, range: Range<u64>, max_bytes: usize) -> Result<Vec<Source>, LogError> {
        let state = self.lock();
        let present = state.index.range();
        let range = range.start.max(present.start)..range.end.min(present.end);
        let mut sources = Vec::new();
        let mut bytes = 0usize;
        for index in range {
            let source = match state.cache.get(index) {
                Some((entry, _)) => {
                    bytes = bytes.saturating_add(entry.payload.len());
                    Source::Memory(entry.clone())
                }
                None => {
                    let position = state.index.position(index).ok_or_else(|| absent(index))?;
                    bytes = bytes.saturating_add(position.payload_bytes as usize);
                    Source::Disk(state.segment(position)?, position)
                }
            };
            if bytes > max_bytes && !sources.is_empty() {
                break;
            }
            sources.push(source);
        }
        Ok(sources)
    }

    /// See [`Log::read`](crate::Log::read).
    pub(crate) fn read(
        &self,
        range: Range<u64>,
        max_bytes: usize,
    ) -> Result<Vec<LogEntry>, LogError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let start = self.lock().index.range().start;
            let first = range.start.max(start);
            match load(self.sources(range.clone(), max_bytes)?, first) {
                // A purge may recycle a segment during the read. Its entries are then gone from
                // the log, not damaged.
                Err(LogError::Corrupt { .. } | LogError::Io(_))
                    if attempt < READ_ATTEMPTS && self.lock().index.range().start != start => {}
                result => return result,
            }
        }
    }

    /// See [`Log::verify`](crate::Log::verify).
    pub(crate) fn verify(&self, from: u64, count: u64) -> Result<Option<u64>, LogError> {
        let (start, end, base) = {
            let state = self.lock();
            let present = state.index.range();
            let start = from.max(present.start);
            let end = start.saturating_add(count).min(state.durable_next()).min(present.end);
            (start, end, (start == present.start).then_some(state.index.base))
        };
        if start >= end {
            return Ok(None);
        }
        let mut hash = match base {
            Some(base) => base,
            None => self.hash_of(start - 1)?,
        };
        for index in start..end {
            let Some((segment, position)) = self.position(index)? else { return Ok(Some(index)) };
            let sequence = segment.sequence;
            let mut is_broken = false;
            Run::single(segment, index, position).read(|header, payload| {
                let id = EntryId { term: header.term, index: header.index };
                hash = chain(&hash, id, header.kind, &payload);
                is_broken = hash != header.hash;
            })?;
            if is_broken && self.position(index)?.is_some() {
                let what = "the hash chain is broken";
                return Err(LogError::Corrupt { sequence, offset: position.offset(), what });
            }
        }
        Ok(Some(end))
    }
}
