//! The bytes of segment headers and records, as `docs/format-log.md` describes them.
//!
//! Invariants: the checksum of a record covers the log's identity and the segment's sequence, so
//! that neither another log's bytes nor what a recycled file held before read as a record. The hash
//! of an entry covers its predecessor's hash, so that replacing one entry means replacing all later
//! ones.

use net_wire::{DecodeError, Reader};

use crate::entry::{EntryId, RecordKind, StoredVote};

/// First bytes of every segment.
pub(crate) const SEGMENT_MAGIC: [u8; 8] = *b"ASPENLOG";
/// Version of the format.
pub(crate) const FORMAT_VERSION: u32 = 1;
/// Bytes of a segment's header; the first record follows.
pub(crate) const SEGMENT_HEADER_BYTES: usize = 192;
/// Bytes of a record before its payload.
pub(crate) const RECORD_HEADER_BYTES: usize = 72;
/// Offsets of records are multiples of this.
pub(crate) const RECORD_ALIGN: usize = 8;

/// A BLAKE3 hash of the chain.
pub(crate) type ChainHash = [u8; 32];

/// Checksum state of one segment: CRC-32 over the log's identity and the sequence.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seed(u32);

impl Seed {
    pub(crate) fn new(log_id: &[u8; 16], sequence: u64) -> Self {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(log_id);
        hasher.update(&sequence.to_le_bytes());
        Self(hasher.finalize())
    }

    fn checksum(self, parts: [&[u8]; 2]) -> u32 {
        let mut hasher = crc32fast::Hasher::new_with_initial(self.0);
        parts.iter().for_each(|part| hasher.update(part));
        hasher.finalize()
    }
}

/// The hash of an entry whose predecessor has the hash `previous`.
pub(crate) fn chain(
    previous: &ChainHash,
    id: EntryId,
    kind: RecordKind,
    payload: &[u8],
) -> ChainHash {
    let mut fixed = [0u8; 49];
    fixed[..32].copy_from_slice(previous);
    fixed[32..40].copy_from_slice(&id.term.to_le_bytes());
    fixed[40..48].copy_from_slice(&id.index.to_le_bytes());
    fixed[48] = kind as u8;
    let mut hasher = blake3::Hasher::new();
    hasher.update(&fixed);
    hasher.update(payload);
    *hasher.finalize().as_bytes()
}

/// The hash of an entry that this node never had, because a snapshot replaced it.
pub(crate) fn anchor(id: EntryId) -> ChainHash {
    let mut hasher = blake3::Hasher::new_derive_key("aspen log 2026 snapshot anchor");
    hasher.update(&id.term.to_le_bytes());
    hasher.update(&id.index.to_le_bytes());
    *hasher.finalize().as_bytes()
}

/// A record's fields before its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    /// What the record is.
    pub kind: RecordKind,
    /// Bytes of the payload.
    pub payload_bytes: u32,
    /// Offset in the segment, in units of 8 bytes, below which everything was durable when the
    /// record was made; 0 if unknown.
    pub durable_units: u32,
    /// Entry and vote: the term. Purge: term of the last entry dropped. Truncate: term of the last
    /// entry kept, or 0.
    pub term: u64,
    /// Entry: the index. Vote: the candidate. Purge: index of the last entry dropped. Truncate: index
    /// of the first entry dropped.
    pub index: u64,
    /// Index after the last entry known to be committed; 0 for none.
    pub committed_next: u64,
    /// Entry: its hash. Other records: the hash of the last entry.
    pub hash: ChainHash,
}

/// Bytes of a record, padding included.
pub(crate) fn record_bytes(payload_bytes: usize) -> usize {
    (RECORD_HEADER_BYTES + payload_bytes).next_multiple_of(RECORD_ALIGN)
}

impl RecordHeader {
    /// Appends the record with its padding to `out`.
    pub(crate) fn encode(&self, payload: &[u8], seed: Seed, out: &mut Vec<u8>) {
        debug_assert_eq!(payload.len(), self.payload_bytes as usize);
        let start = out.len();
        out.resize(start + RECORD_HEADER_BYTES, 0);
        let head = &mut out[start..];
        head[4..8].copy_from_slice(&self.payload_bytes.to_le_bytes());
        head[8] = self.kind as u8;
        head[12..16].copy_from_slice(&self.durable_units.to_le_bytes());
        head[16..24].copy_from_slice(&self.term.to_le_bytes());
        head[24..32].copy_from_slice(&self.index.to_le_bytes());
        head[32..40].copy_from_slice(&self.committed_next.to_le_bytes());
        head[40..72].copy_from_slice(&self.hash);
        let crc = seed.checksum([&head[4..], payload]);
        head[..4].copy_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(payload);
        out.resize(start + record_bytes(payload.len()), 0);
    }

