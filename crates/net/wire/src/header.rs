//! The 64-byte header of every Net packet. All of it is associated data of the AEAD.
//!
//! ```text
//!  0 magic "NT"        2 version   3 kind        4 flags         6 subprotocol
//!  8 session id       16 counter  24 stream id  32 sequence
//! 40 origin (low 32)  44 subnet   48 channel    50 event count  52 payload length
//! 54 fragment index   56 fragment count         58 class  59 key epoch  60 reserved, zero
//! ```

use core::ops::RangeInclusive;

use net_types::limits::{HEADER_BYTES, MAX_PAYLOAD_BYTES};
use net_types::{SessionId, StreamId};
use thiserror::Error;

use crate::close::SESSION_CLOSE_BYTES;
use crate::heartbeat::HEARTBEAT_BYTES;
use crate::hello::{
    HELLO_BYTES, HELLO_RESPONSE_MAX_BYTES, INIT_NOISE_BYTES, RESPONSE_NOISE_OVERHEAD_BYTES,
};
use crate::path::PATH_CHALLENGE_BYTES;
use crate::{Class, DecodeError, Flags, Kind, MAGIC, Subprotocol, WIRE_VERSION};

/// Where the payload's length stands.
pub(crate) const PAYLOAD_LEN_AT: usize = 52;

/// Why a packet is not one of ours. Never answered, only counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HeaderError {
    /// It is not a Net packet at all.
    #[error("not a Net packet")]
    Foreign,
    /// It is one, but malformed.
    #[error(transparent)]
    Malformed(#[from] DecodeError),
}

/// A packet's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the packet is.
    pub kind: Kind,
    /// Flags.
    pub flags: Flags,
    /// Who handles the payload.
    pub subprotocol: Subprotocol,
    /// The session, or the handshake's id before there is one.
    pub session_id: SessionId,
    /// AEAD counter, shared by all streams and paths of one direction.
    pub counter: u64,
    /// The stream.
    pub stream_id: StreamId,
    /// Position in the stream, in packets from 0.
    pub sequence: u64,
    /// Low half of the origin hash; a filter before decryption, never an identity.
    pub origin_low: u32,
    /// The sender's subnet path.
    pub subnet: u32,
    /// Low bits of the channel hash, 0 for none; a hint.
    pub channel: u16,
    /// Events in the payload.
    pub event_count: u16,
    /// Plaintext bytes after the header.
    pub payload_len: u16,
    /// Position in a fragmented message.
    pub frag_index: u16,
    /// Packets of a fragmented message; 0 and 1 mean that the message is whole.
    pub frag_count: u16,
    /// Scheduling class.
    pub class: Class,
    /// Which key of the ratchet sealed the packet, modulo 256.
    pub key_epoch: u8,
}

impl Header {
    /// A header with everything but kind, session and counter at zero.
    pub fn new(kind: Kind, session_id: SessionId, counter: u64) -> Self {
        Self {
            kind,
            flags: Flags::default(),
            subprotocol: Subprotocol::EVENTS,
            session_id,
            counter,
            stream_id: StreamId(0),
            sequence: 0,
            origin_low: 0,
            subnet: 0,
            channel: 0,
            event_count: 0,
            payload_len: 0,
            frag_index: 0,
            frag_count: 0,
            class: Class::Foreground,
            key_epoch: 0,
        }
    }

    /// The header's bytes.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0u8; HEADER_BYTES];
        out[0..2].copy_from_slice(&MAGIC);
        out[2] = WIRE_VERSION;
        out[3] = self.kind as u8;
        out[4..6].copy_from_slice(&self.flags.0.to_le_bytes());
        out[6..8].copy_from_slice(&self.subprotocol.0.to_le_bytes());
        out[8..16].copy_from_slice(&self.session_id.0.to_le_bytes());
        out[16..24].copy_from_slice(&self.counter.to_le_bytes());
        out[24..32].copy_from_slice(&self.stream_id.0.to_le_bytes());
        out[32..40].copy_from_slice(&self.sequence.to_le_bytes());
        out[40..44].copy_from_slice(&self.origin_low.to_le_bytes());
        out[44..48].copy_from_slice(&self.subnet.to_le_bytes());
        out[48..50].copy_from_slice(&self.channel.to_le_bytes());
        out[50..52].copy_from_slice(&self.event_count.to_le_bytes());
        out[PAYLOAD_LEN_AT..PAYLOAD_LEN_AT + 2].copy_from_slice(&self.payload_len.to_le_bytes());
        out[54..56].copy_from_slice(&self.frag_index.to_le_bytes());
        out[56..58].copy_from_slice(&self.frag_count.to_le_bytes());
        out[58] = self.class as u8;
        out[59] = self.key_epoch;
        out
    }

    /// Reads the header at the start of a packet; what follows it is not looked at.
    pub fn decode(packet: &[u8]) -> Result<Self, HeaderError> {
        let Some(b) = packet.first_chunk::<HEADER_BYTES>() else {
            if packet.len() >= 2 && packet[..2] != MAGIC {
                return Err(HeaderError::Foreign);
            }
            let have = packet.len();
            return Err(DecodeError::Truncated { need: HEADER_BYTES, have }.into());
        };
        if b[0..2] != MAGIC {
            return Err(HeaderError::Foreign);
        }
        if b[2] != WIRE_VERSION {
            return Err(DecodeError::UnknownVersion(b[2]).into());
        }
        let u16_at = |at: usize| u16::from_le_bytes([b[at], b[at + 1]]);
        let u32_at = |at: usize| u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | (u64::from(u32_at(at + 4)) << 32);
        let header = Self {
            kind: Kind::from_wire(b[3])?,
            flags: Flags::from_wire(u16_at(4))?,
            subprotocol: Subprotocol(u16_at(6)),
            session_id: SessionId(u64_at(8)),
            counter: u64_at(16),
            stream_id: StreamId(u64_at(24)),
            sequence: u64_at(32),
            origin_low: u32_at(40),
            subnet: u32_at(44),
            channel: u16_at(48),
            event_count: u16_at(50),
            payload_len: u16_at(PAYLOAD_LEN_AT),
            frag_index: u16_at(54),
            frag_count: u16_at(56),
            class: Class::from_wire(b[58])?,
            key_epoch: b[59],
        };
        if u32_at(60) != 0 {
            return Err(DecodeError::BadValue("reserved bytes").into());
        }
        header.check()?;
        Ok(header)
    }

    fn check(&self) -> Result<(), DecodeError> {
        let payload = usize::from(self.payload_len);
        if payload > MAX_PAYLOAD_BYTES {
            return Err(DecodeError::BadLength {
                what: "payload",
                found: payload,
                limit: MAX_PAYLOAD_BYTES,
            });
        }
        if !exact_payload(self.kind).contains(&payload) {
            return Err(DecodeError::BadLength {
                what: "payload of this kind",
                found: payload,
                limit: *exact_payload(self.kind).end(),
            });
        }
        let is_fragment = self.flags.contains(Flags::FRAGMENT);
        let is_in_range = self.frag_count > 1 && self.frag_index < self.frag_count;
        if is_fragment != is_in_range || (!is_fragment && self.frag_index != 0) {
            return Err(DecodeError::BadValue("fragment index"));
        }
        if is_fragment && u64::from(self.frag_index) > self.sequence {
            return Err(DecodeError::BadValue("fragment sequence"));
        }
        Ok(())
    }
}

