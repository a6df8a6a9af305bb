//! The text form of a mesh's members: `net1` and lower-case base32 of a checksummed record.
//!
//! Record: `version u8 = 1, label (u8 length, UTF-8), count u8 1..=16, peers, checksum u32`, the
//! checksum being the low half of xxh3-64 of everything before it.
//!
//! Invariants: a ticket holds no secret; one that parses names 1 to [`MAX_TICKET_PEERS`] peers; a
//! text that is damaged is told from one that a newer build made.

use core::fmt;
use core::str::FromStr;

use data_encoding::BASE32_NOPAD;
use net_types::PeerAddr;
use net_types::limits::{MAX_TICKET_LABEL_BYTES, MAX_TICKET_PEERS};
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

use crate::{DecodeError, Reader, decode_peer_addr, encode_peer_addr};

const PREFIX: &str = "net1";
const VERSION: u8 = 1;
/// Sixteen peers with eight IPv6 addresses and four relays each stay below this.
const MAX_TEXT_BYTES: usize = 16 << 10;

/// Why text is not a mesh ticket.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TicketError {
    /// It does not start with `net1`, or is longer than any ticket.
    #[error("not a mesh ticket: it should start with \"net1\"")]
    Foreign,
    /// It is damaged: a character is not base32 or the checksum does not match.
    #[error("the ticket is damaged; copy it again, whole")]
    Damaged,
    /// It is intact but malformed or newer than this build.
    #[error("unreadable ticket: {0}")]
    Malformed(#[from] DecodeError),
}

/// Where a mesh can be reached: all known members, so that a client can rotate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshTicket {
    /// A name for people.
    pub label: String,
    /// The members, 1..=16.
    pub peers: Vec<PeerAddr>,
}

impl MeshTicket {
    /// Appends version, label and peers, without prefix and checksum.
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

impl fmt::Display for MeshTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut record = Vec::new();
        self.encode(&mut record);
        let checksum = xxh3_64(&record) as u32;
        record.extend_from_slice(&checksum.to_le_bytes());
        write!(f, "{PREFIX}{}", BASE32_NOPAD.encode(&record).to_ascii_lowercase())
    }
}

impl FromStr for MeshTicket {
    type Err = TicketError;

    fn from_str(text: &str) -> Result<Self, TicketError> {
        let body = text.strip_prefix(PREFIX).ok_or(TicketError::Foreign)?;
        if body.len() > MAX_TEXT_BYTES {
            return Err(TicketError::Foreign);
        }
        let record = BASE32_NOPAD
            .decode(body.to_ascii_uppercase().as_bytes())
            .map_err(|_| TicketError::Damaged)?;
        let (record, checksum) = record.split_last_chunk::<4>().ok_or(TicketError::Damaged)?;
        if *checksum != (xxh3_64(record) as u32).to_le_bytes() {
            return Err(TicketError::Damaged);
        }
        let mut r = Reader::new(record);
        let ticket = Self::decode(&mut r)?;
        r.finish()?;
        Ok(ticket)
    }
}

#[cfg(test)]
mod tests {
    use net_types::EntityId;

    use super::*;

    fn sample() -> MeshTicket {
        let peer = PeerAddr::direct(EntityId([3; 32]), "127.0.0.1:4433".parse().unwrap());
        MeshTicket { label: "lab".into(), peers: vec![peer] }
    }

    #[test]
    fn text_is_pinned_and_round_trips() {
        let text = sample().to_string();
        assert_eq!(
            text,
            "net1aebwyylcaebqgaydambqgaydambqgaydambqgaydambqgaydambqgaydambqgaiep4aaaakrceahjbqeui"
        );
        assert_eq!(text.parse(), Ok(sample()));
        assert_eq!(text.to_uppercase().parse::<MeshTicket>(), Err(TicketError::Foreign));
    }

    #[test]
    fn every_single_damaged_character_is_noticed() {
        let text = sample().to_string();
        for at in 4..text.len() {
            let mut bad = text.clone().into_bytes();
            bad[at] = if bad[at] == b'a' { b'b' } else { b'a' };
            let bad = String::from_utf8(bad).unwrap();
            assert!(bad.parse::<MeshTicket>().is_err(), "character {at}");
        }
        assert_eq!("aspenxyz".parse::<MeshTicket>(), Err(TicketError::Foreign));
    }
}