    /// The record at the start of `bytes`, with its payload, or `None` if there is none. More bytes
    /// may follow it. No field is used before the checksum matches.
    pub(crate) fn decode(bytes: &[u8], seed: Seed) -> Option<(Self, &[u8])> {
        let head = bytes.get(..RECORD_HEADER_BYTES)?;
        let mut r = Reader::new(head);
        let crc = r.u32().ok()?;
        let payload_bytes = r.u32().ok()?;
        let end = RECORD_HEADER_BYTES.checked_add(payload_bytes as usize)?;
        let payload = bytes.get(RECORD_HEADER_BYTES..end)?;
        if seed.checksum([&head[4..], payload]) != crc {
            return None;
        }
        let kind = RecordKind::from_number(r.u8().ok()?)?;
        if r.array::<3>().ok()? != [0; 3] {
            return None;
        }
        let header = Self {
            kind,
            payload_bytes,
            durable_units: r.u32().ok()?,
            term: r.u64().ok()?,
            index: r.u64().ok()?,
            committed_next: r.u64().ok()?,
            hash: r.array().ok()?,
        };
        Some((header, payload))
    }
}

/// The state of the log at the start of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// Identity of the log.
    pub log_id: [u8; 16],
    /// Number of the segment; segments are numbered from 0 for the life of the log.
    pub sequence: u64,
    /// Offset at which the records of the segment before end; 0 for the first of the log.
    pub previous_end: u64,
    /// The last entry before this segment.
    pub last: Option<EntryId>,
    /// The hash of `last`, or zeros.
    pub head: ChainHash,
    /// The last purged entry.
    pub purged: Option<EntryId>,
    /// The vote.
    pub vote: Option<StoredVote>,
    /// Index after the last entry known to be committed; 0 for none.
    pub committed_next: u64,
}

fn put_id(id: Option<EntryId>, out: &mut Vec<u8>) {
    // Indexes start at 0, so the index after it is stored and 0 means absence.
    let (next, term) = id.map_or((0, 0), |id| (id.index.saturating_add(1), id.term));
    out.extend_from_slice(&next.to_le_bytes());
    out.extend_from_slice(&term.to_le_bytes());
}

fn get_id(r: &mut Reader<'_>) -> Result<Option<EntryId>, DecodeError> {
    let (next, term) = (r.u64()?, r.u64()?);
    Ok(next.checked_sub(1).map(|index| EntryId { term, index }))
}