/// Payload lengths that a packet of this kind can have, so that no other costs a hash or a cipher.
fn exact_payload(kind: Kind) -> RangeInclusive<usize> {
    match kind {
        Kind::Data | Kind::MtuProbe => 0..=MAX_PAYLOAD_BYTES,
        Kind::Heartbeat => HEARTBEAT_BYTES..=HEARTBEAT_BYTES,
        Kind::PathChallenge | Kind::PathResponse => PATH_CHALLENGE_BYTES..=PATH_CHALLENGE_BYTES,
        Kind::SessionClose => SESSION_CLOSE_BYTES..=SESSION_CLOSE_BYTES,
        Kind::HandshakeInit => INIT_NOISE_BYTES..=INIT_NOISE_BYTES,
        Kind::HandshakeResponse => {
            let hello = HELLO_BYTES + 1..=HELLO_RESPONSE_MAX_BYTES;
            RESPONSE_NOISE_OVERHEAD_BYTES + hello.start()
                ..=RESPONSE_NOISE_OVERHEAD_BYTES + hello.end()
        }
        // The sealed cookie is no payload.
        Kind::CookieReply => 0..=0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::golden::hex;

    fn sample() -> Header {
        Header {
            kind: Kind::Data,
            flags: Flags::RELIABLE | Flags::FRAGMENT,
            subprotocol: Subprotocol::RPC,
            session_id: SessionId(0x1122_3344_5566_7788),
            counter: 9,
            stream_id: StreamId(3),
            sequence: 5,
            origin_low: 0xAABB_CCDD,
            subnet: 1,
            channel: 0x0102,
            event_count: 1,
            payload_len: 1000,
            frag_index: 2,
            frag_count: 4,
            class: Class::Realtime,
            key_epoch: 7,
        }
    }

    #[test]
    fn layout_is_pinned() {
        assert_eq!(
            hex(&sample().encode()),
            "4e5401042100000a8877665544332211090000000000000003000000000000000500000000000000\
             ddccbbaa0100000002010100e80302000400020700000000"
        );
    }

    #[test]
    fn decode_reads_what_encode_wrote() {
        assert_eq!(Header::decode(&sample().encode()), Ok(sample()));
    }

    #[test]
    fn kinds_of_fixed_length_have_that_length() {
        let with = |kind, payload_len| {
            let header = Header { payload_len, ..Header::new(kind, SessionId(1), 0) };
            Header::decode(&header.encode()).is_ok()
        };
        for (kind, good) in [
            (Kind::HandshakeInit, &[147][..]),
            (Kind::HandshakeResponse, &[100, 107, 118]),
            (Kind::CookieReply, &[0]),
            (Kind::Heartbeat, &[24]),
            (Kind::PathChallenge, &[8]),
            (Kind::PathResponse, &[8]),
            (Kind::SessionClose, &[2]),
        ] {
            assert!(good.iter().all(|len| with(kind, *len)), "{kind:?}");
            let (low, high) = (good[0], good[good.len() - 1]);
            assert!(!with(kind, high + 1) && (low == 0 || !with(kind, low - 1)), "{kind:?}");
        }
    }

    #[test]
    fn foreign_short_and_inconsistent_packets_are_told_apart() {
        assert_eq!(Header::decode(b"GET / HTTP/1.1"), Err(HeaderError::Foreign));
        assert_eq!(
            Header::decode(b"NT"),
            Err(HeaderError::Malformed(DecodeError::Truncated { need: 64, have: 2 }))
        );
        let beyond = Header { frag_index: 4, ..sample() };
        let orphan = Header { flags: Flags::RELIABLE, ..sample() };
        let before_start = Header { sequence: 1, ..sample() };
        for bad in [beyond, orphan, before_start] {
            assert!(matches!(Header::decode(&bad.encode()), Err(HeaderError::Malformed(_))));
        }
        let mut reserved = sample().encode();
        reserved[63] = 1;
        assert!(Header::decode(&reserved).is_err());
    }
}
