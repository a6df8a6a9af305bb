//! Reading the log back after a stop of any kind.
//!
//! Invariant: recovery returns every acknowledged record or fails.
//!
//! A batch is written only after the batch before it is durable, and each record states the offset
//! below which everything was durable when it was made. A segment ends where no valid record
//! stands. That is a torn write, which was never acknowledged, unless a later record of the segment
//! or the header of the next one states that this offset was durable. Acknowledged bytes are then
//! lost, and the log does not open.

use std::collections::VecDeque;
use std::sync::Arc;

use net_wire::Reader;

use crate::disk::Disk;
use crate::entry::{EntryId, RecordKind, StoredVote};
use crate::error::LogError;
use crate::index::{Index, Position};
use crate::record::{
    ChainHash, RECORD_ALIGN, RECORD_HEADER_BYTES, RecordHeader, SEGMENT_HEADER_BYTES,
    SegmentHeader, anchor, chain, record_bytes,
};
use crate::segment::{Segment, file_name, parse_name};

/// A log as its segments describe it.
pub(crate) struct Recovered {
    /// The entries and the metadata.
    pub index: Index,
    /// The segments, oldest first.
    pub segments: Vec<Arc<Segment>>,
    /// Offset at which the last segment's records end.
    pub end: u64,
}

/// Reads all segments of the log `log_id` in `disk`; `None` if there are none.
pub(crate) fn recover(disk: &dyn Disk, log_id: &[u8; 16]) -> Result<Option<Recovered>, LogError> {
    let mut sequences: Vec<u64> = disk.list()?.iter().filter_map(|name| parse_name(name)).collect();
    sequences.sort_unstable();
    let Some(first) = sequences.first().copied() else { return Ok(None) };
    let expected = first..first.saturating_add(sequences.len() as u64);
    if let Some((missing, _)) = expected.zip(&sequences).find(|(want, have)| want != *have) {
        return Err(LogError::Corrupt { sequence: missing, offset: 0, what: "segment missing" });
    }
    let mut scan: Option<Scan> = None;
    let mut segments = Vec::with_capacity(sequences.len());
    for (at, sequence) in sequences.iter().copied().enumerate() {
        let is_last = at + 1 == sequences.len();
        let bytes = read_segment(disk, sequence)?;
        let header = read_header(&bytes, log_id, sequence)?;
        let segment =
            Arc::new(Segment::new(log_id, sequence, bytes.len() as u64, header.previous_end));
        segment.set_file(disk.open(&file_name(sequence))?);
        let state = match &mut scan {
            None => scan.insert(Scan::new(&header)),
            Some(state) => {
                state.enter(&header)?;
                state
            }
        };
        state.read_records(&segment, &bytes)?;
        if is_last {
            state.check_tail(&segment, &bytes)?;
        }
        segments.push(segment);
    }
    Ok(scan.map(|scan| Recovered { index: scan.index, segments, end: scan.end }))
}

fn read_segment(disk: &dyn Disk, sequence: u64) -> Result<Vec<u8>, LogError> {
    let file = disk.open(&file_name(sequence))?;
    let len = usize::try_from(file.len()?).map_err(std::io::Error::other)?;
    let mut bytes = vec![0; len];
    file.read_at(&mut bytes, 0)?;
    Ok(bytes)
}

fn read_header(bytes: &[u8], log_id: &[u8; 16], sequence: u64) -> Result<SegmentHeader, LogError> {
    let header = SegmentHeader::decode(bytes)
        .map_err(|reason| LogError::BadSegmentHeader { sequence, reason })?;
    if header.log_id != *log_id {
        return Err(LogError::Foreign);
    }
    if header.sequence != sequence {
        return Err(LogError::Corrupt { sequence, offset: 0, what: "segment under a wrong name" });
    }
    Ok(header)
}

/// The log up to a record.
struct Scan {
    index: Index,
    /// Hashes of the entries in `index`, which truncations and purges need.
    hashes: VecDeque<ChainHash>,
    sequence: u64,
    /// Offset at which the next record should stand.
    end: u64,
}

impl Scan {
    fn new(header: &SegmentHeader) -> Self {
        let mut index = Index::starting_after(header.last, header.head);
        index.vote = header.vote;
        index.committed_next = header.committed_next;
        Self {
            index,
            hashes: VecDeque::new(),
            sequence: header.sequence,
            end: SEGMENT_HEADER_BYTES as u64,
        }
    }

    fn corrupt(&self, what: &'static str) -> LogError {
        LogError::Corrupt { sequence: self.sequence, offset: self.end, what }
    }

