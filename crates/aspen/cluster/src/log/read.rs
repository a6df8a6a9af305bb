//! Reading entries: from memory if they are new, else from their segments, in few large reads.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::index::Place;
use super::record::{ChainHash, EntryId, RecordHeader, chain};
use super::segment::Segment;
use super::{Completion, Log, LogEntry, LogError, Shared};

/// Entries fetched from one segment with one read at most cover this many bytes.
const READ_RUN_BYTES: u64 = 1 << 20;
/// A read that lost a race against a purge is repeated this often.
const READ_ATTEMPTS: usize = 3;

/// Where an entry was found under the lock.
enum Source {
    Memory(LogEntry),
    Disk(Arc<Segment>, Place),
}

/// Adjacent records of one segment.
struct Run {
    segment: Arc<Segment>,
    places: Vec<(u64, Place)>,
}

impl<D> Shared<D> {
    /// The chain hash of a present entry.
    pub(super) fn hash_of(&self, index: u64) -> Result<ChainHash, LogError> {
        let (segment, place) = {
            let state = self.lock();
            if state.index.last().is_some_and(|last| last.index == index) {
                return Ok(state.index.head);
            }
            if let Some((_, hash)) = state.cache.get(index) {
                return Ok(*hash);
            }
            let place = state.index.place(index).ok_or_else(|| absent(index))?;
            (segment_of(&state.segments, place)?, place)
        };
        let run = Run { segment, places: vec![(index, place)] };
        let mut hash = None;
        run.read(|header, _| hash = Some(header.hash))?;
        hash.ok_or_else(|| absent(index).into())
    }

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
                    let place = state.index.place(index).ok_or_else(|| absent(index))?;
                    bytes = bytes.saturating_add(place.payload_bytes as usize);
                    Source::Disk(segment_of(&state.segments, place)?, place)
                }
            };
            if bytes > max_bytes && !sources.is_empty() {
                break;
            }
            sources.push(source);
        }
        Ok(sources)
    }
}

fn absent(index: u64) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("entry {index} is not in the log"))
}

fn segment_of(
    segments: &std::collections::BTreeMap<u64, Arc<Segment>>,
    place: Place,
) -> Result<Arc<Segment>, LogError> {
    segments.get(&u64::from(place.sequence)).cloned().ok_or(LogError::Corrupt {
        sequence: place.sequence.into(),
        offset: place.offset(),
        what: "segment missing",
    })
}

impl Run {
    fn takes(&self, segment: &Segment, place: Place) -> bool {
        let (Some((_, first)), Some((_, last))) = (self.places.first(), self.places.last()) else {
            return true;
        };
        // Metadata records may stand between two entries; a gap is read over.
        self.segment.sequence == segment.sequence
            && place.offset() >= last.end()
            && place.end() - first.offset() <= READ_RUN_BYTES
    }

    fn read(&self, mut visit: impl FnMut(&RecordHeader, Bytes)) -> Result<(), LogError> {
        let (Some((_, first)), Some((_, last))) = (self.places.first(), self.places.last()) else {
            return Ok(());
        };
        let file = self.segment.file().ok_or(LogError::Closed)?;
        let len = usize::try_from(last.end() - first.offset()).map_err(io::Error::other)?;
        let mut bytes = vec![0; len];
        file.read_at(&mut bytes, first.offset())?;
        let bytes = Bytes::from(bytes);
        for (index, place) in &self.places {
            let at = (place.offset() - first.offset()) as usize;
            let corrupt = |what| LogError::Corrupt {
                sequence: self.segment.sequence,
                offset: place.offset(),
                what,
            };
            let (header, payload) = RecordHeader::decode(&bytes[at..], self.segment.seed)
                .ok_or_else(|| corrupt("a durable record is damaged"))?;
            if !header.kind.is_entry() || header.index != *index {
                return Err(corrupt("another record stands at an entry's place"));
            }
            visit(&header, bytes.slice_ref(payload));
        }
        Ok(())
    }
}

fn load(sources: Vec<Source>, first: u64) -> Result<Vec<LogEntry>, LogError> {
    let mut entries = Vec::with_capacity(sources.len());
    let mut run: Option<Run> = None;
    let flush = |run: &mut Option<Run>, entries: &mut Vec<LogEntry>| {
        run.take().map_or(Ok(()), |run| {
            run.read(|header, payload| {
                let id = EntryId { term: header.term, index: header.index };
                entries.push(LogEntry { id, kind: header.kind, payload });
            })
        })
    };
    for (at, source) in sources.into_iter().enumerate() {
        match source {
            Source::Memory(entry) => {
                flush(&mut run, &mut entries)?;
                entries.push(entry);
            }
            Source::Disk(segment, place) => {
                if run.as_ref().is_some_and(|run| !run.takes(&segment, place)) {
                    flush(&mut run, &mut entries)?;
                }
                let run = run.get_or_insert_with(|| Run { segment, places: Vec::new() });
                run.places.push((first + at as u64, place));
            }
        }
    }
    flush(&mut run, &mut entries)?;
    Ok(entries)
}

impl<D: Completion> Log<D> {
    /// The entries of `range` that are present, the first of them whatever its size and the rest
    /// while their payloads stay within `max_bytes` together.
    pub fn read(&self, range: Range<u64>, max_bytes: usize) -> Result<Vec<LogEntry>, LogError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let purged = self.shared.lock().index.range().start;
            let first = range.start.max(purged);
            match load(self.shared.sources(range.clone(), max_bytes)?, first) {
                // A purge may recycle a segment while it is read. What was read is then gone
                // from the log, not damaged.
                Err(LogError::Corrupt { .. } | LogError::Io(_))
                    if attempt < READ_ATTEMPTS
                        && self.shared.lock().index.range().start != purged => {}
                result => return result,
            }
        }
    }

    /// Recomputes the hash chain over at most `count` entries from `from` on, from disk alone.
    ///
    /// Returns the index to go on with, or `None` at the end of what is durable.
    pub fn verify(&self, from: u64, count: u64) -> Result<Option<u64>, LogError> {
        let (start, end, base) = {
            let state = self.shared.lock();
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
            None => self.shared.hash_of(start - 1)?,
        };
        for index in start..end {
            let Some((segment, place)) = self.shared.place(index)? else { return Ok(Some(index)) };
            let run = Run { segment, places: vec![(index, place)] };
            let mut broken = false;
            run.read(|header, payload| {
                let id = EntryId { term: header.term, index: header.index };
                hash = chain(&hash, id, header.kind, &payload);
                broken = hash != header.hash;
            })?;
            if broken && self.shared.place(index)?.is_some() {
                return Err(LogError::Corrupt {
                    sequence: run.segment.sequence,
                    offset: place.offset(),
                    what: "the hash chain is broken",
                });
            }
        }
        Ok(Some(end))
    }
}

impl<D> Shared<D> {
    fn place(&self, index: u64) -> Result<Option<(Arc<Segment>, Place)>, LogError> {
        let state = self.lock();
        match state.index.place(index) {
            Some(place) => Ok(Some((segment_of(&state.segments, place)?, place))),
            None => Ok(None),
        }
    }
}
