//! What the log holds, entries and votes, and their encoding in messages between members.
//!
//! Invariants: the numbers of [`RecordKind`] are never reused; an index that was decoded has a
//! successor.

use aspen_api::codec::{Bounded, DecodeError, Input, Wire, put_varint};
use aspen_api::{numbers, record};
use bytes::Bytes;
use net_types::limits::MAX_ENTRY_BYTES;

numbers! {
    /// What a record of the log is. Numbers below 16 are entries.
    pub enum RecordKind {
        /// An entry without payload: a leader's first of its term.
        Blank = 1,
        /// An entry whose payload is a command of the state machine.
        Command = 2,
        /// An entry whose payload is a membership.
        Membership = 3,
        /// The vote; not an entry.
        Vote = 16,
        /// Drops the entries from `index` on; not an entry.
        Truncate = 17,
        /// Drops the entries up to `index`; not an entry.
        Purge = 18,
    }
}

impl RecordKind {
    /// Whether the record is a log entry.
    pub fn is_entry(self) -> bool {
        (self as u8) < 16
    }

    /// The kind with that number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| *kind as u8 == number)
    }
}

/// Term and index of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId {
    /// Term of the leader that wrote it.
    pub term: u64,
    /// Position in the log; the first entry of a cluster has 0.
    pub index: u64,
}

record! {
    /// The last vote that a node gave.
    #[derive(Copy)]
    pub struct StoredVote {
        /// Term of the vote.
        pub term: u64,
        /// The candidate.
        pub node: u64,
        /// Whether a quorum granted it.
        pub committed: bool,
    }
}

/// A log entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Term and index.
    pub id: EntryId,
    /// The kind of the entry; [`RecordKind::is_entry`] holds.
    pub kind: RecordKind,
    /// The payload; empty for a blank entry.
    pub payload: Bytes,
}

impl Wire for EntryId {
    fn put(&self, out: &mut Vec<u8>) {
        put_varint(self.term, out);
        put_varint(self.index, out);
    }

    fn take(input: &mut Input) -> Result<Self, DecodeError> {
        let id = Self { term: input.varint()?, index: input.varint()? };
        if id.index == u64::MAX {
            return Err(DecodeError::BadValue("index"));
        }
        Ok(id)
    }
}

impl Wire for LogEntry {
    fn put(&self, out: &mut Vec<u8>) {
        self.id.put(out);
        out.push(self.kind as u8);
        self.payload.put_bounded(out);
    }

    fn take(input: &mut Input) -> Result<Self, DecodeError> {
        let id = EntryId::take(input)?;
        let number = input.u8()?;
        let kind = RecordKind::from_number(number)
            .filter(|kind| kind.is_entry())
            .ok_or(DecodeError::UnknownTag { what: "entry kind", value: number.into() })?;
        let payload = Bytes::take_bounded(input, "payload", MAX_ENTRY_BYTES)?;
        Ok(Self { id, kind, payload })
    }

    fn size_hint(&self) -> usize {
        24 + self.payload.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode<T: Wire>(bytes: &'static [u8]) -> Result<T, DecodeError> {
        T::from_bytes(Bytes::from_static(bytes))
    }

    #[test]
    fn bytes_in_messages_are_pinned() {
        let id = EntryId { term: 2, index: 300 };
        let payload = Bytes::from_static(b"abc");
        let entry = LogEntry { id, kind: RecordKind::Command, payload };
        let vote = StoredVote { term: 300, node: 4, committed: true };
        assert_eq!(entry.to_bytes(), b"\x02\xac\x02\x02\x03abc"[..]);
        assert_eq!(decode(b"\x02\xac\x02\x02\x03abc"), Ok(entry));
        assert_eq!(vote.to_bytes(), b"\xac\x02\x04\x01"[..]);
        assert_eq!(decode(b"\xac\x02\x04\x01"), Ok(vote));
    }

    #[test]
    fn metadata_records_and_the_last_index_are_refused() {
        let vote = decode::<LogEntry>(b"\x02\x05\x10\x00");
        assert_eq!(vote, Err(DecodeError::UnknownTag { what: "entry kind", value: 16 }));
        let last = decode::<EntryId>(b"\x02\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01");
        assert_eq!(last, Err(DecodeError::BadValue("index")));
    }
}
