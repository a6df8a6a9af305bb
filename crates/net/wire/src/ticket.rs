//! The members of a mesh, as a part of tickets: `version u8 = 1, label (u8 length, UTF-8), count
//! u8 1..=16, peers`.
//!
//! Invariants: it holds no secret; one that is read names 1 to [`MAX_TICKET_PEERS`] peers.

use net_types::PeerAddr;
use net_types::limits::{MAX_TICKET_LABEL_BYTES, MAX_TICKET_PEERS};

use crate::{DecodeError, Reader, decode_peer_addr, encode_peer_addr};

const VERSION: u8 = 1;

/// Where a mesh can be reached: all known members, so that a client can rotate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshTicket {
    /// A name for people.
    pub label: String,
    /// The members, 1..=16.
    pub peers: Vec<PeerAddr>,
}

impl MeshTicket {
    /// Appends version, label and peers.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut end = self.label.len().min(MAX_TICKET_LABEL_BYTES);
        while !self.label.is_char_boundary(end) {
            end -= 1;
        }
        out.push(VERSION);
        out.push(end as u8);
        out.extend_from_slice(&self.label.as_bytes()[..end]);
        let peers = &self.peers[..self.peers.len().min(MAX_TICKET_PEERS)];
        out.push(peers.len() as u8);
        peers.iter().for_each(|p| encode_peer_addr(p, out));
    }

    /// Reads what [`MeshTicket::encode`] wrote.
    pub fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let version = r.u8()?;
        if version != VERSION {
            return Err(DecodeError::UnknownVersion(version));
        }
        let len = usize::from(r.u8()?);
        let len = r.bounded("label", len, MAX_TICKET_LABEL_BYTES)?;
        let label =
            core::str::from_utf8(r.take(len)?).map_err(|_| DecodeError::BadValue("label"))?;
        let label = label.to_owned();
        let count = usize::from(r.u8()?);
        if count == 0 {
            return Err(DecodeError::BadValue("ticket without peers"));
        }
        let count = r.bounded("peers", count, MAX_TICKET_PEERS)?;
        let peers = (0..count).map(|_| decode_peer_addr(r)).collect::<Result<_, _>>()?;
        Ok(Self { label, peers })
    }
}

#[cfg(test)]
mod tests {
    use net_types::EntityId;

    use super::*;
    use crate::codec::golden::hex;

    #[test]
    fn layout_is_pinned_and_round_trips() {
        let peer = PeerAddr::direct(EntityId([3; 32]), "127.0.0.1:4433".parse().unwrap());
        let ticket = MeshTicket { label: "lab".into(), peers: vec![peer] };
        let mut out = Vec::new();
        ticket.encode(&mut out);
        let expected = format!("01036c616201{}01047f000001511100", "03".repeat(32));
        assert_eq!(hex(&out), expected);
        let mut r = Reader::new(&out);
        assert_eq!(MeshTicket::decode(&mut r), Ok(ticket));
        assert_eq!(r.finish(), Ok(()));
    }
}
