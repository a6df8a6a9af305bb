//! The bytes of every row.
//!
//! ```text
//! Meta        "header"                                -> Header
//! Live        key                                     -> item
//! History     escaped key · 00 01 · ended revision be -> item
//! Expiry      deadline be · 00 · key                  -> (empty)
//!             deadline be · 01 · lease id be          -> (empty)
//! Marks       log time be                             -> revision be
//! Leases      lease id be                             -> Lease
//! LeaseKeys   lease id be · key                       -> (empty)
//! Clients     client [16]                             -> last write be
//! ClientAges  last write be · client [16]             -> (empty)
//! Replies     client [16] · slot u8                   -> counter LEB128 · revision LEB128 · Reply
//!
//! item        version · create revision · mod revision (LEB128) · flags u8
//!             · [1: deadline LEB128] · [2: lease id LEB128] · value to the end
//! ```
//!
//! `be` is a big-endian u64, so that numbers order as bytes. A zero byte of a key is escaped as
//! `00 ff` in History, and `00 01` ends the key: rows of one key stay together and keys keep their
//! order, whatever follows.

use aspen_api::codec::{DecodeError, Wire, put_varint};
use aspen_api::kv::Item;
use aspen_api::{ClientId, Key, LeaseId, Level, Revision, record};
use bytes::Bytes;

use crate::TableId;

/// Key of the only row of `Meta`.
pub(crate) const HEADER_KEY: &[u8] = b"header";
/// The version of all layouts in this file.
pub(crate) const LAYOUT_VERSION: u8 = 1;

record! {
    /// Where a sweep of the history stands.
    pub struct Sweep {
        /// The first history row not looked at yet.
        pub cursor: Bytes [4_096],
        /// Whether a compaction came meanwhile, so that another round follows.
        pub is_again: bool,
    }

    /// What the store knows of itself: one row, read before a batch and written after it.
    pub struct Header {
        /// The version of all layouts, 1.
        pub layout_version: u8,
        /// The feature level of the cluster.
        pub level: Level,
        /// The newest log entry applied.
        pub applied_revision: Revision,
        /// The newest stamp applied, in Unix milliseconds.
        pub log_time_ms: u64,
        /// The oldest revision that can be read.
        pub oldest_revision: Revision,
        /// The earliest deadline, `u64::MAX` if nothing expires; 0 for a revoked lease.
        pub next_deadline_ms: u64,
        /// The newest mark, 0 if there was none.
        pub last_mark_ms: u64,
        /// Keys that have a newest version, expired ones included until they are removed.
        pub key_count: u64,
        /// Leases, ended ones included until their keys are removed.
        pub lease_count: u64,
        /// Superseded versions.
        pub history_count: u64,
        /// Bytes of their rows.
        pub history_bytes: u64,
        /// Clients whose answers are remembered.
        pub client_count: u64,
        /// No remembered client wrote last before this.
        pub oldest_client_ms: u64,
        /// No answer that was forgotten with its client is to a later entry than this.
        pub forgotten_revision: Revision,
        /// The sweep under way.
        pub sweep: Option<Sweep>,
    }

    /// A lease's row.
    pub struct Lease {
        /// Seconds it lives without a keepalive.
        pub ttl_seconds: u64,
        /// The log time at which it ends.
        pub deadline_ms: u64,
        /// Keys attached to it.
        pub key_count: u64,
        /// The revision that ended it, once that is known.
        pub ended: Option<Revision>,
    }
}

impl Default for Header {
    fn default() -> Self {
        Self {
            layout_version: LAYOUT_VERSION,
            level: Level::FIRST,
            applied_revision: Revision(0),
            log_time_ms: 0,
            oldest_revision: Revision(0),
            next_deadline_ms: u64::MAX,
            last_mark_ms: 0,
            key_count: 0,
            lease_count: 0,
            history_count: 0,
            history_bytes: 0,
            client_count: 0,
            oldest_client_ms: u64::MAX,
            forgotten_revision: Revision(0),
            sweep: None,
        }
    }
}

