//! The encrypted hello inside the first two packets of a handshake, the cookie reply, and their sizes.
//!
//! Hello: `version u8 = 1, entity id, generation u32, features u64, subnet u32, max datagram u16`,
//! and in a Response `family u8 (0 none, 4, 6)` with the initiator's address as seen. Cookie reply:
//! `nonce 12, sealed cookie 32`.

use core::net::SocketAddr;

use net_types::EntityId;

use crate::address::{decode_addr, encode_addr};
use crate::{DecodeError, Reader};

/// Bytes of one handshake authenticator.
pub const MAC_BYTES: usize = 16;
/// Bytes of both authenticators of an Init.
pub const INIT_MAC_BYTES: usize = 2 * MAC_BYTES;
/// Bytes of an initiator's hello.
pub const HELLO_BYTES: usize = 1 + 32 + 4 + 8 + 4 + 2;
/// Most bytes of a responder's hello.
pub const HELLO_RESPONSE_MAX_BYTES: usize = HELLO_BYTES + 1 + 16 + 2;
/// Bytes of an Init's Noise message: ephemeral key, static key and two tags around the hello.
pub const INIT_NOISE_BYTES: usize = 96 + HELLO_BYTES;
/// Bytes of a Response's Noise message beside the hello: ephemeral key and tag.
pub const RESPONSE_NOISE_OVERHEAD_BYTES: usize = 48;
/// Bytes of a cookie reply after its header.
pub const COOKIE_REPLY_BYTES: usize = 12 + 32;
const VERSION: u8 = 1;

/// What a node can do; both ends' bits decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Features(pub u64);

impl Features {
    /// The CPU has AES instructions; with both ends having them, sessions use AES-256-GCM.
    pub const HARDWARE_AES: Self = Self(1);

    /// Whether all bits of `other` are set. Unknown bits are ignored, so that nodes can grow.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// What each side tells the other inside the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The sender; its Montgomery form must be the Noise static key.
    pub entity_id: EntityId,
    /// The sender's issuer epoch.
    pub generation: u32,
    /// What the sender can do.
    pub features: Features,
    /// The sender's subnet path.
    pub subnet: u32,
    /// Largest datagram the sender takes.
    pub max_datagram_bytes: u16,
    /// In a Response over a direct path: the initiator's address as the responder sees it.
    pub observed: Option<SocketAddr>,
}

impl Hello {
    /// An initiator's hello; `observed` is not sent.
    pub fn encode_init(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HELLO_RESPONSE_MAX_BYTES);
        out.push(VERSION);
        out.extend_from_slice(self.entity_id.as_bytes());
        out.extend_from_slice(&self.generation.to_le_bytes());
        out.extend_from_slice(&self.features.0.to_le_bytes());
        out.extend_from_slice(&self.subnet.to_le_bytes());
        out.extend_from_slice(&self.max_datagram_bytes.to_le_bytes());
        out
    }

    /// A responder's hello.
    pub fn encode_response(&self) -> Vec<u8> {
        let mut out = self.encode_init();
        match self.observed {
            Some(addr) => encode_addr(addr, &mut out),
            None => out.push(0),
        }
        out
    }

    /// Reads an initiator's hello.
    pub fn decode_init(bytes: &[u8]) -> Result<Self, DecodeError> {
        Reader::whole(bytes, Self::read)
    }

    /// Reads a responder's hello.
    pub fn decode_response(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes);
        let hello = Self::read(&mut r)?;
        let observed = match r.u8()? {
            0 => None,
            family => Some(decode_addr(family, &mut r)?),
        };
        r.finish()?;
        Ok(Self { observed, ..hello })
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let version = r.u8()?;
        if version != VERSION {
            return Err(DecodeError::UnknownVersion(version));
        }
        Ok(Self {
            entity_id: EntityId(r.array()?),
            generation: r.u32()?,
            features: Features(r.u64()?),
            subnet: r.u32()?,
            max_datagram_bytes: r.u16()?,
            observed: None,
        })
    }
}

/// A cookie reply after its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CookieReply {
    /// Nonce of the seal.
    pub nonce: [u8; 12],
    /// The cookie, sealed under a key that only the sender of the Init's mac1 can derive.
    pub sealed: [u8; 32],
}

impl CookieReply {
    /// Appends the reply.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.nonce);
        out.extend_from_slice(&self.sealed);
    }

    /// Reads the bytes after the header.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Reader::whole(bytes, |r| Ok(Self { nonce: r.array()?, sealed: r.array()? }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::golden::hex;

    fn hello() -> Hello {
        Hello {
            entity_id: EntityId([5; 32]),
            generation: 1,
            features: Features::HARDWARE_AES,
            subnet: 2,
            max_datagram_bytes: 8210,
            observed: None,
        }
    }

    #[test]
    fn hello_layout_is_pinned() {
        let five = "05".repeat(32);
        let expected = format!("01{five}01000000010000000000000002000000{}", "1220");
        assert_eq!(hex(&hello().encode_init()), expected);
        assert_eq!(hello().encode_init().len(), HELLO_BYTES);
        let seen = Hello { observed: Some("127.0.0.1:80".parse().unwrap()), ..hello() };
        assert_eq!(hex(&seen.encode_response()), format!("{expected}047f0000015000"));
        assert_eq!(Hello::decode_response(&seen.encode_response()), Ok(seen));
        assert_eq!(Hello::decode_init(&hello().encode_init()), Ok(hello()));
        assert_eq!(Hello::decode_response(&hello().encode_response()), Ok(hello()));
        assert!(Hello::decode_init(&seen.encode_response()).is_err());
        assert!(Hello::decode_response(&hello().encode_init()).is_err());
    }
}
