//! Every packet and frame of the mesh. Control messages of sessions have a file each and their numbers in
//! `registry.rs`; the frames of calls, with their numbers, are in [`rpc`].
//!
//! Invariants: integers are little-endian; layouts are fixed, never depend on build features, and
//! are pinned by golden tests. Decoders bound counts before they allocate, require the exact
//! length, reject unknown tags and never panic on any input. Nothing here decrypts or decides; a
//! decoded frame is well-formed, not trustworthy.

mod address;
mod close;
mod codec;
mod event;
mod handshake;
mod header;
mod heartbeat;
mod hello;
mod mtu;
mod nack;
mod open;
mod path;
mod piece;
mod registry;
mod reset;
mod routing;
pub mod rpc;
mod ticket;
mod window;

pub use address::{decode_peer_addr, encode_peer_addr};
pub use close::{CloseReason, SESSION_CLOSE_BYTES, SessionClose};
pub use codec::{Buffer, Cursor, DecodeError, Reader, within};
pub use event::{
    EVENT_META_BYTES, EventIter, EventMeta, EventMetaError, push_event, push_event_with,
};
pub use handshake::{InitPacket, ResponsePacket};
pub use header::{Header, HeaderError};
pub use heartbeat::{HEARTBEAT_BYTES, Heartbeat};
pub use hello::{
    COOKIE_REPLY_BYTES, CookieReply, Features, HELLO_BYTES, HELLO_RESPONSE_MAX_BYTES, Hello,
    INIT_MAC_BYTES, INIT_NOISE_BYTES, MAC_BYTES, RESPONSE_NOISE_OVERHEAD_BYTES,
};
pub use mtu::{MTU_PROBE_BYTES, MtuProbe};
pub use nack::{Gap, Nack};
pub use open::{OPEN_BLOCK_BYTES, StreamMode, StreamOpen};
pub use path::{PATH_CHALLENGE_BYTES, PathChallenge};
pub use piece::{PIECE_PREFIX_BYTES, Piece};
pub use registry::{Class, Flags, Kind, MAGIC, ROUTING_TAG, Subprotocol, WIRE_VERSION};
pub use reset::{ResetReason, StreamReset};
pub use routing::RoutingHeader;
pub use ticket::MeshTicket;
pub use window::{AckBlock, STREAM_WINDOW_BYTES, StreamWindow};

/// Everything the decoders of this crate can be asked to read, for fuzzing: no input may panic.
pub fn decode_anything(bytes: &[u8]) {
    let _ = Header::decode(bytes);
    let _ = RoutingHeader::decode(bytes);
    let _ = AckBlock::decode(&mut Reader::new(bytes));
    let _ = StreamOpen::decode(&mut Reader::new(bytes));
    let _ = EventIter::new(u16::MAX, bytes).count();
    let _ = EventMeta::decode(bytes);
    let _ = Hello::decode_init(bytes);
    let _ = Hello::decode_response(bytes);
    let _ = InitPacket::split(bytes);
    let _ = ResponsePacket::split(bytes);
    let _ = CookieReply::decode(bytes);
    let _ = Heartbeat::decode(bytes);
    let _ = MtuProbe::decode(bytes);
    let _ = Nack::decode(bytes);
    let _ = PathChallenge::decode(bytes);
    let _ = Piece::decode(bytes);
    let _ = StreamReset::decode(bytes);
    let _ = SessionClose::decode(bytes);
    let _ = rpc::Frame::decode(bytes);
    let _ = decode_peer_addr(&mut Reader::new(bytes));
    let _ = MeshTicket::decode(&mut Reader::new(bytes));
}