    /// Continues in the next segment, which must name the end of this one.
    fn enter(&mut self, header: &SegmentHeader) -> Result<(), LogError> {
        if header.previous_end > self.end {
            return Err(self.corrupt("a durable record is damaged"));
        }
        if header.previous_end < self.end {
            return Err(self.corrupt("records after the segment's end"));
        }
        if header.last != self.index.last()
            || header.head != self.index.head
            || header.vote != self.index.vote
        {
            return Err(self.corrupt("the next segment does not continue this one"));
        }
        self.index.committed_next = self.index.committed_next.max(header.committed_next);
        self.sequence = header.sequence;
        self.end = SEGMENT_HEADER_BYTES as u64;
        Ok(())
    }

    fn read_records(&mut self, segment: &Segment, bytes: &[u8]) -> Result<(), LogError> {
        while let Some(rest) = bytes.get(self.end as usize..)
            && let Some((header, payload)) = RecordHeader::decode(rest, segment.seed)
        {
            self.take(&header, payload)?;
            self.end += record_bytes(payload.len()) as u64;
        }
        Ok(())
    }

    fn take(&mut self, header: &RecordHeader, payload: &[u8]) -> Result<(), LogError> {
        let id = EntryId { term: header.term, index: header.index };
        match header.kind {
            RecordKind::Blank | RecordKind::Command | RecordKind::Membership => {
                if self.index.next().is_some_and(|next| next != id.index)
                    || self.index.last().is_some_and(|last| last.term > id.term)
                {
                    return Err(self.corrupt("an entry does not follow its predecessor"));
                }
                if chain(&self.index.head, id, header.kind, payload) != header.hash {
                    return Err(self.corrupt("the hash chain is broken"));
                }
                let position = Position::new(self.sequence, self.end, header.payload_bytes);
                self.index.push(id, position, header.hash);
                self.hashes.push_back(header.hash);
            }
            RecordKind::Vote => {
                let committed = match payload {
                    [flag @ (0 | 1)] => *flag == 1,
                    _ => return Err(self.corrupt("a vote is malformed")),
                };
                let (term, node) = (header.term, header.index);
                self.index.vote = Some(StoredVote { term, node, committed });
            }
            RecordKind::Truncate => self.truncate(header),
            RecordKind::Purge => self.purge(id),
        }
        if self.index.head != header.hash {
            return Err(self.corrupt("the hash chain is broken"));
        }
        self.index.committed_next = self.index.committed_next.max(header.committed_next);
        Ok(())
    }

    fn truncate(&mut self, header: &RecordHeader) {
        let first = self.index.range().start;
        let kept = header.index.checked_sub(1).map(|index| EntryId { term: header.term, index });
        if header.index < first || (header.index == first && kept != self.index.purged()) {
            // The segments of the entries kept have been removed since.
            self.hashes.clear();
            self.index.restart_after(kept, header.hash);
            return;
        }
        let keep = usize::try_from(header.index - first).unwrap_or(usize::MAX);
        self.hashes.truncate(keep);
        let head = self.hashes.back().copied().unwrap_or(self.index.base);
        self.index.truncate(header.index, head);
    }

    fn purge(&mut self, id: EntryId) {
        let range = self.index.range();
        if self.index.purged().is_some_and(|purged| purged.index >= id.index) {
            // A purge of these entries, this one or a later one, has removed their segments.
            return;
        }
        let base = match range.contains(&id.index) {
            true => self.hashes[(id.index - range.start) as usize],
            false => anchor(id),
        };
        let drop = (id.index + 1).saturating_sub(range.start);
        let drop = usize::try_from(drop).unwrap_or(usize::MAX).min(self.hashes.len());
        self.hashes.drain(..drop);
        self.index.purge(id, base);
    }

    /// Searches the bytes after the end for a record that proves that the end was durable.
    fn check_tail(&self, segment: &Segment, bytes: &[u8]) -> Result<(), LogError> {
        let mut at = self.end as usize;
        while let Some(rest) = bytes.get(at..)
            && rest.len() >= RECORD_HEADER_BYTES
        {
            // The checksum is computed last: the tail may be full of bytes that look like headers.
            if claims_durable_beyond(rest, self.end, at as u64)
                && RecordHeader::decode(rest, segment.seed).is_some()
            {
                return Err(self.corrupt("a durable record is damaged"));
            }
            at += RECORD_ALIGN;
        }
        Ok(())
    }
}

/// Whether the bytes at offset `at`, read as a record, state that a byte at `end` was durable.
fn claims_durable_beyond(bytes: &[u8], end: u64, at: u64) -> bool {
    let mut r = Reader::new(&bytes[8..]);
    let (Ok(kind), Ok(zero), Ok(units)) = (r.u8(), r.array::<3>(), r.u32()) else { return false };
    let durable = u64::from(units) * RECORD_ALIGN as u64;
    RecordKind::from_number(kind).is_some() && zero == [0; 3] && durable > end && durable <= at
}
