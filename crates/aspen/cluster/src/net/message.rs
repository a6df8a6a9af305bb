//! Messages of the service `raft`.
//!
//! ```text
//! request  version u8 = 1 · sender LEB128 · sender's wall clock LEB128 ms · number u8 · body
//! reply    version u8 = 1 · receiver's wall clock LEB128 ms · its highest feature level LEB128
//!          · number u8 · body
//! ```
//!
//! Bodies are described in [`aspen_api::codec`]. Numbers are never reused. A request is at most
//! [`MAX_RAFT_MESSAGE_BYTES`] long.

use aspen_api::codec::{DecodeError, Input, Wire, put_varint, within};
use aspen_api::{Level, choice, numbers};
use bytes::Bytes;
use net_types::limits::{
    MAX_APPEND_ENTRIES, MAX_ENTRY_BYTES, MAX_RAFT_MESSAGE_BYTES, SNAPSHOT_PART_BYTES,
};

use crate::snapshot::SnapshotId;
use crate::types::MembershipRecord;
use aspen_log::{EntryId, LogEntry, StoredVote};

const VERSION: u8 = 1;
/// Bytes of the payloads that one append carries together: the longest message, less the ids and
/// lengths of the largest number of entries.
pub(crate) const MAX_ENTRIES_BYTES: usize = MAX_RAFT_MESSAGE_BYTES - 32 * MAX_APPEND_ENTRIES - 256;

const _: () = assert!(MAX_ENTRY_BYTES <= MAX_ENTRIES_BYTES);

choice! {
    /// What a member asks of another.
    pub enum Request {
        /// Append entries, or none as a sign of life.
        Append {
            /// The leader's vote.
            vote: StoredVote,
            /// The entry before the first.
            previous: Option<EntryId>,
            /// The last entry that is committed.
            committed: Option<EntryId>,
            /// The entries, consecutive.
            entries: Vec<LogEntry> [MAX_APPEND_ENTRIES],
        } = 1,
        /// Grant a vote.
        Vote {
            /// The candidate's vote.
            vote: StoredVote,
            /// The end of its log.
            last: Option<EntryId>,
            /// Whether the leader asked it to stand.
            is_transfer: bool,
        } = 2,
        /// Say whether a vote would be granted.
        PreVote {
            /// The vote it would be.
            vote: StoredVote,
            /// The end of the sender's log.
            last: Option<EntryId>,
        } = 3,
        /// Say from which offset on a snapshot is needed.
        SnapshotOffer {
            /// Its hash.
            id: SnapshotId,
            /// Its length.
            len: u64,
        } = 4,
        /// Take a part of a snapshot.
        SnapshotPart {
            /// Its hash.
            id: SnapshotId,
            /// Where the part begins.
            offset: u64,
            /// CRC-32 of the part.
            crc: u32,
            /// The part.
            bytes: Bytes [SNAPSHOT_PART_BYTES],
        } = 5,
        /// Install a snapshot that is whole.
        SnapshotInstall {
            /// The leader's vote.
            vote: StoredVote,
            /// Its hash.
            id: SnapshotId,
            /// The last entry in it.
            applied: EntryId,
            /// The entry that holds the membership.
            membership_at: Option<EntryId>,
            /// The members as of `applied`.
            membership: MembershipRecord,
        } = 6,
        /// Stand for election, or let another do so.
        Transfer {
            /// The leader's vote.
            vote: StoredVote,
            /// The node that is to lead.
            to: u64,
            /// The end of the leader's log.
            last: Option<EntryId>,
        } = 7,
    }

    /// What a member answers.
    pub enum Reply {
        /// All entries are durable.
        Appended {} = 1,
        /// Entries up to this one are durable.
        AppendedUpTo {
            /// The entry.
            last: Option<EntryId>,
        } = 2,
        /// The entry before the first is not in the log.
        Conflict {} = 3,
        /// The receiver has seen a higher vote.
        HigherVote {
            /// The vote.
            vote: StoredVote,
        } = 4,
        /// To a vote or a pre-vote.
        Vote {
            /// The receiver's vote.
            vote: StoredVote,
            /// Whether it grants.
            is_granted: bool,
            /// The end of its log.
            last: Option<EntryId>,
        } = 5,
        /// To a snapshot's offer or part: the offset expected next.
        SnapshotAt {
            /// The offset.
            offset: u64,
        } = 6,
        /// The snapshot is installed, or was not needed.
        Installed {
            /// The receiver's vote.
            vote: StoredVote,
        } = 7,
        /// To a transfer.
        Transferred {} = 8,
        /// The receiver did not act.
        Refused {
            /// Why.
            reason: Refusal,
        } = 9,
    }
}

