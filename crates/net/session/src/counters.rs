//! What happened, counted: one set per node, which every session of it shares.
//!
//! Invariants: counts only grow; a reason keeps its label, since dashboards read it.

use net_wire::ResetReason;

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)+) => {
        /// Why a received packet or frame was not used.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum DropReason {
            $($(#[$doc])* $variant,)+
        }

        impl DropReason {
            /// All reasons, in the order of their counters.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The reason as a metric label.
            pub fn label(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }
    };
}

drop_reasons! {
    /// Not a Net packet.
    Foreign = "foreign",
    /// A header or frame is malformed.
    Malformed = "malformed",
    /// No session has the packet's id.
    UnknownSession = "unknown_session",
    /// The header names another origin than the session's peer.
    Origin = "origin",
    /// The tag does not verify.
    Authentication = "authentication",
    /// The counter was used before or is too old.
    Replay = "replay",
    /// The counter jumped too far ahead.
    CounterJump = "counter_jump",
    /// A handshake packet's first authenticator is wrong: a stranger, or another secret.
    HandshakeMac = "handshake_mac",
    /// A handshake message does not decrypt or names another key.
    HandshakeNoise = "handshake_noise",
    /// An Init was seen before.
    HandshakeReplay = "handshake_replay",
    /// An Init came above the pace and was answered with a cookie.
    HandshakePaced = "handshake_paced",
    /// The peer policy refuses the identity.
    HandshakeRefused = "handshake_refused",
    /// A table of sessions or handshakes is full.
    HandshakeOverload = "handshake_overload",
    /// A relayed packet is not for this node.
    NotForUs = "not_for_us",
    /// Nothing handles the subprotocol.
    UnknownSubprotocol = "unknown_subprotocol",
    /// A stream packet arrived twice.
    DuplicatePacket = "duplicate_packet",
    /// A stream packet is too far ahead or above the window.
    BeyondWindow = "beyond_window",
    /// The session's queue to the application is full.
    QueueFull = "queue_full",
    /// A partly received message was given up.
    Reassembly = "reassembly",
    /// An unreliable packet was declared lost.
    DeclaredLost = "declared_lost",
    /// A control frame did not fit its queue.
    ControlQueue = "control_queue",
}

/// Counters of one node's sessions.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Packets received and authenticated.
    pub packets_in: u64,
    /// Packets built.
    pub packets_out: u64,
    /// Bytes of those received.
    pub bytes_in: u64,
    /// Bytes of those built.
    pub bytes_out: u64,
    /// Packets sent again because the peer named them missing.
    pub retransmits_nack: u64,
    /// Packets sent again after a timeout.
    pub retransmits_timeout: u64,
    /// Streams reset by either side, by [`ResetReason`].
    stream_resets: [u64; ResetReason::ALL.len()],
    /// Packets that carried nothing but acknowledgements.
    pub ack_packets: u64,
    /// Handshakes completed.
    pub handshakes_ok: u64,
    /// Handshakes that timed out or were refused.
    pub handshakes_failed: u64,
    /// Path changes validated.
    pub path_changes: u64,
    drops: [u64; DropReason::ALL.len()],
}

impl Counters {
    pub(crate) fn stream_reset(&mut self, reason: ResetReason) {
        self.stream_resets[reason as usize] += 1;
    }

    /// Streams that either side reset for `reason`.
    pub fn stream_resets(&self, reason: ResetReason) -> u64 {
        self.stream_resets[reason as usize]
    }

    /// Counts one drop.
    pub fn dropped(&mut self, reason: DropReason) {
        self.dropped_many(reason, 1);
    }

    /// Counts several drops at once.
    pub fn dropped_many(&mut self, reason: DropReason, count: u64) {
        let counter = &mut self.drops[reason as usize];
        *counter = counter.saturating_add(count);
    }

    /// Drops for `reason` so far.
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize]
    }
}