/// Reads a small row that is a record.
pub(crate) fn decode_record<R: Wire>(table: TableId, row: &[u8]) -> Result<R, Damaged> {
    R::from_bytes(Bytes::copy_from_slice(row)).map_err(|_: DecodeError| Damaged(table))
}

/// A row that this code did not write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Damaged(pub(crate) TableId);

/// Everything of an item but its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ItemMeta {
    pub(crate) version: u64,
    pub(crate) create_revision: Revision,
    pub(crate) mod_revision: Revision,
    pub(crate) expires_at_ms: Option<u64>,
    pub(crate) lease_id: Option<LeaseId>,
}

impl ItemMeta {
    /// Writes an item row into `out`, replacing what it held.
    pub(crate) fn encode_row(&self, value: &[u8], out: &mut Vec<u8>) {
        out.clear();
        put_varint(self.version, out);
        put_varint(self.create_revision.0, out);
        put_varint(self.mod_revision.0, out);
        out.push(u8::from(self.expires_at_ms.is_some()) | u8::from(self.lease_id.is_some()) << 1);
        if let Some(deadline_ms) = self.expires_at_ms {
            put_varint(deadline_ms, out);
        }
        if let Some(lease) = self.lease_id {
            put_varint(lease.0, out);
        }
        out.extend_from_slice(value);
    }

    /// Splits an item row; the rest is the value.
    pub(crate) fn split(mut row: &[u8], table: TableId) -> Result<(Self, &[u8]), Damaged> {
        let row = &mut row;
        let damaged = Damaged(table);
        let mut number = || take_varint(row).ok_or(damaged);
        let version = number()?;
        let create_revision = Revision(number()?);
        let mod_revision = Revision(number()?);
        let (flags, rest) = row.split_first().ok_or(damaged)?;
        *row = rest;
        if flags & !3 != 0 {
            return Err(damaged);
        }
        let mut number = || take_varint(row).ok_or(damaged);
        let expires_at_ms = (flags & 1 != 0).then(&mut number).transpose()?;
        let lease_id = (flags & 2 != 0).then(&mut number).transpose()?.map(LeaseId);
        Ok((Self { version, create_revision, mod_revision, expires_at_ms, lease_id }, row))
    }

    /// The item with its value.
    pub(crate) fn with_value(self, value: &[u8]) -> Item {
        Item {
            value: Bytes::copy_from_slice(value),
            version: self.version,
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
            expires_at_ms: self.expires_at_ms,
            lease_id: self.lease_id,
        }
    }
}

/// Reads a LEB128 integer of at most 64 bits from the front of `row`.
pub(crate) fn take_varint(row: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = row.split_first()?;
        *row = rest;
        let low = u64::from(byte & 0x7f);
        if shift == 63 && low > 1 {
            return None;
        }
        value |= low << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// The first eight bytes as a big-endian number, and the rest.
pub(crate) fn split_be(row: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = row.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*number), rest))
}

// ---- History ----------------------------------------------------------------------------------

const KEY_END: [u8; 2] = [0, 1];
const ESCAPED_ZERO: [u8; 2] = [0, 0xff];

