//! The 18-byte routing header before the Net header of a relayed packet.
//!
//! `tag "R" u8, ttl u8, destination node u64, source node u64`.
//!
//! Invariants: only relays rewrite it, in place; it is not authenticated and only steers; a ttl is
//! at most [`MAX_HOPS`].

use net_types::NodeId;
use net_types::limits::{MAX_HOPS, ROUTING_HEADER_BYTES};

use crate::{DecodeError, ROUTING_TAG, Reader};

/// Where a relayed packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoutingHeader {
    /// Hops left; hops taken are [`MAX_HOPS`] minus this.
    pub ttl: u8,
    /// The node that the packet is for.
    pub destination: NodeId,
    /// The node that claims to have sent it.
    pub source: NodeId,
}

impl RoutingHeader {
    /// The header's bytes.
    pub fn encode(&self) -> [u8; ROUTING_HEADER_BYTES] {
        let mut out = [0u8; ROUTING_HEADER_BYTES];
        out[0] = ROUTING_TAG;
        out[1] = self.ttl;
        out[2..10].copy_from_slice(&self.destination.0.to_le_bytes());
        out[10..18].copy_from_slice(&self.source.0.to_le_bytes());
        out
    }

    /// Reads the header at the start of a datagram; what follows it is not looked at.
    pub fn decode(datagram: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(datagram);
        let tag = r.u8()?;
        if tag != ROUTING_TAG {
            return Err(DecodeError::UnknownTag { what: "routing tag", value: tag.into() });
        }
        let ttl = r.u8()?;
        let ttl = r.bounded("ttl", ttl.into(), MAX_HOPS.into())? as u8;
        Ok(Self { ttl, destination: NodeId(r.u64()?), source: NodeId(r.u64()?) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::golden::hex;

    #[test]
    fn layout_is_pinned_and_excess_hops_are_refused() {
        let header = RoutingHeader { ttl: 16, destination: NodeId(1), source: NodeId(2) };
        assert_eq!(hex(&header.encode()), "521001000000000000000200000000000000");
        assert_eq!(RoutingHeader::decode(&header.encode()), Ok(header));
        let far = RoutingHeader { ttl: 17, ..header };
        assert!(matches!(
            RoutingHeader::decode(&far.encode()),
            Err(DecodeError::BadLength { what: "ttl", .. })
        ));
    }
}
