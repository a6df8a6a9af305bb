//! Events inside a payload, and the 24-byte meta that leads causal and RPC events.
//!
//! Event: `length u32, bytes`. Meta: `dispatch u8, flags u8, reserved u16, origin hash u64,
//! sequence or timestamp u64, checksum u32`; the checksum is the low half of xxh3-64 over the meta
//! with a zero checksum and the bytes that follow it.
//!
//! Invariants: a payload is its events and nothing else, none longer than [`MAX_EVENT_BYTES`]; the
//! checksum notices faults of programs, while forgeries are the tag's matter; `u64::MAX` is no
//! sequence.

use net_types::OriginHash;
use net_types::limits::MAX_EVENT_BYTES;
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

use crate::{DecodeError, Reader};

/// Appends one event.
pub fn push_event(out: &mut Vec<u8>, event: &[u8]) {
    out.extend_from_slice(&(event.len() as u32).to_le_bytes());
    out.extend_from_slice(event);
}

/// Appends one event that `write` produces in place.
pub fn push_event_with(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    write(out);
    let len = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&len.to_le_bytes());
}

/// The events of a payload. Ends at the first malformed one, which it yields as an error; bytes
/// after the last event are an error too.
#[derive(Debug, Clone)]
pub struct EventIter<'a> {
    reader: Reader<'a>,
    left: u16,
    is_done: bool,
}

impl<'a> EventIter<'a> {
    /// Iterates over `count` events.
    pub fn new(count: u16, bytes: &'a [u8]) -> Self {
        Self { reader: Reader::new(bytes), left: count, is_done: false }
    }

    fn read(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.reader.u32()? as usize;
        let len = self.reader.bounded("event", len, MAX_EVENT_BYTES)?;
        self.reader.take(len)
    }
}

impl<'a> Iterator for EventIter<'a> {
    type Item = Result<&'a [u8], DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_done {
            return None;
        }
        if self.left == 0 {
            self.is_done = true;
            return self.reader.clone().finish().err().map(Err);
        }
        self.left -= 1;
        let event = self.read();
        self.is_done = event.is_err();
        Some(event)
    }
}

/// Bytes of the meta.
pub const EVENT_META_BYTES: usize = 24;

/// The meta before causal and RPC events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventMeta {
    /// What the event is; 0x10..=0x1F are RPC frames.
    pub dispatch: u8,
    /// Flags of the dispatch.
    pub flags: u8,
    /// The entity that sent it.
    pub origin: OriginHash,
    /// Sequence, timestamp or call id; never `u64::MAX`.
    pub seq_or_ts: u64,
}

/// Why an event has no usable meta.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum EventMetaError {
    /// The meta is malformed.
    #[error(transparent)]
    Malformed(#[from] DecodeError),
    /// Meta and tail do not match the checksum.
    #[error("checksum mismatch")]
    Checksum,
}

impl EventMeta {
    /// Appends the meta and the tail that `write` produces, and fills in the checksum.
    pub fn encode_with(&self, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
        let start = out.len();
        let mut meta = [0u8; EVENT_META_BYTES];
        meta[0] = self.dispatch;
        meta[1] = self.flags;
        meta[4..12].copy_from_slice(&self.origin.0.to_le_bytes());
        meta[12..20].copy_from_slice(&self.seq_or_ts.to_le_bytes());
        out.extend_from_slice(&meta);
        write(out);
        let checksum = xxh3_64(&out[start..]) as u32;
        out[start + 20..start + 24].copy_from_slice(&checksum.to_le_bytes());
    }

    /// Reads meta and tail of an event and verifies the checksum.
    pub fn decode(event: &[u8]) -> Result<(Self, &[u8]), EventMetaError> {
        let mut r = Reader::new(event);
        // Read at once: this is done for every call, twice at each end.
        let fixed: [u8; EVENT_META_BYTES] = r.array()?;
        let u64_at = |at: usize| {
            let mut word = [0u8; 8];
            word.copy_from_slice(&fixed[at..at + 8]);
            u64::from_le_bytes(word)
        };
        if fixed[2..4] != [0, 0] {
            return Err(DecodeError::BadValue("reserved bytes").into());
        }
        let (origin, seq_or_ts) = (OriginHash(u64_at(4)), u64_at(12));
        let meta = Self { dispatch: fixed[0], flags: fixed[1], origin, seq_or_ts };
        if meta.seq_or_ts == u64::MAX {
            return Err(DecodeError::BadValue("sequence").into());
        }
        if fixed[20..] != checksum_of(event).to_le_bytes() {
            return Err(EventMetaError::Checksum);
        }
        Ok((meta, r.rest()))
    }
}

/// The checksum of an event whose stored checksum is taken as zero.
fn checksum_of(event: &[u8]) -> u32 {
    // Short events, the common case, are copied once to zero the field; long ones are streamed.
    match event.len() {
        0..=160 => checksum_of_copy::<160>(event),
        161..=512 => checksum_of_copy::<512>(event),
        _ => {
            let mut hasher = xxhash_rust::xxh3::Xxh3::new();
            hasher.update(&event[..20]);
            hasher.update(&[0; 4]);
            hasher.update(&event[24..]);
            hasher.digest() as u32
        }
    }
}

fn checksum_of_copy<const N: usize>(event: &[u8]) -> u32 {
    let mut copy = [0u8; N];
    let copy = &mut copy[..event.len()];
    copy.copy_from_slice(event);
    copy[20..24].fill(0);
    xxh3_64(copy) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::golden::hex;

    #[test]
    fn meta_layout_is_pinned_and_damage_is_noticed() {
        let meta = EventMeta { dispatch: 0x14, flags: 1, origin: OriginHash(2), seq_or_ts: 3 };
        let mut out = Vec::new();
        meta.encode_with(&mut out, |o| o.extend_from_slice(b"tail"));
        assert_eq!(hex(&out), "1401000002000000000000000300000000000000a33bc0b17461696c");
        assert_eq!(EventMeta::decode(&out), Ok((meta, &b"tail"[..])));
        for at in 0..out.len() {
            let mut bad = out.clone();
            bad[at] ^= 0x20;
            assert!(EventMeta::decode(&bad).is_err(), "byte {at}");
        }
    }

    #[test]
    fn long_and_short_events_use_the_same_checksum() {
        for len in [0, 135, 136, 137, 487, 488, 489, 5_000] {
            let meta = EventMeta { dispatch: 1, flags: 0, origin: OriginHash(9), seq_or_ts: 1 };
            let mut out = Vec::new();
            meta.encode_with(&mut out, |o| o.resize(o.len() + len, 0xA5));
            assert!(EventMeta::decode(&out).is_ok(), "{len}");
        }
    }

    #[test]
    fn events_end_exactly_at_the_payload() {
        let mut out = Vec::new();
        push_event(&mut out, b"one");
        push_event_with(&mut out, |o| o.extend_from_slice(b"second"));
        let events: Result<Vec<_>, _> = EventIter::new(2, &out).collect();
        assert_eq!(events, Ok(vec![&b"one"[..], b"second"]));
        assert!(EventIter::new(1, &out).any(|e| e.is_err()));
        assert!(EventIter::new(3, &out).any(|e| e.is_err()));
    }
}
