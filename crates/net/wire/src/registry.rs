//! The numbers of the wire: packet kinds, classes, flags and subprotocols.
//!
//! Invariants: a number is never reused and never depends on build features; an unknown kind, class
//! or flag is refused; the first bytes tell a Net packet from a routing header.

use core::ops::{BitOr, BitOrAssign};

use crate::DecodeError;

/// First two bytes of every Net packet: "NT".
pub const MAGIC: [u8; 2] = *b"NT";
/// First byte of a routing header: "R". No Net packet starts with it.
pub const ROUTING_TAG: u8 = b'R';
/// Version of the header layout.
pub const WIRE_VERSION: u8 = 1;

macro_rules! numbered {
    ($(#[$doc:meta])* $name:ident($repr:ty), $what:literal { $($(#[$vdoc:meta])* $variant:ident = $n:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr($repr)]
        pub enum $name {
            $($(#[$vdoc])* $variant = $n,)+
        }

        impl $name {
            /// The value with this number.
            pub fn from_wire(value: $repr) -> Result<Self, DecodeError> {
                match value {
                    $($n => Ok(Self::$variant),)+
                    _ => Err(DecodeError::UnknownTag { what: $what, value: value.into() }),
                }
            }
        }
    };
}
pub(crate) use numbered;

numbered! {
    /// What a packet is.
    Kind(u8), "packet kind" {
        /// First message of a handshake.
        HandshakeInit = 1,
        /// Second message of a handshake.
        HandshakeResponse = 2,
        /// Demand for proof of the source address.
        CookieReply = 3,
        /// Stream data and session messages.
        Data = 4,
        /// Liveness, round-trip time and confirmation of a handshake.
        Heartbeat = 5,
        /// Padded packet that finds out whether a size passes, and its answer.
        MtuProbe = 6,
        /// Proof of an address: the question.
        PathChallenge = 7,
        /// Proof of an address: the answer.
        PathResponse = 8,
        /// Last packet of a session.
        SessionClose = 9,
    }
}

numbered! {
    /// Scheduling class; a lower one waits for a higher one.
    Class(u8), "class" {
        /// Requests whose sender waits for the answer.
        Foreground = 0,
        /// Bulk that may wait.
        Background = 1,
        /// Consensus and other traffic with deadlines.
        Realtime = 2,
    }
}

impl Class {
    /// All classes, most urgent first.
    pub const BY_URGENCY: [Self; 3] = [Self::Realtime, Self::Foreground, Self::Background];
}

/// Packet flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Flags(pub u16);

impl Flags {
    /// The packet's stream retransmits.
    pub const RELIABLE: Self = Self(1);
    /// Reserved for channels whose events overtake.
    pub const PRIORITY: Self = Self(2);
    /// The payload is a session message, not stream data.
    pub const CONTROL: Self = Self(4);
    /// Last packet of its stream.
    pub const FIN: Self = Self(8);
    /// The payload starts with an acknowledgement block.
    pub const ACKS: Self = Self(16);
    /// The payload is part of a longer message.
    pub const FRAGMENT: Self = Self(32);
    /// The payload carries the stream's parameters.
    pub const OPEN: Self = Self(64);
    const KNOWN: u16 = 127;

    /// Flags from the wire; unknown bits are an error.
    pub fn from_wire(bits: u16) -> Result<Self, DecodeError> {
        if bits & !Self::KNOWN != 0 {
            return Err(DecodeError::UnknownTag { what: "flags", value: bits.into() });
        }
        Ok(Self(bits))
    }

    /// Whether all bits of `other` are set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for Flags {
    type Output = Self;

    fn bitor(self, rhs: Self) -> Self {
        Self(self.0 | rhs.0)
    }
}

impl BitOrAssign for Flags {
    fn bitor_assign(&mut self, rhs: Self) {
        self.0 |= rhs.0;
    }
}

/// Which protocol a payload belongs to. Ids below 0x8000 belong to the mesh, the rest to applications.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Subprotocol(pub u16);

impl Subprotocol {
    /// Events of buses and channels, and streams without a protocol of their own.
    pub const EVENTS: Self = Self(0x0000);
    /// Session control.
    pub const SESSION: Self = Self(0x0100);
    /// Acknowledgements and grants that found no data to ride on.
    pub const STREAM_WINDOW: Self = Self(0x0200);
    /// Gaps in a reliable stream.
    pub const STREAM_NACK: Self = Self(0x0201);
    /// End of a stream by force.
    pub const STREAM_RESET: Self = Self(0x0202);
    /// Part of a packet that was built for a larger path.
    pub const STREAM_PIECE: Self = Self(0x0203);
    /// Remote calls.
    pub const RPC: Self = Self(0x0A00);
    /// First id of applications.
    pub const FIRST_APPLICATION: Self = Self(0x8000);
}