numbers! {
    /// Why a member did not act on a message.
    pub enum Refusal {
        /// The sender is not the member that it names.
        NotMember = 1,
        /// The receiver started less than one leader lease ago, and may have forgotten a promise.
        TooEarly = 2,
        /// The receiver has stopped or is stopping.
        Stopped = 3,
        /// The receiver's log or disk is damaged or full.
        Storage = 4,
        /// No such snapshot transfer is under way.
        NoTransfer = 5,
        /// The message is malformed.
        Malformed = 6,
        /// A part or a whole snapshot does not match its checksum.
        Damaged = 7,
        /// The vote has changed, or the log is not there yet.
        NotNow = 8,
    }
}

/// A message with its sender and the time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RequestFrame {
    pub sender: u64,
    pub wall_ms: u64,
    pub request: Request,
}

/// A reply with when it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReplyFrame {
    pub wall_ms: u64,
    /// The highest feature level that the sender understands.
    pub top_level: Level,
    pub reply: Reply,
}

fn take_version(input: &mut Input) -> Result<(), DecodeError> {
    match input.u8()? {
        VERSION => Ok(()),
        other => Err(DecodeError::UnknownVersion(other)),
    }
}

impl Wire for RequestFrame {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        put_varint(self.sender, out);
        put_varint(self.wall_ms, out);
        self.request.put(out);
    }

    fn take(input: &mut Input) -> Result<Self, DecodeError> {
        within("raft message", input.remaining(), MAX_RAFT_MESSAGE_BYTES)?;
        take_version(input)?;
        Ok(Self {
            sender: input.varint()?,
            wall_ms: input.varint()?,
            request: Request::take(input)?,
        })
    }

    fn size_hint(&self) -> usize {
        24 + self.request.size_hint()
    }
}

impl Wire for ReplyFrame {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        put_varint(self.wall_ms, out);
        self.top_level.put(out);
        self.reply.put(out);
    }

    fn take(input: &mut Input) -> Result<Self, DecodeError> {
        take_version(input)?;
        let (wall_ms, top_level) = (input.varint()?, Level::take(input)?);
        Ok(Self { wall_ms, top_level, reply: Reply::take(input)? })
    }

    fn size_hint(&self) -> usize {
        16 + self.reply.size_hint()
    }
}

/// Entries of the sender's messages follow each other and their predecessor.
pub(crate) fn are_consecutive(previous: Option<EntryId>, entries: &[LogEntry]) -> bool {
    let mut last = previous;
    entries.iter().all(|entry| {
        let follows =
            last.is_none_or(|last| entry.id.index == last.index + 1 && entry.id.term >= last.term);
        last = Some(entry.id);
        follows
    })
}

