//! Identifiers. Each is a newtype so that a node id cannot be passed where a session id is meant.
//!
//! Invariants: an identifier is a name and proves nothing; its text form is lower-case hexadecimal
//! of full length, and parsing refuses any other length.

use core::fmt;
use core::str::FromStr;

/// Text that should have been hexadecimal is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HexError {
    /// The text has another length than the identifier's, in characters.
    Length {
        /// Characters the identifier has.
        expected: usize,
        /// Characters the text has.
        found: usize,
    },
    /// A character is not `0-9a-fA-F`.
    Digit {
        /// Byte offset of the character.
        at: usize,
    },
}

impl fmt::Display for HexError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { expected, found } => {
                write!(f, "expected {expected} hexadecimal characters, found {found}")
            }
            Self::Digit { at } => write!(f, "character {at} is not hexadecimal"),
        }
    }
}

impl core::error::Error for HexError {}

fn parse_hex<const N: usize>(text: &str) -> Result<[u8; N], HexError> {
    let digits = text.as_bytes();
    if digits.len() != N * 2 {
        return Err(HexError::Length { expected: N * 2, found: digits.len() });
    }
    let mut out = [0u8; N];
    for (i, byte) in out.iter_mut().enumerate() {
        let nibble = |at: usize| match digits[at] {
            d @ b'0'..=b'9' => Ok(d - b'0'),
            d @ b'a'..=b'f' => Ok(d - b'a' + 10),
            d @ b'A'..=b'F' => Ok(d - b'A' + 10),
            _ => Err(HexError::Digit { at }),
        };
        *byte = (nibble(2 * i)? << 4) | nibble(2 * i + 1)?;
    }
    Ok(out)
}

fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|b| write!(f, "{b:02x}"))
}

/// The 32-byte Ed25519 public key that names a node, daemon, operator or group.
///
/// Holding one says nothing about the key being a valid point or about who sent it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntityId(pub [u8; 32]);

impl EntityId {
    /// The 64-bit address that routing uses: the first eight bytes, little-endian.
    pub fn node_id(&self) -> NodeId {
        let mut first = [0u8; 8];
        first.copy_from_slice(&self.0[..8]);
        NodeId(u64::from_le_bytes(first))
    }

    /// The key's bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for EntityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for EntityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EntityId(")?;
        write_hex(f, &self.0[..6])?;
        f.write_str("..)")
    }
}

impl FromStr for EntityId {
    type Err = HexError;

    fn from_str(text: &str) -> Result<Self, HexError> {
        parse_hex(text).map(Self)
    }
}

macro_rules! id_u64 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:016x})"), self.0)
            }
        }
    };
}

id_u64! {
    /// A node's 64-bit routing address, [`EntityId::node_id`]. Never an identity on its own.
    NodeId
}
id_u64! {
    /// One direction-less encrypted session between two nodes, derived from its handshake hash.
    SessionId
}
id_u64! {
    /// A stream within a session.
    ///
    /// Bit 63 marks a channel stream; otherwise bit 0 is 1 when the handshake's initiator opened
    /// it. Streams 0 and 1 carry session control.
    StreamId
}
id_u64! {
    /// Correlates a reply with its call; random, and only honoured from the called session.
    CallId
}
id_u64! {
    /// Hash of a channel or service name: first 8 bytes of BLAKE2s-256 over a domain and the name.
    ChannelHash
}
id_u64! {
    /// Address of an entity that does not change when the entity moves between nodes.
    OriginHash
}

impl StreamId {
    const CHANNEL_BIT: u64 = 1 << 63;

    /// Whether the low 63 bits are a channel hash.
    pub fn is_channel(self) -> bool {
        self.0 & Self::CHANNEL_BIT != 0
    }

    /// Whether this side of the session opened the stream.
    pub fn opened_by(self, initiator: bool) -> bool {
        (self.0 & 1 == 1) == initiator
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entity_id_text_round_trips_and_bad_text_is_located() {
        let id = EntityId(core::array::from_fn(|i| i as u8 * 7));
        assert_eq!(id.to_string().parse::<EntityId>(), Ok(id));
        assert_eq!("abc".parse::<EntityId>(), Err(HexError::Length { expected: 64, found: 3 }));
        let bad = format!("{}g0", "00".repeat(31));
        assert_eq!(bad.parse::<EntityId>(), Err(HexError::Digit { at: 62 }));
    }

    #[test]
    fn node_id_is_the_first_eight_bytes_little_endian() {
        let mut key = [9u8; 32];
        key[..8].copy_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0x80]);
        assert_eq!(EntityId(key).node_id(), NodeId(0x8000_0000_0000_0001));
    }
}
