//! The text that lets a client in: `aspen` and lower-case base32 of a checksummed record.
//!
//! Record: `version u8 = 1 · cluster id [32] · mesh key [32] · mesh ticket record (see
//! `net_wire::MeshTicket`) · checksum u32`, the checksum being the low half of xxh3-64 of
//! everything before it. Holding a ticket is holding the mesh key: it is stored with mode 0600 and
//! never logged.

use core::fmt;
use core::str::FromStr;

use data_encoding::BASE32_NOPAD;
use net_types::PeerAddr;
use net_wire::{DecodeError, MeshTicket, Reader};
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::SecretText;

const PREFIX: &str = "aspen";
const VERSION: u8 = 1;
/// A mesh ticket stays below 16 KiB of text, and the two keys add a hundred characters.
const MAX_TEXT_BYTES: usize = 17 << 10;

/// Why text is not a cluster ticket.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ClusterTicketError {
    /// It does not start with `aspen`, or is longer than any ticket.
    #[error("not a cluster ticket: it should start with \"aspen\"")]
    Foreign,
    /// A character is not base32 or the checksum does not match.
    #[error("the ticket is damaged; copy it again, whole")]
    Damaged,
    /// It is intact but malformed or newer than this build.
    #[error("unreadable ticket: {0}")]
    Malformed(#[from] DecodeError),
}

/// Names a cluster: the hash of its public identity.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub [u8; 32]);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterId({:02x}{:02x}{:02x}..)", self.0[0], self.0[1], self.0[2])
    }
}

/// The secret that every session of the mesh mixes in, derived from the cookie.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct MeshKey(pub [u8; 32]);

impl fmt::Debug for MeshKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MeshKey(..)")
    }
}

/// Everything a client needs to reach a cluster and be let in.
///
/// `Debug` leaves the key out; [`ClusterTicket::to_text`] is the only way to the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterTicket {
    /// The cluster.
    pub cluster_id: ClusterId,
    /// The mesh's secret.
    pub mesh_key: MeshKey,
    /// Its members, 1 to 16, the issuing node first.
    pub mesh: MeshTicket,
}

impl ClusterTicket {
    /// The members to try, in order.
    pub fn peers(&self) -> &[PeerAddr] {
        &self.mesh.peers
    }

    /// The ticket's text.
    pub fn to_text(&self) -> SecretText {
        let mut record = Zeroizing::new(vec![VERSION]);
        record.extend_from_slice(&self.cluster_id.0);
        record.extend_from_slice(&self.mesh_key.0);
        self.mesh.encode(&mut record);
        let checksum = xxh3_64(&record) as u32;
        record.extend_from_slice(&checksum.to_le_bytes());
        let upper = Zeroizing::new(BASE32_NOPAD.encode(&record));
        SecretText::new(format!("{PREFIX}{}", upper.to_ascii_lowercase()))
    }
}

impl FromStr for ClusterTicket {
    type Err = ClusterTicketError;

    fn from_str(text: &str) -> Result<Self, ClusterTicketError> {
        let body = text.strip_prefix(PREFIX).ok_or(ClusterTicketError::Foreign)?;
        if body.len() > MAX_TEXT_BYTES {
            return Err(ClusterTicketError::Foreign);
        }
        let upper = Zeroizing::new(body.to_ascii_uppercase());
        let record = BASE32_NOPAD
            .decode(upper.as_bytes())
            .map(Zeroizing::new)
            .map_err(|_| ClusterTicketError::Damaged)?;
        let (record, checksum) =
            record.split_last_chunk::<4>().ok_or(ClusterTicketError::Damaged)?;
        if *checksum != (xxh3_64(record) as u32).to_le_bytes() {
            return Err(ClusterTicketError::Damaged);
        }
        let mut reader = Reader::new(record);
        match reader.u8()? {
            VERSION => {}
            other => return Err(DecodeError::UnknownVersion(other).into()),
        }
        let cluster_id = ClusterId(reader.array()?);
        let mesh_key = MeshKey(reader.array()?);
        let mesh = MeshTicket::decode(&mut reader)?;
        reader.finish()?;
        Ok(Self { cluster_id, mesh_key, mesh })
    }
}

#[cfg(test)]
mod tests {
    use net_types::EntityId;

    use super::*;

    fn sample() -> ClusterTicket {
        let peer = PeerAddr::direct(EntityId([3; 32]), "127.0.0.1:4433".parse().unwrap());
        ClusterTicket {
            cluster_id: ClusterId([1; 32]),
            mesh_key: MeshKey([2; 32]),
            mesh: MeshTicket { label: "lab".into(), peers: vec![peer] },
        }
    }

    #[test]
    fn text_is_pinned_and_round_trips() {
        let text = sample().to_text();
        assert_eq!(
            text.expose(),
            "aspenaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaebwyylcaebqgaydambqgaydambqgaydambqgaydambqgaydambqgaydambqgaiep4aaaakrceacgeqi6i"
        );
        assert_eq!(text.expose().parse(), Ok(sample()));
    }

    #[test]
    fn debug_output_shows_no_key() {
        let shown = format!("{:?} {:?}", sample(), sample().to_text());
        assert!(shown.contains("MeshKey(..)") && shown.contains("secret bytes"));
        assert!(!shown.contains("2, 2") && !shown.contains("aspena"));
    }

    #[test]
    fn every_single_damaged_character_is_noticed() {
        let text = sample().to_text();
        for at in 5..text.expose().len() {
            let mut bad = text.expose().as_bytes().to_vec();
            bad[at] = if bad[at] == b'a' { b'b' } else { b'a' };
            let bad = String::from_utf8(bad).unwrap();
            assert!(bad.parse::<ClusterTicket>().is_err(), "character {at}");
        }
        assert_eq!("net1abc".parse::<ClusterTicket>(), Err(ClusterTicketError::Foreign));
        assert_eq!("aspen".parse::<ClusterTicket>(), Err(ClusterTicketError::Damaged));
    }

    #[test]
    fn a_newer_version_is_named_as_such() {
        let mut record = vec![2u8];
        let checksum = xxh3_64(&record) as u32;
        record.extend_from_slice(&checksum.to_le_bytes());
        let text = format!("aspen{}", BASE32_NOPAD.encode(&record).to_ascii_lowercase());
        assert_eq!(
            text.parse::<ClusterTicket>(),
            Err(ClusterTicketError::Malformed(DecodeError::UnknownVersion(2)))
        );
    }
}