/// Appends `key` so that it orders the same and [`KEY_END`] cannot occur in it.
pub(crate) fn escape(key: &[u8], out: &mut Vec<u8>) {
    let mut rest = key;
    while let Some(at) = rest.iter().position(|b| *b == 0) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(&ESCAPED_ZERO);
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

/// The history row of the version of `key` that ended at `ended`.
pub(crate) fn history_key(key: &[u8], ended: Revision, out: &mut Vec<u8>) {
    out.clear();
    escape(key, out);
    out.extend_from_slice(&KEY_END);
    out.extend_from_slice(&ended.0.to_be_bytes());
}

/// Above all history rows of `key`, below those of the next key.
pub(crate) fn history_end(key: &[u8], out: &mut Vec<u8>) {
    out.clear();
    escape(key, out);
    out.extend_from_slice(&[KEY_END[0], KEY_END[1] + 1]);
}

/// The revision at the end of a history row's key, and the escaped key.
pub(crate) fn split_history_key(row_key: &[u8]) -> Result<(&[u8], Revision), Damaged> {
    let damaged = Damaged(TableId::History);
    let (rest, ended) = row_key.split_last_chunk::<8>().ok_or(damaged)?;
    let escaped = rest.strip_suffix(&KEY_END).ok_or(damaged)?;
    Ok((escaped, Revision(u64::from_be_bytes(*ended))))
}

/// Undoes [`escape`] into `out`, replacing what it held.
pub(crate) fn unescape(escaped: &[u8], out: &mut Vec<u8>) -> Result<(), Damaged> {
    out.clear();
    let mut rest = escaped;
    while let Some(at) = rest.iter().position(|b| *b == 0) {
        out.extend_from_slice(&rest[..=at]);
        rest = rest[at..].strip_prefix(&ESCAPED_ZERO).ok_or(Damaged(TableId::History))?;
    }
    out.extend_from_slice(rest);
    Ok(())
}

/// The smallest byte string above all that start with `prefix`, if there is one.
pub(crate) fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|b| *b != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

// ---- Expiry -----------------------------------------------------------------------------------

/// What a row of the expiry queue is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Key(Vec<u8>),
    Lease(LeaseId),
}

const DUE_KEY: u8 = 0;
const DUE_LEASE: u8 = 1;

/// The queue row of a key with a deadline.
pub(crate) fn expiry_key(deadline_ms: u64, key: &[u8], out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&deadline_ms.to_be_bytes());
    out.push(DUE_KEY);
    out.extend_from_slice(key);
}

/// The queue row of a lease.
pub(crate) fn expiry_lease(deadline_ms: u64, lease: LeaseId) -> [u8; 17] {
    let mut out = [0; 17];
    out[..8].copy_from_slice(&deadline_ms.to_be_bytes());
    out[8] = DUE_LEASE;
    out[9..].copy_from_slice(&lease.0.to_be_bytes());
    out
}

/// Reads a queue row.
pub(crate) fn split_expiry(row_key: &[u8]) -> Result<(u64, Due), Damaged> {
    let damaged = Damaged(TableId::Expiry);
    let (deadline_ms, rest) = split_be(row_key).ok_or(damaged)?;
    match rest.split_first().ok_or(damaged)? {
        (&DUE_KEY, key) => Ok((deadline_ms, Due::Key(key.to_vec()))),
        (&DUE_LEASE, lease) => match split_be(lease).ok_or(damaged)? {
            (lease, []) => Ok((deadline_ms, Due::Lease(LeaseId(lease)))),
            _ => Err(damaged),
        },
        _ => Err(damaged),
    }
}

// ---- leases and clients -----------------------------------------------------------------------

/// The row of a lease.
pub(crate) fn lease_key(lease: LeaseId) -> [u8; 8] {
    lease.0.to_be_bytes()
}

/// The row that attaches `key` to `lease`.
pub(crate) fn lease_attachment(lease: LeaseId, key: &[u8], out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&lease.0.to_be_bytes());
    out.extend_from_slice(key);
}

/// The row that orders clients by age.
pub(crate) fn client_age(last_ms: u64, client: ClientId) -> [u8; 24] {
    let mut out = [0; 24];
    out[..8].copy_from_slice(&last_ms.to_be_bytes());
    out[8..].copy_from_slice(&client.0);
    out
}

/// Reads a row that [`client_age`] made.
pub(crate) fn split_client_age(row_key: &[u8]) -> Result<(u64, ClientId), Damaged> {
    let damaged = Damaged(TableId::ClientAges);
    let (last_ms, client) = split_be(row_key).ok_or(damaged)?;
    Ok((last_ms, ClientId(client.try_into().map_err(|_| damaged)?)))
}

