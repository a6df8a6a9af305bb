//! Socket addresses and dialable peers.
//!
//! Address: `family u8 (4 or 6), 4 or 16 bytes, port u16`. Peer: `entity id, count u8 <= 8
//! addresses, count u8 <= 4 relay entity ids`.
//!
//! Invariants: a decoded peer is within both limits, and an encoder leaves out what is beyond them;
//! the entity id is not checked to be a key; scope and flow of an IPv6 address do not travel.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use net_types::limits::{MAX_PEER_ADDRS, MAX_PEER_RELAYS};
use net_types::{EntityId, PeerAddr};

use crate::{Buffer, Cursor, DecodeError};

/// Appends an address.
pub(crate) fn encode_addr(addr: SocketAddr, out: &mut Vec<u8>) {
    match addr.ip() {
        IpAddr::V4(ip) => {
            out.push(4);
            out.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.push(6);
            out.extend_from_slice(&ip.octets());
        }
    }
    out.extend_from_slice(&addr.port().to_le_bytes());
}

/// Reads an address whose family byte was `family`.
pub(crate) fn decode_addr<B: Buffer>(
    family: u8,
    r: &mut Cursor<B>,
) -> Result<SocketAddr, DecodeError> {
    let ip = match family {
        4 => IpAddr::V4(Ipv4Addr::from(r.array::<4>()?)),
        6 => IpAddr::V6(Ipv6Addr::from(r.array::<16>()?)),
        value => {
            return Err(DecodeError::UnknownTag { what: "address family", value: value.into() });
        }
    };
    Ok(SocketAddr::new(ip, r.u16()?))
}

/// Appends a peer; addresses and relays beyond the limits are left out.
pub fn encode_peer_addr(peer: &PeerAddr, out: &mut Vec<u8>) {
    out.extend_from_slice(peer.entity_id.as_bytes());
    let addrs = &peer.addrs[..peer.addrs.len().min(MAX_PEER_ADDRS)];
    out.push(addrs.len() as u8);
    addrs.iter().for_each(|a| encode_addr(*a, out));
    let relays = &peer.relays[..peer.relays.len().min(MAX_PEER_RELAYS)];
    out.push(relays.len() as u8);
    relays.iter().for_each(|r| out.extend_from_slice(r.as_bytes()));
}

/// Reads a peer. The entity id is not checked to be a point on the curve.
pub fn decode_peer_addr<B: Buffer>(r: &mut Cursor<B>) -> Result<PeerAddr, DecodeError> {
    let entity_id = EntityId(r.array()?);
    let count = usize::from(r.u8()?);
    let count = r.bounded("addresses", count, MAX_PEER_ADDRS)?;
    let mut addrs = Vec::with_capacity(count);
    for _ in 0..count {
        let family = r.u8()?;
        addrs.push(decode_addr(family, r)?);
    }
    let count = usize::from(r.u8()?);
    let count = r.bounded("relays", count, MAX_PEER_RELAYS)?;
    let mut relays = Vec::with_capacity(count);
    for _ in 0..count {
        relays.push(EntityId(r.array()?));
    }
    Ok(PeerAddr { entity_id, addrs, relays })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::golden::hex;

    #[test]
    fn layout_is_pinned_and_round_trips() {
        let peer = PeerAddr {
            entity_id: EntityId([1; 32]),
            addrs: vec!["127.0.0.1:80".parse().unwrap(), "[::1]:443".parse().unwrap()],
            relays: vec![EntityId([2; 32])],
        };
        let mut out = Vec::new();
        encode_peer_addr(&peer, &mut out);
        let expected = format!(
            "{}02047f0000015000{}{}01{}",
            "01".repeat(32),
            "0600000000000000000000000000000001",
            "bb01",
            "02".repeat(32)
        );
        assert_eq!(hex(&out), expected);
        let mut r = Cursor::new(&out[..]);
        assert_eq!(decode_peer_addr(&mut r), Ok(peer));
        assert_eq!(r.finish(), Ok(()));
    }
}