impl SegmentHeader {
    /// The header's bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SEGMENT_HEADER_BYTES);
        out.extend_from_slice(&SEGMENT_MAGIC);
        out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        out.extend_from_slice(&(SEGMENT_HEADER_BYTES as u32).to_le_bytes());
        out.extend_from_slice(&self.log_id);
        out.extend_from_slice(&self.sequence.to_le_bytes());
        out.extend_from_slice(&self.previous_end.to_le_bytes());
        put_id(self.last, &mut out);
        out.extend_from_slice(&self.head);
        put_id(self.purged, &mut out);
        let vote = self.vote.unwrap_or(StoredVote { term: 0, node: 0, committed: false });
        out.extend_from_slice(&vote.term.to_le_bytes());
        out.extend_from_slice(&vote.node.to_le_bytes());
        out.push(u8::from(self.vote.is_some()) | u8::from(vote.committed) << 1);
        out.extend_from_slice(&[0; 7]);
        out.extend_from_slice(&self.committed_next.to_le_bytes());
        out.resize(SEGMENT_HEADER_BYTES - 4, 0);
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads a header.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes);
        let all = r.take(SEGMENT_HEADER_BYTES)?;
        let mut r = Reader::new(all);
        if r.array::<8>()? != SEGMENT_MAGIC {
            return Err(DecodeError::BadValue("segment magic"));
        }
        let version = r.u32()?;
        if version != FORMAT_VERSION {
            return Err(DecodeError::UnknownVersion(u8::try_from(version).unwrap_or(u8::MAX)));
        }
        let (covered, crc) = all.split_at(SEGMENT_HEADER_BYTES - 4);
        if crc != crc32fast::hash(covered).to_le_bytes() {
            return Err(DecodeError::BadValue("segment header checksum"));
        }
        if r.u32()? as usize != SEGMENT_HEADER_BYTES {
            return Err(DecodeError::BadValue("segment header length"));
        }
        let header = Self {
            log_id: r.array()?,
            sequence: r.u64()?,
            previous_end: r.u64()?,
            last: get_id(&mut r)?,
            head: r.array()?,
            purged: get_id(&mut r)?,
            vote: {
                let (term, node, flags) = (r.u64()?, r.u64()?, r.u8()?);
                (flags & 1 != 0).then_some(StoredVote { term, node, committed: flags & 2 != 0 })
            },
            committed_next: {
                r.take(7)?;
                r.u64()?
            },
        };
        Ok(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hex(bytes: &[u8]) -> String {
        data_encoding::HEXLOWER.encode(bytes)
    }

    #[test]
    fn record_layout_is_pinned() {
        let header = RecordHeader {
            kind: RecordKind::Command,
            payload_bytes: 3,
            durable_units: 24,
            term: 2,
            index: 7,
            committed_next: 6,
            hash: [0xab; 32],
        };
        let seed = Seed::new(&[1; 16], 9);
        let mut out = Vec::new();
        header.encode(b"abc", seed, &mut out);
        assert_eq!(out.len() % RECORD_ALIGN, 0);
        let expected = format!(
            "{}03000000020000001800000002000000000000000700000000000000{}{}6162630000000000",
            hex(&out[..4]),
            "0600000000000000",
            "ab".repeat(32),
        );
        assert_eq!(hex(&out), expected);
        assert_eq!(hex(&out[..4]), "6fa626d9");
        assert_eq!(RecordHeader::decode(&out, seed), Some((header, &b"abc"[..])));
        assert_eq!(RecordHeader::decode(&out, Seed::new(&[1; 16], 8)), None);
    }

    #[test]
    fn segment_header_layout_is_pinned() {
        let header = SegmentHeader {
            log_id: [1; 16],
            sequence: 5,
            previous_end: 4_096,
            last: Some(EntryId { term: 2, index: 0 }),
            head: [7; 32],
            purged: None,
            vote: Some(StoredVote { term: 3, node: 4, committed: true }),
            committed_next: 1,
        };
        let bytes = header.encode();
        assert_eq!(bytes.len(), SEGMENT_HEADER_BYTES);
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header));
        let expected = format!(
            "415350454e4c4f4701000000c0000000{}{}{}{}{}{}{}{}{}",
            "01".repeat(16),
            "05000000000000000010000000000000",
            "01000000000000000200000000000000",
            "07".repeat(32),
            "00".repeat(16),
            "030000000000000004000000000000000300000000000000",
            "0100000000000000",
            "00".repeat(44),
            hex(&bytes[188..]),
        );
        assert_eq!(hex(&bytes), expected);
    }

    #[test]
    fn the_chain_depends_on_everything() {
        let id = EntryId { term: 1, index: 1 };
        let base = chain(&[0; 32], id, RecordKind::Command, b"x");
        let others = [
            chain(&[1; 32], id, RecordKind::Command, b"x"),
            chain(&[0; 32], EntryId { term: 2, ..id }, RecordKind::Command, b"x"),
            chain(&[0; 32], EntryId { index: 2, ..id }, RecordKind::Command, b"x"),
            chain(&[0; 32], id, RecordKind::Membership, b"x"),
            chain(&[0; 32], id, RecordKind::Command, b"y"),
            anchor(id),
        ];
        assert!(others.iter().all(|other| *other != base));
    }

    proptest! {
        #[test]
        fn damaged_records_are_refused(flip in 0usize..80 * 8, payload in prop::collection::vec(any::<u8>(), 1..9)) {
            let header = RecordHeader {
                kind: RecordKind::Blank, payload_bytes: payload.len() as u32, durable_units: 0,
                term: 1, index: 1, committed_next: 0, hash: [0; 32],
            };
            let seed = Seed::new(&[3; 16], 1);
            let mut out = Vec::new();
            header.encode(&payload, seed, &mut out);
            let covered = (RECORD_HEADER_BYTES + payload.len()) * 8;
            let bit = flip % covered;
            out[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(RecordHeader::decode(&out, seed), None);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = RecordHeader::decode(&bytes, Seed::new(&[0; 16], 0));
            let _ = SegmentHeader::decode(&bytes);
        }
    }
}