/// The row that holds the answer to a client's request `counter`.
pub(crate) fn reply_key(client: ClientId, counter: u64) -> [u8; 17] {
    let mut out = [0; 17];
    out[..16].copy_from_slice(&client.0);
    out[16] = (counter % net_types::limits::DEDUP_WINDOW_REQUESTS) as u8;
    out
}

/// A stored key, which was checked when it was written.
pub(crate) fn stored_key(bytes: &[u8], table: TableId) -> Result<Key, Damaged> {
    Key::new(Bytes::copy_from_slice(bytes)).map_err(|_| Damaged(table))
}

const _: () = assert!(net_types::limits::DEDUP_WINDOW_REQUESTS <= 256);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rows_are_pinned() {
        let meta = ItemMeta {
            version: 1,
            create_revision: Revision(300),
            mod_revision: Revision(301),
            expires_at_ms: Some(5),
            lease_id: Some(LeaseId(6)),
        };
        let mut row = Vec::new();
        meta.encode_row(b"v", &mut row);
        assert_eq!(row, [1, 0xac, 2, 0xad, 2, 3, 5, 6, b'v']);
        history_key(b"a\0b", Revision(0x0102), &mut row);
        assert_eq!(row, [b'a', 0, 0xff, b'b', 0, 1, 0, 0, 0, 0, 0, 0, 1, 2]);
        expiry_key(7, b"k", &mut row);
        assert_eq!(row, [0, 0, 0, 0, 0, 0, 0, 7, 0, b'k']);
        assert_eq!(expiry_lease(7, LeaseId(9))[7..], [7, 1, 0, 0, 0, 0, 0, 0, 0, 9]);
        assert_eq!(client_age(7, ClientId([4; 16]))[6..10], [0, 7, 4, 4]);
        assert_eq!(reply_key(ClientId([4; 16]), 130)[15..], [4, 2]);
        assert_eq!(prefix_end(b"a\xff"), Some(b"b".to_vec()));
        assert_eq!(prefix_end(b""), None);
        let header = Header::default().to_bytes();
        let top = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
        let expected = [&[1, 1, 0, 0, 0][..], &top, &[0; 6], &top, &[0, 0]].concat();
        assert_eq!(header, expected);
    }

    proptest! {
        #[test]
        fn history_rows_order_as_keys_and_then_revisions(
            a in "\\PC{0,4}|[\0\x01a]{1,4}",
            b in "\\PC{0,4}|[\0\x01a]{1,4}",
            revisions in any::<(u64, u64)>(),
        ) {
            let (mut x, mut y) = (Vec::new(), Vec::new());
            history_key(a.as_bytes(), Revision(revisions.0), &mut x);
            history_key(b.as_bytes(), Revision(revisions.1), &mut y);
            let expected = a.as_bytes().cmp(b.as_bytes()).then(revisions.0.cmp(&revisions.1));
            prop_assert_eq!(x.cmp(&y), expected);
            let (escaped, ended) = split_history_key(&x).unwrap();
            let mut back = Vec::new();
            unescape(escaped, &mut back).unwrap();
            prop_assert_eq!((back.as_slice(), ended.0), (a.as_bytes(), revisions.0));
            history_end(a.as_bytes(), &mut back);
            prop_assert!(x < back && (a >= b || back < y));
        }

        #[test]
        fn damaged_rows_never_panic(row in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = ItemMeta::split(&row, TableId::Live);
            let _ = split_history_key(&row);
            let _ = unescape(&row, &mut Vec::new());
            let _ = split_expiry(&row);
            let _ = split_client_age(&row);
            let _ = decode_record::<Header>(TableId::Meta, &row);
            let _ = decode_record::<Lease>(TableId::Leases, &row);
        }
    }
}