/// Everything that members decode of each other, for fuzzing: no input may panic, and what decodes
/// is the same after another round.
pub fn decode_anything(bytes: Bytes) {
    if let Ok(frame) = RequestFrame::from_bytes(bytes.clone()) {
        assert_eq!(RequestFrame::from_bytes(frame.to_bytes()), Ok(frame));
    }
    if let Ok(frame) = ReplyFrame::from_bytes(bytes) {
        assert_eq!(ReplyFrame::from_bytes(frame.to_bytes()), Ok(frame));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aspen_log::RecordKind;
    use proptest::prelude::*;

    fn id(term: u64, index: u64) -> EntryId {
        EntryId { term, index }
    }

    fn vote() -> StoredVote {
        StoredVote { term: 2, node: 3, committed: true }
    }

    fn requests() -> Vec<(&'static str, Request)> {
        let entry = |index, kind, payload: &'static [u8]| LogEntry {
            id: id(2, index),
            kind,
            payload: Bytes::from_static(payload),
        };
        let entries = vec![entry(5, RecordKind::Blank, b""), entry(6, RecordKind::Command, b"abc")];
        let hash = SnapshotId([9; 32]);
        vec![
            (
                "0107e80701020301010104010103020205010002060203616263",
                Request::Append {
                    vote: vote(),
                    previous: Some(id(1, 4)),
                    committed: Some(id(1, 3)),
                    entries,
                },
            ),
            (
                "0107e80702020301010104 01",
                Request::Vote { vote: vote(), last: Some(id(1, 4)), is_transfer: true },
            ),
            ("0107e8070302030100", Request::PreVote { vote: vote(), last: None }),
            ("0107e80704#ac02", Request::SnapshotOffer { id: hash, len: 300 }),
            (
                "0107e80705#ac0204017a",
                Request::SnapshotPart {
                    id: hash,
                    offset: 300,
                    crc: 4,
                    bytes: Bytes::from_static(b"z"),
                },
            ),
            (
                "0107e80706020301#0104000000",
                Request::SnapshotInstall {
                    vote: vote(),
                    id: hash,
                    applied: id(1, 4),
                    membership_at: None,
                    membership: MembershipRecord::default(),
                },
            ),
            (
                "0107e807070203010801 0104",
                Request::Transfer { vote: vote(), to: 8, last: Some(id(1, 4)) },
            ),
        ]
    }

    #[test]
    fn request_bytes_are_pinned_and_round_trip() {
        for (expected, request) in requests() {
            let frame = RequestFrame { sender: 7, wall_ms: 1_000, request };
            let bytes = frame.to_bytes();
            let expected = expected.replace(' ', "").replace('#', &"09".repeat(32));
            assert_eq!(data_encoding::HEXLOWER.encode(&bytes), expected);
            assert_eq!(RequestFrame::from_bytes(bytes), Ok(frame));
        }
    }

    #[test]
    fn reply_bytes_are_pinned_and_round_trip() {
        let replies = [
            ("01e8070201", Reply::Appended {}),
            ("01e8070202010104", Reply::AppendedUpTo { last: Some(id(1, 4)) }),
            ("01e8070203", Reply::Conflict {}),
            ("01e8070204020301", Reply::HigherVote { vote: vote() }),
            ("01e80702050203010100", Reply::Vote { vote: vote(), is_granted: true, last: None }),
            ("01e8070206ac02", Reply::SnapshotAt { offset: 300 }),
            ("01e8070207020301", Reply::Installed { vote: vote() }),
            ("01e8070208", Reply::Transferred {}),
            ("01e807020902", Reply::Refused { reason: Refusal::TooEarly }),
        ];
        for (expected, reply) in replies {
            let frame = ReplyFrame { wall_ms: 1_000, top_level: Level(2), reply };
            let bytes = frame.to_bytes();
            assert_eq!(data_encoding::HEXLOWER.encode(&bytes), expected);
            assert_eq!(ReplyFrame::from_bytes(bytes), Ok(frame));
        }
    }

    #[test]
    fn a_request_above_the_limit_is_refused_and_the_largest_append_is_not() {
        let append = |lens: &[usize]| {
            let entries = (0..).zip(lens).map(|(index, len)| LogEntry {
                id: id(2, index),
                kind: RecordKind::Command,
                payload: vec![7; *len].into(),
            });
            let entries = entries.collect();
            let request =
                Request::Append { vote: vote(), previous: None, committed: None, entries };
            RequestFrame::from_bytes(RequestFrame { sender: 7, wall_ms: 1, request }.to_bytes())
        };
        // One read of the log, in few entries and in many.
        assert!(append(&[MAX_ENTRY_BYTES]).is_ok());
        let share = MAX_ENTRIES_BYTES / MAX_APPEND_ENTRIES;
        assert!(append(&[share; MAX_APPEND_ENTRIES]).is_ok());
        let too_long = append(&[MAX_RAFT_MESSAGE_BYTES / 2; 2]);
        assert!(matches!(too_long, Err(DecodeError::BadLength { what: "raft message", .. })));
    }

    #[test]
    fn gaps_and_falling_terms_are_seen() {
        let entry = |term, index| LogEntry {
            id: id(term, index),
            kind: RecordKind::Blank,
            payload: Bytes::new(),
        };
        assert!(are_consecutive(None, &[]));
        assert!(are_consecutive(None, &[entry(0, 0), entry(1, 1)]));
        assert!(are_consecutive(Some(id(1, 4)), &[entry(1, 5), entry(2, 6)]));
        assert!(!are_consecutive(Some(id(1, 4)), &[entry(1, 6)]));
        assert!(!are_consecutive(Some(id(2, 4)), &[entry(1, 5)]));
        assert!(!are_consecutive(None, &[entry(1, 5), entry(1, 7)]));
    }

    proptest! {
        #[test]
        fn damaged_messages_never_panic(at: prop::sample::Index, bit in 0u8..8, cut: prop::sample::Index) {
            for (_, request) in requests() {
                let frame = RequestFrame { sender: 7, wall_ms: 1_000, request };
                let mut bytes = frame.to_bytes().to_vec();
                let at = at.index(bytes.len());
                bytes[at] ^= 1 << bit;
                bytes.truncate(cut.index(bytes.len() + 1));
                decode_anything(Bytes::from(bytes));
            }
        }

        #[test]
        fn arbitrary_messages_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            decode_anything(Bytes::from(bytes));
        }
    }
}
